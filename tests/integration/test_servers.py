"""MariaDB, MySQL and PostgreSQL as they are in life: unsafe, shared by mistake, gone and back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
from ZODB import DB

from neo_common.errors import BackendError, BackendLost
from neo_common.ids import Oid
from neo_storage.backends import server as server_module
from neo_storage.backends.dialect import Statement
from neo_storage.backends.server import ServerBackend
from support.backend_contract import P0, T1, T2, commit, write
from support.cluster import Cluster
from support.mysql_server import MYSQL
from support.server_kinds import EVERY
from support.servers import MariaDB, PostgreSQL, Server, backend_on

KINDS = pytest.mark.parametrize("kind", EVERY)


@pytest.fixture
def own(kind: type[Server]) -> Iterator[Server]:
    """A server that may be maltreated."""
    server = kind()
    yield server
    server.end()


def opened(server: Server, database: str, **options: Any) -> ServerBackend:
    backend = backend_on(server, database, **options)
    assert isinstance(backend, ServerBackend)
    backend.open()
    backend.claim()
    return backend


UNSAFE = [
    (MariaDB, "SET GLOBAL innodb_flush_log_at_trx_commit = {}", ("2", "1"), "trx_commit is 2, must be 1"),
    *(
        (kind, *words)
        for kind in MYSQL
        for words in (
            ("SET GLOBAL innodb_flush_log_at_trx_commit = {}", ("2", "1"), "trx_commit is 2, must be 1"),
            ("SET GLOBAL sync_binlog = {}", ("0", "1"), "sync_binlog is 0, must be 1"),
            ("ALTER INSTANCE {} INNODB REDO_LOG", ("DISABLE", "ENABLE"), "redo log is off: ALTER INSTANCE ENABLE"),
        )
    ),
]


@pytest.mark.parametrize(("kind", "text", "words", "said"), UNSAFE)
def test_unsafe_settings_are_refused_by_name_unless_they_are_accepted(
    kind: type[Server], text: str, words: tuple[str, str], said: str
) -> None:
    server = kind.shared()
    database = server.new_database()
    unsafe, safe = words
    server.execute(text.format(unsafe))
    try:
        with pytest.raises(BackendError, match=said):
            opened(server, database)
        opened(server, database, is_unsafe=True).close()
    finally:
        server.execute(text.format(safe))
    opened(server, database).close()
    server.give_back(database)


@pytest.mark.parametrize(
    ("kind", "isolation", "limit", "short"),
    [
        (MariaDB, "tx_isolation", "max_statement_time", "0.5"),
        *((kind, "transaction_isolation", "max_execution_time", "500") for kind in MYSQL),
    ],
)
def test_what_an_operator_has_set_for_all_sessions_does_not_reach_ours(
    kind: type[Server], isolation: str, limit: str, short: str
) -> None:
    """Another isolation makes snapshots of several moments; limits of time end long statements, and idle nights."""
    server = kind.shared()
    database = server.new_database()
    names = {isolation: "'READ-COMMITTED'", limit: short, "wait_timeout": "60"}
    before = {name: server.execute(f"SELECT @@global.{name}")[0][0] for name in names}
    for name, value in names.items():
        server.execute(f"SET GLOBAL {name} = {value}")
    try:
        backend = opened(server, database)
        backend.apply([commit(T1, write(0, b"a"))], 0)
        db = backend.database()
        with db.errors("asking"):
            assert db.one(Statement(f"SELECT @@{isolation}, @@{limit}, @@wait_timeout")) == (
                "REPEATABLE-READ",
                0,
                31_536_000,
            )
            assert db.one(Statement("SELECT sleep(1)")) == (0,)
        with db.snapshot("two reads of one moment"):
            assert db.one(db.statements.current, (P0, 0)) == (T1,)
            backend.apply([commit(T2, write(0, b"b", T1))], 1)
            assert db.one(db.statements.current, (P0, 0)) == (T1,)
        db.close()
        backend.close()
    finally:
        for name, value in before.items():
            server.execute(f"SET GLOBAL {name} = %s", "", (value,))
    server.give_back(database)


def test_limits_of_time_for_others_do_not_reach_our_statements_on_postgresql() -> None:
    server = PostgreSQL.shared()
    database = server.new_database()
    server.execute(f"ALTER DATABASE {database} SET statement_timeout = '200ms'")
    try:
        backend = opened(server, database)
        db = backend.database()
        with db.errors("asking"):
            assert db.one(Statement("SELECT 1 FROM pg_sleep(0.5)")) == (1,)
        db.close()
        backend.close()
    finally:
        server.execute(f"ALTER DATABASE {database} RESET statement_timeout")
    server.give_back(database)


def test_postgresql_without_full_page_writes_is_refused() -> None:
    server = PostgreSQL({"full_page_writes": "off", "fsync": "off"})
    database = server.new_database()
    with pytest.raises(BackendError, match="fsync is off, must be on; full_page_writes is off, must be on"):
        opened(server, database)
    opened(server, database, is_unsafe=True).close()
    server.end()


@KINDS
def test_two_nodes_never_have_one_database(kind: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LOCK_S", 0.0)
    server = kind.shared()
    database = server.new_database()
    first = opened(server, database)
    with pytest.raises(BackendError, match="is in use by"):
        opened(server, database)
    first.apply([commit(T1, write(0, b"a"))], 0)
    # A stranger that comes when the lock is lost, and finds that its vote log does not fit, leaves it as it was.
    monkeypatch.setattr(server_module, "LOCK_S", 20.0)
    assert first._writing is not None
    first._writing.close()
    stranger = backend_on(server, database)
    assert stranger.open().position == 0
    stranger.close()
    first.reconnect()
    # Even if its lock were lost: each transaction looks whose the database is.
    server.execute("UPDATE config SET value = NULL WHERE name = 'owner'", database)
    with pytest.raises(BackendError, match="was taken over"):
        first.apply([commit(T2, write(0, b"b", T1))], 1)
    assert first.current(P0, Oid(0)) == T1
    first.close()
    server.give_back(database)


@KINDS
def test_foreign_tables_and_missing_databases_are_told(kind: type[Server]) -> None:
    server = kind.shared()
    with pytest.raises(BackendError, match=r"CREATE DATABASE.*docs/operating.md"):
        opened(server, "nobody_made_this")
    database = server.new_database()
    server.execute("CREATE TABLE mine (x integer)", database)
    with pytest.raises(BackendError, match=r"not NEO's \(mine\)"):
        opened(server, database)
    server.give_back(database)


@KINDS
def test_lost_connection_is_lost_and_the_position_read_back(kind: type[Server], own: Server) -> None:
    backend = opened(own, own.new_database())
    backend.apply([commit(T1, write(0, b"a"))], 0)
    own.kill()
    with pytest.raises(BackendLost):
        backend.apply([commit(T2, write(0, b"b", T1))], 1)
    with pytest.raises(BackendLost):
        backend.reconnect()
    own.start()
    backend.reconnect()
    backend.apply([commit(T2, write(0, b"b", T1))], 1)
    assert backend.current(P0, Oid(0)) == T2
    backend.close()


@KINDS
def test_database_that_was_set_back_is_refused(kind: type[Server], own: Server) -> None:
    database = own.new_database()
    backend = opened(own, database)
    backend.apply([commit(T1, write(0, b"a"))], 5)
    own.execute("UPDATE config SET number = 3 WHERE name = 'position'", database)
    with pytest.raises(BackendError, match="was restored, or has lost"):
        backend.reconnect()
    backend.close()


@KINDS
@pytest.mark.timeout(300)
def test_server_killed_under_load_loses_nothing_and_the_node_lives(
    kind: type[Server], own: Server, tmp_path: Path
) -> None:
    """Commits are acknowledged from the vote log while the server is dead; all of them are there when it is back."""
    databases = [own.settings(own.new_database())]
    with Cluster(tmp_path, databases=databases) as cluster:
        database = DB(cluster.open())
        acknowledged = list[int]()
        ended = threading.Event()

        def work() -> None:
            connection = database.open(transaction_manager := transaction.TransactionManager())
            root = connection.root()
            while not ended.is_set():
                number = len(acknowledged)
                root[f"k{number}"] = number
                transaction_manager.commit()
                acknowledged.append(number)
            connection.close()

        def reach(count: int) -> None:
            for _ in range(1200):
                if len(acknowledged) >= count or not worker.is_alive():
                    break
                ended.wait(0.05)
            assert len(acknowledged) >= count, f"{len(acknowledged)} commits; {cluster.log('s1')}"

        worker = threading.Thread(target=work)
        worker.start()
        try:
            reach(20)
            own.kill()
            reach(len(acknowledged) + 20)
            own.start()
            reach(len(acknowledged) + 20)
        finally:
            ended.set()
            worker.join(60)
        database.close()
        log = tmp_path / "s1.log"
        for _ in range(1200):  # it looks for the server ever more slowly
            if "the database is back" in log.read_text():
                break
            time.sleep(0.05)
        assert "the database is away" in log.read_text()
        assert "the database is back" in log.read_text()
        for restart in (False, True):
            if restart:
                cluster.kill("s1")
                cluster.start("s1")
            again = DB(cluster.open())
            with again.transaction() as connection:
                assert set(acknowledged) <= set(connection.root().values())
            again.close()


@KINDS
@pytest.mark.timeout(300)
def test_iteration_waits_for_a_server_that_is_away(kind: type[Server], own: Server, tmp_path: Path) -> None:
    """What was committed last waits in the log of the only storage: nobody else can be asked."""
    with Cluster(tmp_path, databases=[own.settings(own.new_database())]) as cluster:
        storage = cluster.open()
        database = DB(storage)
        own.kill()
        for number in range(3):
            with database.transaction() as connection:
                connection.root()[number] = number
        found = list[int]()
        reader = threading.Thread(target=lambda: found.append(sum(1 for _ in storage.iterator())))
        reader.start()
        deadline = time.monotonic() + 60
        while "the database is away" not in cluster.log("s1"):
            assert time.monotonic() < deadline, cluster.log("s1")
            time.sleep(0.02)
        own.start()
        reader.join(60)
        assert found == [4]
        database.close()
