"""MariaDB and PostgreSQL pass the suite that every back end passes, on private servers."""

from collections.abc import Iterator

import pytest

from neo_storage.backends.base import Backend
from neo_storage.backends.mysql.backend import MysqlBackend
from neo_storage.backends.postgresql.backend import PostgresqlBackend
from support.backend_contract import BackendContract, Backends
from support.servers import MariaDB, PostgreSQL


class TestMariaDB(BackendContract):
    """MariaDB, by its socket."""

    @pytest.fixture
    def backends(self) -> Iterator[Backends]:
        server = MariaDB.shared()
        database = server.new_database()
        made: list[Backend] = []

        def new() -> Backend:
            made.append(MysqlBackend(database=database, user="root", socket=server.socket))
            return made[-1]

        def reopen(backend: Backend) -> Backend:
            backend.close()
            return new()

        yield Backends(new, reopen)
        for backend in made:
            backend.close()


class TestPostgreSQL(BackendContract):
    """PostgreSQL, by its socket."""

    @pytest.fixture
    def backends(self) -> Iterator[Backends]:
        server = PostgreSQL.shared()
        database = server.new_database()
        made: list[Backend] = []

        def new() -> Backend:
            made.append(PostgresqlBackend(database=database, user="neo", socket=str(server.path)))
            return made[-1]

        def reopen(backend: Backend) -> Backend:
            backend.close()
            return new()

        yield Backends(new, reopen)
        for backend in made:
            backend.close()
