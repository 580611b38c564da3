"""Transactions in the order of tids, with what they wrote: several at a time, as a statement is a round trip. Pure.

A group of transactions is read by ranges: one statement for each partition that any of them touches, one for all their
values. A partition of which a group wants too many rows is read by transaction instead, so that the memory is bounded.
"""

from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple

from neo_common.errors import DataCorrupted
from neo_common.ids import NO_TID, Partition, Session, Tid, Ttid
from neo_common.wire.schema import Compression, Data, Metadata, Revision, Transaction
from neo_storage.backends.codec import unpack_parts
from neo_storage.backends.database import Database, Row
from neo_storage.backends.values import OVERHEAD, is_inline

_GROUP: Final = 64
"""Transactions whose rows are read together, the first time: then as many as are likely to fill the answer."""
_GROUP_MAX: Final = 500
_ROWS: Final = 2000
"""Revisions of a group in one partition; more are read by transaction."""
_FIRST: Final = itemgetter(0)
_VALUES: Final = 1000
"""Values per statement."""

_COMPRESSIONS: Final = {int(c): c for c in Compression}
"""To call the enumeration for each record would take as long as to read it."""

Touched = tuple[int, list[Partition]]
"""A tid, and the partitions among those wanted that it touches, ascending."""


class _Plan(NamedTuple):
    """What an answer has of a transaction: revisions as rows, and those of their values that it brings."""

    tid: Tid
    head: Row
    rows: list[Row]
    ids: list[int]
    """In `data`."""
    used: int


def read(
    db: Database,
    wanted: frozenset[Partition],
    start: Tid,
    stop: Tid,
    *,
    descending: bool,
    revisions: bool,
    values: bool,
    limit: int,
    limit_bytes: int,
) -> tuple[tuple[Transaction, ...], Tid]:
    """Return transactions as `RangeReader.transactions` says, of the snapshot that *db* has."""
    plans, rest = _plan(db, wanted, start, stop, descending, revisions, values, limit, limit_bytes)
    ids = [data_id for plan in plans for data_id in plan.ids]
    there: dict[int, bytes] = {}
    for at in range(0, len(ids), _VALUES):
        there |= db.values(ids[at : at + _VALUES])
    return tuple(_built(plan, values, there) for plan in plans), rest


def _plan(
    db: Database,
    wanted: frozenset[Partition],
    start: Tid,
    stop: Tid,
    descending: bool,
    revisions: bool,
    values: bool,
    limit: int,
    limit_bytes: int,
) -> tuple[list[_Plan], Tid]:
    """Return what the answer has, and where to go on."""
    plans: list[_Plan] = []
    room = limit_bytes
    walk = _by_tid(db, wanted, start, stop, descending)
    size = _GROUP
    while group := list(islice(walk, min(size, limit + 1))):
        rows = _Rows(db, group, revisions)
        for tid, touched in group:
            if len(plans) >= limit or (plans and room <= 0):
                return plans, Tid(tid)
            plan = _planned(rows, Tid(tid), touched, values, room, must=not plans)
            if plan is None:
                return plans, Tid(tid)
            plans.append(plan)
            room -= plan.used
        size = min(_GROUP_MAX, max(_GROUP, 1 + room * len(plans) // (limit_bytes - room + 1)))
    return plans, NO_TID


class _Rows:
    """The rows of a group of transactions."""

    def __init__(self, db: Database, group: list[Touched], revisions: bool) -> None:
        self._db = db
        self._heads: dict[int, Row] = {}
        self._revisions: dict[tuple[int, Partition], list[Row]] = {}
        self._upto: dict[Partition, int] = {}
        """Where the rows of a partition end, if they were too many: those from that tid on are not here."""
        tids = [tid for tid, _ in group]
        ends = min(tids), max(tids)
        sql = db.statements
        for partition in sorted({touched[0] for _, touched in group}):
            for tid, *head in db.rows(sql.copy_trans, (partition, *ends, len(group))):
                self._heads[tid] = tuple(head)
        for partition in sorted({p for _, touched in group for p in touched}) if revisions else ():
            rows = db.rows(sql.copy, (partition, *ends, _ROWS))
            if len(rows) == _ROWS:
                self._upto[partition] = rows[-1][0]
            for tid, same in groupby(rows, _FIRST):
                self._revisions[tid, partition] = list(same)

    def head(self, tid: Tid) -> Row:
        """Return (session, counter, user, description, extension, parts)."""
        return self._heads[tid]

    def revisions(self, tid: Tid, partition: Partition) -> list[Row]:
        """Return rows of (tid, oid, copied_from, data_id, compression, checksum, size), by oid."""
        if tid >= self._upto.get(partition, tid + 1):
            return [(tid, *row) for row in self._db.rows(self._db.statements.revisions, (partition, tid))]
        return self._revisions.get((tid, partition), [])


def _by_tid(db: Database, wanted: frozenset[Partition], start: Tid, stop: Tid, descending: bool) -> Iterator[Touched]:
    """Yield transactions that touch any of *wanted*."""
    sql = db.statements
    if len(wanted) == 1:
        rows = db.scan(sql.trans_one_down if descending else sql.trans_one_up, start, stop, *wanted)
    else:
        rows = db.scan(sql.trans_down if descending else sql.trans_up, start, stop)
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


def _planned(rows: _Rows, tid: Tid, touched: list[Partition], values: bool, room: int, must: bool) -> _Plan | None:
    """Return what is given of a transaction; None when that is more than *room*, unless it *must*."""
    head = rows.head(tid)
    metadata = head[2:5]
    found = [row for partition in touched for row in rows.revisions(tid, partition)]
    used = OVERHEAD + sum(map(len, metadata)) + OVERHEAD * len(found)
    if not values:
        return _Plan(tid, head, found, [], used)
    inline = [(row[3], row[6]) for row in found if is_inline(row[3], row[6])]
    weight = sum(size for _, size in inline)
    if used + weight <= room:
        return _Plan(tid, head, found, [data_id for data_id, _ in inline], used + weight)
    if not must:
        return None
    ids = list[int]()
    for data_id, size in inline:
        if size <= max(room - used, 0):
            ids.append(data_id)
            used += size
    return _Plan(tid, head, found, ids, used)


def _built(plan: _Plan, values: bool, there: dict[int, bytes]) -> Transaction:
    """Return it with its values. Raises: DataCorrupted when one is missing."""
    session, counter, *metadata, parts = plan.head
    tid = plan.tid
    here = set(plan.ids)
    found = list[Revision]()
    for _, oid, copied, data_id, compression, checksum, size in plan.rows:
        data = None
        if values:
            value = there.get(data_id) if data_id in here else b""
            if value is None:
                raise DataCorrupted(f"there is no data for {oid:#x} at {tid:#x}")
            data = Data(_COMPRESSIONS[compression], checksum, size, value)
        found.append(Revision(oid, tid, copied, data))
    return Transaction(tid, Ttid(Session(session), counter), Metadata(*metadata), unpack_parts(parts), tuple(found))
