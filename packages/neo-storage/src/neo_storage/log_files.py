"""The few things that the vote log asks of the operating system: a seam for tests that lose what was not flushed."""

import os
from pathlib import Path
from typing import Final, Protocol

_CHUNK: Final = bytes(2**20)


class LogFiles(Protocol):
    """Files of one directory, by name. Errors are OSError."""

    def names(self) -> list[str]:
        """Return the names of the files there are."""

    def create(self, name: str, size: int) -> int:
        """Make a file of *size* zeros, durably, blocks and name included; return a descriptor."""

    def open(self, name: str) -> int:
        """Return a descriptor for reading and writing."""

    def size(self, descriptor: int) -> int:
        """Return the size of a file in bytes."""

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Return what stands at *offset*; less than *size* only at the end."""

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of *data*; it survives the process at once, a power cut after `sync`."""

    def sync(self, descriptor: int) -> None:
        """Make the contents of a file durable."""

    def close(self, descriptor: int) -> None:
        """Release a descriptor."""

    def remove(self, name: str) -> None:
        """Remove a file."""


class OsLogFiles:
    """The real ones."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        """Return the names of the files there are; make the directory if it is missing."""
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True)
            self._sync_directory(self._directory.parent)
        return sorted(entry.name for entry in os.scandir(self._directory) if entry.is_file())

    def create(self, name: str, size: int) -> int:
        """Make a file of *size* zeros, durably, blocks and name included; return a descriptor.

        Written, not only allocated: the first write to an allocated block changes metadata, which doubles a flush.
        """
        path = self._directory / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, size)
            for offset in range(0, size, len(_CHUNK)):
                self.write(descriptor, _CHUNK[: size - offset], offset)
            os.fsync(descriptor)
            self._sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        return descriptor

    def open(self, name: str) -> int:
        """Return a descriptor for reading and writing."""
        return os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)

    def size(self, descriptor: int) -> int:
        """Return the size of a file in bytes."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Return what stands at *offset*; less than *size* only at the end."""
        data = os.pread(descriptor, size, offset)
        while 0 < len(data) < size:
            more = os.pread(descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of *data*; it survives the process at once, a power cut after `sync`."""
        written = os.pwrite(descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)

    def sync(self, descriptor: int) -> None:
        """Make the contents of a file durable."""
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        """Release a descriptor."""
        os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._directory / name).unlink()

    @staticmethod
    def _sync_directory(directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
