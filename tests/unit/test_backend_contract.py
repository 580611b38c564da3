"""Every back end, and the one in memory that simulations use, passes one suite."""

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from sqlite3 import connect
from typing import Any, ClassVar

import pytest

from neo_storage.backends.base import Backend
from neo_storage.backends.sqlite.backend import SqliteBackend
from support.backend_contract import BackendContract, Backends
from support.memory_backend import MemoryBackend
from support.sql_lint import unbound


class Listening(sqlite3.Connection):
    """A connection that keeps the texts of statements."""

    said: ClassVar[set[str]] = set()

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        self.said.add(sql)
        return super().execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        self.said.add(sql)
        return super().executemany(sql, *arguments)


class TestSqlite(BackendContract):
    """SQLite, in a file."""

    @pytest.fixture(autouse=True)
    def said(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Whatever a test does, its values are bound."""
        monkeypatch.setattr(
            "neo_storage.backends.sqlite.connection.sqlite3.connect", partial(connect, factory=Listening)
        )
        Listening.said.clear()
        yield
        assert Listening.said
        assert [text for text in Listening.said if unbound(text)] == []

    @pytest.fixture
    def backends(self, tmp_path: Path) -> Iterator[Backends]:
        made: list[tuple[Backend, Path]] = []

        def at(path: Path) -> Backend:
            made.append((SqliteBackend(path, wal_bytes=0), path))
            return made[-1][0]

        def new() -> Backend:
            return at(tmp_path / f"data{len(made)}.sqlite")

        def reopen(backend: Backend) -> Backend:
            backend.close()
            return at(next(path for b, path in made if b is backend))

        yield Backends(new, reopen)
        for backend, _ in made:
            backend.close()


class TestMemory(BackendContract):
    """Dictionaries: what simulations use. It lives as long as the object."""

    @pytest.fixture
    def backends(self) -> Backends:
        def reopen(backend: Backend) -> Backend:
            backend.close()
            return backend

        return Backends(MemoryBackend, reopen)
