"""The disk of a master: a small journal of what it has promised and holds.

A record is the whole of `Kept`, with a checksum; the last one counts, those before are the history of the partition
table. A record that was being written when the power went is at the end and is dropped: nothing was said of it yet.
Damage anywhere else is an error: a master that has forgotten a promise must not go on as if it remembered.
"""

from collections import deque
from pathlib import Path
from typing import Final

from neo_common.errors import BackendError, DataCorrupted, RemoteProtocolError
from neo_common.runtime.exclusive import ExclusiveLock
from neo_common.wire.codec import decode, encode
from neo_master.core.effects import Kept
from neo_master.framing import Damage, framed, payloads
from neo_master.record_file import RecordFile

FORMAT: Final = 1
"""Version of the framing and of `Kept`. Who does not know it exactly reads nothing: there is no minimum reader."""
_NAME: Final = b"NEO-M\x00\x00"
_MAGIC: Final = _NAME + bytes((FORMAT,))
HISTORY_MAX: Final = 32
"""So many former partition tables are kept."""
_COMPACT_BYTES: Final = 2**20
"""The journal is written anew, with the history only, when it is larger than this and than twice what is kept."""


class Journal:
    """The journal in one directory, of which it is the only user."""

    def __init__(self, directory: Path) -> None:
        """Open or make it.

        Raises: DataCorrupted; BackendError when the directory cannot be used, or the journal is a newer NEO's.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BackendError(f"cannot make {directory}: {error}") from error
        self._lock = ExclusiveLock(directory / "lock", f"the directory of a master, {directory}")
        self._path = directory / "journal"
        self._history: deque[Kept] = deque(maxlen=HISTORY_MAX)
        self._file = RecordFile(self._path, _MAGIC)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def kept(self) -> Kept | None:
        """What was durable last; None for an empty disk."""
        return self._history[-1] if self._history else None

    @property
    def history(self) -> tuple[Kept, ...]:
        """The same with what was before, oldest first; of each partition table the last state."""
        return tuple(self._history)

    def write(self, kept: Kept) -> None:
        """Make *kept* durable. From any thread, one at a time. Raises: BackendError; the journal is unusable then."""
        try:
            self._note(kept)
            data = _record(kept)
            if self._file.size + len(data) > max(_COMPACT_BYTES, 2 * self._kept_bytes()):
                self._rewrite()
            else:
                self._file.append(data, durable=True)
        except OSError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        """Release everything; harmless when done already."""
        self._file.close()
        self._lock.release()

    def _open(self) -> None:
        try:
            data = self._file.read()
        except OSError as error:
            raise BackendError(f"cannot read {self._path}: {error}") from error
        for kept in _records(data, self._path):
            self._note(kept)
        try:
            self._rewrite()
        except OSError as error:
            raise BackendError(f"cannot write {self._path}: {error}") from error

    def _note(self, kept: Kept) -> None:
        if self._history and self._history[-1].register.table.version == kept.register.table.version:
            self._history.pop()
        self._history.append(kept)

    def _kept_bytes(self) -> int:
        return sum(len(_record(k)) for k in self._history)

    def _rewrite(self) -> None:
        """Replace the file by one with the history only."""
        self._file.replace(encode(k) for k in self._history)


def _record(kept: Kept) -> bytes:
    return framed(encode(kept))


def _records(data: bytes, path: Path) -> list[Kept]:
    """Return the records of a journal. Raises: DataCorrupted for damage that no crash explains."""
    remedy = "Move it away: the master begins with an empty disk, and counts again once every master was there"
    if not data:
        return []
    if data.startswith(_NAME) and data[len(_NAME) : len(_MAGIC)] > _MAGIC[-1:]:
        raise BackendError(
            f"{path} has format {data[len(_NAME)]}, this program reads {FORMAT}: install the NEO that wrote it, or a"
            " newer one"
        )
    if not data.startswith(_MAGIC):
        raise DataCorrupted(f"{path} is not the journal of a master. {remedy}")
    found: list[Kept] = []
    try:
        for offset, payload in payloads(data, len(_MAGIC)):
            try:
                found.append(decode(Kept, payload))
            except RemoteProtocolError as error:
                raise DataCorrupted(f"{path} cannot be understood at byte {offset}: {error}. {remedy}") from error
    except Damage as damage:
        raise DataCorrupted(f"{path} is {damage}. {remedy}") from damage
    return found
