"""The notes of a master: pages of what is settled, in a file of their own, flushed only when it is written anew.

A crash of the process loses nothing, a power cut the last seconds: other masters have them, and nothing rests on them.
So whatever cannot be read ends the file for us, and is dropped; the journal, which is flushed, is not so lenient.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from neo_common.errors import BackendError, RemoteProtocolError
from neo_common.wire.codec import decode, encode
from neo_common.wire.schema import Page
from neo_master.core.holding import Holding
from neo_master.framing import Damage, framed, payloads

FORMAT: Final = 1
"""Version of the framing and of `Page`."""
_NAME: Final = b"NEO-S\x00\x00"
_MAGIC: Final = _NAME + bytes((FORMAT,))
_COMPACT_BYTES: Final = 4 * 2**20
"""The file is written anew, with what is held, when it is larger than this."""


class Notes:
    """The notes in the directory of a master, whose journal is locked."""

    def __init__(self, directory: Path) -> None:
        """Read what is there, and begin the file anew.

        Raises: BackendError when it cannot be read or written, or is a newer NEO's.
        """
        self._path = directory / "settled"
        self._descriptor = -1
        self.dropped = 0
        """Bytes at the end that could not be read."""
        self._written = Holding()
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
            self._read(data)
            self._rewrite()
        except OSError as error:
            raise BackendError(f"cannot use {self._path}: {error}") from error

    def holding(self) -> Holding:
        """Return what was noted."""
        found = Holding()
        for page in self._written.pages():
            found.take(page)
        return found

    def write(self, pages: Sequence[Page]) -> None:
        """Note *pages*. From any thread, one at a time. Raises: BackendError; the notes are unusable then."""
        try:
            for page in pages:
                self._written.take(page)
            data = b"".join(framed(encode(page)) for page in pages)
            if self._size + len(data) > _COMPACT_BYTES:
                self._rewrite()
            else:
                _write_all(self._descriptor, data)
                self._size += len(data)
        except OSError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        """Release the file; harmless when done already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, data: bytes) -> None:
        if data.startswith(_NAME) and data[len(_NAME) : len(_MAGIC)] > _MAGIC[-1:]:
            raise BackendError(
                f"{self._path} has format {data[len(_NAME)]}, this program reads {FORMAT}: install the NEO that wrote"
                " it, or a newer one; or move it away: it is not needed"
            )
        end = len(_MAGIC) if data.startswith(_MAGIC) else 0
        try:
            for offset, payload in payloads(data, end) if end else ():
                self._written.take(decode(Page, payload))
                end = offset + len(framed(payload))
        except (Damage, RemoteProtocolError):
            pass
        self.dropped = len(data) - end

    def _rewrite(self) -> None:
        """Replace the file by one with what is held only."""
        beside = self._path.with_suffix(".new")
        data = _MAGIC + b"".join(framed(encode(page)) for page in self._written.pages())
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
            os.replace(beside, self._path)
        except BaseException:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor, self._size = descriptor, len(data)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
