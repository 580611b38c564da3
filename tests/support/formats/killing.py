"""`python -P killing.py KIND ARGUMENTS DEED`: for each number read, a process that works and kills itself.

KIND is `sqlite`, `mysql` or `postgresql`, ARGUMENTS are those of its back end, in JSON. DEED is `migrate`, or one of
`removals.OPS`. A number is that of the statement before which it dies by SIGKILL; what is printed is `killed`, or
`done` when there were not so many.
"""

# ruff: noqa: T201 - a program that prints

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from neo_storage.backends import server
from neo_storage.backends.base import Backend
from neo_storage.backends.migration import migrate
from neo_storage.backends.mysql.backend import MysqlBackend
from neo_storage.backends.postgresql.backend import PostgresqlBackend
from neo_storage.backends.server import ServerDatabase
from neo_storage.backends.sqlite import backend as sqlite
from neo_storage.backends.sqlite.connection import SqliteDatabase
from support.formats import migrating, removals

FAILED = 9


def make(kind: str, arguments: dict[str, Any]) -> Backend:
    """Return the back end, not yet open."""
    if kind == "sqlite":
        return sqlite.SqliteBackend(Path(arguments["path"]), wal_bytes=0)
    return (MysqlBackend if kind == "mysql" else PostgresqlBackend)(**arguments)


class Death:
    """Comes before the statement of that number, counted from 1."""

    def __init__(self, number: int) -> None:
        self.left = number

    def step(self, text: str) -> None:
        """A statement is about to run."""
        del text
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def watching(self, db: Any) -> Iterator[None]:
        """Statements on *db* are counted."""
        if isinstance(db, SqliteDatabase):
            db._connection.set_trace_callback(self.step)
            yield
            db._connection.set_trace_callback(None)
            return
        execute = ServerDatabase.execute

        def counted(db: ServerDatabase, text: str, arguments: Any = None) -> Any:
            self.step(text)
            return execute(db, text, arguments)

        ServerDatabase.execute = counted  # type: ignore[method-assign]
        yield
        ServerDatabase.execute = execute  # type: ignore[method-assign]

    def migrate(self, db: Any, what: str) -> None:
        """As `backends.migration.migrate`, for this long only."""
        with self.watching(db):
            migrate(db, what)


def child(kind: str, arguments: dict[str, Any], deed: str, number: int) -> None:
    """Do it, and die if it comes to that."""
    death = Death(number)
    backend: Any = make(kind, arguments)
    if deed == "migrate":
        server.migrate = sqlite.migrate = death.migrate  # type: ignore[assignment]
        migrating.install()
        backend.open()
    else:
        backend.open()
        removals.prepare(backend)
        removals.install()
        with death.watching(backend._db if kind == "sqlite" else backend._writing):
            removals.remove(backend, deed)
    backend.close()


def main(kind: str, arguments: dict[str, Any], deed: str) -> None:
    """Fork a child for each number."""
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            status = FAILED
            try:
                child(kind, arguments, deed, int(line))
                status = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                if status:
                    sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            print("killed" if os.WTERMSIG(status) == signal.SIGKILL else f"signal {os.WTERMSIG(status)}", flush=True)
        else:
            print("done" if status == 0 else f"failed with {os.WEXITSTATUS(status)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])
