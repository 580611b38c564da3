"""One process per directory: a lock that the kernel lets go when its owner dies."""

import fcntl
import os
from pathlib import Path

from neo_common.errors import BackendError


class ExclusiveLock:
    """An advisory lock on a file of its own, held until `release` or the end of the process.

    A separate file, because closing any descriptor of a database file would drop SQLite's own locks on it.
    The file stays: removing it would let two processes lock two files of the same name.
    """

    def __init__(self, path: Path, what: str) -> None:
        """Take the lock. `what` is guarded, in words, for the error.

        Raises: BackendError when another process, or this one, holds it (the text has the holder's process id), or
        when the file cannot be made.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BackendError(f"cannot lock {what}: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            text = f"{what} is in use by process {holder} ({path} is locked): stop that one first"
            raise BackendError(text) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let it go; harmless when done already."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
