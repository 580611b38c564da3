"""Long reads: each call is one snapshot, on a connection that no other thread uses meanwhile."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from neo_common.errors import DataCorrupted
from neo_common.ids import MAX_OID, MAX_TID, NO_TID, Oid, Partition, Tid
from neo_common.wire.schema import (
    PIECE_BYTES,
    CellSize,
    Change,
    Compression,
    Data,
    Metadata,
    RangeDigest,
    Revision,
    Transaction,
    UndoInfo,
)
from neo_storage.backends import copying, iterating
from neo_storage.backends.base import Place, Stored
from neo_storage.backends.database import Database, Row
from neo_storage.backends.values import OVERHEAD, is_inline, value_of

_CURRENTS: Final = 200
"""Objects per statement."""
_NO_METADATA: Final = Metadata(b"", b"", b"")


class DatabaseReader:
    """`backends.base.RangeReader` on any database."""

    def __init__(self, db: Database) -> None:
        """Take over *db*."""
        self._db = db
        self._sql = db.statements
        self._pace = iterating.Pace()

    def current(self, partition: Partition, oid: Oid) -> Tid:
        """Return the serial of the last revision (a deletion counts), 0 if there is none."""
        if oid > MAX_OID:
            return NO_TID
        with self._db.snapshot("current serial", is_single=True):
            row = self._db.one(self._sql.current, (partition, oid))
        return Tid(row[0] or 0) if row else NO_TID

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """Return the last revision below *before*; its data is in pieces above PIECE_BYTES. None if there is none."""
        if oid > MAX_OID:
            return None
        with self._db.snapshot("load", is_single=True):
            row = self._db.one(self._sql.load, (partition, oid, min(before, MAX_TID)))
        return None if row is None else stored(oid, row)

    def currents(self, pairs: Sequence[tuple[Partition, Oid]]) -> dict[Oid, Tid]:
        """Return the serial of each object, in as few statements as may be."""
        found = dict.fromkeys((oid for _, oid in pairs), NO_TID)
        rows = [(oid, partition, oid) for partition, oid in pairs if oid <= MAX_OID]
        many = self._sql.currents
        with self._db.snapshot("current serials", is_single=len(rows) <= _CURRENTS):
            for begin in range(0, len(rows), _CURRENTS):
                some = rows[begin : begin + _CURRENTS]
                for oid, tid in self._db.rows_of_many(many, some):
                    found[Oid(oid)] = Tid(tid or 0)
        return found

    def history(self, partition: Partition, oid: Oid, limit: int) -> tuple[Change, ...]:
        """Return the last *limit* revisions, newest first."""
        if oid > MAX_OID:
            return ()
        with self._db.snapshot("history", is_single=True):
            rows = self._db.rows(self._sql.history, (partition, oid, limit))
        return tuple(
            Change(Tid(tid), size, _NO_METADATA if user is None else Metadata(user, description, extension))
            for tid, size, user, description, extension in rows
        )

    def transactions(
        self,
        partitions: Sequence[Partition],
        start: Tid,
        stop: Tid,
        *,
        descending: bool,
        revisions: bool,
        values: bool,
        limit: int,
        limit_bytes: int,
    ) -> tuple[tuple[Transaction, ...], Tid]:
        """Return transactions as AskTransactions says, and where to go on (0 at the end).

        The first one is complete whatever it weighs, but its values beyond *limit_bytes* are left out as if they were
        in pieces: `piece` has them. Revisions come by partition, then oid.
        """
        with self._db.snapshot("transactions"):
            return iterating.read(
                self._db,
                frozenset(partitions),
                start,
                min(stop, MAX_TID),
                descending=descending,
                revisions=revisions,
                values=values,
                limit=limit,
                limit_bytes=limit_bytes,
                pace=self._pace,
            )

    def copy(
        self, partition: Partition, start: Place, stop: Tid, *, values: bool, limit: int, limit_bytes: int
    ) -> tuple[tuple[Transaction, ...], Place | None]:
        """Return history from *start* on to all of tid *stop*, and where to go on (None at the end)."""
        with self._db.snapshot("copy"):
            return copying.copy(
                self._db, partition, start, min(stop, MAX_TID), values=values, limit=limit, limit_bytes=limit_bytes
            )

    def count(self, partition: Partition, start: Tid, stop: Tid) -> int:
        """Return how many revisions have tids from *start* to *stop*: a walk of an index, some 50 ns each."""
        with self._db.snapshot("count"):
            row = self._db.one(self._sql.count_range, (partition, start, min(stop, MAX_TID)))
        return 0 if row is None else int(row[0])

    def digest(self, partition: Partition, start: Tid, stop: Tid) -> RangeDigest:
        """Return the digest of these tids."""
        with self._db.snapshot("digest"):
            return copying.digest(self._db, partition, start, min(stop, MAX_TID))

    def digests(self, partition: Partition, start: Tid, stop: Tid, *, size: int, limit: int) -> tuple[RangeDigest, ...]:
        """Return digests of ranges that follow each other from *start* on."""
        with self._db.snapshot("digests"):
            return copying.digests(self._db, partition, start, min(stop, MAX_TID), size=size, limit=limit)

    def packed(self, partition: Partition) -> tuple[Tid, bool]:
        """Return to which tid the cell is, or is being, packed, and whether that is done."""
        with self._db.snapshot("packed"):
            row = self._db.one(self._sql.pack_cursor, (partition,))
        return (NO_TID, True) if row is None else (Tid(row[0]), row[1] is None)

    def records(
        self, partition: Partition, first: Oid, before: Tid, *, newer: bool, limit: int, limit_bytes: int
    ) -> tuple[tuple[Revision, ...], Oid | None]:
        """Return revisions as AskRecords says, and the first oid not looked at. Deletions are never among them."""
        if first > MAX_OID:
            return (), None
        kept: list[Row] = []
        room = limit_bytes
        with self._db.snapshot("records"):
            rows = self._db.scan(self._sql.records, first, MAX_OID, partition)
            for oid, group in groupby(rows, key=itemgetter(0)):
                wanted = _wanted(list(group), before, newer)
                used = sum(OVERHEAD + (row[-1] if row[-1] <= PIECE_BYTES else 0) for row in wanted)
                if kept and (len(kept) >= limit or used > room):
                    return self._revisions(kept), Oid(oid)
                room -= used
                kept += wanted
            return self._revisions(kept), None

    def undo(self, partition: Partition, oid: Oid, tid: Tid) -> UndoInfo | None:
        """Return what AskUndo wants of one object; None when it has no revision at *tid*."""
        if oid > MAX_OID:
            return None
        with self._db.snapshot("undo", is_single=True):
            copied: dict[int, int] = dict(self._db.rows(self._sql.undo_revisions, (partition, oid)))
        if tid not in copied:
            return None
        current = Tid(max(copied))
        previous = Tid(max((t for t in copied if t < tid), default=0))
        return UndoInfo(
            oid, current, _origin(copied, current), _origin(copied, tid), previous, _origin(copied, previous)
        )

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return at most PIECE_BYTES of a value, from *offset*, a multiple of that; None if there is nothing there.

        Values that are not in pieces have one, at 0.
        """
        if oid > MAX_OID or tid > MAX_TID or offset > MAX_TID or offset % PIECE_BYTES:
            return None
        with self._db.snapshot("piece", is_single=True):
            row = self._db.one(self._sql.piece, (partition, oid, tid, offset // PIECE_BYTES, offset))
        return None if row is None else bytes(row[0])

    def sizes(self, partitions: Sequence[Partition]) -> tuple[CellSize, ...]:
        """Return counts, one per partition: a scan of `obj`."""
        with self._db.snapshot("sizes"):
            return tuple(_size(self._db, partition) for partition in partitions)

    def close(self) -> None:
        """Release the connection."""
        self._db.close()

    def _revisions(self, rows: list[Row]) -> tuple[Revision, ...]:
        """Return rows of `records` with their values."""
        values = self._db.values([row[3] for row in rows if is_inline(row[3], row[6])])
        return tuple(
            Revision(
                Oid(oid),
                Tid(tid),
                Tid(copied),
                Data(Compression(compression), checksum, size, value_of(values, oid, tid, data_id, size)),
            )
            for oid, tid, copied, data_id, compression, checksum, size in rows
        )


def stored(oid: Oid, row: Row) -> Stored:
    """Return a row of `load`. Raises: DataCorrupted when its value is missing."""
    tid, end, compression, checksum, size, value = row
    if value is None:
        if compression != Compression.ABSENT and size <= PIECE_BYTES:
            raise DataCorrupted(f"there is no data for {oid:#x} at {tid:#x}")
        value = b""
    return Stored(tid, end or NO_TID, Data(Compression(compression), checksum, size, value))


def _wanted(group: list[Row], before: Tid, newer: bool) -> list[Row]:
    """Return of all revisions of an object, ascending, those that `records` gives."""
    below = [row for row in group if row[1] < before]
    wanted = below[-1:] + ([row for row in group if row[1] >= before] if newer else [])
    return [row for row in wanted if row[4] != Compression.ABSENT]


def _origin(copied: dict[int, int], tid: int) -> Tid:
    """Follow *copied* from *tid* to where the data was written first; also onto a revision that was packed away."""
    while 0 < copied.get(tid, 0) < tid:
        tid = copied[tid]
    return Tid(tid)


def _size(db: Database, partition: Partition) -> CellSize:
    row = db.one(db.statements.sizes, (partition,))
    transactions = db.one(db.statements.count_trans, (partition,))
    assert row is not None, "an aggregate has one row"
    assert transactions is not None, "an aggregate has one row"
    revisions, size, objects = row
    return CellSize(partition, objects, revisions, transactions[0], int(size))
