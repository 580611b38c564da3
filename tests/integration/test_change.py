"""A cluster that changes while it works: it grows from one storage to three, gets a copy, loses storages by order.

Two writers go on all the time, with clients of their own; their own record of what was acknowledged is the truth. In
the end every record of every transaction is compared with what a client read before and after.
"""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.POSException import POSError

from support.cluster import PROGRAMS, Cluster

OBJECTS = 150
WRITERS = 2
MOVES_DEADLINE_S = 180.0


class Writer(threading.Thread):
    """Appends numbers to an object of its own, until told to stop; after a failure it looks what is true."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._db = DB(cluster.open())
        self._done = threading.Event()
        self.acknowledged = 0
        self.failures: list[str] = []
        self.wrong = ""
        self.longest_pause_s = 0.0

    def run(self) -> None:
        manager = transaction.TransactionManager()
        last = time.monotonic()
        while not self._done.is_set() and not self.wrong:
            connection = self._db.open(manager)
            try:
                mapping = connection.root()[self.name]
                if mapping["number"] != self.acknowledged:
                    self.wrong = f"{self.name} sees {mapping['number']}, {self.acknowledged} was acknowledged"
                    return
                mapping["number"] = self.acknowledged + 1
                manager.commit()
                self.acknowledged += 1
                self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - last)
                last = time.monotonic()
            except POSError as error:  # nothing is left of it: the next round looks
                self.failures.append(f"{type(error).__name__}: {error}")
                manager.abort()
            finally:
                manager.abort()
                connection.close()

    def stop(self) -> None:
        self._done.set()
        self.join(60.0)
        assert not self.is_alive(), f"{self.name} is stuck"
        assert not self.wrong, self.wrong
        self._db.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three storages are configured; only the first is in the cluster."""
    cluster = Cluster(tmp_path, storages=3, partitions=12, settings={"cluster": {"auto_start": False}})
    try:
        cluster.start("m1")
        cluster.start("s1")
        cluster.wait_listening("s1")
        deadline = time.monotonic() + 60
        while neoadmin(cluster, "start").returncode:
            assert time.monotonic() < deadline, cluster.logs()
        cluster.wait_running()
        yield cluster
        cluster.stop()
    finally:
        cluster.kill_all()


def neoadmin(cluster: Cluster, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAMS / "neoadmin"), "--config", str(cluster.config), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=MOVES_DEADLINE_S, check=False)


def ordered(cluster: Cluster, *words: str) -> str:
    done = neoadmin(cluster, *words, "--timeout", "60s")
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{cluster.logs()}"
    return done.stdout


def table(cluster: Cluster) -> list[dict[str, str]]:
    """Return each row, as states by node."""
    told: dict[str, Any] = json.loads(ordered(cluster, "partitions", "--json"))
    return [{cell["node"]: cell["state"] for cell in row} for row in told["rows"]]


def counts(cluster: Cluster) -> dict[str, int]:
    rows = table(cluster)
    assert all(state == "UP_TO_DATE" for row in rows for state in row.values()), rows
    return {node: sum(node in row for row in rows) for row in rows for node in row}


def everything(cluster: Cluster) -> list[tuple[bytes, bytes, bytes]]:
    """Return every record of every transaction, ordered: tid, oid, data."""
    storage = cluster.open()
    try:
        return sorted((record.tid, record.oid, record.data) for t in storage.iterator() for record in t)
    finally:
        storage.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_grow_copy_drain_drop_and_lose(cluster: Cluster) -> None:
    db = DB(cluster.open())
    with db.transaction() as connection:
        root = connection.root()
        for n in range(OBJECTS):
            root[f"object-{n}"] = PersistentMapping(data=bytes([n]) * (100 + 300 * n))
        for n in range(WRITERS):
            root[f"writer-{n}"] = PersistentMapping(number=0)
    db.close()
    before = everything(cluster)
    writers = [Writer(cluster, f"writer-{n}") for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        change_all(cluster)
    finally:
        for writer in writers:
            writer.stop()
    assert all(w.acknowledged > 20 for w in writers), [(w.acknowledged, w.failures[-3:]) for w in writers]
    after = everything(cluster)
    assert after[: len(before)] == before
    check_contents(cluster, {w.name: w.acknowledged for w in writers})
    # Only one copy may be needed: each of the two storages alone has all of it.
    for name in ("s1", "s3"):
        cluster.kill(name)
        assert everything(cluster) == after, f"without {name}"
        cluster.start(name)
        cluster.wait_listening(name)
        deadline = time.monotonic() + 120
        while neoadmin(cluster, "status").returncode:
            assert time.monotonic() < deadline, cluster.logs()


def change_all(cluster: Cluster) -> None:
    """Grow 1 -> 3, add a copy, drain one, drop it."""
    cluster.start("s2")
    cluster.start("s3")
    for name in ("s2", "s3"):
        cluster.wait_listening(name)
        deadline = time.monotonic() + 60
        while (done := neoadmin(cluster, "add", name, "--dry-run", "--json")).returncode:
            assert time.monotonic() < deadline, f"{done.stderr}\n{cluster.logs()}"
    told = json.loads(ordered(cluster, "add", "s2", "s3", "--dry-run", "--json"))
    assert len(told["moves"]) == 8
    assert sum(move["bytes"] for move in told["moves"]) > 0
    assert counts(cluster) == {"S1": 12}
    ordered(cluster, "add", "s2", "s3")
    assert counts(cluster) == {"S1": 4, "S2": 4, "S3": 4}
    ordered(cluster, "replicas", "1")
    assert counts(cluster) == {"S1": 8, "S2": 8, "S3": 8}
    refused = neoadmin(cluster, "drop", "s2")
    assert refused.returncode == 1
    assert "drain it first" in refused.stderr
    ordered(cluster, "drain", "s2")
    assert counts(cluster) == {"S1": 12, "S3": 12}
    cluster.processes["s2"].terminate()
    cluster.processes.pop("s2").wait(60)
    ordered(cluster, "drop", "s2")
    assert "s2" not in ordered(cluster, "nodes")


def check_contents(cluster: Cluster, numbers: dict[str, int]) -> None:
    db = DB(cluster.open())
    try:
        with db.transaction() as connection:
            root = connection.root()
            for n in range(OBJECTS):
                assert root[f"object-{n}"]["data"] == bytes([n]) * (100 + 300 * n)
            assert {name: root[name]["number"] for name in numbers} == numbers
    finally:
        db.close()
