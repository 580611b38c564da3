"""Copying cells: an OUT_OF_DATE or JOINING cell makes itself equal to a good one. Pure. See docs/replication.md.

For each cell a dialogue with one source at a time. `reached` says up to which tid it is as there; above it

    COUNT    how far does the source go, and how much is that?
    SUM      our own digests of the next ranges of tids
    COMPARE  which of them differ there?
    KEYS     for each that does: what is there, without values;  OWN: what is here
    PULL     values of what is missing, in large parts; where nothing is here at all, from COUNT on
    SAVE     a join only: all of it durable

What is copied does not pass through the vote log, whose flushes belong to votes: it goes to the applier directly. A
crash may lose the end of it; then digests find what is missing, and nothing is transferred twice.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import Final

from neo_common.checksum import checksum
from neo_common.core import Log
from neo_common.ids import MAX_TID, NO_EPOCH, NO_NODE, NO_TID, Epoch, NodeId, Oid, Partition, Seconds, Tid, Version
from neo_common.states import CellState, node_text
from neo_common.wire.schema import (
    CaughtUp,
    CellCopy,
    Compare,
    Compared,
    Copying,
    Packet,
    Pull,
    PullData,
    PullNo,
    PullPiece,
    RangeDigest,
    Revision,
    Transaction,
)
from neo_storage.backends.base import ApplyCopy, ApplyDrop, Op, Place
from neo_storage.core.events import CopiedIn, CopyIn, Own, OwnDigests, OwnKeys, ReadOwn
from neo_storage.core.ground import Ground, lead
from neo_storage.core.log_records import LogCopyPiece
from neo_storage.core.tentative import Chunk, PieceChain, Pieces

_INFO: Final = 20
_WARNING: Final = 30
_CHUNK_BYTES: Final = 2**20
"""What one answer brings, about; the pace is reckoned in it."""
_NEAR_S: Final = Seconds(2.0)
"""A pass that was shorter has brought the cell near the present."""
_PASSES_MAX: Final = 6
_AGAIN_S: Final = Seconds(5.0)
"""A cell that waits for its join looks again what is new."""
_RANGES: Final = 16
"""Ranges per question."""
_BEGINNING: Final = Seconds(0.0)
_BUSY_S: Final = 1.0
"""So long after the last vote the clients' need comes first."""
_REST: Final = 3.0
"""While clients vote, a copy rests so many times as long as it works: a quarter of the nodes' time is its."""
_REVISION_BYTES: Final = 100
"""What a revision takes beside its value, about."""


class Step(Enum):
    """What a copy waits for."""

    WAIT = "its turn"
    COUNT = "how much there is"
    SUM = "digests of its own"
    COMPARE = "which ranges differ"
    KEYS = "what is there"
    OWN = "what is here"
    PACE = "its turn to pull"
    PULL = "values"
    SAVE = "the disk"


_ASKED: Final = frozenset((Step.COUNT, Step.COMPARE, Step.KEYS, Step.PULL))


@dataclass(slots=True)
class Copy:
    """A cell that is being made equal to another one."""

    partition: Partition
    version: Version
    """Of the table under which it asks; a join's is the one that began it."""
    cut: Tid | None
    """Up to where a join copies; None: up to the present."""
    done: Callable[[], None] | None
    reached: Tid
    began: Seconds
    step: Step = Step.WAIT
    source: NodeId = NO_NODE
    number: int = 0
    due: Seconds = _BEGINNING
    """WAIT: when it goes on; otherwise when the answer is overdue."""
    asked: Seconds = _BEGINNING
    pass_began: Seconds = _BEGINNING
    passes: int = 0
    stop: Tid = NO_TID
    ranges: tuple[RangeDigest, ...] = ()
    differing: deque[RangeDigest] = field(default_factory=deque)
    upto: Tid = NO_TID
    """`reached` when the ranges at hand are done."""
    page: tuple[Place, PullData] | None = None
    page_stop: Tid = NO_TID
    more_keys: Place | None = None
    spans: deque[tuple[Tid, Tid]] = field(default_factory=deque)
    next: Place | None = None
    is_bulk: bool = False
    """Nothing is here above `reached`."""
    is_caught_up: bool = False
    failures: int = 0
    avoid: dict[NodeId, Seconds] = field(default_factory=dict)
    chains: dict[Place, tuple[PieceChain, int]] = field(default_factory=dict)
    """Values in pieces that are on their way, with the first log position of each."""
    revisions: int = 0
    left: int = 0
    bytes: int = 0


