"""Taking revisions out, with their values, and with the transactions of which nothing is left."""

import sqlite3
from collections.abc import Iterable

from neo_common.ids import Oid, Partition, Tid
from neo_common.wire.schema import PIECE_BYTES, Compression
from neo_storage.backends.base import PackStep
from neo_storage.backends.sqlite import queries

Found = tuple[int, int, int | None, int]
"""A revision to remove: oid, tid, first data id (None if absent), size."""


def pieces_of(size: int) -> int:
    """Return how many rows of `data` a value of *size* bytes takes."""
    return max(1, -(-size // PIECE_BYTES))


def drop_data(db: sqlite3.Connection, first: int, size: int) -> None:
    """Remove the value that begins at *first*."""
    db.execute(queries.DROP_DATA, (first, first + pieces_of(size) - 1))


def drop_revisions(db: sqlite3.Connection, partition: Partition, found: Iterable[Found]) -> None:
    """Remove these revisions of *partition*, and the transactions of it that are empty then."""
    tids = set[int]()
    for oid, tid, first, size in found:
        db.execute(queries.DROP_OBJ, (partition, oid, tid))
        if first is not None:
            drop_data(db, first, size)
        tids.add(tid)
    db.executemany(queries.DROP_EMPTY_TRANS, [(partition, tid) for tid in sorted(tids)])


def pack_slice(db: sqlite3.Connection, partition: Partition, tid: Tid, limit: int) -> PackStep:
    """Pack the objects of *partition* to *tid*, from where the last slice ended, about *limit* revisions.

    Of each object goes what is older than its last revision at or below *tid*; that one too, if it is a deletion and
    nothing is newer. An order to another tid begins anew. Source: the history that ZODB's pack keeps.
    """
    cursor = db.execute(queries.PACK_CURSOR, (partition,)).fetchone()
    first = 0
    if cursor is not None and cursor[0] == tid:
        if cursor[1] is None:
            return PackStep(True, 0, 0)
        first = cursor[1]
    doomed: list[Found] = []
    next_oid: int | None = None
    group: list[tuple[int, int, int, int | None, int]] = []
    rows = db.execute(queries.PACK_SCAN, (partition, first))
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
    rows.close()
    drop_revisions(db, partition, doomed)
    db.execute(queries.SET_PACK, (partition, tid, next_oid))
    return PackStep(next_oid is None, len(doomed), sum(size for *_, size in doomed))


def _doomed(revisions: list[tuple[int, int, int, int | None, int]], tid: Tid) -> list[Found]:
    """Return which of an object's revisions (oid, tid, compression, data id, size; ascending) a pack removes."""
    old = [r for r in revisions if r[1] <= tid]
    if not old:
        return []
    kept = old[-1]
    if kept[2] != Compression.ABSENT or len(old) != len(revisions):
        old.pop()
    return [(oid, at, first, size) for oid, at, _, first, size in old]


def collectable(db: sqlite3.Connection, partition: Partition, oid: Oid, tid: Tid) -> list[Found]:
    """Return every revision of an object, none if one is above *tid*."""
    revisions = db.execute(queries.OBJ_REVISIONS, (partition, oid)).fetchall()
    if not revisions or revisions[-1][0] > tid:
        return []
    return [(oid, at, first, size) for at, first, size in revisions]
