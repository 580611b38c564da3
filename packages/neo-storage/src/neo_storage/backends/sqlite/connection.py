"""Opening SQLite as we need it, and what its errors mean to us."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from neo_common.errors import BackendError, DataCorrupted, DiskFull
from neo_common.ids import Partition
from neo_storage.backends.database import Row
from neo_storage.backends.dialect import Many, Scan, Statement
from neo_storage.backends.sqlite.queries import QUERIES
from neo_storage.backends.sqlite.schema import COMMON_SETTINGS
from neo_storage.backends.values import runs

_STATEMENTS: Final = 128
"""How many prepared statements a connection keeps: more than queries.py has."""


def translate(error: sqlite3.Error, doing: str) -> BackendError:
    """Return our error for one of SQLite, to be raised `from` it."""
    code = getattr(error, "sqlite_errorcode", None)
    text = f"{doing}: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return DiskFull(text)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DataCorrupted(text)
        case _:
            return BackendError(text)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors instead of SQLite's. (1 us: the reads of the core have a `try` of their own instead.)"""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, doing) from error


def connect(path: Path, *, cache_bytes: int, read_only: bool) -> sqlite3.Connection:
    """Return a connection in autocommit, with every setting in effect.

    It may be used by one thread at a time, not only by that which made it. `read_only` forbids writing by SQL; the file
    is opened for writing all the same, because readers of a write-ahead log write to its index.
    Raises: BackendError when SQLite does not take a setting.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS)
    try:
        settings = {**COMMON_SETTINGS, "cache_size": -(cache_bytes // 1024), "query_only": int(read_only)}
        for name, value in settings.items():
            # A pragma takes no bound parameter; names and values are ours, and integers.
            connection.execute(f"PRAGMA {name} = {value:d}")
        for name, value in settings.items():
            check_setting(connection, name, value)
    except BaseException:
        connection.close()
        raise
    return connection


def check_setting(connection: sqlite3.Connection, name: str, expected: int | str) -> None:
    """Raise BackendError unless *name* reads back as *expected*."""
    row = connection.execute(f"PRAGMA {name}").fetchone()
    found = row[0] if row else None
    if found != expected:
        raise BackendError(f"SQLite {sqlite3.sqlite_version} has {name} = {found}, not {expected}")


class SqliteDatabase:
    """`backends.database.Database` on a connection of SQLite, which it owns."""

    statements = QUERIES

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def one(self, statement: Statement, arguments: Sequence[object] = ()) -> Row | None:
        """Return the first row, None if there is none."""
        row: Row | None = self._connection.execute(statement.text, arguments).fetchone()
        return row

    def rows(self, statement: Statement, arguments: Sequence[object] = ()) -> list[Row]:
        """Return all rows."""
        return self._connection.execute(statement.text, arguments).fetchall()

    def scan(self, scan: Scan, low: int, high: int, *also: object) -> Iterator[Row]:
        """Return the cursor itself: SQLite walks as far as it is asked."""
        return self._connection.execute(scan.rows.text, (low, high, *also))

    def run(self, statement: Statement, arguments: Sequence[object] = ()) -> None:
        """Run what gives no rows."""
        self._connection.execute(statement.text, arguments)

    def run_many(self, many: Many, rows: Sequence[Row]) -> int:
        """Run it row by row, prepared. Return how many rows it has changed."""
        return self._connection.executemany(many.single, rows).rowcount if rows else 0

    def rows_of_many(self, many: Many, rows: Sequence[Row]) -> list[Row]:
        """Run it row by row, prepared."""
        execute = self._connection.execute
        return [found for row in rows for found in execute(many.single, row).fetchall()]

    def values(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the rows of `data` with these ids."""
        execute, text = self._connection.execute, QUERIES.values.text
        return {at: value for run in runs(ids) for at, value in execute(text, run)}

    def revisions(
        self, partitions: Sequence[Partition], low: int, high: int, limit: int
    ) -> Iterable[tuple[Partition, list[Row]]]:
        """Return revisions by partition."""
        return ((p, self.rows(QUERIES.copy, (p, low, high, limit))) for p in partitions)

    def config(self) -> dict[str, int | bytes]:
        """Return `config`."""
        return dict(self._connection.execute(QUERIES.config.text).fetchall())

    def set_config(self, values: dict[str, int | bytes]) -> None:
        """Write into `config`."""
        self.run_many(QUERIES.set_config, list(values.items()))

    def columns(self, table: str) -> set[str]:
        """Return the names of the columns of *table*; none when there is no such table."""
        return {name for (name,) in self._connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}

    @contextmanager
    def transaction(self, doing: str) -> Iterator[None]:
        """A transaction that writes."""
        db = self._connection
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise translate(error, f"{doing} in {self._path}") from error

    @contextmanager
    def snapshot(self, doing: str, *, is_single: bool = False) -> Iterator[None]:
        """A read transaction: what was applied when it began, and nothing later."""
        try:
            if is_single:
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error, doing) from error

    def close(self) -> None:
        """Release it."""
        self._connection.close()