class Copies:
    """All copies of this node."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.copies: dict[Partition, Copy] = {}
        self._epoch: Epoch = NO_EPOCH
        self._reached: dict[Partition, Tid] = {}
        """Of this reign: what was equal stays equal, as no tid below comes any more."""
        self._number = 0
        self._loads: dict[NodeId, int] = {}
        self._unapplied: dict[int, int] = {}
        self._saves: dict[int, Partition] = {}
        self._pieces: deque[tuple[int, int]] = deque()
        """(number of a CopyIn, oldest log position that it reads)."""
        self._next_pull = Seconds(0.0)
        self._is_pacing = False
        self.last_oid = Oid(0)
        """The highest oid that was copied."""
        self._caught_up: set[Partition] = set()
        self._told = Seconds(float("-inf"))
        self._has_told = False

    # ---- what is copied

    def changed(self) -> None:
        """There is a new table, or a new reign: begin, go on with, or give up copies accordingly."""
        ground = self._ground
        if self._epoch != ground.image.epoch:
            self._epoch = ground.image.epoch
            self.copies.clear()
            self._reached.clear()
        for p in [p for p in self.copies if not self._is_wanted(self.copies[p])]:
            del self.copies[p]
        for p, copy in list(self.copies.items()):
            if copy.step not in (Step.WAIT, Step.SAVE) and copy.source not in ground.image.table.readable(p):
                self._fail(copy, "its cell is not readable any more")  # it may be erased meanwhile
        for p in [p for p in self._reached if ground.mine(p) is None]:
            del self._reached[p]  # the cell was dropped, and is being erased
        if ground.serving:
            for p in ground.image.table.partitions_of(ground.me):
                if ground.mine(p) == CellState.CORRUPTED:
                    self._reached.pop(p, None)  # what was equal is so no more
                if ground.mine(p) == CellState.OUT_OF_DATE and p not in self.copies:
                    self._add(Copy(p, ground.image.table.version, None, None, self._from(p), ground.now))

    def again(self) -> None:
        """A primary has taken this storage in (again): it must be told what has caught up."""
        for copy in self.copies.values():
            copy.is_caught_up = False
            if copy.step == Step.WAIT:
                copy.due = self._ground.now

    def join(self, partition: Partition, version: Version, cut: Tid, done: Callable[[], None]) -> None:
        """Copy from the lead what is lacking up to *cut*; then, all being durable, call *done*."""
        former = self.copies.pop(partition, None)
        copy = Copy(partition, version, cut, done, self._from(partition), self._ground.now)
        if former is not None:
            copy.revisions, copy.bytes, copy.began = former.revisions, former.bytes, former.began
        self._add(copy)

    def leave(self, partition: Partition) -> None:
        """That cell is not copied any more."""
        self.copies.pop(partition, None)

    def end_reign(self) -> None:
        """Another primary comes: nothing is copied until it has begun."""
        self.copies.clear()

    def _from(self, partition: Partition) -> Tid:
        return self.resume_from(partition, self._reached.get(partition, NO_TID))

    def resume_from(self, partition: Partition, reached: Tid) -> Tid:
        """Return up to where a cell that was *reached* up to there need not be compared again."""
        return reached

    def _add(self, copy: Copy) -> None:
        self.copies[copy.partition] = copy
        self.work()

    def _is_wanted(self, copy: Copy) -> bool:
        state = self._ground.mine(copy.partition)
        return state == (CellState.OUT_OF_DATE if copy.cut is None else CellState.JOINING)

    # ---- going on

    def tick(self) -> None:
        """Time has passed."""
        now = self._ground.now
        for p in sorted(self.copies):
            copy = self.copies.get(p)
            if copy is not None and copy.step in _ASKED and now >= copy.due:
                self._fail(copy, f"no answer for {self._ground.settings.copy_timeout_s:.0f} s")
        self.work()
        self._tell()

    def work(self) -> None:
        """Begin what can be begun: joins first, then those that have waited longest."""
        ground = self._ground
        running = sum(c.step not in (Step.WAIT,) for c in self.copies.values())
        waiting = [c for c in self.copies.values() if c.step == Step.WAIT and c.due <= ground.now]
        for copy in sorted(waiting, key=lambda c: (c.cut is None, c.due, c.partition)):
            if running >= ground.settings.copy_parallel:
                break
            running += self._begin(copy)
        if self._is_pacing:
            for _, copy in sorted(self.copies.items()):
                if copy.step == Step.PACE and self._may_pull():
                    self._send_pull(copy)
            self._is_pacing = any(c.step == Step.PACE for c in self.copies.values())

    def _begin(self, copy: Copy) -> bool:
        """Ask a source how far it goes; return whether there is one."""
        ground = self._ground
        source = self.source_of(copy)
        if source is None or not ground.image.is_back(copy.partition, ground.applied):
            copy.due = Seconds(ground.now + 0.5)
            return False
        copy.source = source
        copy.pass_began = ground.now
        if copy.cut is None:
            copy.version = ground.image.table.version
        stop = MAX_TID if copy.cut is None else copy.cut
        start = Tid(copy.reached + 1)
        self._ask(copy, Step.COUNT, Compare(self._epoch, copy.version, copy.partition, 0, start, stop, ()))
        return True

    def source_of(self, copy: Copy) -> NodeId | None:
        """Return whom to pull from: the lead for a join; else the least loaded of the good cells."""
        ground, p = self._ground, copy.partition
        table = ground.image.table
        leading = lead(table, p)
        if copy.cut is not None:
            return leading if leading in ground.peers else None
        good = [n for n in table.readable(p) if n in ground.peers and copy.avoid.get(n, ground.now) <= ground.now]
        used: dict[NodeId, int] = {}
        for other in self.copies.values():
            if other.step != Step.WAIT:
                used[other.source] = used.get(other.source, 0) + 1
        return min(good, key=lambda n: (used.get(n, 0) + self._loads.get(n, 0), n == leading, n), default=None)

    def _ask(self, copy: Copy, step: Step, packet: Packet) -> None:
        self._number += 1
        copy.step, copy.number, copy.asked = step, self._number, self._ground.now
        copy.due = Seconds(self._ground.now + self._ground.settings.copy_timeout_s)
        numbered: Packet = packet._replace(number=self._number)  # type: ignore[attr-defined]  # Compare or Pull
        self._ground.send(copy.source, numbered)

    def _read(self, copy: Copy, step: Step, question: OwnDigests | OwnKeys) -> None:
        self._number += 1
        copy.step, copy.number = step, self._number
        self._ground.order(ReadOwn(self._number, question, self._ground.last_op))

    def _answered(self, peer: NodeId, partition: Partition, number: int, *steps: Step) -> Copy | None:
        """Return the copy that has waited for this answer."""
        copy = self.copies.get(partition)
        if copy is None or copy.source != peer or copy.number != number or copy.step not in steps:
            return None
        return copy

    # ---- answers

    def on_compared(self, peer: NodeId, m: Compared) -> None:
        """The source has counted, or compared."""
        self._loads[peer] = m.load
        copy = self._answered(peer, m.partition, m.number, Step.COUNT, Step.COMPARE)
        if copy is None:
            return
        if copy.step == Step.COUNT:
            copy.stop = m.stop if copy.cut is None else copy.cut
            copy.left = m.revisions
            self._sum(copy)
        else:
            different = [i for i in m.different if i < len(copy.ranges)]
            copy.differing = deque(copy.ranges[i] for i in different)
            equal = sum(r.revisions for r in copy.ranges) - sum(r.revisions for r in copy.differing)
            self._count(copy, equal)
            self._next_range(copy)

    def _sum(self, copy: Copy) -> None:
        """Take our own digests of what comes next; or end."""
        if copy.reached >= copy.stop:
            self._end_pass(copy)
        else:
            size = self._ground.settings.copy_range
            start = Tid(copy.reached + 1)
            self._read(copy, Step.SUM, OwnDigests(copy.partition, start, copy.stop, size, _RANGES))

    def on_own(self, event: Own) -> None:
        """Our own back end has answered."""
        for copy in self.copies.values():
            if copy.number == event.number and copy.step in (Step.SUM, Step.OWN):
                if copy.step == Step.SUM:
                    self._summed(copy, event.digests)
                else:
                    self._found(copy, event.transactions)
                return

    def _summed(self, copy: Copy, ranges: tuple[RangeDigest, ...]) -> None:
        start = Tid(copy.reached + 1)
        if ranges:
            copy.ranges, copy.upto, copy.is_bulk = ranges, ranges[-1].stop, False
            packet = Compare(self._epoch, copy.version, copy.partition, 0, start, copy.stop, ranges)
            self._ask(copy, Step.COMPARE, packet)
        else:  # nothing is here from there on
            copy.upto, copy.is_bulk = copy.stop, True
            copy.differing.clear()
            copy.more_keys = None
            copy.spans = deque([(start, copy.stop)])
            self._next_span(copy)

    def _next_range(self, copy: Copy) -> None:
        if copy.differing:
            found = copy.differing.popleft()
            copy.page_stop = found.stop
            self._ask_keys(copy, Place(found.start, Oid(0)))
        else:
            self._reach(copy, copy.upto)
            self._sum(copy)

    def _reach(self, copy: Copy, tid: Tid) -> None:
        copy.reached = tid
        copy.failures = 0
        self._reached[copy.partition] = tid

    def _ask_keys(self, copy: Copy, place: Place) -> None:
        copy.next = place
        self._ask(copy, Step.KEYS, self._pull(copy, place, copy.page_stop, values=False))

    def _pull(self, copy: Copy, place: Place, stop: Tid, *, values: bool) -> Pull:
        return Pull(self._epoch, copy.version, copy.partition, place.tid, stop, place.oid, 0, values)

    def _found(self, copy: Copy, own: tuple[Transaction, ...]) -> None:
        """Compare what is here with what is there: drop what is too much, pull what is missing."""
        assert copy.page is not None
        start, theirs = copy.page
        rest = Place(theirs.next, theirs.next_oid) if theirs.next != NO_TID else None
        drop, wanted = difference(own, theirs.transactions, start, rest)
        if drop.revisions or drop.transactions:
            self._order(copy, (drop._replace(partition=copy.partition),), 0)
        self._count(copy, sum(len(t.revisions) for t in theirs.transactions if t.tid not in wanted))
        copy.more_keys = rest
        copy.spans = deque(spans([t.tid for t in theirs.transactions], wanted))
        self._next_span(copy)

    def _next_span(self, copy: Copy) -> None:
        if copy.spans:
            copy.next = Place(copy.spans[0][0], Oid(0))
            self._want_pull(copy)
        elif copy.more_keys is not None:
            place, copy.more_keys = copy.more_keys, None
            self._ask_keys(copy, place)
        else:
            self._next_range(copy)

    def on_pull_data(self, peer: NodeId, m: PullData) -> None:
        """A part of history, with values or without."""
        copy = self._answered(peer, m.partition, m.number, Step.KEYS, Step.PULL)
        if copy is None:
            return
        if copy.step == Step.KEYS:
            assert copy.next is not None
            copy.page = (copy.next, m)
            self._read(copy, Step.OWN, OwnKeys(copy.partition, copy.next, copy.page_stop))
            return
        ops = self._take(copy, m.transactions)
        if ops is None:
            return
        size = sum(r.data.size for t in m.transactions for r in t.revisions if r.data is not None)
        count = sum(len(t.revisions) for t in m.transactions)
        self._rest(self._ground.now - copy.asked, size + _REVISION_BYTES * count)
        copy.bytes += size
        self._count(copy, count)
        self._order(copy, ops, size)
        if m.next != NO_TID:
            copy.next = Place(m.next, m.next_oid)
            if copy.is_bulk:
                self._reach(copy, Tid(m.next - 1))
            self._want_pull(copy)
        else:
            copy.spans.popleft()
            self._next_span(copy)

    def _take(self, copy: Copy, transactions: Sequence[Transaction]) -> tuple[Op, ...] | None:
        """Return what to write of *transactions*; None if a value is not what it should be."""
        plain: list[Transaction] = []
        ops: list[Op] = []
        for transaction in transactions:
            self.last_oid = max(self.last_oid, *(r.oid for r in transaction.revisions), Oid(0))
            chunks: dict[Oid, tuple[Chunk, ...]] = {}
            for revision in transaction.revisions:
                problem = self._check(copy, revision, chunks)
                if problem:
                    self._refuse(copy, problem)
                    return None
            if chunks:
                pieces = Pieces(self._ground.image.spool, chunks)
                ops.append(ApplyCopy(copy.partition, (transaction,), (), pieces))
            else:
                plain.append(transaction)
        if plain:
            ops.append(ApplyCopy(copy.partition, tuple(plain), ()))
        return tuple(ops)

    def _check(self, copy: Copy, revision: Revision, chunks: dict[Oid, tuple[Chunk, ...]]) -> str:
        """Return what is wrong with *revision*; note where its pieces are."""
        data = revision.data
        where = f"oid {revision.oid:#x} at {revision.tid:#x}"
        if data is None:
            return f"{where} came without its value"
        if data.value or not data.size:
            if len(data.value) != data.size or (data.value and not self.is_intact(data.value, data.checksum)):
                return f"the checksum of {where} does not hold"
            return ""
        chain, _ = copy.chains.get(Place(revision.tid, revision.oid), (None, 0))
        if chain is None or chain.size != data.size or chain.digest.digest() != data.checksum:
            return f"the pieces of {where} are not what they should be"
        chunks[revision.oid] = tuple(chain.chunks)
        return ""

    def is_intact(self, value: bytes, expected: bytes) -> bool:
        """Return whether a value has come as it was written."""
        return checksum(value) == expected

    def on_pull_piece(self, peer: NodeId, m: PullPiece) -> None:
        """A piece of a large value: it rests in the log until the value is whole."""
        copy = self._answered(peer, m.partition, m.number, Step.PULL)
        if copy is None:
            return
        copy.due = Seconds(self._ground.now + self._ground.settings.copy_timeout_s)
        place = Place(m.tid, m.oid)
        chain, first = copy.chains.get(place, (None, 0))
        if m.offset == 0:
            chain, first = PieceChain(), self._ground.image.position + 1
            copy.chains[place] = (chain, first)
        if chain is None or chain.size != m.offset:
            self._refuse(copy, f"pieces of oid {m.oid:#x} came out of order")
            return
        self._ground.write(LogCopyPiece(m.partition, m.oid, m.tid, m.offset, m.value))
        chain.add(Chunk(self._ground.image.position, -1), m.value)

    def on_pull_no(self, peer: NodeId, m: PullNo) -> None:
        """That source does not give."""
        copy = self._answered(peer, m.partition, m.number, Step.COUNT, Step.COMPARE, Step.KEYS, Step.PULL)
        if copy is not None:
            if m.is_damaged:
                self._ground.damaged.append((m.partition, peer, m.text))
            self._fail(copy, m.text)
            self.work()

    def _refuse(self, copy: Copy, problem: str) -> None:
        text = f"partition {copy.partition} from {node_text(copy.source)}: {problem}"
        self._ground.order(Log(_WARNING, f"copy of {text}"))
        self._fail(copy, problem)
        self.work()

    # ---- pace

    def _want_pull(self, copy: Copy) -> None:
        copy.step = Step.PACE
        self._is_pacing = True
        if self._may_pull():
            self._send_pull(copy)

    def _may_pull(self) -> bool:
        is_room = sum(self._unapplied.values()) < self._ground.settings.copy_backlog_bytes
        is_alone = not self._is_busy() or all(c.step != Step.PULL for c in self.copies.values())
        return is_room and is_alone and self._ground.now >= self._next_pull

    def _is_busy(self) -> bool:
        """Return whether clients vote."""
        return self._ground.now < self._ground.voted_at + _BUSY_S

    def _send_pull(self, copy: Copy) -> None:
        assert copy.next is not None
        assert copy.spans
        self._ask(copy, Step.PULL, self._pull(copy, copy.next, copy.spans[0][1], values=True))
        if not self._is_busy():  # others may pull too; reckoned again when it is known how much has come
            half = _CHUNK_BYTES / self._ground.settings.copy_ceiling / 2
            self._next_pull = Seconds(max(self._next_pull, self._ground.now) + half)

    def _rest(self, took: float, size: int) -> None:
        """Let clients have their turn: while they vote, for some times as long as the part has taken to come."""
        settings, now = self._ground.settings, self._ground.now
        pause = _REST * took if self._is_busy() else 0.0
        slowest, fastest = size / settings.copy_floor, size / settings.copy_ceiling
        pause = max(min(pause, slowest - took), fastest - took, 0.0)
        self._next_pull = Seconds(max(self._next_pull, now) + pause if not self._is_busy() else now + pause)

    # ---- what is written

    def write(self, ops: tuple[Op, ...], size: int = 0, *, durable: bool = False) -> int:
        """Order a CopyIn; return its number."""
        self._number += 1
        self._ground.order(CopyIn(self._number, ops, durable))
        self._unapplied[self._number] = size
        return self._number

    def _order(self, copy: Copy, ops: tuple[Op, ...], size: int, *, durable: bool = False) -> int:
        self.write(ops, size, durable=durable)
        used = [p for op in ops if isinstance(op, ApplyCopy) for t in op.transactions for p in self._places(t)]
        firsts = [copy.chains.pop(place)[1] for place in used if place in copy.chains]
        if firsts:
            self._pieces.append((self._number, min(firsts)))
        return self._number

    @staticmethod
    def _places(transaction: Transaction) -> Iterable[Place]:
        return (Place(r.tid, r.oid) for r in transaction.revisions)

    def on_copied_in(self, event: CopiedIn) -> None:
        """The back end has everything up to that order."""
        for number in [n for n in self._unapplied if n <= event.number]:
            del self._unapplied[number]
        while self._pieces and self._pieces[0][0] <= event.number:
            self._pieces.popleft()
        for number in sorted(n for n in self._saves if n <= event.number):
            copy = self.copies.get(self._saves.pop(number))
            if copy is not None and copy.step == Step.SAVE and copy.number == number:
                del self.copies[copy.partition]
                assert copy.done is not None
                copy.done()
        self.work()

    def needed_from(self) -> int | None:
        """Return the oldest log position with pieces that are not in the back end."""
        firsts = [first for copy in self.copies.values() for _, first in copy.chains.values()]
        firsts += [first for _, first in self._pieces]
        return min(firsts, default=None)

    # ---- ends

    def _end_pass(self, copy: Copy) -> None:
        """All up to `stop` is as at the source."""
        ground = self._ground
        copy.passes += 1
        copy.ranges = ()
        copy.left = 0
        if copy.cut is not None:
            copy.number = self._order(copy, (), 0, durable=True)
            copy.step = Step.SAVE
            self._saves[copy.number] = copy.partition
            return
        copy.step = Step.WAIT
        if ground.now < copy.pass_began + _NEAR_S or copy.passes >= _PASSES_MAX:
            copy.due = Seconds(ground.now + _AGAIN_S)
            copy.passes = 0
            self._caught_up.add(copy.partition)
            if not copy.is_caught_up:
                copy.is_caught_up = True
                took = ground.now - copy.began
                text = f"{copy.revisions} revisions looked at, {copy.bytes} bytes copied in {took:.1f} s"
                ground.order(Log(_INFO, f"partition {copy.partition} has caught up: {text}"))
        else:
            copy.due = ground.now
        self.work()

    def end_event(self) -> None:
        """Pull what may be pulled now, and tell the primary what has caught up."""
        if self._is_pacing and self._ground.now >= self._next_pull:
            self.work()
        if self._caught_up:
            ready = tuple(sorted(p for p in self._caught_up if p in self.copies))
            self._caught_up.clear()
            if ready and self._ground.serving:
                self._ground.send(self._ground.master, CaughtUp(self._epoch, ready))

    def _fail(self, copy: Copy, why: str) -> None:
        """Give that source up for a while; go on from `reached` with another."""
        ground = self._ground
        copy.failures += 1
        delay = min(30.0, 0.25 * 2**copy.failures)
        if copy.source != NO_NODE:
            copy.avoid[copy.source] = Seconds(ground.now + delay)
        text = f"copy of partition {copy.partition} from {node_text(copy.source)} breaks off: {why}"
        ground.order(Log(_INFO, text))
        copy.step, copy.source, copy.number = Step.WAIT, NO_NODE, 0
        copy.due = Seconds(ground.now + (0.0 if copy.failures == 1 else delay))
        copy.ranges, copy.page, copy.more_keys, copy.next = (), None, None, None
        copy.differing.clear()
        copy.spans.clear()
        copy.chains.clear()

    def lost(self, peer: NodeId) -> None:
        """The connection to *peer* is gone: ask another at once."""
        self._loads.pop(peer, None)
        for copy in list(self.copies.values()):
            if copy.source == peer and copy.step not in (Step.WAIT, Step.SAVE):
                self._fail(copy, "the connection was lost")
        self.work()

    def connected(self) -> None:
        """There is a peer more: perhaps a source."""
        for copy in self.copies.values():
            if copy.step == Step.WAIT and not copy.is_caught_up:
                copy.due = min(copy.due, self._ground.now)
        self.work()

    # ---- for people

    def _count(self, copy: Copy, revisions: int) -> None:
        copy.revisions += revisions
        copy.left = max(0, copy.left - revisions)

    def _tell(self) -> None:
        """Tell the primary how far the copies are."""
        ground = self._ground
        busy = [c for c in self.copies.values() if not c.is_caught_up]
        if ground.now < self._told + 1.0 or not (busy or self._has_told):
            return
        self._told = ground.now
        self._has_told = bool(busy)
        ground.send(ground.master, Copying(tuple(map(self.progress, sorted(busy, key=lambda c: c.partition)))))

    def progress(self, copy: Copy) -> CellCopy:
        """Return how far *copy* is."""
        seconds = int(self._ground.now - copy.began)
        return CellCopy(
            copy.partition, copy.source, copy.reached, copy.stop, copy.revisions, copy.left, copy.bytes, seconds
        )


def difference(
    own: Sequence[Transaction], theirs: Sequence[Transaction], start: Place, rest: Place | None
) -> tuple[ApplyDrop, set[Tid]]:
    """Return what to drop of *own*, and the tids of *theirs* to pull: then both are the same from *start* to *rest*."""
    here = {t.tid: t for t in own}
    there = {t.tid: t for t in theirs}
    end = rest or Place(MAX_TID, Oid(MAX_TID))
    revisions: list[Place] = []
    transactions: list[Tid] = []
    wanted = set[Tid]()
    for tid, transaction in here.items():
        other = there.get(tid)
        inside = [r for r in transaction.revisions if start <= Place(r.tid, r.oid) < end]
        if other is None:
            # A transaction that is cut by an end of the page is the business of the page that has its other part.
            if start.tid < tid < end.tid or (tid == start.tid and start.oid == 0 and tid < end.tid):
                transactions.append(tid)
            else:
                revisions += [Place(r.tid, r.oid) for r in inside]
        elif (other.ttid, other.metadata) != (transaction.ttid, transaction.metadata):
            transactions.append(tid)
            wanted.add(tid)
        else:
            known = {r.oid: r for r in other.revisions}
            revisions += [Place(r.tid, r.oid) for r in inside if known.get(r.oid) != r]
    for tid, transaction in there.items():
        mine = here.get(tid)
        if mine is None or not set(transaction.revisions) <= set(mine.revisions):
            wanted.add(tid)
    return ApplyDrop(Partition(0), tuple(revisions), tuple(transactions)), wanted


def spans(tids: Iterable[Tid], wanted: set[Tid]) -> list[tuple[Tid, Tid]]:
    """Return the runs of *wanted* among *tids*, as (first, last).

    >>> spans([1, 2, 4, 7, 9], {2, 4, 9})
    [(2, 4), (9, 9)]
    """
    runs = []
    for is_wanted, group in groupby(tids, key=lambda t: t in wanted):
        if is_wanted:
            run = list(group)
            runs.append((run[0], run[-1]))
    return runs
