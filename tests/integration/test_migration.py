"""Migrations that are killed, or lose their connection, before every single statement, go on at the next start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from neo_common.errors import BackendError
from neo_storage.backends import server as server_module
from neo_storage.backends.migration import migrate
from neo_storage.backends.server import ServerBackend, ServerDatabase
from neo_storage.backends.sqlite.backend import SqliteBackend
from support.formats import golden, migrating, sample
from support.formats.describe import contents
from support.formats.victims import KINDS, Old, killer, on_server, victim
from support.servers import MariaDB, PostgreSQL, Server

EXPECTED = (golden.database_folder() / "contents.txt").read_text()
STATEMENTS_MIN = 15
"""A migration with fewer statements than that was not counted."""


@pytest.fixture(params=KINDS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    with victim(request.param, tmp_path) as old:
        yield old


@contextmanager
def next_format(minimum_reader: int = migrating.NEXT) -> Iterator[None]:
    """This process is a program of the next format."""
    migrating.install(minimum_reader)
    try:
        yield
    finally:
        migrating.uninstall()


def check_migrated(old: Old) -> None:
    """It opens with the next format, and nothing of what it had is lost."""
    with next_format():
        backend = old.new()
        assert contents(backend.open(), backend) == EXPECTED
        assert isinstance(backend, ServerBackend | SqliteBackend)
        db = backend._db if isinstance(backend, SqliteBackend) else backend._writing
        assert db is not None
        with db.snapshot("checking"):
            migrating.check(db)
        backend.close()


def is_refused_or_whole(old: Old) -> bool:
    """Whether an older program is refused; else it must meet the old format, whole."""
    backend = old.new()
    try:
        kept = backend.open()
    except BackendError as error:
        if "install a newer NEO" not in str(error):
            raise
        return True
    assert contents(kept, backend) == EXPECTED
    backend.close()
    return False


@pytest.mark.timeout(600)
def test_migration_killed_before_any_statement_goes_on(old: Old) -> None:
    """Each time from the beginning. An older program meets the old format, whole, or is refused."""
    refused = [False]
    with killer(old, "migrate") as migrate_until:
        old.reset()
        while migrate_until(len(refused)) == "killed":
            refused.append(is_refused_or_whole(old))
            check_migrated(old)
            old.reset()
        check_migrated(old)
    assert len(refused) > STATEMENTS_MIN
    assert refused == sorted(refused), "from the first change on it is refused, and for ever"
    assert refused.count(True) > STATEMENTS_MIN // 2


@pytest.mark.timeout(300)
def test_migration_killed_again_and_again_comes_to_its_end(old: Old) -> None:
    """Each start gets a little further than the one before: what is done is not done again from the beginning."""
    old.reset()
    statements = 6
    with killer(old, "migrate") as migrate_until:
        while migrate_until(statements) == "killed":
            statements += 1
    assert statements > 6
    check_migrated(old)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [MariaDB, PostgreSQL])
def test_migration_that_loses_its_connection_before_any_statement_goes_on_by_itself(
    kind: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = kind.shared()
    database = server.new_database()
    old = on_server(server, database)
    execute = ServerDatabase.execute
    monkeypatch.setattr(server_module, "pause", lambda seconds: None)
    left = 0

    def torn(db: ServerDatabase, text: str, arguments: Any = None) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            if kind is MariaDB:
                server.execute(f"KILL CONNECTION {db._connection.thread_id()}")
            else:
                server.execute("SELECT pg_terminate_backend(%s, 5000)", "", (db._connection.get_backend_pid(),))
        return execute(db, text, arguments)

    def watched(db: ServerDatabase, what: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ServerDatabase, "execute", torn)
            migrate(db, what)

    monkeypatch.setattr(server_module, "migrate", watched)
    number = 0
    while left <= 0:
        number += 1
        old.reset()
        left = number
        check_migrated(old)
    assert number > STATEMENTS_MIN
    server.give_back(database)


def test_older_program_goes_on_where_the_minimum_reader_lets_it(old: Old) -> None:
    """A column more, which an older program does not know of, is no reason to refuse it."""
    old.reset()
    with next_format(minimum_reader=migrating.NEXT - 1):
        backend = old.new()
        backend.open()
        backend.close()
    backend = old.new()
    assert contents(backend.open(), backend) == EXPECTED
    sample.go_on(backend)
    backend.close()
    backend = old.new()
    assert contents(backend.open(), backend) != EXPECTED
    backend.close()
