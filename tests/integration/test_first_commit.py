"""A cluster with a replica, used the moment it runs: nothing is put out of date while storages find each other."""

from pathlib import Path

from ZODB.DB import DB

from support.cluster import Cluster


def test_first_commits_put_no_cell_out_of_date(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", storages=2, replicas=1) as cluster:
        storage = cluster.open()
        db = DB(storage)
        for number in range(10):
            with db.transaction() as connection:
                connection.root()[number] = number
        table = storage._shell.core.table
        db.close()
        assert table.version.ptid == 1, table.rows
