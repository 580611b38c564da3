"""neoadmin as an operator types it, on a real cluster that it has started under supervisord."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ZODB

import neo_client
from neo_admin.supervise import Supervisord, paths_of
from neo_common.config.loader import load

NEOADMIN = Path(sys.executable).parent / "neoadmin"


def neoadmin(*words: str | Path, status: int = 0) -> str:
    """Run neoadmin; return what it prints. It must end with *status*."""
    done = subprocess.run([NEOADMIN, *words], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == status, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout if not status else done.stdout + done.stderr


def told(*words: str | Path, status: int = 0) -> Any:
    """Run neoadmin; return the JSON that it prints."""
    return json.loads(neoadmin(*words, "--json", status=status))


@pytest.mark.timeout(400)
def test_the_life_of_a_local_cluster(tmp_path: Path) -> None:
    """up, every look at it, work, a node killed and restarted, pack, down, up again with its data, erased."""
    directory = tmp_path / "cluster"
    shape: list[str | Path] = [
        "--directory",
        directory,
        "--name",
        "life",
        "--storages",
        "2",
        "--replicas",
        "1",
        "--wait",
        "120s",
    ]
    up = told("up", *shape)
    try:
        config = ["--config", up["config"]]
        assert up["uri"].startswith("neo://life@127.0.0.1:")
        assert set(up["nodes"]) == {"m1", "s1", "s2", "a1"}
        assert "Cluster 'life' runs" in neoadmin("up", *shape), "a second up finds it running"
        other = neoadmin("up", *shape, "--storages", "3", status=2)
        assert "is a cluster of name life, masters 1, storages 2" in other

        db = ZODB.DB(neo_client.open(up["uri"]))
        with db.transaction() as connection:
            connection.root()["answer"] = 42
            connection.transaction_manager.get().note("the answer")
        db.close()

        status = told(*config, "status", "--wait", "60s")
        assert (status["state"], status["problems"]) == ("RUNNING", [])
        assert told(*config, "ids")["last_tid"] == status["last_tid"]
        assert {n["name"] for n in told(*config, "nodes")} >= {"m1", "s1", "s2", "a1"}
        assert set(told(*config, "partitions")["leads"]) == {"S1", "S2"}
        last = told(*config, "transactions", "-n", "1")["transactions"]
        assert [(t["tid"], t["description"]) for t in last] == [(status["last_tid"], "the answer")]
        assert told(*config, "debug", "s1")["name"] == "s1"
        packed = told(*config, "pack")
        assert packed["is_done"]
        assert packed["cells_total"] == 24

        nodes = told(*config, "node", "status")
        assert [(n["name"], n["state"]) for n in nodes] == [(n, "RUNNING") for n in ("m1", "s1", "s2", "a1")]
        os.kill(nodes[1]["pid"], signal.SIGKILL)
        again = told(*config, "status", "--wait", "100s")
        assert again["problems"] == []
        assert told(*config, "node", "restart", "s2")[0]["pid"] != nodes[2]["pid"]

        assert "The cluster has stopped" in neoadmin("down", "--directory", directory)
        assert neoadmin(*config, "status", "--timeout", "1s", status=3).startswith("neoadmin: no connection")
        up = told("up", *shape)
        db = ZODB.DB(neo_client.open(up["uri"]))
        with db.transaction() as connection:
            assert connection.root()["answer"] == 42
        db.close()

        assert "stops" in neoadmin(*config, "stop")
    finally:
        neoadmin("down", "--directory", directory, "--erase")
    assert not directory.exists()
    assert "There is no cluster in" in neoadmin("down", "--directory", directory)


@pytest.mark.timeout(150)
def test_a_cluster_that_cannot_run_says_what_its_nodes_say(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    neoadmin("up", "--directory", directory, "--storages", "1", "--wait", "1ms", status=4)
    try:
        config = load(directory / "cluster.yaml")
        supervisord = Supervisord(paths_of(config))
        supervisord.shutdown(60)
        supervisord.close()
        (directory / "s1").mkdir(exist_ok=True)
        for path in (directory / "s1").rglob("*"):
            path.unlink() if path.is_file() else None
        (directory / "s1" / "neo.sqlite").write_text("this is no database" * 1000)
        said = neoadmin("up", "--directory", directory, "--storages", "1", "--wait", "20s", status=4)
        assert "s1.log ends:" in said
        assert "neo.sqlite" in said
    finally:
        neoadmin("down", "--directory", directory, "--erase")


def test_erase_removes_only_what_up_has_made(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("cluster: {name: mine}\nmasters: {m1: {address: 'h:1'}}\n")
    said = neoadmin("down", "--directory", tmp_path, "--erase", status=2)
    assert (tmp_path / "cluster.yaml").exists()
    assert "names no storage" in said or "was not made by `neoadmin up`" in said


def test_a_shape_that_cannot_be_leaves_nothing_behind(tmp_path: Path) -> None:
    said = neoadmin("up", "--directory", tmp_path / "c", "--storages", "1", "--replicas", "1", status=2)
    assert "1 means 2 copies of everything, but there are 1 storages" in said
    assert not (tmp_path / "c" / "cluster.yaml").exists()
