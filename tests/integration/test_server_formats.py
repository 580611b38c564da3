"""The databases of servers of every format that ever was; `tests/unit/test_formats.py` has the rest."""

from collections.abc import Iterator

import pytest

from neo_common.errors import BackendError
from neo_storage.backends import logical
from neo_storage.backends.server import ServerBackend
from support.formats import golden, sample
from support.formats.describe import contents
from support.formats.servers import load_dump
from support.memory_backend import MemoryBackend
from support.servers import MariaDB, PostgreSQL, Server, backend_on

KINDS = pytest.mark.parametrize("kind", [MariaDB, PostgreSQL])
DATABASES = range(1, logical.FORMAT + 1)


@pytest.fixture
def database(kind: type[Server]) -> Iterator[str]:
    """An empty database of the shared server."""
    database = kind.shared().new_database()
    yield database
    kind.shared().give_back(database)


def set_config(server: Server, database: str, name: str, number: int) -> None:
    server.execute("UPDATE config SET number = %s WHERE name = %s", database, (number, name))


@KINDS
@pytest.mark.parametrize("number", DATABASES)
def test_golden_database_is_read_and_written(kind: type[Server], database: str, number: int) -> None:
    server = kind.shared()
    load_dump(number, server, database)
    expected = (golden.database_folder(number) / "contents.txt").read_text()
    backend = backend_on(server, database)
    assert contents(backend.open(), backend) == expected
    sample.go_on(backend)
    backend.close()
    twin = MemoryBackend()
    twin.open()
    sample.fill(twin)
    sample.go_on(twin)
    assert contents(backend.open(), backend) == contents(twin.open(), twin) != expected
    backend.close()


@KINDS
@pytest.mark.parametrize("number", DATABASES)
def test_golden_database_has_the_tables_of_a_new_one(kind: type[Server], database: str, number: int) -> None:
    server = kind.shared()
    load_dump(number, server, database)
    new = server.new_database()
    for name in (database, new):
        backend = backend_on(server, name)
        backend.open()
        backend.close()
    assert server.dump(database, is_schema_only=True) == server.dump(new, is_schema_only=True)
    server.give_back(new)


@KINDS
def test_database_of_a_newer_format_is_refused_and_left_as_it_is(kind: type[Server], database: str) -> None:
    server = kind.shared()
    load_dump(logical.FORMAT, server, database)
    newer = logical.FORMAT + 1
    set_config(server, database, "format", newer)
    set_config(server, database, "minimum_reader", newer)
    before = server.dump(database)
    with pytest.raises(BackendError, match=rf"has format {newer}, for programs that read {newer} or above.*newer NEO"):
        backend_on(server, database).open()
    assert server.dump(database) == before


@KINDS
def test_database_of_a_newer_format_that_older_programs_may_read_is_opened(kind: type[Server], database: str) -> None:
    server = kind.shared()
    load_dump(logical.FORMAT, server, database)
    set_config(server, database, "format", logical.FORMAT + 1)
    backend = backend_on(server, database)
    assert isinstance(backend, ServerBackend)
    assert contents(backend.open(), backend) == (golden.database_folder() / "contents.txt").read_text()
    assert server.execute("SELECT number FROM config WHERE name = 'format'", database)[0][0] == logical.FORMAT + 1
    backend.close()
