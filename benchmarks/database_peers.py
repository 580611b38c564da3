"""Ours on each of its back ends, and the peers that keep their objects on the same servers.

MariaDB, MySQL and PostgreSQL are private and fresh for each, with the durable settings of their makers as in tests.
MySQL has a binary log then, MariaDB none.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from benchmarks.environments import NEOPY, RELSTORAGE, Unavailable, python_of
from benchmarks.peers import NeoPeer
from neo_admin.ports import free_ports
from support.mysql_server import MYSQL, MySQL
from support.servers import MariaDB, PostgreSQL, Server

STOP_S = 20.0
OPTIONS = {MariaDB: {"max-allowed-packet": "64M"}}
"""NEO/py wants as much; ours gets the same."""


class DatabasePeer(Protocol):
    """One storage. `prepare` once; then `start`, `job` and `stop` for each kind of work."""

    name: str

    def prepare(self) -> Path:
        """Return the interpreter that works with it. Raises: Unavailable."""

    def start(self, directory: Path) -> None:
        """Start its servers."""

    def job(self) -> dict[str, Any]:
        """Return what `benchmarks/work.py` opens it by."""

    def stop(self) -> None:
        """Stop its servers."""


class Ours(NeoPeer):
    """This project: one master, one storage, started as an operator would; at Unix sockets, as the peers' servers."""

    def __init__(self, name: str, kind: type[Server] | None) -> None:
        """*kind* of the database's server; None: SQLite."""
        super().__init__(1, 0)
        self.name = name
        self._kind = kind
        self._server: Server | None = None

    def prepare(self) -> Path:
        """Return our own interpreter."""
        if self._kind is MySQL and MySQL not in MYSQL:
            raise Unavailable("`make servers` has found no packages of MySQL")
        return Path(sys.executable)

    def start(self, directory: Path) -> None:
        """Write a configuration with that database, and start it."""
        storage: dict[str, Any] = {}
        if self._kind is not None:
            self._server = self._kind(OPTIONS.get(self._kind))
            storage["database"] = self._server.settings(self._server.new_database())
        tree = {
            "cluster": {"name": "bench", "partitions": 12, "replicas": 0},
            "masters": {"m1": {"address": f"unix:{directory}/m1.socket"}},
            "storages": {"s1": {"address": f"unix:{directory}/s1.socket", **storage}},
        }
        (directory / "cluster").mkdir()
        (directory / "cluster" / "cluster.yaml").write_text(yaml.safe_dump(tree))
        super().start(directory)

    def job(self) -> dict[str, Any]:
        """Return its URI."""
        return {"kind": "uri", "uri": self._uri}

    def stop(self) -> None:
        """Stop the cluster, then its database."""
        super().stop()
        if self._server is not None:
            self._server.end()


class RelStoragePostgresql:
    """RelStorage on PostgreSQL, history-preserving."""

    name = "RelStorage on PostgreSQL"

    def prepare(self) -> Path:
        """Install it."""
        return python_of(RELSTORAGE)

    def start(self, directory: Path) -> None:
        """Start the server; RelStorage has none of its own."""
        del directory
        self._server = PostgreSQL()
        self._database = self._server.new_database()

    def job(self) -> dict[str, Any]:
        """Return the database."""
        dsn = f"host='{self._server.path}' user='neo' dbname='{self._database}'"
        return {"kind": "relstorage", "dsn": dsn, "driver": "psycopg2"}

    def stop(self) -> None:
        """Stop the server."""
        self._server.end()


class NeopyMariadb:
    """NEO/py, the predecessor: one master, one storage on MariaDB, 12 partitions. All in Python 2.7."""

    name = "NEO/py on MariaDB"

    def prepare(self) -> Path:
        """Install it."""
        self._python = python_of(NEOPY)
        return self._python

    def start(self, directory: Path) -> None:
        """Start the database's server, a master and a storage."""
        self._server = MariaDB(OPTIONS[MariaDB])
        database = f"root@{self._server.new_database()}{self._server.socket}"
        self._masters = f"127.0.0.1:{free_ports(1)[0]}"
        programs = self._python.parent
        cluster = ["--cluster", "bench", "--masters", self._masters]
        master = ["--bind", self._masters, "--autostart", "1", "--partitions", "12", "--replicas", "0"]
        storage = ["--adapter", "MySQL", "--database", database]
        commands = [
            [str(programs / "neomaster"), *cluster, *master, "--logfile", str(directory / "master.log")],
            [str(programs / "neostorage"), *cluster, *storage, "--logfile", str(directory / "storage.log")],
        ]
        with (directory / "output").open("wb") as output:
            self._processes = [subprocess.Popen(c, stdout=output, stderr=output, cwd=directory) for c in commands]
        time.sleep(1.0)  # a client waits for the cluster by itself; this only tells a start that has failed
        if any(process.poll() is not None for process in self._processes):
            self.stop()
            raise SystemExit(f"NEO/py does not start: {(directory / 'output').read_text(errors='replace')}")

    def job(self) -> dict[str, Any]:
        """Return the master."""
        return {"kind": "neopy", "masters": self._masters, "name": "bench"}

    def stop(self) -> None:
        """Stop the three."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        self._server.end()


SQLITE, MARIADB, MYSQL_NAME, POSTGRESQL = "NEO on SQLite", "NEO on MariaDB", "NEO on MySQL", "NEO on PostgreSQL"
RELSTORAGE_NAME, NEOPY_NAME = RelStoragePostgresql.name, NeopyMariadb.name


def database_peers() -> list[DatabasePeer]:
    """Return all of them, ours first."""
    return [
        Ours(SQLITE, None),
        Ours(MARIADB, MariaDB),
        Ours(MYSQL_NAME, MySQL),
        Ours(POSTGRESQL, PostgreSQL),
        RelStoragePostgresql(),
        NeopyMariadb(),
    ]
