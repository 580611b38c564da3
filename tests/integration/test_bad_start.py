"""Daemons that cannot start say in one line why, and what to do; exit status 2 is for what an operator must mend."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cluster import PROGRAMS, Cluster

START_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), storages=2) as running:
        yield running
        running.check_alive()


def changed(cluster: Cluster, path: Path, **storage: Any) -> Path:
    """Write the configuration of *cluster* with keys of s1 changed; return the file."""
    config = yaml.safe_load(cluster.config.read_text())
    for name in cluster.storages:
        config["storages"][name].setdefault("directory", str(cluster.directory / name))
    config["storages"]["s1"].update(storage)
    path.write_text(yaml.safe_dump(config))
    return path


def run(program: str, config: Path, name: str) -> tuple[int, str]:
    """Return the exit status of a daemon, and what it says."""
    ended = subprocess.run(
        [str(PROGRAMS / program), "--config", str(config), "--name", name],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        cwd=config.parent,
    )
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said, said
    return ended.returncode, said


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("program", ["neomaster", "neostorage"])
def test_unknown_key(cluster: Cluster, tmp_path: Path, program: str) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(cluster.config.read_text() + "timeuots:\n  lease: 3s\n")
    status, said = run(program, config, "m1" if program == "neomaster" else "s1")
    assert status == 2
    assert "timeuots" in said
    assert "bad.yaml" in said


@pytest.mark.parametrize("program", ["neomaster", "neostorage"])
def test_file_that_is_not_there(tmp_path: Path, program: str) -> None:
    status, said = run(program, tmp_path / "none.yaml", "s1")
    assert status == 2
    assert "none.yaml" in said


@pytest.mark.parametrize("program", ["neomaster", "neostorage"])
def test_name_that_is_not_configured(cluster: Cluster, program: str) -> None:
    status, said = run(program, cluster.config, "x7")
    assert status == 2
    assert "x7" in said


def test_name_of_the_other_role(cluster: Cluster) -> None:
    status, said = run("neostorage", cluster.config, "m1")
    assert (status, "m1" in said) == (2, True)
    status, said = run("neomaster", cluster.config, "s1")
    assert (status, "s1" in said) == (2, True)


def test_port_in_use(cluster: Cluster, tmp_path: Path) -> None:
    config = changed(cluster, tmp_path / "port.yaml", directory=str(tmp_path / "other"))
    tree = yaml.safe_load(config.read_text())
    tree["masters"]["m1"]["directory"] = str(tmp_path / "other-master")
    config.write_text(yaml.safe_dump(tree))
    status, said = run("neomaster", config, "m1")
    assert status == 2
    assert cluster.addresses["m1"] in said
    status, said = run("neostorage", config, "s1")
    assert status == 2
    assert cluster.addresses["s1"] in said


def test_second_process_on_the_same_database(cluster: Cluster, tmp_path: Path) -> None:
    config = changed(cluster, tmp_path / "second.yaml", address=free_address())
    status, said = run("neostorage", config, "s1")
    assert status != 0
    assert "another process" in said or "in use" in said


def test_database_of_another_node(tmp_path: Path) -> None:
    """s1 with the files of s2: the primary knows s2 under that id, and it is not let in as s1."""
    with Cluster(tmp_path / "cluster", storages=2) as cluster:
        for name in cluster.storages:
            cluster.kill(name)
        config = changed(cluster, tmp_path / "swapped.yaml", directory=str(cluster.directory / "s2"))
        status, said = run("neostorage", config, "s1")
        assert status == 2
        assert "s2" in said or "S2" in said
        for name in cluster.storages:
            cluster.start(name)
        cluster.wait_running()


def test_database_of_another_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """The generated id tells clusters of one name apart. It asks again, slowly: the masters may be the wrong ones."""
    with Cluster(tmp_path / "elsewhere") as elsewhere:
        elsewhere.kill("s1")
        right = elsewhere.config.read_text()
        config = yaml.safe_load(right)
        config["masters"]["m1"]["address"] = cluster.addresses["m1"]
        elsewhere.config.write_text(yaml.safe_dump(config))
        said = elsewhere.log_lines("s1")
        elsewhere.start("s1")
        deadline = time.monotonic() + START_S
        while "refused: this is cluster" not in elsewhere.log("s1") and time.monotonic() < deadline:
            elsewhere.check_alive()
            time.sleep(0.1)
        assert "refused: this is cluster" in elsewhere.log("s1")
        assert elsewhere.log_lines("s1") - said < 10, "it says so once"
        elsewhere.kill("s1")
        elsewhere.config.write_text(right)
        elsewhere.start("s1")
        elsewhere.wait_running()
