"""A storage with a MariaDB of its own: it comes and goes with the storage, and whoever dies, nothing is lost."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from BTrees.Length import Length
from ZODB.DB import DB

from neo_admin import supervise
from neo_admin.core.programs import nodes_of_host
from neo_admin.supervise import Supervisord
from neo_common.config.loader import load
from neo_common.states import Role
from neo_common.wire.schema import AskDebug
from support.cluster import Cluster
from support.counting import RECOVERY_DEADLINE_S, WRITERS, Writer, check_all
from support.raw_client import RawConnection
from support.servers import managed_servers, needs_mariadb

DEADLINE_S = 60.0
DATABASE = {"type": "mysql", "managed": True, "cache": "32MB", "timeout": "8s"}
pytestmark = pytest.mark.timeout(300)


def reach(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    needs_mariadb()
    with Cluster(tmp_path / "c", databases=[DATABASE]) as running:
        db = DB(running.open())
        with db.transaction() as connection:
            for number in range(WRITERS):
                for side in ("left", "right"):
                    connection.root()[f"{side}-{number}"] = Length()
        db.close()
        yield running
    assert managed_servers(running.directory) == [], "a storage that has stopped leaves no server"


def test_room_left_is_that_of_the_disk_of_the_server(cluster: Cluster) -> None:
    with closing(RawConnection(cluster.addresses["s1"], role=Role.ADMIN)) as storage:
        disk = json.loads(storage.ask(AskDebug()).json)["storage"]["disk"]
    status = os.statvfs(cluster.directory)
    assert disk["database_free"] == pytest.approx(status.f_bavail * status.f_frsize, rel=0.2)
    assert disk["free"] <= disk["database_free"] * 1.2
    assert "the room left for the database is unknown" not in (cluster.directory / "s1.log").read_text()


def is_found(cluster: Cluster) -> bool:
    """Whether the database of s1 has come back as often as it was lost."""
    log = (cluster.directory / "s1.log").read_text().rpartition("listens at")[2]
    return log.count("the database is away") == log.count("the database is back")


def under_load(cluster: Cluster, deed: Callable[[], None], times: int) -> None:
    """Do *deed* so often while writers count; then hold the cluster against what they were told."""
    writers = [Writer(cluster, number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in range(times):
        for writer in writers:
            writer.wait_for(5, RECOVERY_DEADLINE_S)
        deed()
        for writer in writers:
            writer.wait_for(5, RECOVERY_DEADLINE_S)
    for writer in writers:
        writer.stop()
    reach(lambda: is_found(cluster))  # until then long reads, as by an iterator, are refused
    check_all(cluster, writers)


def test_server_killed_under_load_is_started_again_and_the_node_lives(cluster: Cluster) -> None:
    killed = list[int]()

    def deed() -> None:
        (pid,) = managed_servers(cluster.directory)
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)
        reach(lambda: managed_servers(cluster.directory) not in ([], [pid]))

    under_load(cluster, deed, 3)
    assert len(set(killed)) == 3
    log = (cluster.directory / "s1.log").read_text()
    assert log.count("the managed MariaDB was killed by signal 9; it is started again in") == 3


def test_server_that_hangs_under_load_is_ended_and_started_again(cluster: Cluster) -> None:
    """SIGSTOP: it takes connections, as the kernel does that, and says nothing, nor does it hear SIGTERM."""
    (pid,) = managed_servers(cluster.directory)
    writers = [Writer(cluster, number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
        writer.wait_for(5, RECOVERY_DEADLINE_S)
    os.kill(pid, signal.SIGSTOP)
    reach(lambda: managed_servers(cluster.directory) not in ([], [pid]))
    for writer in writers:
        writer.wait_for(5, RECOVERY_DEADLINE_S)
        writer.stop()
    reach(lambda: is_found(cluster))
    check_all(cluster, writers)
    log = (cluster.directory / "s1.log").read_text()
    for text in (
        f"(process {pid}) hangs",
        "it gets SIGTERM",
        "it gets SIGKILL",
        "was killed by signal 9; it is started",
    ):
        assert log.count(text) == (2 if "hangs" in text else 1), text


def test_storage_killed_under_load_finds_its_server_and_there_are_never_two(cluster: Cluster) -> None:
    seen = list[int]()

    def deed() -> None:
        cluster.kill("s1")
        cluster.start("s1")
        # By now the kernel has told the old one, and it stops; the new one waits for that.
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            seen.append(len(managed_servers(cluster.directory)))

    under_load(cluster, deed, 3)
    assert max(seen) == 1
    assert len(managed_servers(cluster.directory)) == 1


def test_both_killed_at_once_lose_nothing(cluster: Cluster) -> None:
    def deed() -> None:
        pids = managed_servers(cluster.directory)
        cluster.kill("s1")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it was quick to stop
        cluster.start("s1")

    under_load(cluster, deed, 2)


def test_supervisord_stopped_leaves_nothing(tmp_path: Path) -> None:
    needs_mariadb()
    cluster = Cluster(tmp_path, databases=[{"type": "mysql", "managed": True}])
    config = load(str(cluster.config))
    supervisord = Supervisord(supervise.write(config, nodes_of_host(config, "")))
    supervisord.start()
    try:
        cluster.wait_running()
        assert len(managed_servers(tmp_path)) == 1
        pid = next(process.pid for process in supervisord.processes() if process.name == "s1")
        os.kill(pid, signal.SIGKILL)
        reach(lambda: next(p.pid for p in supervisord.processes() if p.name == "s1") not in (0, pid))
        cluster.wait_running()
    finally:
        supervisord.shutdown(DEADLINE_S)
        supervisord.close()
    assert managed_servers(tmp_path) == []
