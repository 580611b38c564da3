"""Scrub: reading what is stored again, at a low rate, and comparing cells of a row. Pure. See docs/replication.md.

One cell at a time: all values are read and verified by their own checksums; then, if another cell leads the row, keys
are compared with its. What is found is told to the primary, which marks the cell that is wrong. A cell of this node
that is marked drops what is damaged in it, and then copies what it lacks (`copying`).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from neo_common.ids import MAX_TID, NO_NODE, NO_TID, NodeId, Oid, Partition, Seconds, Tid, Version
from neo_common.states import CellState
from neo_common.wire.schema import (
    Compare,
    Compared,
    Damaged,
    Mended,
    Packet,
    Pull,
    PullData,
    PullNo,
    RangeDigest,
    Revision,
    ScrubState,
    Transaction,
)
from neo_storage.backends.base import ApplyDrop, Place, digest_of
from neo_storage.core.copying import Copies
from neo_storage.core.events import CopiedIn, Own, OwnDigests, OwnKeys, OwnValues, ReadOwn
from neo_storage.core.ground import Ground, lead

_SLICE_BYTES: Final = 2**18
_RANGES: Final = 16
_TELL_S: Final = 5.0
_ANSWER_S: Final = 60.0
_REPORT_S: Final = 60.0
_MEND_FACTOR: Final = 16
"""A cell that is being mended is out of service: it is read so many times as fast."""
_MEND_MIN: Final = 4 * 2**20


_EMPTY: Final = digest_of(b"", b"")
_BEGINNING: Final = Place(NO_TID, Oid(0))
_AT_ONCE: Final = Seconds(0.0)
FOREIGN: Final = 1 << 31
"""Questions to other cells have numbers from here on: those of copies are below."""


class Step(Enum):
    """What a look at a cell waits for."""

    VALUES = "values of its own"
    COUNT = "how far the other cell is packed"
    SUM = "digests of its own"
    COMPARE = "which ranges differ"
    THEIRS = "keys of the other cell"
    OURS = "keys of its own"
    REST = "its time"
    CONFIRM = "time for what differs to become the same"
    SAVE = "the disk"


@dataclass(slots=True)
class Look:
    """A look at one cell."""

    partition: Partition
    is_mending: bool
    version: Version
    step: Step = Step.REST
    then: Step = Step.VALUES
    number: int = 0
    due: Seconds = _AT_ONCE
    place: Place = _BEGINNING
    other: NodeId = NO_NODE
    stop: Tid = NO_TID
    floor: Tid = NO_TID
    """Keys up to that tid are not compared: the cells are packed differently."""
    others: tuple[Tid, bool] = (NO_TID, True)
    start: Tid = NO_TID
    ranges: tuple[RangeDigest, ...] = ()
    differing: deque[RangeDigest] = field(default_factory=deque)
    range: RangeDigest | None = None
    theirs: list[Transaction] = field(default_factory=list)
    confirming: bool = False
    suspects: list[RangeDigest] = field(default_factory=list)
    lacking: list[Place] = field(default_factory=list)
    extra: list[Place] = field(default_factory=list)
    other_values: list[Place] = field(default_factory=list)


class Scrubbing:
    """The scrub of this node, and the mending of its cells."""

    def __init__(self, ground: Ground, copies: Copies) -> None:
        self._ground = ground
        self._copies = copies
        self.look: Look | None = None
        self.mends: dict[Partition, Look] = {}
        self._queue: deque[Partition] = deque()
        self._total = 0
        self._number = -1
        """Descending: copies count upwards."""
        self._revisions = self._bytes = 0
        self._next = Seconds(ground.now + ground.settings.scrub_every_s)
        self._told = Seconds(float("-inf"))
        self._has_told = True
        self._reported: dict[tuple[Partition, NodeId], Seconds] = {}

    # ---- what is looked at

    def begin(self) -> None:
        """Look at every readable cell, from the first."""
        ground = self._ground
        if ground.settings.scrub_rate:
            self._queue = deque(p for p in ground.partitions() if ground.is_readable(p))
            self._total = len(self._queue)
            self._revisions = self._bytes = 0
            self.look = None
            self._has_told = False
        self._next = Seconds(ground.now + ground.settings.scrub_every_s)

    def changed(self) -> None:
        """There is a new table, or a new reign."""
        ground = self._ground
        table = ground.image.table
        mine = table.partitions_of(ground.me) if ground.serving else ()
        wanted = {p for p in mine if ground.mine(p) == CellState.CORRUPTED}
        for p in [p for p in self.mends if p not in wanted]:
            del self.mends[p]
        for p in sorted(wanted - self.mends.keys()):
            self.mends[p] = Look(p, True, table.version, stop=MAX_TID)

    def tick(self) -> None:
        """Time has passed."""
        ground = self._ground
        if not ground.serving:
            return
        if ground.now >= self._next:
            self.begin()
        if self.look is None and self._queue:
            p = self._queue.popleft()
            if ground.is_readable(p):
                self.look = Look(p, False, ground.image.table.version, stop=MAX_TID)
            elif not self._queue:
                self._finish()
        for look in [*self.mends.values(), *([self.look] if self.look else [])]:
            self._go_on(look)
        self._tell()

    def _go_on(self, look: Look) -> None:
        ground = self._ground
        if not look.is_mending and not ground.is_readable(look.partition):
            self._end(look)
        elif look.step in (Step.REST, Step.CONFIRM) and ground.now >= look.due:
            if look.step == Step.CONFIRM:
                self._compare_again(look)
            elif look.then == Step.VALUES:
                self._values(look)
            elif look.then == Step.COUNT:
                self._count(look)
            else:
                self._sum(look)
        elif look.step in (Step.COUNT, Step.COMPARE, Step.THEIRS) and ground.now >= look.due:
            self._end(look)

    # ---- values

    def _values(self, look: Look) -> None:
        self._read(look, Step.VALUES, OwnValues(look.partition, look.place, look.stop, _SLICE_BYTES))

    def _read(self, look: Look, step: Step, question: OwnDigests | OwnKeys | OwnValues) -> None:
        self._number -= 1
        look.step, look.number = step, self._number
        self._ground.order(ReadOwn(look.number, question, self._ground.last_op))

    def on_own(self, event: Own) -> None:
        """Our own back end has answered."""
        for look in [*self.mends.values(), *([self.look] if self.look else [])]:
            if look.number == event.number:
                match look.step:
                    case Step.VALUES:
                        self._verified(look, event)
                    case Step.SUM:
                        self._summed(look, event)
                    case Step.OURS:
                        self._compared_keys(look, event)
                    case _:
                        pass
                return

    def _verified(self, look: Look, event: Own) -> None:
        settings = self._ground.settings
        if event.damaged:
            where = ", ".join(f"oid {oid:#x} at {tid:#x}" for tid, oid in event.damaged[:5])
            if look.is_mending:
                self._copies.write((ApplyDrop(look.partition, event.damaged, ()),))
            else:
                text = f"{len(event.damaged)} values do not have their checksums: {where}"
                self.report(look.partition, self._ground.me, text)
        rate = max(_MEND_FACTOR * settings.scrub_rate, _MEND_MIN) if look.is_mending else settings.scrub_rate
        if not look.is_mending:
            self._revisions += event.revisions
            self._bytes += event.bytes
        if event.next is not None:
            look.place = event.next
            self._rest(look, Step.VALUES, (event.bytes + 100 * event.revisions) / max(rate, 1))
        elif look.is_mending:
            look.step, look.number = Step.SAVE, self._copies.write((), durable=True)
        elif event.damaged or lead(self._ground.image.table, look.partition) == self._ground.me:
            self._end(look)  # a lead is compared by the others
        else:
            self._rest(look, Step.COUNT, 0.0)

    def _rest(self, look: Look, then: Step, seconds: float) -> None:
        look.step, look.then = Step.REST, then
        look.due = Seconds(self._ground.now + seconds)

    def on_copied_in(self, event: CopiedIn) -> None:
        """What was dropped is gone, durably."""
        for p, look in list(self.mends.items()):
            if look.step == Step.SAVE and event.number >= look.number:
                del self.mends[p]
                self._ground.send(self._ground.master, Mended(self._ground.image.table.version, p))

    # ---- keys

    def _ask(self, look: Look, step: Step, packet: Packet) -> None:
        self._number -= 1
        number = FOREIGN | -self._number
        look.step, look.number = step, number
        look.due = Seconds(self._ground.now + _ANSWER_S)
        numbered: Packet = packet._replace(number=number)  # type: ignore[attr-defined]  # Compare or Pull
        self._ground.send(look.other, numbered)

    def _count(self, look: Look) -> None:
        """How far is the other cell packed?"""
        ground = self._ground
        look.other = lead(ground.image.table, look.partition) or NO_NODE
        if look.other not in ground.peers:
            self._end(look)
            return
        look.version, look.stop = ground.image.table.version, ground.durable_mark
        epoch = ground.image.epoch
        self._ask(look, Step.COUNT, Compare(epoch, look.version, look.partition, 0, look.stop, look.stop, ()))

    def _sum(self, look: Look) -> None:
        if look.start > look.stop:
            self._ranges_done(look)
        else:
            size = self._ground.settings.copy_range
            self._read(look, Step.SUM, OwnDigests(look.partition, look.start, look.stop, size, _RANGES))

    def _summed(self, look: Look, event: Own) -> None:
        floor = self.compared_above(event.packed, look.others)
        if floor > look.floor:  # we are packed further than we have thought
            look.floor, look.start = floor, max(look.start, Tid(floor + 1))
            self._sum(look)
            return
        look.ranges = event.digests
        if not event.digests or (len(event.digests) < _RANGES and event.digests[-1].stop < look.stop):
            # What the other one may have beyond our last tid.
            start = Tid(event.digests[-1].stop + 1) if event.digests else look.start
            look.ranges = (*event.digests, RangeDigest(start, look.stop, 0, _EMPTY))
        epoch = self._ground.image.epoch
        packet = Compare(epoch, look.version, look.partition, 0, look.start, look.stop, look.ranges)
        self._ask(look, Step.COMPARE, packet)

    def compared_above(self, ours: tuple[Tid, bool], theirs: tuple[Tid, bool]) -> Tid:
        """Return the tid above which two cells that are packed so, or being packed so, must have the same."""
        return NO_TID if ours == theirs and ours[1] else max(ours[0], theirs[0])

    def on_compared(self, peer: NodeId, m: Compared) -> None:
        """The other cell has answered."""
        look = self.look
        if look is None or (look.partition, look.number, look.other) != (m.partition, m.number, peer):
            return
        if look.step == Step.COUNT:
            look.others = (m.packed, m.is_packed)
            look.start = Tid(1)
            self._sum(look)
        elif look.step == Step.COMPARE:
            look.differing = deque(look.ranges[i] for i in m.different if i < len(look.ranges))
            look.start = Tid(look.ranges[-1].stop + 1)
            if look.confirming:
                self._next_suspect(look)
            else:
                look.suspects += look.differing
                self._rest(look, Step.SUM, 0.05)

    def _ranges_done(self, look: Look) -> None:
        if look.suspects:
            look.step = Step.CONFIRM
            look.due = Seconds(self._ground.now + self._ground.settings.scrub_confirm_s)
        else:
            self._end(look)

    def _compare_again(self, look: Look) -> None:
        """What differed: does it still? By keys now."""
        look.confirming = True
        look.differing = deque(look.suspects)
        self._next_suspect(look)

    def _next_suspect(self, look: Look) -> None:
        if not look.differing:
            self._judge(look)
            return
        look.range = look.differing.popleft()
        look.theirs = []
        self._ask_keys(look, Place(look.range.start, Oid(0)))

    def _ask_keys(self, look: Look, place: Place) -> None:
        assert look.range is not None
        epoch = self._ground.image.epoch
        pull = Pull(epoch, look.version, look.partition, place.tid, look.range.stop, place.oid, 0, False)
        self._ask(look, Step.THEIRS, pull)

    def on_pull_data(self, peer: NodeId, m: PullData) -> None:
        """Keys of the other cell."""
        look = self.look
        if look is None or (look.partition, look.number, look.other) != (m.partition, m.number, peer):
            return
        look.theirs += m.transactions
        if m.next != NO_TID:
            self._ask_keys(look, Place(m.next, m.next_oid))
        else:
            assert look.range is not None
            self._read(look, Step.OURS, OwnKeys(look.partition, Place(look.range.start, Oid(0)), look.range.stop))

    def on_pull_no(self, peer: NodeId, m: PullNo) -> None:
        """The other cell is not what we compare with any more."""
        if self.look is not None and self.look.number == m.number:
            self._end(self.look)

    def _compared_keys(self, look: Look, event: Own) -> None:
        ours, theirs = _revisions(event.transactions), _revisions(look.theirs)
        look.lacking += sorted(theirs.keys() - ours.keys())
        look.extra += sorted(ours.keys() - theirs.keys())
        look.other_values += sorted(place for place in ours.keys() & theirs.keys() if ours[place] != theirs[place])
        self._next_suspect(look)

    def _judge(self, look: Look) -> None:
        """Say which cell is wrong, when all of both was compared: a part of it may point the other way."""
        lacking, extra, other = look.lacking, look.extra, look.other_values
        wrong = self.who_is_wrong(bool(lacking), bool(extra), bool(other), look.other)
        if wrong is not None:
            kinds = ((lacking, "missing"), (extra, "more"), (other, "other"))
            what = [f"{len(places)} {text}" for places, text in kinds if places]
            first = (lacking + extra + other)[0]
            text = f"compared with its lead: {', '.join(what)} revisions; first oid {first.oid:#x} at {first.tid:#x}"
            self.report(look.partition, wrong, text)
        self._end(look)

    def who_is_wrong(self, is_lacking: bool, is_extra: bool, is_other: bool, other: NodeId) -> NodeId | None:
        """Return which of the two cells is wrong; NO_NODE if nobody can tell, None if they are the same.

        Rows get lost; a revision with its transaction and a checksum that holds never comes from nowhere. So the cell
        that lacks something is wrong. If each lacks something, or a revision is not the same, nothing is destroyed.
        """
        if not (is_lacking or is_extra or is_other):
            return None
        if is_other or (is_lacking and is_extra):
            return NO_NODE
        return self._ground.me if is_lacking else other

    # ---- ends

    def _end(self, look: Look) -> None:
        if look is self.look:
            self.look = None
            if not self._queue:
                self._finish()
        elif look.is_mending:
            self.mends.pop(look.partition, None)

    def _finish(self) -> None:
        self._has_told = False
        self._told = Seconds(float("-inf"))

    def report(self, partition: Partition, node: NodeId, text: str) -> None:
        """Tell the primary of a cell that is wrong, once a minute at most."""
        ground = self._ground
        key = (partition, node)
        if ground.now >= self._reported.get(key, Seconds(float("-inf"))) + _REPORT_S:
            self._reported[key] = ground.now
            ground.send(ground.master, Damaged(ground.image.table.version, partition, node, text))

    def lost(self, peer: NodeId) -> None:
        """The connection to *peer* is gone."""
        if self.look is not None and self.look.other == peer and self.look.step not in (Step.VALUES, Step.REST):
            self._end(self.look)

    def _tell(self) -> None:
        ground = self._ground
        is_busy = self.look is not None
        if ground.now < self._told + _TELL_S or not (is_busy or not self._has_told):
            return
        self._told = ground.now
        self._has_told = not is_busy
        done = self._total - len(self._queue) - is_busy
        ground.send(ground.master, ScrubState(done, self._total, self._revisions, self._bytes, is_busy))


def _revisions(transactions: Iterable[Transaction]) -> dict[Place, Revision]:
    return {Place(r.tid, r.oid): r for t in transactions for r in t.revisions}
