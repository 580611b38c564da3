"""The back end of the simulator keeps the contract that the real ones keep."""

import pytest

from neo_storage.backends.base import Backend
from support.backend_contract import BackendContract, Backends
from support.memory_backend import MemoryBackend


class TestMemory(BackendContract):
    """Dictionaries."""

    @pytest.fixture
    def backends(self) -> Backends:
        def reopen(backend: Backend) -> Backend:
            assert isinstance(backend, MemoryBackend)
            again = MemoryBackend()
            again.restore(backend.snapshot())
            return again

        return Backends(MemoryBackend, reopen)
