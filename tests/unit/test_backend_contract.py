"""Every back end, and the one in memory that simulations use, passes one suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from neo_storage.backends.base import Backend
from neo_storage.backends.sqlite.backend import SqliteBackend
from support.backend_contract import BackendContract, Backends
from support.memory_backend import MemoryBackend


class TestSqlite(BackendContract):
    """SQLite, in a file."""

    @pytest.fixture
    def backends(self, tmp_path: Path) -> Iterator[Backends]:
        made: list[Backend] = []

        def new() -> Backend:
            made.append(SqliteBackend(tmp_path / "data.sqlite", wal_bytes=0))
            return made[-1]

        def reopen(backend: Backend) -> Backend:
            backend.close()
            return new()

        yield Backends(new, reopen)
        for backend in made:
            backend.close()


class TestMemory(BackendContract):
    """Dictionaries: what simulations use. It lives as long as the object."""

    @pytest.fixture
    def backends(self) -> Backends:
        def reopen(backend: Backend) -> Backend:
            backend.close()
            return backend

        return Backends(MemoryBackend, reopen)
