"""A real supervisord with the files that neoadmin writes; the nodes are stand-ins that only wait."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from neo_admin import supervise
from neo_admin.core.programs import nodes_of_host
from neo_admin.supervise import Supervisord, SupervisorError, SupervisorGone
from neo_common.config.loader import load
from neo_common.config.sections import Config

YAML = """\
cluster: {name: test}
masters: {m1: {address: "127.0.0.1:1"}}
storages: {s1: {address: "127.0.0.1:2"}}
admins: {a1: {address: "127.0.0.1:3", host: elsewhere}}
timeouts: {stop: 1s}
supervisor: {start: 1s, stop: 3s}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A cluster, in a folder whose name is not a simple one."""
    folder = tmp_path / "all of it's data"
    folder.mkdir()
    (folder / "cluster.yaml").write_text(YAML)
    return load(folder / "cluster.yaml")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Programs that show what they were told, and wait; a storage that is told to fail does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("neomaster", "neostorage", "neoadmin"):
        program = folder / name
        program.write_text('#!/bin/sh\necho "$0 $*"\n[ -e fail ] && exit 3\nexec sleep 60\n')
        program.chmod(0o755)
    return folder


@pytest.fixture
def supervisord(config: Config, programs: Path) -> Iterator[Supervisord]:
    """supervisord with every node of the cluster."""
    running = Supervisord(supervise.write(config, nodes_of_host(config, ""), programs))
    running.start()
    for process in running.processes():
        running.start_node(process.name)  # supervisord can lose a SIGTERM to a process that it is just starting
    yield running
    if running.is_running:
        running.shutdown(20)
    running.close()


def states(supervisord: Supervisord) -> dict[str, str]:
    return {process.name: process.state for process in supervisord.processes()}


def _pid(supervisord: Supervisord) -> int:
    return next(process.pid for process in supervisord.processes() if process.name == "m1")


def test_nodes_start_stop_and_say_so(config: Config, supervisord: Supervisord) -> None:
    assert list(states(supervisord)) == ["a1", "m1", "s1"]
    supervisord.start_node("a1")  # one that has started is left alone
    assert set(states(supervisord).values()) == {"RUNNING"}
    supervisord.stop_node("s1")
    supervisord.stop_node("s1")
    assert states(supervisord)["s1"] == "STOPPED"
    log = Path(supervisord.paths.log("s1")).read_text()
    assert log.endswith(f"neostorage --config {config.path} --name s1\n")


def test_a_node_that_is_killed_starts_again(supervisord: Supervisord) -> None:
    old = _pid(supervisord)
    ended = supervise._Ending(old)
    os.kill(old, signal.SIGKILL)
    assert ended.wait(10)
    ended.close()
    supervisord.start_node("m1")  # returns when it runs, whoever was first to start it
    assert _pid(supervisord) not in (0, old)


def test_a_node_that_cannot_start_says_where_it_says_why(supervisord: Supervisord) -> None:
    supervisord.stop_node("s1")
    (Path(supervisord.paths.directory) / "fail").touch()  # where its nodes are started
    with pytest.raises(SupervisorError, match=r"s1 ended as soon as it was started; it says why in .*s1.log"):
        supervisord.start_node("s1")


def test_an_unknown_node_is_explained(supervisord: Supervisord) -> None:
    with pytest.raises(SupervisorError, match="has no node 's9'; write its configuration again"):
        supervisord.start_node("s9")


def test_shutdown_waits_until_all_is_gone(supervisord: Supervisord) -> None:
    pids = [p.pid for p in supervisord.processes() if p.pid]
    supervisord.shutdown(20)
    assert not supervisord.is_running
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()


def test_without_supervisord_the_command_that_starts_it_is_told(config: Config, programs: Path) -> None:
    nobody = Supervisord(supervise.write(config, nodes_of_host(config, ""), programs))
    assert not nobody.is_running
    with pytest.raises(SupervisorGone, match=r"start it: supervisord -c .*supervisord.conf"):
        nobody.processes()
    nobody.close()


def test_a_path_too_long_for_a_socket_moves_it_to_a_private_folder(tmp_path: Path, programs: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    (folder / "cluster.yaml").write_text(YAML)
    config = load(folder / "cluster.yaml")
    running = Supervisord(supervise.write(config, nodes_of_host(config, "elsewhere"), programs))
    assert len(running.paths.socket) < 100
    assert Path(running.paths.socket).parent.stat().st_mode & 0o777 == 0o700
    running.start()
    assert list(states(running)) == ["a1"]
    running.start_node("a1")
    running.shutdown(20)
    running.close()
