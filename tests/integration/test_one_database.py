"""No two nodes ever have one database: with real daemons, on each back end.

The second one may come while the first one works, while the server is away, or when the server has dropped the
connection that the first one's lock hangs on. Whatever follows, one of them has it, and nothing acknowledged is lost.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ZODB.DB import DB

from neo_storage.backends.mysql.backend import LOCK
from support.cluster import PROGRAMS, START_DEADLINE_S, Cluster
from support.ports import hold_ports
from support.server_kinds import EVERY
from support.servers import MariaDB, PostgreSQL, Server

KINDS = pytest.mark.parametrize("kind", EVERY)
USED = "is in use by"
TAKEN = "was taken over by another process"


@pytest.fixture
def own(kind: type[Server]) -> Iterator[Server]:
    """A server that may be maltreated."""
    server = kind()
    yield server
    server.end()


class Intruder:
    """A storage that was given the database of s1 by mistake; `name`: s2, or s1 in another directory."""

    def __init__(
        self, cluster: Cluster, path: Path, name: str, database: dict[str, Any], *, is_alone: bool = False
    ) -> None:
        """*is_alone*: it reaches no master."""
        config = yaml.safe_load(cluster.config.read_text())
        (port,) = hold_ports(1)
        storage = {**config["storages"]["s1"], "address": f"127.0.0.1:{port}", "directory": str(path / f"other-{name}")}
        config["storages"]["s1"].pop("database", None)  # the file of another machine: one file would not let it
        config["storages"][name] = {**storage, "database": database}
        if is_alone:
            for master in config["masters"].values():
                master["address"] = f"127.0.0.1:{hold_ports(1)[0]}"
        file = path / f"other-{name}.yaml"
        file.write_text(yaml.safe_dump(config))
        self._log = path / f"other-{name}.log"
        with self._log.open("wb") as log:
            command = [str(PROGRAMS / "neostorage"), "--config", str(file), "--name", name]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=path)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Wait for its end, which must come by itself."""
        self._process.wait(START_DEADLINE_S)

    def said(self) -> str:
        """Return what it says when it has ended: a reason, and no traceback."""
        self.end()
        said = self._log.read_text()
        assert self._process.returncode == 1, said
        assert "Traceback" not in said
        return said


class Counter:
    """Commits numbers; what was acknowledged must be there."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._db = DB(cluster.open())
        self.acknowledged = 0

    def commit(self, times: int) -> None:
        for _ in range(times):
            with self._db.transaction() as connection:
                connection.root()[f"k{self.acknowledged}"] = self.acknowledged
            self.acknowledged += 1

    def close(self) -> None:
        self._db.close()

    def check(self) -> None:
        """Nothing is lost, in memory or on disk."""
        for is_restarted in (False, True):
            if is_restarted:
                self._cluster.kill("s1")
                self._cluster.start("s1")
            db = DB(self._cluster.open())
            with db.transaction() as connection:
                assert sorted(connection.root().values()) == list(range(self.acknowledged))
            db.close()


def settle(cluster: Cluster, intruder: Intruder) -> None:
    """Wait until only s1 has the database: the other one had no lock, or no vote log that belongs to that database."""
    said = intruder.said()
    assert USED in said or "not of this database" in said
    cluster.check_alive()


@pytest.mark.parametrize("kind", ["sqlite", MariaDB, PostgreSQL])
def test_whoever_comes_second_is_refused_and_the_first_goes_on(kind: type[Server] | str, tmp_path: Path) -> None:
    """Another node, and another process of the same one; SQLite's file by other names too."""
    server = None if isinstance(kind, str) else kind.shared()
    name = server.new_database() if server else ""
    database = server.settings(name) if server else {"type": "sqlite", "path": str(tmp_path / "one.sqlite")}
    (tmp_path / "alias.sqlite").symlink_to(tmp_path / "one.sqlite")
    with Cluster(tmp_path / "cluster", databases=[database]) as cluster:
        counter = Counter(cluster)
        counter.commit(3)
        other = database if server else {"type": "sqlite", "path": str(tmp_path / "alias.sqlite")}
        intruders = [Intruder(cluster, tmp_path, "s2", other), Intruder(cluster, tmp_path, "s1", database)]
        if not server:
            (tmp_path / "link.sqlite").hardlink_to(tmp_path / "one.sqlite")
            intruders.append(Intruder(cluster, tmp_path, "s3", {**other, "path": str(tmp_path / "link.sqlite")}))
        for intruder in intruders:
            assert USED in intruder.said()
        (tmp_path / "link.sqlite").unlink(missing_ok=True)
        counter.commit(3)
        counter.close()
        cluster.check_alive()
        counter.check()
    if server:
        server.give_back(name)


