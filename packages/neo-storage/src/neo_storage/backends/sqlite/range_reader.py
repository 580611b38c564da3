"""Long reads: each call is one snapshot, on a connection that no other thread uses meanwhile."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from neo_common.ids import MAX_OID, MAX_TID, NO_TID, Oid, Partition, Session, Tid, Ttid
from neo_common.wire.schema import (
    PIECE_BYTES,
    CellSize,
    Change,
    Compression,
    Data,
    Metadata,
    Revision,
    Transaction,
    UndoInfo,
)
from neo_storage.backends.sqlite import queries
from neo_storage.backends.sqlite.codec import unpack_parts
from neo_storage.backends.sqlite.connection import connect, translate

_OVERHEAD: Final = 64
"""About what a revision, or a transaction, takes in an answer beside its values, in bytes."""
_Row = tuple[int, int, int, int | None, int, bytes, int]
"""A row of queries.RECORDS: oid, tid, copied from, data id, compression, checksum, size."""
_NO_METADATA: Final = Metadata(b"", b"", b"")


class SqliteRangeReader:
    """`backends.base.RangeReader` on SQLite."""

    def __init__(self, path: Path, cache_bytes: int) -> None:
        self._connection = connect(path, cache_bytes=cache_bytes, read_only=True)

    @contextmanager
    def _snapshot(self, doing: str) -> Iterator[sqlite3.Connection]:
        """A read transaction: what was applied when it began, and nothing later."""
        try:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error, doing) from error

    def history(self, partition: Partition, oid: Oid, limit: int) -> tuple[Change, ...]:
        """Return the last *limit* revisions, newest first."""
        if oid > MAX_OID:
            return ()
        with self._snapshot("history") as db:
            rows = db.execute(queries.HISTORY, (partition, oid, limit)).fetchall()
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
        wanted = frozenset(partitions)
        found: list[Transaction] = []
        room = limit_bytes
        with self._snapshot("transactions") as db:
            for tid, touched in _by_tid(db, wanted, start, min(stop, MAX_TID), descending):
                if len(found) >= limit or (found and room <= 0):
                    return tuple(found), Tid(tid)
                read = _transaction(db, Tid(tid), touched, revisions, values, room, must=not found)
                if read is None:
                    return tuple(found), Tid(tid)
                found.append(read[0])
                room -= read[1]
        return tuple(found), NO_TID

    def records(
        self, partition: Partition, first: Oid, before: Tid, *, newer: bool, limit: int, limit_bytes: int
    ) -> tuple[tuple[Revision, ...], Oid | None]:
        """Return revisions as AskRecords says, and the first oid not looked at. Deletions are never among them."""
        if first > MAX_OID:
            return (), None
        found: list[Revision] = []
        room = limit_bytes
        with self._snapshot("records") as db:
            rows = db.execute(queries.RECORDS, (partition, first))
            for oid, group in groupby(rows, key=itemgetter(0)):
                wanted = _wanted(list(group), before, newer)
                used = sum(_OVERHEAD + (row[-1] if row[-1] <= PIECE_BYTES else 0) for row in wanted)
                if found and (len(found) >= limit or used > room):
                    rows.close()
                    return tuple(found), Oid(oid)
                room -= used
                for _, tid, copied, data_id, compression, checksum, size in wanted:
                    value = _value(db, data_id, size, PIECE_BYTES)
                    data = Data(Compression(compression), checksum, size, value)
                    found.append(Revision(Oid(oid), Tid(tid), Tid(copied), data))
        return tuple(found), None

    def undo(self, partition: Partition, oid: Oid, tid: Tid) -> UndoInfo | None:
        """Return what AskUndo wants of one object; None when it has no revision at *tid*."""
        if oid > MAX_OID:
            return None
        with self._snapshot("undo") as db:
            copied = dict(db.execute(queries.UNDO_REVISIONS, (partition, oid)).fetchall())
        if tid not in copied:
            return None
        current = Tid(max(copied))
        previous = Tid(max((t for t in copied if t < tid), default=0))
        return UndoInfo(
            oid, current, _origin(copied, current), _origin(copied, tid), previous, _origin(copied, previous)
        )

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return a piece of a value, as `SqliteBackend.piece`."""
        with self._snapshot("piece") as db:
            row = db.execute(queries.PIECE, (partition, oid, tid, offset)).fetchone()
        return None if row is None else bytes(row[0])

    def sizes(self, partitions: Sequence[Partition]) -> tuple[CellSize, ...]:
        """Return counts, one per partition: a scan of `obj`, some 0.4 us per revision."""
        with self._snapshot("sizes") as db:
            return tuple(_size(db, partition) for partition in partitions)

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()


