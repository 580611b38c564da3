"""A fresh cluster for every test of ZODB's suites: the next one starts while this test runs."""

import atexit
import queue
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import neo_client
from support.cluster import Cluster
from support.server_kinds import KINDS
from support.zygote import Daemon, Zygote

TEMPORARY = tempfile.gettempdir()
"""Noted before ZODB's tests make a folder of their own the temporary one, and remove it."""


class Shape(NamedTuple):
    """How many storages, and copies of each partition beyond the first; the servers of their databases, if any."""

    storages: int
    replicas: int
    name: str = ""
    """Tells apart what is not a matter of numbers."""
    servers: tuple[str, ...] = ()


ONE = Shape(1, 0)
TWO = Shape(2, 0)
COPIES = Shape(2, 1)
POSTGRESQL = Shape(2, 1, servers=("postgresql", "postgresql"))
MARIADB = Shape(2, 1, servers=("mariadb", "mariadb"))
MIXED = Shape(2, 1, servers=("mariadb", "postgresql"))
MYSQL = Shape(2, 1, servers=("mysql", "mysql"))


PATIENT = {"silence": "30s", "grace": "30s", "overdue": "2m"}
"""ZODB's race tests starve the threads of a process on purpose: dozens of clients, a switch of threads every 10 us. On
a slow machine one of them may not be heard of for seconds, which is no loss of it, or sit between its vote and its
finish while others wait. (That a client comes back late, and that a vote is overdue, is tested elsewhere.)"""


class QuickCluster(Cluster):
    """Its daemons are forked from a process that has imported them."""

    def __init__(self, shape: Shape, zygote: Zygote) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="neo-zodb-", dir=TEMPORARY))
        self.servers = [(server, server.used_database()) for server in (KINDS[kind].shared() for kind in shape.servers)]
        super().__init__(
            self.path,
            storages=shape.storages,
            replicas=shape.replicas,
            databases=[server.settings(database) for server, database in self.servers],
            settings={"timeouts": PATIENT},
        )
        config = yaml.safe_load(self.config.read_text())
        for storage in config["storages"].values():
            # Both are written in full when a storage starts: small ones, as each test has storages of its own.
            storage["log"]["segment"] = "1MB"
            storage.setdefault("database", {"checkpoint": "1MB"})
        self.config.write_text(yaml.safe_dump(config))
        self._zygote = zygote
        self.daemons: list[Daemon] = [self.start_daemon(name) for name in self.names]

    def start_daemon(self, name: str) -> Daemon:
        """Start a daemon."""
        program = "neomaster" if name in self.masters else "neostorage"
        arguments = ["--config", str(self.config), "--name", name]
        return self._zygote.start(program, arguments, self.path, self.path / f"{name}.log")

    def taken(self) -> None:
        """A test begins with it."""

    def end(self) -> str:
        """Kill the daemons, remove the files; return what is wrong: daemons that had ended, errors in their logs."""
        wrong = ""
        for name, daemon in zip(self.names, self.daemons, strict=True):
            status = daemon.poll()
            log = self.log(name)
            if status is not None:
                wrong += f"{name} has ended with {status}:\n{log}\n"
            elif " ERROR " in log or "Traceback" in log:
                wrong += f"{name} complains:\n{log}\n"
            daemon.send_signal(signal.SIGKILL)
        for server, database in self.servers:
            server.give_back_used(database)
        shutil.rmtree(self.path, ignore_errors=True)
        return wrong


class Pool:
    """Fresh clusters of one shape, one ahead."""

    _zygote: Zygote | None = None
    _lock = threading.Lock()

    def __init__(self, shape: Shape, make: Callable[[Shape, Zygote], QuickCluster] = QuickCluster) -> None:
        self.shape = shape
        self._make = make
        self._spare: queue.SimpleQueue[QuickCluster] = queue.SimpleQueue()
        self._begun = False

    def take(self) -> QuickCluster:
        """Return a cluster that runs, or will in a moment. The caller ends it."""
        if not self._begun:
            self._prepare()
            self._begun = True
        cluster = self._spare.get()
        self._prepare()
        cluster.taken()
        return cluster

    def _prepare(self) -> None:
        self._spare.put(self._make(self.shape, self._parent()))

    @classmethod
    def _parent(cls) -> Zygote:
        with cls._lock:
            if cls._zygote is None:
                cls._zygote = Zygote()
                atexit.register(cls.close_all)
            return cls._zygote

    @classmethod
    def close_all(cls) -> None:
        """End the spare clusters and the parent of all daemons."""
        for pool in POOLS.values():
            while not pool._spare.empty():
                pool._spare.get().end()
        if cls._zygote is not None:
            cls._zygote.close()
            cls._zygote = None


POOLS = {shape: Pool(shape) for shape in (ONE, TWO, COPIES, MARIADB, POSTGRESQL, MIXED, MYSQL)}


@contextmanager
def cluster(shape: Shape) -> Iterator[QuickCluster]:
    """A fresh cluster; nothing may have gone wrong in it."""
    fresh = POOLS[shape].take()
    try:
        yield fresh
    finally:
        wrong = fresh.end()
    assert not wrong, wrong


class OnCluster:
    """Mixed into ZODB's test cases: `self._storage` on a fresh cluster of `shape`."""

    __test__ = False  # but what `zodb_cases.make` makes of it: a module of tests may import cases
    shape: Shape = ONE
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def set_up_cluster(self) -> None:
        """Take a cluster; open a storage on it."""
        self._clusters = [POOLS[self.shape].take()]
        self._clients: list[Any] = []

    def new_client(self, number: int = 0, **options: Any) -> Any:
        """Return another client of the (or another) cluster."""
        storage = neo_client.open(self._clusters[number].uri, **{**self.options, **options})
        self._clients.append(storage)
        return storage

    def tear_down_cluster(self) -> None:
        """Close what the test has left open; end the cluster."""
        for storage in self._clients:
            storage.close()
        wrong = "".join(c.end() for c in self._clusters)
        assert not wrong, wrong
