"""Forced recovery with real daemons, through neoadmin: directories are removed, and what is left goes on by order."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ZODB.DB import DB
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64

from support.cluster import PROGRAMS, Cluster

DEADLINE_S = 120.0


def neoadmin(cluster: Cluster, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAMS / "neoadmin"), "--config", str(cluster.config), "--timeout", "30s", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)


def told(cluster: Cluster, *words: str) -> Any:
    """Return what neoadmin says, as a value."""
    result = neoadmin(cluster, *words, "--json")
    assert result.stdout, f"{words}: {result.stderr}{cluster.logs()}"
    return json.loads(result.stdout)


def wait_for(cluster: Cluster, what: str, *words: str, **wanted: Any) -> Any:
    """Ask until the answer says what is wanted; return it."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        result = neoadmin(cluster, *words, "--json")
        answer = json.loads(result.stdout) if result.stdout else {}
        if all(answer.get(key) == value for key, value in wanted.items()):
            return answer
        assert time.monotonic() < deadline, f"{what}: {answer} {result.stderr}\n{cluster.logs()}"


def commit(cluster: Cluster, **values: int) -> int:
    """Write names into the root; return the tid."""
    db = DB(cluster.open())
    try:
        with db.transaction() as connection:
            connection.root().update(values)
        return u64(db.storage.lastTransaction())
    finally:
        db.close()


def root_of(cluster: Cluster) -> dict[str, int]:
    db = DB(cluster.open())
    try:
        with db.transaction() as connection:
            return dict(connection.root())
    finally:
        db.close()


def remove(cluster: Cluster, name: str) -> None:
    """Lose the disk of a node that is dead."""
    for folder in (cluster.directory / "data" / name, cluster.directory / name):
        if folder.exists():
            shutil.rmtree(folder)
            return
    raise AssertionError(f"no directory of {name} in {sorted(p.name for p in cluster.directory.rglob('*'))}")


def wait_decided(cluster: Cluster, name: str) -> None:
    """Wait until a storage knows the tids of all that it has voted: a client hears them at the same time, or sooner."""
    deadline = time.monotonic() + DEADLINE_S
    while voted := told(cluster, "debug", name)["core"]["voted"]:
        assert time.monotonic() < deadline, f"{name} has not heard what became of {voted}\n{cluster.logs()}"


