"""Values of one large transaction, kept until it ends: in memory up to a limit, in a temporary file above."""

import os
import tempfile
from typing import IO, Final

MEMORY_BYTES: Final = 32 * 2**20


class Spool:
    """Append, and read back at any place, from any thread."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._file: IO[bytes] | None = None
        self._file_bytes = 0
        self._places: dict[int, tuple[int, int]] = {}
        self._next = 0

    def add(self, value: bytes) -> int:
        """Keep *value*; return the number to read it with."""
        number, self._next = self._next, self._next + 1
        if self._kept_bytes + len(value) <= self._memory_bytes:
            self._kept[number] = value
            self._kept_bytes += len(value)
            return number
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="neo-client-", buffering=0)  # noqa: SIM115 - until `close`
        view, offset = memoryview(value), self._file_bytes
        while view:
            written = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[written:], offset + written
        self._places[number] = self._file_bytes, len(value)
        self._file_bytes = offset
        return number

    def read(self, number: int, start: int = 0, size: int | None = None) -> bytes:
        """Return (part of) the value *number*."""
        kept = self._kept.get(number)
        if kept is not None:
            return kept if start == 0 and size is None else kept[start : len(kept) if size is None else start + size]
        place, length = self._places[number]
        end = length if size is None else min(length, start + size)
        assert self._file is not None
        parts = []
        while start < end:
            part = os.pread(self._file.fileno(), end - start, place + start)
            if not part:
                raise OSError(f"the temporary file of a transaction ends at {place + start}")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def drop(self, number: int) -> None:
        """Forget a value; room in the file is not used again."""
        value = self._kept.pop(number, None)
        if value is not None:
            self._kept_bytes -= len(value)
        self._places.pop(number, None)

    def close(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._places.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
