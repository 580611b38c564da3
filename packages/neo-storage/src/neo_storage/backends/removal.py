"""Taking revisions out, with their values, and with the transactions of which nothing is left."""

from collections.abc import Iterable, Sequence
from itertools import islice

from neo_common.ids import MAX_OID, MAX_TID, Oid, Partition, Tid
from neo_common.wire.schema import PIECE_BYTES, Compression
from neo_storage.backends.base import ApplyClear, ApplyCollect, ApplyTruncate, Op, PackStep, Place
from neo_storage.backends.codec import pack_parts
from neo_storage.backends.database import Database, Row
from neo_storage.backends.kept import doomed_in
from neo_storage.backends.walk import rows_from

SLICE_ROWS = 1000
"""Rows that a removal takes in one transaction, about."""

Found = tuple[int, int, int | None, int]
"""A revision to remove: oid, tid, first data id (None if absent), size."""


def pieces_of(size: int) -> int:
    """Return how many rows of `data` a value of *size* bytes takes."""
    return max(1, -(-size // PIECE_BYTES))


def drop_data(db: Database, found: Iterable[tuple[int, int]]) -> None:
    """Remove the values that begin at these (first, size)."""
    ids = [(at,) for first, size in found for at in range(first, first + pieces_of(size))]
    db.run_many(db.statements.drop_data, ids)


def drop_revisions(db: Database, partition: Partition, found: Sequence[Found] | Sequence[Row]) -> None:
    """Remove these revisions of *partition*, and the transactions of it that are empty then."""
    db.run_many(db.statements.drop_obj, [(partition, oid, tid) for oid, tid, *_ in found])
    drop_data(db, [(first, size) for _, _, first, size in found if first is not None])
    tids = sorted({tid for _, tid, *_ in found})
    db.run_many(db.statements.drop_empty_trans, [(partition, tid) for tid in tids])


def remove_in_slices(db: Database, ops: Sequence[Op], partitions: int) -> Sequence[Op]:
    """Do the REMOVALS that *ops* begin with, up to a last slice; return what is left to be written.

    A transaction has SLICE_ROWS rows of `obj` and of `data`, or one revision. Until `position` is written none of it
    counts as done, and doing it again removes what is left. *partitions*: of the table before *ops*.
    """
    at = 0
    while at < len(ops):
        match ops[at]:
            case ApplyClear(partition, keep):
                _clear(db, partition, keep, SLICE_ROWS)
                _clear_empty(db, partition, keep, SLICE_ROWS)
            case ApplyTruncate(keep):
                for number in range(partitions):
                    _clear(db, Partition(number), keep, SLICE_ROWS // partitions)
                    _clear_empty(db, Partition(number), keep, SLICE_ROWS // partitions)
            case ApplyCollect(tid, oids):
                _collect(db, partitions, tid, oids)
            case _:
                break
        at += 1
    # Of a clear and a truncation a little is left, and more than revisions goes with them.
    return [op for op in ops[:at] if not isinstance(op, ApplyCollect)] + list(ops[at:])


def _clear(db: Database, partition: Partition, keep: Tid, rest: int) -> None:
    """Remove the revisions of *partition* above *keep*, but for at most *rest* of them.

    Each walk begins where the last one ended: MariaDB meets what was just removed for a while, and would do so again
    for every slice.
    """
    start = Place(Tid(keep + 1), Oid(0))
    while True:
        with db.transaction("removal"):
            walked = rows_from(db, partition, start, MAX_TID, SLICE_ROWS + 1)
            rows = [(oid, tid, first, size) for tid, oid, _, first, _, _, size in walked]
            found = _within(rows, SLICE_ROWS)
            if len(rows) <= rest and len(found) == len(rows):
                return
            drop_revisions(db, partition, found)
            oid, tid, *_ = found[-1]
            start = Place(Tid(tid), Oid(oid + 1)) if oid < MAX_OID else Place(Tid(tid + 1), Oid(0))


def _clear_empty(db: Database, partition: Partition, keep: Tid, rest: int) -> None:
    """Remove the transactions of *partition* above *keep* that have no revisions, but for at most *rest* of them.

    With revisions there are no more than `_clear` has left. This walk, too, begins where its last slice ended.
    """
    start = Tid(keep + 1)
    while True:
        with db.transaction("removal"):
            rows = db.rows(db.statements.trans_tids, (partition, start, MAX_TID, SLICE_ROWS + 1))
            if len(rows) <= rest:
                return
            tids = [tid for (tid,) in rows[:SLICE_ROWS]]
            db.run_many(db.statements.drop_empty_trans, [(partition, tid) for tid in tids])
            start = Tid(tids[-1] + 1)


def _collect(db: Database, partitions: int, tid: Tid, oids: Sequence[Oid]) -> None:
    """Remove every revision of these objects if none is above *tid*.

    Of each the oldest first: so it goes on where it was interrupted.
    """
    assert partitions, "objects are collected in a cluster that has a table"
    at = 0
    while at < len(oids):
        with db.transaction("removal"):
            room = SLICE_ROWS
            while at < len(oids) and room > 0:
                partition = Partition(oids[at] % partitions)
                found = collectable(db, partition, oids[at], tid)
                part = _within(found, room)
                drop_revisions(db, partition, part)
                room -= 1 + sum(pieces_of(size) for *_, size in part)
                if len(part) == len(found):
                    at += 1


def _within(found: Sequence[Row], rows: int) -> Sequence[Row]:
    """Return as many of *found* (oid, tid, data id, size) as have so many values and pieces, but one at least."""
    for count, (*_, size) in enumerate(found):
        rows -= pieces_of(size)
        if rows < 0 and count:
            return found[:count]
    return found


def pack_slice(db: Database, partition: Partition, tid: Tid, limit: int) -> PackStep:
    """Pack the objects of *partition* to *tid*, from where the last slice ended, about *limit* revisions.

    Of each object goes what is older than its last revision at or below *tid*; that one too, if it is a deletion and
    nothing is newer. An order to another tid begins anew. Source: the history that ZODB's pack keeps.
    """
    cursor = db.one(db.statements.pack_cursor, (partition,))
    first = 0
    if cursor is not None and cursor[0] == tid:
        if cursor[1] is None:
            return PackStep(True, 0, 0)
        first = cursor[1]
    doomed: list[Found] = []
    next_oid: int | None = None
    group: list[Row] = []
    rows = db.scan(db.statements.pack_scan, first, MAX_OID, partition)
    for looked_at, row in enumerate(rows):
        if group and row[0] != group[0][0]:
            doomed += _doomed(group, tid)
            group.clear()
            if looked_at >= limit:
                next_oid = row[0]
                break
        group.append(row)
    else:
        doomed += _doomed(group, tid)
    drop_revisions(db, partition, doomed)
    db.run_many(db.statements.set_pack, [(partition, tid, next_oid)])
    return PackStep(next_oid is None, len(doomed), sum(size for *_, size in doomed))


def erase_slice(db: Database, partition: Partition, limit: int) -> bool:
    """Erase about *limit* revisions of a doomed cell, or so many transactions when no revisions are left.

    Return whether it is done. Its last slice ends its doom.
    """
    doomed = doomed_in(db.config())
    if partition not in doomed:
        return True
    rows = islice(db.scan(db.statements.pack_scan, 0, MAX_OID, partition), limit)
    found = [(oid, tid, first, size) for oid, tid, _, first, size in rows]
    drop_revisions(db, partition, found)
    if len(found) == limit:
        return False
    empty = db.rows(db.statements.trans_tids, (partition, 0, MAX_TID, limit))  # what had no revisions here
    db.run_many(db.statements.drop_trans, [(partition, tid) for (tid,) in empty])
    if len(empty) == limit:
        return False
    db.set_config({"doomed": pack_parts([p for p in doomed if p != partition])})
    return True


def _doomed(revisions: list[Row], tid: Tid) -> list[Found]:
    """Return which of an object's revisions (oid, tid, compression, data id, size; ascending) a pack removes."""
    old = [r for r in revisions if r[1] <= tid]
    if not old:
        return []
    kept = old[-1]
    if kept[2] != Compression.ABSENT or len(old) != len(revisions):
        old.pop()
    return [(oid, at, first, size) for oid, at, _, first, size in old]


def collectable(db: Database, partition: Partition, oid: Oid, tid: Tid) -> list[Found]:
    """Return every revision of an object, none if one is above *tid*."""
    revisions = db.rows(db.statements.obj_revisions, (partition, oid))
    if not revisions or revisions[-1][0] > tid:
        return []
    return [(oid, at, first, size) for at, first, size in revisions]
