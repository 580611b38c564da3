"""Opening SQLite as we need it, and what its errors mean to us."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from neo_common.errors import BackendError, DataCorrupted, DiskFull
from neo_storage.backends.sqlite.schema import COMMON_SETTINGS

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
