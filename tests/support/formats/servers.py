"""The golden databases of servers: dumps, as the programs of the servers write them."""

from pathlib import Path
from typing import Final

from support.formats import sample
from support.formats.golden import database_folder
from support.servers import MariaDB, PostgreSQL, Server, backend_on

DUMPS: Final[dict[type[Server], str]] = {MariaDB: "mariadb.sql", PostgreSQL: "postgresql.sql"}


def make_dumps(folder: Path) -> None:
    """Write the dump of a database of each server."""
    for kind, name in DUMPS.items():
        server = kind.shared()
        database = server.new_database()
        backend = backend_on(server, database)
        backend.open()
        sample.fill(backend)
        backend.close()
        (folder / name).write_text(server.dump(database))
        server.give_back(database)


def load_dump(number: int, server: Server, database: str) -> None:
    """Put the golden database of that format into an empty one."""
    server.load(database, (database_folder(number) / DUMPS[type(server)]).read_text())
