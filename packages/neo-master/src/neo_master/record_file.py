"""A file of framed records behind a magic: appended to, and now and then replaced as a whole. Errors are OSError."""

import os
from collections.abc import Iterable
from pathlib import Path

from neo_master.framing import framed


class RecordFile:
    """The file at *path*; `replace` comes before `append`."""

    def __init__(self, path: Path, magic: bytes) -> None:
        self.path = path
        self._magic = magic
        self._descriptor = -1
        self.size = 0
        """In bytes."""

    def read(self) -> bytes:
        """Return all of it, magic included; empty when there is no file."""
        return self.path.read_bytes() if self.path.exists() else b""

    def append(self, data: bytes, *, durable: bool) -> None:
        """Write framed records at the end, and flush them if *durable*."""
        _write_all(self._descriptor, data)
        if durable:
            os.fdatasync(self._descriptor)
        self.size += len(data)

    def replace(self, payloads: Iterable[bytes]) -> None:
        """Replace it by one with these records only, durably: after a crash there is one of the two."""
        beside = self.path.with_suffix(".new")
        data = self._magic + b"".join(map(framed, payloads))
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
            os.replace(beside, self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor, self.size = descriptor, len(data)

    def close(self) -> None:
        """Release it; harmless when done already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
