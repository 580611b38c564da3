"""Transactions that come from elsewhere, with tids and oids of their own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.BaseStorage import TransactionRecord
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

from support.cluster import Cluster

_COPY = """
import sys
from neo_client.zodburi import resolve_uri
from ZODB.FileStorage import FileStorage
factory, _ = resolve_uri(sys.argv[1])
factory().copyTransactionsFrom(FileStorage(sys.argv[2], read_only=True))
"""
"""A client of its own, to be killed."""


def test_new_oids_are_above_restored_ones(tmp_path: Path) -> None:
    """By `restore` alone, as tools do; the client had been given new oids before."""
    source = FileStorage(str(tmp_path / "Data.fs"))
    db = DB(source)
    with db.transaction() as connection:
        for number in range(300):
            connection.root()[number] = PersistentMapping()
    with Cluster(tmp_path / "cluster", storages=2) as cluster:
        storage = cluster.open()
        storage.new_oid()
        for txn in source.iterator():
            storage.tpc_begin(txn, txn.tid, txn.status)
            for record in txn:
                storage.restore(record.oid, record.tid, record.data, "", record.data_txn, txn)
            storage.tpc_vote(txn)
            storage.tpc_finish(txn)
        restored = {record.oid for txn in source.iterator() for record in txn}
        other = cluster.open()
        assert not restored & {storage.new_oid() for _ in range(1000)}
        assert not restored & {other.new_oid() for _ in range(1000)}
        other.close()
        copy = DB(storage)
        with copy.transaction() as connection:
            connection.root()["new"] = PersistentMapping()
        with copy.transaction() as connection:
            assert len(connection.root()) == 301
        copy.close()
    db.close()


def make_source(path: Path, transactions: int) -> FileStorage:
    """Return a FileStorage in which each transaction changes the root, and makes objects of many partitions."""
    db = DB(FileStorage(str(path)))
    for number in range(transactions):
        with db.transaction(f"number {number}") as connection:
            container = connection.root()[number % 10] = PersistentMapping()
            for item in range(5):
                container[item] = PersistentMapping(text=f"{number} {item}" * 20)
    db.close()
    return FileStorage(str(path), read_only=True)


def everything(storage: Any) -> list[tuple[Any, ...]]:
    """Return every transaction, with its records by oid."""
    return [
        (t.tid, t.user, t.description, t.extension, sorted((r.oid, r.data, r.data_txn) for r in t))
        for t in storage.iterator()
    ]


class _Source:
    """Transactions in memory, from *first* on; one of them cannot be read to its end."""

    def __init__(self, storage: Any, first: int = 0, torn: int = -1) -> None:
        self._transactions = [_Transaction(t, n == torn) for n, t in enumerate(storage.iterator())][first:]

    def iterator(self) -> Iterator[Any]:
        return iter(self._transactions)


class _Transaction(TransactionRecord):  # type: ignore[misc]
    def __init__(self, txn: Any, is_torn: bool) -> None:
        super().__init__(txn.tid, txn.status, txn.user, txn.description, txn.extension)
        self._records = list(txn)
        self._is_torn = is_torn

    def __iter__(self) -> Iterator[Any]:
        yield from self._records[:3]
        if self._is_torn:
            raise OSError("the source cannot be read any more")
        yield from self._records[3:]


def test_failing_source_leaves_a_beginning_and_a_usable_storage(tmp_path: Path) -> None:
    source = make_source(tmp_path / "Data.fs", 30)
    wanted = everything(source)
    with Cluster(tmp_path / "cluster", storages=2) as cluster, cluster.open() as storage:
        with pytest.raises(OSError, match="cannot be read any more"):
            storage.copyTransactionsFrom(_Source(source, torn=20))
        found = everything(storage)
        assert found == wanted[: len(found)]
        assert 19 <= len(found) <= 20
        assert storage.tpc_transaction() is None
        storage.copyTransactionsFrom(_Source(source, first=len(found)))
        assert everything(storage) == wanted
        with DB(storage).transaction() as connection:
            connection.root()["new"] = PersistentMapping()
    source.close()


@pytest.mark.parametrize("replicas", [0, 1])
@pytest.mark.parametrize("victims", ["client", "all"])
def test_killed_import_leaves_a_beginning(tmp_path: Path, replicas: int, victims: str) -> None:
    """kill -9 in the middle of a copy; what is there after recovery are the first transactions, whole."""
    source = make_source(tmp_path / "Data.fs", 1500)
    wanted = everything(source)
    source.close()
    with Cluster(tmp_path / "cluster", storages=2, replicas=replicas) as cluster:
        with cluster.open() as storage:
            copier = subprocess.Popen([sys.executable, "-c", _COPY, cluster.uri, str(tmp_path / "Data.fs")])
            deadline = time.monotonic() + 60
            while sum(1 for _ in storage.iterator()) < 50:
                assert copier.poll() is None
                assert time.monotonic() < deadline
                storage.sync()
        copier.kill()
        copier.wait()
        if victims == "all":
            cluster.kill_all()
            for name in cluster.names:
                cluster.start(name)
        cluster.wait_running()
        with cluster.open() as storage:
            found = everything(storage)
            assert len(found) >= 50
            assert found == wanted[: len(found)]