def wait_state(cluster: Cluster, name: str, state: str) -> None:
    """Wait until a storage is in that state."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        nodes = told(cluster, "nodes")
        if any(n["name"] == name and n["state"] == state for n in nodes):
            return
        assert time.monotonic() < deadline, f"{name} does not become {state}: {nodes}\n{cluster.logs()}"


@pytest.mark.timeout(600)
def test_the_copy_that_was_behind_goes_on_and_the_other_is_kept_out(tmp_path: Path) -> None:
    """s1 was away, s2 went on alone and is gone: s1 goes on. s2 comes back, and is let in only to be made equal."""
    with Cluster(tmp_path, masters=1, storages=2, replicas=1, partitions=4) as cluster:
        kept = commit(cluster, old=1)
        wait_decided(cluster, "s1")
        cluster.kill("s1")
        lost = commit(cluster, old=2, new=2)
        cluster.kill("s2")
        cluster.kill("m1")
        cluster.start("m1")
        cluster.start("s1")
        wait_for(cluster, "it waits for s2", "recovery", state="RECOVERING", storages=["S1"])
        found = told(cluster, "recovery")
        (mine,) = [t for t in found["tables"] if "S1" in t["storages"]]
        assert mine["missing"] == ["S2"]
        assert int(mine["last_tid"], 16) == kept < lost
        assert neoadmin(cluster, "recovery", "choose", "9.9:9", "--yes").returncode == 2
        done = neoadmin(cluster, "recovery", "choose", mine["table"], "--yes", "--json", "--reason", "s2 has burnt")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{cluster.logs()}"
        assert json.loads(done.stdout)["chosen"] is True
        assert root_of(cluster) == {"old": 1}
        again = commit(cluster, again=3)
        assert again > lost

        cluster.start("s2")
        wait_for_log(cluster, "m1", "left behind by the choice")
        assert root_of(cluster) == {"old": 1, "again": 3}
        status = neoadmin(cluster, "status")
        assert "readmit s2" in status.stdout
        assert "was chosen" in status.stdout
        for name in ("m1", "s1"):  # s2 alone, with a master that remembers, does not bring back what was given up
            cluster.kill(name)
        cluster.start("m1")
        waits = wait_for(cluster, "it waits for s1", "recovery", state="RECOVERING", storages=["S2"])
        assert "s1" in waits["reason"]
        cluster.start("s1")
        cluster.wait_running()
        assert told(cluster, "recovery")["choices"][0]["reason"] == "s2 has burnt"

        assert neoadmin(cluster, "recovery", "readmit", "s2").returncode == 0
        assert neoadmin(cluster, "status", "--wait", "90s").returncode == 0, cluster.logs()
        cluster.kill("s1")  # s2 alone has what was chosen, and nothing else
        assert root_of(cluster) == {"old": 1, "again": 3}
        storage = cluster.open()
        assert lost not in {u64(t.tid) for t in storage.iterator()}
        storage.close()


@pytest.mark.timeout(600)
def test_without_its_only_copy_a_partition_begins_empty(tmp_path: Path) -> None:
    """replicas: 0, the directory of s2 is removed: the objects of s2 are gone, the others are there."""
    with Cluster(tmp_path, masters=1, storages=2, replicas=0, partitions=4) as cluster:
        db = DB(cluster.open())
        for number in range(8):
            with db.transaction() as connection:
                connection.root()[f"{number}"] = connection.root().__class__(number=number)
        oids = {k: u64(v._p_oid) for k, v in db.open().root().items()}
        db.close()
        table = told(cluster, "partitions")
        mine = {p for p, row in enumerate(table["rows"]) if row[0]["node"] == "S1"}
        cluster.kill("s2")
        remove(cluster, "s2")
        status = neoadmin(cluster, "recovery", "begin", "--json")
        found = json.loads(status.stdout)
        (one,) = found["tables"]
        assert set(one["lost_partitions"]) == set(range(4)) - mine
        refused = neoadmin(cluster, "recovery", "choose", one["table"], "--yes")
        assert refused.returncode == 1
        assert "--empty" in refused.stderr
        done = neoadmin(cluster, "recovery", "choose", one["table"], "--empty", "--yes")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{cluster.logs()}"
        storage = cluster.open()
        for oid in oids.values():
            if oid % 4 in mine:
                storage.load(p64(oid))
            else:
                with pytest.raises(POSKeyError):
                    storage.load(p64(oid))
        storage.close()


@pytest.mark.timeout(600)
def test_one_master_and_one_storage_of_three_go_on_by_order(tmp_path: Path) -> None:
    """Two of three machines have burnt, with their masters: rule (c)."""
    with Cluster(tmp_path, masters=3, storages=3, replicas=2, partitions=4) as cluster:
        kept = commit(cluster, a=1)
        for name in ("m1", "s1", "m3", "s3"):
            cluster.kill(name)
            remove(cluster, name)
        wait_for(cluster, "it recovers", "recovery", state="RECOVERING", storages=["S2"], masters=["M2"])
        found = told(cluster, "recovery")
        assert found["masters_configured"] == 3
        newest = found["tables"][0]
        assert newest["there"] == ["S2"]
        assert sorted(newest["missing"]) == ["S1", "S3"]
        assert int(newest["last_tid"], 16) == kept
        done = neoadmin(cluster, "recovery", "choose", newest["table"], "--yes")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{cluster.logs()}"
        commit(cluster, b=2)
        assert root_of(cluster) == {"a": 1, "b": 2}
        for name in ("m1", "m3"):  # new machines, with empty disks
            cluster.start(name)
        wait_for(cluster, "they hear of it", "recovery", state="RUNNING", masters=["M1", "M2", "M3"])
        assert neoadmin(cluster, "drop", "s1", "s3").returncode == 0
        for name in ("s1", "s3"):
            cluster.start(name)
            wait_state(cluster, name, "PENDING")
        assert neoadmin(cluster, "add", "s1", "s3").returncode == 0, cluster.logs()
        assert neoadmin(cluster, "status", "--wait", "90s").returncode == 0, cluster.logs()
        cluster.kill("s2")
        assert root_of(cluster) == {"a": 1, "b": 2}


def wait_for_log(cluster: Cluster, name: str, text: str) -> None:
    """Wait until a daemon has said it."""
    deadline = time.monotonic() + DEADLINE_S
    while text not in (cluster.directory / f"{name}.log").read_text(errors="replace"):
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.1)
