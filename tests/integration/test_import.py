"""Transactions that come from elsewhere, with tids and oids of their own."""

from pathlib import Path

from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

from support.cluster import Cluster


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
