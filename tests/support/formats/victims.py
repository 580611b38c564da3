"""Golden databases that are killed at work, on each back end: `killing` does it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from neo_storage.backends import logical
from neo_storage.backends.base import Backend
from neo_storage.backends.sqlite.backend import SqliteBackend
from support.formats import golden
from support.formats.servers import load_dump
from support.servers import MariaDB, PostgreSQL, Server, backend_on

KINDS: Final = ("sqlite", "mysql", "postgresql")
PROGRAM: Final = Path(__file__).parent / "killing.py"


class Old(NamedTuple):
    """A database of the present format, soon an old one."""

    kind: str
    arguments: dict[str, Any]
    """As killing.py takes them."""
    reset: Callable[[], None]
    """Make it what it was."""
    new: Callable[[], Backend]


def on_sqlite(tmp_path: Path) -> Old:
    path = tmp_path / "neo.sqlite"

    def reset() -> None:
        for file in tmp_path.glob("neo.sqlite*"):
            file.unlink()
        golden.sqlite_database(logical.FORMAT, path)

    return Old("sqlite", {"path": str(path)}, reset, lambda: SqliteBackend(path, wal_bytes=0))


def on_server(server: Server, database: str) -> Old:
    def reset() -> None:
        server.empty(database)
        load_dump(logical.FORMAT, server, database)

    kind = "mysql" if isinstance(server, MariaDB) else "postgresql"
    settings = server.settings(database)
    arguments = {"database": database, "user": settings["user"], "socket": settings["socket"]}
    return Old(kind, arguments, reset, lambda: backend_on(server, database))


@contextmanager
def victim(kind: str, directory: Path) -> Iterator[Old]:
    """Yield one of *kind*."""
    if kind == "sqlite":
        yield on_sqlite(directory)
        return
    server = MariaDB.shared() if kind == "mysql" else PostgreSQL.shared()
    database = server.new_database()
    yield on_server(server, database)
    server.give_back(database)


@contextmanager
def killer(old: Old, deed: str) -> Iterator[Callable[[int], str]]:
    """Yield what does *deed* in a process that dies before the statement of a number; it returns `killed` or `done`."""
    command = [sys.executable, "-P", str(PROGRAM), old.kind, json.dumps(old.arguments), deed]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def until(number: int) -> str:
            print(number, file=stdin, flush=True)
            outcome = stdout.readline().strip()
            assert outcome in ("killed", "done"), outcome
            return outcome

        assert stdout.readline() == "ready\n"
        yield until
    assert process.returncode == 0
