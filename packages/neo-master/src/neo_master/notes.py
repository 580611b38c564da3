"""The notes of a master: pages of what is settled, in a file of their own, flushed only when it is written anew.

A crash of the process loses nothing, a power cut the last seconds: other masters have them, and nothing rests on them.
So whatever cannot be read ends the file for us, and is dropped; the journal, which is flushed, is not so lenient.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from neo_common.errors import BackendError, RemoteProtocolError
from neo_common.wire.codec import decode, encode
from neo_common.wire.schema import Page
from neo_master.core.holding import Holding
from neo_master.framing import Damage, framed, payloads
from neo_master.record_file import RecordFile

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
        self._file = RecordFile(self._path, _MAGIC)
        self.dropped = 0
        """Bytes at the end that could not be read."""
        self._written = Holding()
        try:
            self._read(self._file.read())
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
            if self._file.size + len(data) > _COMPACT_BYTES:
                self._rewrite()
            else:
                self._file.append(data, durable=False)
        except OSError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        """Release the file; harmless when done already."""
        self._file.close()

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
        self._file.replace(encode(page) for page in self._written.pages())
