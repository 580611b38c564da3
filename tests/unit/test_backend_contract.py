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
