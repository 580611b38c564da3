"""MariaDB, PostgreSQL and MySQL pass the suite that every back end passes, on private servers."""

from collections.abc import Iterator, Sequence

import pytest

from neo_storage.backends.base import Backend
from neo_storage.backends.server import ServerDatabase
from support.backend_contract import BackendContract, Backends
from support.mysql_server import MYSQL
from support.servers import MariaDB, PostgreSQL, Server, backend_on
from support.sql_lint import unbound


def _backends(server: Server) -> Iterator[Backends]:
    made: list[tuple[Backend, str]] = []

    def on(database: str) -> Backend:
        made.append((backend_on(server, database), database))
        return made[-1][0]

    def new() -> Backend:
        return on(server.new_database())

    def reopen(backend: Backend) -> Backend:
        backend.close()
        return on(database_of(backend))

    def database_of(backend: Backend) -> str:
        return next(database for b, database in made if b is backend)

    yield Backends(new, reopen, lambda backend: server.count(database_of(backend)))
    for backend, _ in made:
        backend.close()
    for database in {database for _, database in made}:
        server.give_back(database)


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test does, its values are bound."""
    texts: set[str] = set()
    execute = ServerDatabase.execute

    def listening(self: ServerDatabase, text: str, arguments: Sequence[object] | None = None) -> object:
        texts.add(text)
        return execute(self, text, arguments)

    monkeypatch.setattr(ServerDatabase, "execute", listening)
    yield
    assert texts
    assert [text for text in texts if unbound(text)] == []


class TestMariaDB(BackendContract):
    """MariaDB, by its socket."""

    @pytest.fixture
    def backends(self) -> Iterator[Backends]:
        yield from _backends(MariaDB.shared())


class TestPostgreSQL(BackendContract):
    """PostgreSQL, by its socket."""

    @pytest.fixture
    def backends(self) -> Iterator[Backends]:
        yield from _backends(PostgreSQL.shared())


if MYSQL:

    class TestMySQL(BackendContract):
        """MySQL, by its socket."""

        @pytest.fixture
        def backends(self) -> Iterator[Backends]:
            yield from _backends(MYSQL[0].shared())
