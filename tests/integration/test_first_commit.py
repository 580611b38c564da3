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


def test_all_of_it_over_unix_sockets(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", masters=3, storages=2, replicas=1, unix=True) as cluster:
        db = DB(cluster.open())
        with db.transaction() as connection:
            connection.root()["answer"] = 42
        db.close()
        cluster.kill("s1")
        cluster.kill("m1")
        again = DB(cluster.open())
        with again.transaction() as connection:
            assert connection.root()["answer"] == 42
            connection.root()["answer"] = 43
        again.close()
        assert not [name for name in cluster.names if cluster.addresses[name].startswith("127")]
