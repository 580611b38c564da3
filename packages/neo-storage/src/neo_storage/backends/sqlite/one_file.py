"""One storage per database file, by whatever name it is reached.

The lock on `<name>.lock` guards a name. Hard links and mounts of single files give a file other names, in other
folders: each with a lock file, and a write-ahead log, of its own. So the file itself is locked too.
"""

import fcntl
import os
import struct
from errno import EACCES, EAGAIN
from pathlib import Path
from typing import Final

from neo_common.errors import BackendError

_FLOCK: Final = struct.Struct("hhqqi4x")
"""`struct flock` of 64-bit systems: type, whence, start, length, process."""
_SET: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
_BYTE: Final = 2**62
"""Far above the bytes that SQLite locks, at 1 GB."""


class OneFile:
    """The lock on a database file, which is made if it is not there. Held until `release`.

    Of the open file, not of the process (F_OFD_SETLK): closing any other descriptor does not drop it. Closing this one
    drops the locks that SQLite has on the file in this process, so it is the last.
    """

    def __init__(self, path: Path) -> None:
        """Raises: BackendError when another storage has the file, or it has several names, or cannot be opened."""
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BackendError(f"cannot open {path}: {error}") from error
        try:
            if _SET is not None and not _take(self._descriptor, _SET):
                raise BackendError(
                    f"database {path} is in use by another storage, by another name of the same file (a hard link, a"
                    " mount): give each storage a file of its own"
                )
            names = os.fstat(self._descriptor).st_nlink
            if names > 1:
                raise BackendError(
                    f"database {path} has {names} names (hard links; `find -samefile` finds them). SQLite keeps what is"
                    " newest in a file beside the name by which it was opened, so by another name the database is"
                    " damaged: remove the others. A copy is made by `cp`, while the storage is stopped"
                )
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let it go; harmless when done already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _take(descriptor: int, command: int) -> bool:
    """Return whether nobody else has the lock. Where such locks are not to be had, nobody has."""
    try:
        fcntl.fcntl(descriptor, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0))
    except OSError as error:
        return error.errno not in (EACCES, EAGAIN)
    return True
