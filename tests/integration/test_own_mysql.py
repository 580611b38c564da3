"""The suite of every back end on a server that somebody names in NEO_TEST_MYSQL.

Without that there is nothing here. (Private servers of MySQL are in `test_server_contract`, where there are any.)
"""

import os
from collections.abc import Iterator

import pytest

from neo_storage.backends.base import Backend
from support.backend_contract import BackendContract, Backends
from support.own_mysql import VARIABLE, OwnMysql
from support.servers import MariaDB


def backends_on(server: OwnMysql) -> Iterator[Backends]:
    made: list[tuple[Backend, str]] = []

    def on(database: str) -> Backend:
        made.append((server.backend(database), database))
        return made[-1][0]

    def reopen(backend: Backend) -> Backend:
        backend.close()
        return on(next(database for one, database in made if one is backend))

    yield Backends(lambda: on(server.new_database()), reopen)
    for backend, _ in made:
        backend.close()
    for database in {database for _, database in made}:
        server.drop(database)


if os.environ.get(VARIABLE):

    class TestOwnMysql(BackendContract):
        """The server that was named."""

        @pytest.fixture
        def backends(self) -> Iterator[Backends]:
            yield from backends_on(OwnMysql(os.environ[VARIABLE]))


def test_named_server_gets_databases_and_loses_them() -> None:
    """The way there, tried with a MariaDB."""
    shared = MariaDB.shared()
    server = OwnMysql(f"mysql://root@/?socket={shared.socket}")
    for backends in backends_on(server):
        backend = backends.new()
        assert backend.open().position == -1
        reopened = backends.reopen(backend)
        assert reopened.open().position == -1
    assert shared.execute("SHOW DATABASES LIKE 'neo\\_contract\\_%'") == []