def _by_tid(
    db: sqlite3.Connection, wanted: frozenset[Partition], start: Tid, stop: Tid, descending: bool
) -> Iterator[tuple[int, list[Partition]]]:
    """Yield (tid, the partitions among *wanted* that it touches, ascending)."""
    if len(wanted) == 1:
        sql = queries.TRANS_ONE_DOWN if descending else queries.TRANS_ONE_UP
        rows = db.execute(sql, (start, stop, *wanted))
    else:
        rows = db.execute(queries.TRANS_DOWN if descending else queries.TRANS_UP, (start, stop))
    last, touched = 0, list[Partition]()
    for tid, partition in rows:
        if partition in wanted:
            if tid != last and touched:
                yield last, sorted(touched)
                touched = []
            last = tid
            touched.append(partition)
    if touched:
        yield last, sorted(touched)


def _transaction(
    db: sqlite3.Connection, tid: Tid, touched: list[Partition], revisions: bool, values: bool, room: int, must: bool
) -> tuple[Transaction, int] | None:
    """Return the transaction and the bytes that it takes; None when they are more than *room*, unless it *must*."""
    session, counter, *metadata, parts = db.execute(queries.TRANS, (touched[0], tid)).fetchone()
    used = _OVERHEAD + sum(map(len, metadata))
    rows = [(p, *row) for p in touched for row in db.execute(queries.REVISIONS, (p, tid))] if revisions else []
    used += _OVERHEAD * len(rows)
    found = list[Revision]()
    if values and not must and used + sum(row[-1] for row in rows if row[-1] <= PIECE_BYTES) > room:
        return None
    for _, oid, copied, data_id, compression, checksum, size in rows:
        data = None
        if values:
            value = _value(db, data_id, size, room - used)
            used += len(value)
            data = Data(Compression(compression), checksum, size, value)
        found.append(Revision(Oid(oid), tid, Tid(copied), data))
    ttid = Ttid(Session(session), counter)
    return Transaction(tid, ttid, Metadata(*metadata), unpack_parts(parts), tuple(found)), used


def _value(db: sqlite3.Connection, data_id: int | None, size: int, room: int) -> bytes:
    """Return the stored bytes; none when absent, in pieces, or larger than *room*."""
    if data_id is None or size > PIECE_BYTES or size > max(room, 0):
        return b""
    value: bytes = db.execute(queries.VALUE, (data_id,)).fetchone()[0]
    return value


def _wanted(group: list[_Row], before: Tid, newer: bool) -> list[_Row]:
    """Return of all revisions of an object, ascending, those that `records` gives."""
    below = [row for row in group if row[1] < before]
    wanted = below[-1:] + ([row for row in group if row[1] >= before] if newer else [])
    return [row for row in wanted if row[4] != Compression.ABSENT]


def _origin(copied: dict[int, int], tid: int) -> Tid:
    """Follow *copied* from *tid* to where the data was written first; also onto a revision that was packed away."""
    while 0 < copied.get(tid, 0) < tid:
        tid = copied[tid]
    return Tid(tid)


def _size(db: sqlite3.Connection, partition: Partition) -> CellSize:
    _, revisions, size, objects = db.execute(queries.SIZES, (partition,)).fetchone()
    transactions = db.execute(queries.COUNT_TRANS, (partition,)).fetchone()[0]
    return CellSize(partition, objects, revisions, transactions, size)
