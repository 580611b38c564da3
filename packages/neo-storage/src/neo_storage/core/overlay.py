"""Committed revisions that the back end may not have yet: read first, dropped when it has them. Pure."""

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from neo_common.ids import NO_TID, Oid, Partition, Tid
from neo_common.wire.schema import PIECE_BYTES, Data, Write
from neo_storage.backends.base import ApplyClear, ApplyCommit, ApplyTruncate, Op, Stored
from neo_storage.core.serials import SerialCache
from neo_storage.core.tentative import PiecesOf

REVISION_BYTES: Final = 400
"""What a revision takes in memory besides its value, about."""


class _Revision(NamedTuple):
    tid: Tid
    write: Write
    op: ApplyCommit
    position: int


class Overlay:
    """Revisions by object, ascending by tid, with the log position whose Apply brings them to the back end.

    An object's revisions here are newer than all that the back end has of it, or the same: the applier works in order,
    and a revision leaves only after it can be read there.
    """

    def __init__(self) -> None:
        self._objects: dict[Oid, list[_Revision]] = {}
        self._queue: deque[tuple[int, Oid, Tid, int]] = deque()
        self._partition: dict[Oid, Partition] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def take(self, position: int, op: Op) -> None:
        """Note what *op*, of the record at *position*, changes."""
        match op:
            case ApplyCommit(partitions=partitions):
                for partition, writes in partitions:
                    for write in writes:
                        self._add(partition, _Revision(op.tid, write, op, position))
            case ApplyClear(partition):
                for oid in [o for o, p in self._partition.items() if p == partition]:
                    self._objects.pop(oid)
                    del self._partition[oid]
            case ApplyTruncate(keep):
                for oid, revisions in list(self._objects.items()):
                    kept = [r for r in revisions if r.tid <= keep]
                    if kept:
                        self._objects[oid] = kept
                    else:
                        del self._objects[oid]
                        del self._partition[oid]
            case _:
                pass

    def applied(self, position: int, serials: SerialCache | None = None) -> None:
        """Let go of what the back end has, now that everything up to *position* can be read there; note it."""
        while self._queue and self._queue[0][0] <= position:
            _, oid, tid, size = self._queue.popleft()
            self.bytes -= size
            revisions = self._objects.get(oid)
            if serials is not None:
                serials.note(oid, tid, next((r.write.data for r in revisions or () if r.tid == tid), None))
            if revisions and revisions[0].position <= position:
                kept = [r for r in revisions if r.position > position]
                if kept:
                    self._objects[oid] = kept
                else:
                    del self._objects[oid]
                    del self._partition[oid]

    def current(self, oid: Oid) -> Tid | None:
        """Return the serial of the last revision, None if the back end knows."""
        revisions = self._objects.get(oid)
        return revisions[-1].tid if revisions else None

    def load(self, oid: Oid, before: Tid) -> tuple[Stored | None, Tid]:
        """Return the last revision below *before* (None: ask the back end) and the tid of the next one (0: none here).

        A value that rests in the log is read from there, if it is not in pieces.
        """
        found: Stored | None = None
        for revision in self._objects.get(oid, ()):
            if revision.tid >= before:
                return (found and found._replace(end=revision.tid)), revision.tid
            found = Stored(revision.tid, NO_TID, _data(revision))
        return found, NO_TID

    def piece(self, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return the piece at *offset* of that revision; None if it is not here."""
        for revision in self._objects.get(oid, ()):
            data = revision.write.data
            if revision.tid == tid and offset % PIECE_BYTES == 0 and offset < data.size:
                if data.value:
                    return data.value[offset : offset + PIECE_BYTES]
                pieces = revision.op.pieces
                if isinstance(pieces, PiecesOf):  # reading those before it, for each, would take the square of the size
                    return pieces.at(oid, offset)
                return next(islice(pieces(oid), offset // PIECE_BYTES, None), None)
        return None

    def _add(self, partition: Partition, revision: _Revision) -> None:
        oid = revision.write.oid
        size = REVISION_BYTES + len(revision.write.data.value)
        revisions = self._objects.get(oid)
        if revisions is None:
            self._objects[oid] = [revision]
            self._partition[oid] = partition
        elif any(r.tid == revision.tid for r in revisions):
            return
        else:
            revisions.append(revision)
            revisions.sort(key=lambda r: r.tid)
        self._queue.append((revision.position, oid, revision.tid, size))
        self.bytes += size


def _data(revision: _Revision) -> Data:
    data = revision.write.data
    if data.size and not data.value and data.size <= PIECE_BYTES:
        return data._replace(value=b"".join(revision.op.pieces(revision.write.oid)))
    return data