@KINDS
@pytest.mark.timeout(300)
def test_one_of_two_that_come_to_a_restarted_server_has_the_database(
    kind: type[Server], own: Server, tmp_path: Path
) -> None:
    """One of them worked with it before, its lock is gone with the old server; commits go on into its vote log."""
    database = own.settings(own.new_database())
    with Cluster(tmp_path / "cluster", databases=[database]) as cluster:
        counter = Counter(cluster)
        counter.commit(5)
        own.kill()
        intruder = Intruder(cluster, tmp_path, "s2", database)
        counter.commit(5)
        own.start()
        settle(cluster, intruder)
        counter.commit(5)
        counter.close()
        counter.check()


@KINDS
@pytest.mark.timeout(300)
def test_stranger_that_comes_when_the_lock_is_lost_does_not_stop_the_owner(
    kind: type[Server], own: Server, tmp_path: Path
) -> None:
    """The server closes the connection that holds the lock, for which the other one waits, while s1 is paused."""
    name = own.new_database()
    database = own.settings(name)
    with Cluster(tmp_path / "cluster", databases=[database]) as cluster:
        counter = Counter(cluster)
        counter.commit(5)
        before = connections(own, name)
        intruder = Intruder(cluster, tmp_path, "s2", database)
        while connections(own, name) <= before and intruder.is_running():
            time.sleep(0.02)
        cluster.signal("s1", signal.SIGSTOP)
        drop_lock(own, name)
        assert "not of this database" in intruder.said()
        cluster.signal("s1", signal.SIGCONT)
        counter.commit(5)
        cluster.check_alive()
        counter.close()
        counter.check()


@KINDS
@pytest.mark.timeout(300)
def test_node_whose_lock_was_lost_writes_nothing_when_its_twin_has_come(
    kind: type[Server], own: Server, tmp_path: Path
) -> None:
    """A copy of its machine, with a copy of its vote log: to the database it is as good as s1 itself."""
    name = own.new_database()
    database = own.settings(name)
    with Cluster(tmp_path / "cluster", databases=[database]) as cluster:
        counter = Counter(cluster)
        counter.commit(5)
        mark = owner_of(own, name)
        cluster.signal("s1", signal.SIGSTOP)
        shutil.copytree(cluster.directory / "s1" / "log", tmp_path / "other-s1" / "log")
        drop_lock(own, name)
        twin = Intruder(cluster, tmp_path, "s1", database, is_alone=True)
        while owner_of(own, name) == mark:
            assert twin.is_running()
            time.sleep(0.02)
        cluster.signal("s1", signal.SIGCONT)
        counter.commit(1)
        assert cluster.processes.pop("s1").wait(START_DEADLINE_S) == 1
        assert TAKEN in cluster.log("s1") or USED in cluster.log("s1")
        twin.kill()
        cluster.start("s1")
        counter.commit(5)
        counter.close()
        counter.check()


def owner_of(server: Server, database: str) -> object:
    """Return the mark of the process that has *database*."""
    ((value,),) = server.execute("SELECT value FROM config WHERE name = 'owner'", database)
    return bytes(value)


def connections(server: Server, database: str) -> int:
    """Return how many connections *database* has, but ours."""
    if isinstance(server, MariaDB):
        text = "SELECT count(*) FROM information_schema.processlist WHERE db = %s"
    else:
        text = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    ((count,),) = server.execute(text, "", (database,))
    return int(count)


def drop_lock(server: Server, database: str) -> None:
    """Close the connection on which the lock of *database* is held."""
    if isinstance(server, MariaDB):
        ((holder,),) = server.execute(f"SELECT is_used_lock({LOCK})", database)
        server.execute(f"KILL CONNECTION {holder}")
    else:
        ((holder,),) = server.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted", database)
        server.execute("SELECT pg_terminate_backend(%s, 10000)", "", (holder,))
