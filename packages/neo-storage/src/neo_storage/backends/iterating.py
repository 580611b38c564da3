"""Transactions in the order of tids, with what they wrote: several at a time, as a statement is a round trip. Pure.

A group of transactions is read by ranges: one statement for each partition that any of them touches, one for all their
values. A partition of which a group wants too many rows is read by transaction instead, so that the memory is bounded.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Final, NamedTuple

from neo_common.errors import DataCorrupted
from neo_common.ids import NO_TID, Partition, Session, Tid, Ttid
from neo_common.wire.schema import PIECE_BYTES, Compression, Data, Metadata, Revision, Transaction
from neo_storage.backends.codec import unpack_parts
from neo_storage.backends.database import Database, Row
from neo_storage.backends.values import OVERHEAD, is_inline

_GROUP: Final = 64
"""Transactions whose rows are read together while nobody knows what they weigh: then as many as are likely to fit."""
_GROUP_MAX: Final = 500
_ROWS: Final = 2000
"""Revisions of a group in one partition; more are read by transaction."""
_TID: Final = itemgetter(0)
_DATA_ID: Final = itemgetter(3)
_SIZE: Final = itemgetter(6)
_VALUES: Final = 1000
"""Values per statement."""

_COMPRESSIONS: Final = {int(c): c for c in Compression}
"""To call the enumeration for each record would take as long as to read it."""

# As `_make`, which is not C.
_data: Final[Callable[[Iterable[object]], Data]] = partial(tuple.__new__, Data)
_revision: Final[Callable[[Iterable[object]], Revision]] = partial(tuple.__new__, Revision)

Touched = tuple[int, list[Partition]]
"""A tid, and the partitions among those wanted that it touches, ascending."""
Headed = tuple[int, Row]
"""A tid, and (session, counter, user, description, extension, parts)."""


@dataclass(slots=True)
class Pace:
    """What transactions have weighed lately, for one reader: most that come will be like them."""

    used: int = 0
    count: int = 0

    def fitting(self, room: int) -> int:
        """Return how many transactions are likely to fit into *room*: one at least."""
        return max(1, min(_GROUP_MAX, room * self.count // self.used)) if self.count else _GROUP


class _Plan(NamedTuple):
    """What an answer has of a transaction: revisions as rows, and those of their values that it brings."""

    tid: Tid
    head: Row
    rows: list[Row]
    ids: list[int]
    """In `data`."""
    used: int
    is_whole: bool
    """Every value is given."""


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
    pace: Pace,
) -> tuple[tuple[Transaction, ...], Tid]:
    """Return transactions as `RangeReader.transactions` says, of the snapshot that *db* has."""
    plans, rest = _plan(db, wanted, start, stop, descending, revisions, values, limit, limit_bytes, pace)
    ids = [data_id for plan in plans for data_id in plan.ids]
    there: dict[int | None, bytes] = {None: b""}
    for at in range(0, len(ids), _VALUES):
        there.update(db.values(ids[at : at + _VALUES]).items())
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
    pace: Pace,
) -> tuple[list[_Plan], Tid]:
    """Return what the answer has, and where to go on."""
    plans: list[_Plan] = []
    room = limit_bytes
    pace.used, pace.count = pace.used // 2, pace.count // 2
    is_one = len(wanted) == 1 or db.statements.heads_up is None
    walk = (_Walk if is_one else _HeadWalk)(db, wanted, start, stop, descending)
    while group := walk.take(size := min(pace.fitting(room), limit - len(plans)) + 1):
        rows = _Rows(db, group, walk.partitions if revisions else ())
        for tid, head in group:
            if len(plans) >= limit or (plans and room <= 0):
                return plans, Tid(tid)
            plan = _planned(rows, Tid(tid), head, values, room, must=not plans)
            if plan is None:
                return plans, Tid(tid)
            plans.append(plan)
            room -= plan.used
            pace.used += plan.used
            pace.count += 1
        if len(group) < size:
            break
        if room < limit_bytes // 8:  # a statement for the place is all that is worth its while
            following = walk.take(1)
            return plans, Tid(following[0][0]) if following else NO_TID
    return plans, NO_TID


class _Walk:
    """Transactions that touch any of `wanted`, in order, and their heads."""

    def __init__(self, db: Database, wanted: frozenset[Partition], start: Tid, stop: Tid, descending: bool) -> None:
        self._db = db
        self._walk = _by_tid(db, wanted, start, stop, descending)
        self.partitions: Sequence[Partition] = ()
        """Of `wanted`, where revisions of those taken last may be; ascending."""

    def take(self, count: int) -> list[Headed]:
        """Return the next ones, fewer than *count* at the end."""
        group = list(islice(self._walk, count))
        self.partitions = sorted({p for _, touched in group for p in touched})
        heads = _heads(self._db, group)
        return [(tid, heads[tid]) for tid, _ in group]


class _HeadWalk:
    """The same where a database can give one row for each transaction by itself."""

    def __init__(self, db: Database, wanted: frozenset[Partition], start: Tid, stop: Tid, descending: bool) -> None:
        self._db = db
        self.partitions: Sequence[Partition] = sorted(wanted)
        self._wanted = f"{{{','.join(map(str, self.partitions))}}}"
        self._start, self._stop, self._descending = start, stop, descending

    def take(self, count: int) -> list[Headed]:
        """Return the next ones, fewer than *count* at the end."""
        sql = self._db.statements
        statement = sql.heads_down if self._descending else sql.heads_up
        assert statement is not None
        rows = self._db.rows(statement, (self._start, self._stop, self._wanted, count))
        if rows and self._descending:
            self._stop = Tid(rows[-1][0] - 1)
        elif rows:
            self._start = Tid(rows[-1][0] + 1)
        return [(tid, tuple(head)) for tid, *head in rows]


class _Rows:
    """The revisions of a group of transactions."""

    def __init__(self, db: Database, group: list[Headed], partitions: Sequence[Partition]) -> None:
        self._db = db
        self._revisions: dict[int, list[Row]] = {}
        """By tid: by partition, then oid."""
        self._of: dict[Partition, list[Row]] = {}
        """By partition: by tid, then oid."""
        self._upto: dict[Partition, int] = {}
        """Where the rows of a partition end, if they were too many: those from that tid on are not here."""
        if not partitions:
            return
        tids = group[0][0], group[-1][0]
        for partition, rows in db.revisions(partitions, min(tids), max(tids), _ROWS):
            self._of[partition] = rows
            if len(rows) == _ROWS:
                self._upto[partition] = rows[-1][0]
            for row in rows:
                self._revisions.setdefault(row[0], []).append(row)

    def of(self, tid: Tid) -> list[Row]:
        """Return rows that begin with (tid, oid, copied_from, data_id, compression, checksum, size)."""
        if late := {p for p, upto in self._upto.items() if tid >= upto}:
            return self._late(tid, late)
        return self._revisions.get(tid, [])

    def _late(self, tid: Tid, late: set[Partition]) -> list[Row]:
        """Return the same when the rows of *late* are not all here."""
        found = list[Row]()
        for partition, rows in self._of.items():
            if partition in late:
                found += [(tid, *row) for row in self._db.rows(self._db.statements.revisions, (partition, tid))]
            else:
                found += rows[bisect_left(rows, tid, key=_TID) : bisect_right(rows, tid, key=_TID)]
        return found


def _heads(db: Database, group: list[Touched]) -> dict[int, Row]:
    """Return the heads of a group by tid. Any partition that a transaction touches has it: few are read for all."""
    found: dict[int, Row] = {}
    rest = group
    while rest:
        ((partition, _),) = Counter(p for _, touched in rest for p in touched).most_common(1)
        tids = [tid for tid, touched in rest if partition in touched]
        for tid, *head in db.rows(db.statements.copy_trans, (partition, min(tids), max(tids), len(group))):
            found[tid] = tuple(head)
        rest = [item for item in rest if partition not in item[1]]
    return found


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


def _planned(rows: _Rows, tid: Tid, head: Row, values: bool, room: int, must: bool) -> _Plan | None:
    """Return what is given of a transaction; None when that is more than *room*, unless it *must*."""
    metadata = head[2:5]
    found = rows.of(tid)
    used = OVERHEAD + sum(map(len, metadata)) + OVERHEAD * len(found)
    if not values:
        return _Plan(tid, head, found, [], used, False)
    weight = sum(map(_SIZE, found))
    if weight <= min(PIECE_BYTES, room - used):  # so none of them is in pieces
        ids = [data_id for data_id in map(_DATA_ID, found) if data_id is not None]
        return _Plan(tid, head, found, ids, used + weight, True)
    inline = [(row[3], row[6]) for row in found if is_inline(row[3], row[6])]
    weight = sum(size for _, size in inline)
    if used + weight <= room:
        return _Plan(tid, head, found, [data_id for data_id, _ in inline], used + weight, False)
    if not must:
        return None
    ids = list[int]()
    for data_id, size in inline:
        if size <= max(room - used, 0):
            ids.append(data_id)
            used += size
    return _Plan(tid, head, found, ids, used, False)


def _built(plan: _Plan, values: bool, there: dict[int | None, bytes]) -> Transaction:
    """Return it with its values. Raises: DataCorrupted when one is missing."""
    session, counter, *metadata, parts = plan.head
    revisions = tuple(_whole(plan, there) if plan.is_whole else _revisions(plan, values, there))
    return Transaction(plan.tid, Ttid(Session(session), counter), Metadata(*metadata), unpack_parts(parts), revisions)


def _whole(plan: _Plan, there: dict[int | None, bytes]) -> Iterator[Revision]:
    """As `_revisions` when every value is given: column by column, in a third of the time."""
    if not plan.rows:
        return iter(())
    tids, oids, copied, ids, compressions, checksums, sizes, *_ = zip(*plan.rows, strict=False)
    try:
        values = [there[data_id] for data_id in ids]
    except KeyError as error:
        raise DataCorrupted(f"there is no data for {oids[ids.index(error.args[0])]:#x} at {plan.tid:#x}") from error
    coded = map(_COMPRESSIONS.__getitem__, compressions)
    return map(
        _revision, zip(oids, tids, copied, map(_data, zip(coded, checksums, sizes, values, strict=True)), strict=True)
    )


def _revisions(plan: _Plan, values: bool, there: dict[int | None, bytes]) -> Iterator[Revision]:
    here = set(plan.ids)
    for tid, oid, copied, data_id, compression, checksum, size, *_ in plan.rows:
        data = None
        if values:
            value = there.get(data_id) if data_id in here else b""
            if value is None:
                raise DataCorrupted(f"there is no data for {oid:#x} at {tid:#x}")
            data = Data(_COMPRESSIONS[compression], checksum, size, value)
        yield Revision(oid, tid, copied, data)
