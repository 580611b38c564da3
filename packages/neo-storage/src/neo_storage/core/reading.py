"""Loads and long reads: what is answered at once, what waits for the primary. Pure.

A revision may be committed already although its Commit has not come. So who asks for something that an undecided vote
writes, at a snapshot that may be above it, waits until the primary has told the last tid: by order of delivery every
commit up to it is here then. Readers of older snapshots never wait.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from neo_common.errors import BackendError, DataCorrupted
from neo_common.ids import MAX_TID, NO_TID, Epoch, NodeId, Oid, Partition, Tid, Ttid
from neo_common.wire.schema import (
    INLINE_BYTES,
    AnswerLoad,
    AnswerLoads,
    AnswerPiece,
    Ask,
    AskHistory,
    AskLoad,
    AskLoads,
    AskPiece,
    AskRecords,
    AskSizes,
    AskTransactions,
    AskUndo,
    Compression,
    Error,
    ErrorCode,
    Loaded,
    Packet,
    Told,
)
from neo_storage.backends.base import Stored
from neo_storage.core.events import Loads, Piece, PointsRead, ReadRange
from neo_storage.core.ground import Ground, checked
from neo_storage.core.tentative import VotedRecord

Question = AskLoad | AskHistory | AskTransactions | AskRecords | AskUndo
"""Questions that an undecided vote may hold up."""
Found = dict[Oid, Stored | DataCorrupted | None]
"""What the back end has of each object that it was asked for."""
UNBOUNDED: Final = MAX_TID
"""`before` of a reader that wants whatever is current."""


@dataclass(slots=True)
class Wait:
    """A question that waits. `told`: of whom the primary has spoken since the Ask number `asked`, which was for it."""

    peer: NodeId
    request: int
    question: Question
    asked: int = 0
    told: set[Ttid] = field(default_factory=set)


class Reading:
    """Answers questions for data."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._floors: dict[Ttid, Tid] = {}
        self._asked = 0
        self._answered = 0
        self.waits: list[Wait] = []

    # ---- questions

    def on_question(self, peer: NodeId, request: int, question: Question) -> None:
        """Answer now, or when it is known which of the undecided votes count."""
        if self._is_refused(peer, request, question.epoch):
            return
        wait = Wait(peer, request, question)
        undecided = self.undecided(wait)
        if not undecided:
            self._answer(wait)
        elif len(self.waits) >= self._ground.settings.loads:
            self._fail(peer, request, ErrorCode.NOT_READY, "too many reads wait for the primary")
        else:
            self.waits.append(wait)
            self._ask(wait, undecided)

    def on_sizes(self, peer: NodeId, request: int, question: AskSizes) -> None:
        """Count; of the partitions asked for, or of all that are here."""
        table = self._ground.image.table
        parts = question.partitions or table.partitions_of(self._ground.me)
        wrong = [p for p in parts if self._ground.mine(p) is None]
        if wrong:
            self._fail(peer, request, ErrorCode.PARTITION, f"no cell of partition {wrong[0]} is here")
        else:
            self._range(peer, request, AskSizes(parts))

    def on_piece(self, peer: NodeId, request: int, question: AskPiece) -> None:
        """Answer a piece of a committed value."""
        if self._is_refused(peer, request, question.epoch):
            return
        ground, partition = self._ground, self._ground.partition(question.oid)
        if not ground.is_readable(partition):
            self._not_readable(peer, request, partition)
            return
        try:
            value = ground.overlay.piece(question.oid, question.tid, question.offset)
            if value is None and ground.serials is not None:
                self._piece_later(peer, request, question)
                return
            if value is None:
                value = ground.reader.piece(partition, question.oid, question.tid, question.offset)
        except DataCorrupted as error:
            self._damaged(peer, request, partition, error)
            return
        self._send_piece(peer, request, question, value)

    def _send_piece(self, peer: NodeId, request: int, question: AskPiece, value: bytes | None) -> None:
        if value is None:
            text = f"oid {question.oid:#x} has no piece {question.offset} at {question.tid:#x}"
            self._fail(peer, request, ErrorCode.NOT_FOUND, text)
        else:
            self._ground.send(peer, AnswerPiece(value), request)

    def on_loads(self, peer: NodeId, request: int, question: AskLoads) -> None:
        """Answer what can be answered at once."""
        if self._is_refused(peer, request, question.epoch):
            return
        ground = self._ground
        if ground.serials is not None:
            self._loads_later(peer, request, question)
            return
        self._send_loads(peer, request, question, lambda oid: ground.load(oid, question.before))

    def _send_loads(self, peer: NodeId, request: int, question: AskLoads, load: Callable[[Oid], Stored | None]) -> None:
        ground = self._ground
        loaded: list[Loaded] = []
        room = INLINE_BYTES
        for oid in question.oids:
            if room <= 0 or not ground.is_readable(ground.partition(oid)) or self._undecided(oid, question.before):
                continue
            try:
                stored = load(oid)
            except DataCorrupted:
                continue  # AskLoad will say it
            if stored is not None and stored.data.compression != Compression.ABSENT:
                loaded.append(Loaded(oid, stored.tid, stored.end, stored.data))
                room -= len(stored.data.value)
        ground.send(peer, AnswerLoads(tuple(loaded)), request)

    # ---- what is undecided

    def undecided(self, wait: Wait) -> list[Ttid]:
        """Return the transactions whose fate must be known before *wait* can be answered, ascending."""
        found: set[Ttid]
        match wait.question:
            case AskLoad(oid=oid, before=before):
                found = self._undecided(oid, before)
            case AskHistory(oid=oid):
                before, found = UNBOUNDED, self._undecided(oid, UNBOUNDED)
            case AskUndo(oids=oids):
                before = UNBOUNDED
                found = {t for oid in oids for t in self._undecided(oid, UNBOUNDED)}
            case AskTransactions(partitions=partitions, stop=stop):
                before = Tid(stop + 1)
                found = self._undecided_in(partitions, before)
            case AskRecords(partition=partition, before=before, newer=newer):
                before = UNBOUNDED if newer else before
                found = self._undecided_in((partition,), before)
        if before >= UNBOUNDED:  # it wants what is committed when it asks: one answer of the primary settles that
            found -= wait.told
        return sorted(found)

    def _undecided(self, oid: Oid, before: Tid) -> set[Ttid]:
        writers = self._ground.image.writers.get(oid)
        return {t for t, v in writers.items() if self.may_be_below(v, before)} if writers else set()

    def _undecided_in(self, partitions: tuple[Partition, ...], before: Tid) -> set[Ttid]:
        wanted = set(partitions)
        return {
            ttid
            for ttid, parts in self._ground.image.voted.items()
            if any(p in wanted and v.record.writes and self.may_be_below(v, before) for p, v in parts.items())
        }

    def may_be_below(self, voted: VotedRecord, before: Tid) -> bool:
        """Return whether that vote may have become a revision with a tid below *before*."""
        floor = max(voted.record.floor, self._floors.get(voted.record.ttid, NO_TID))
        return floor + 1 < before

    def on_told(self, master: NodeId, m: Told) -> None:
        """What is still undecided of these will get a tid above that one."""
        ground = self._ground
        ground.seen = max(ground.seen, m.last)
        for ttid in m.ttids:
            if ttid in ground.image.voted:
                self._floors[ttid] = max(m.last, self._floors.get(ttid, NO_TID))
        self._answered += 1
        for wait in self.waits:
            if 0 < wait.asked <= self._answered:
                wait.told.update(m.ttids)
        self.serve(ask=True)

    def _ask(self, wait: Wait, undecided: list[Ttid]) -> None:
        master = self._ground.master
        if master is not None:
            self._asked += 1
            wait.asked = self._asked
            self._ground.send(master, Ask(tuple(undecided)))

    def master_lost(self) -> None:
        """No answer will come to what was asked; it is asked again when there is a primary."""
        self._asked = self._answered = 0
        for wait in self.waits:
            wait.asked = 0

    def settled(self, ttid: Ttid) -> None:
        """It is decided."""
        self._floors.pop(ttid, None)
        self.serve()

    def serve(self, *, ask: bool = False) -> None:
        """Answer the reads that need not wait any longer; *ask* again for the others."""
        if not self.waits:
            return
        waits, self.waits = self.waits, []
        for wait in waits:
            undecided = self.undecided(wait) if self._first_unreadable(wait.question) is None else []
            if undecided:
                self.waits.append(wait)
                if ask:
                    self._ask(wait, undecided)
            else:
                self._answer(wait)

    def lost(self, peer: NodeId) -> None:
        """Who asked is gone."""
        self.waits = [w for w in self.waits if w.peer != peer]

    def end_reign(self) -> None:
        """The epoch is over: what waits is not answered under the next one."""
        waits, self.waits = self.waits, []
        for wait in waits:
            self._fail(wait.peer, wait.request, ErrorCode.EPOCH, "another primary takes over")
        self._floors.clear()

    # ---- answers

    def _answer(self, wait: Wait) -> None:
        unreadable = self._first_unreadable(wait.question)
        if unreadable is not None:
            self._not_readable(wait.peer, wait.request, unreadable)
        elif isinstance(wait.question, AskLoad):
            self._load(wait.peer, wait.request, wait.question)
        else:
            self._range(wait.peer, wait.request, wait.question)

    def _load(self, peer: NodeId, request: int, question: AskLoad) -> None:
        if self._ground.serials is not None:
            self._load_later(peer, request, question)
            return
        try:
            stored = self._ground.load(question.oid, question.before)
        except DataCorrupted as error:
            self._damaged(peer, request, self._ground.partition(question.oid), error)
            return
        self._ground.send(peer, _loaded(question, stored), request)

    def _damaged(self, peer: NodeId, request: int, partition: Partition, error: DataCorrupted) -> None:
        """Say so to who asks, who will ask another cell, and to the primary."""
        self._ground.damaged.append((partition, self._ground.me, str(error)))
        self._fail(peer, request, ErrorCode.CORRUPTED, str(error))

    # ---- answers from a back end that cannot be asked at once

    def _load_later(self, peer: NodeId, request: int, question: AskLoad) -> None:
        stored = self._ground.at_hand(question.oid, question.before)
        if stored is not None:
            self._ground.send(peer, _loaded(question, stored), request)
            return

        def then(found: Found) -> None:
            try:
                stored = self._newest(question.oid, question.before, found)
            except DataCorrupted as error:
                self._damaged(peer, request, self._ground.partition(question.oid), error)
            else:
                self._ground.send(peer, _loaded(question, stored), request)

        self._read_loads(peer, request, question, (question.oid,), then)

    def _loads_later(self, peer: NodeId, request: int, question: AskLoads) -> None:
        ground = self._ground

        def then(found: Found) -> None:
            self._send_loads(peer, request, question, lambda oid: self._newest(oid, question.before, found))

        wanted = tuple(
            oid
            for oid in dict.fromkeys(question.oids)
            if ground.is_readable(ground.partition(oid)) and ground.at_hand(oid, question.before) is None
        )
        if wanted:
            self._read_loads(peer, request, question, wanted, then)
        else:
            then({})

    def _piece_later(self, peer: NodeId, request: int, question: AskPiece) -> None:
        partition = self._ground.partition(question.oid)

        def then(event: PointsRead) -> None:
            if isinstance(event.result, DataCorrupted):
                self._damaged(peer, request, partition, event.result)
                return
            if self._is_void(peer, request, question.epoch, event.result):
                return
            if not self._ground.is_readable(partition):
                self._not_readable(peer, request, partition)
                return
            assert event.result is None or isinstance(event.result, bytes), "a piece was asked for"
            self._send_piece(peer, request, question, event.result)

        if self._has_room(peer, request):
            self._ground.read(Piece(partition, question.oid, question.tid, question.offset), then)

    def _newest(self, oid: Oid, before: Tid, found: Found) -> Stored | None:
        """Return a revision that was read, or what was committed meanwhile. Raises DataCorrupted."""
        stored = self._ground.at_hand(oid, before)
        if stored is not None:
            return stored
        there = found.get(oid)
        if isinstance(there, DataCorrupted):
            raise there
        end = self._ground.overlay.load(oid, before)[1]
        return there._replace(end=end) if there is not None and there.end == NO_TID and end != NO_TID else there

    def _read_loads(
        self,
        peer: NodeId,
        request: int,
        question: AskLoad | AskLoads,
        oids: tuple[Oid, ...],
        then: Callable[[Found], None],
    ) -> None:
        """Have *oids* read; *then* gets them, unless they cannot be answered any more."""
        ground, serials = self._ground, self._ground.serials
        assert serials is not None, "else they are read at once"
        if not self._has_room(peer, request):
            return
        version, generation = ground.image.table.version, serials.generation
        for oid in oids:
            serials.ask(oid)

        def read(event: PointsRead) -> None:
            result = event.result if isinstance(event.result, tuple) else ()
            found = dict(zip(oids, result, strict=False))
            for oid in oids:
                stored = found[oid] = _verified(oid, found.get(oid))
                if isinstance(stored, Stored) and stored.end == NO_TID:
                    serials.answered(oid, stored.tid, generation, stored.data)
                else:
                    serials.answered(oid, None, generation)
            if self._is_void(peer, request, question.epoch, event.result):
                return
            unreadable = self._first_unreadable(question) if isinstance(question, AskLoad) else None
            if unreadable is not None:
                self._not_readable(peer, request, unreadable)
            elif version != ground.image.table.version:
                # A cell may have been emptied and filled again meanwhile.
                self._read_loads(peer, request, question, oids, then)
            else:
                then(found)

        ground.read(Loads(tuple((ground.partition(oid), oid) for oid in oids), question.before), read)

    def _has_room(self, peer: NodeId, request: int) -> bool:
        if len(self._ground.reads) < self._ground.settings.loads:
            return True
        self._fail(peer, request, ErrorCode.NOT_READY, "too many reads wait for the database")
        return False

    def _is_void(self, peer: NodeId, request: int, epoch: Epoch, result: object) -> bool:
        """Refuse to answer from *result*: an error, or the world has changed meanwhile. Return whether it was so."""
        if isinstance(result, BackendError):
            self._fail(peer, request, ErrorCode.NOT_READY, f"the database does not answer: {result}")
            return True
        return self._is_refused(peer, request, epoch)

    def said(self, question: Packet, answer: Packet) -> Packet:
        """Return what to say to a client of what was read from the back end: *answer*, or that a cell left the table.

        To be asked when the answer is there: such a cell may be half erased, and what was not found is not nothing.
        """
        if isinstance(question, Question):
            partition = self._first_unreadable(question)
            if partition is not None:
                return self._unreadable(partition)
        return answer

    def _range(self, peer: NodeId, request: int, question: Packet) -> None:
        self._ground.order(ReadRange(peer, request, question, self._ground.last_op))

    def _first_unreadable(self, question: Question) -> Partition | None:
        for partition in self._partitions(question):
            if not self._ground.is_readable(partition):
                return partition
        return None

    def _partitions(self, question: Question) -> tuple[Partition, ...]:
        match question:
            case AskLoad(oid=oid) | AskHistory(oid=oid):
                return (self._ground.partition(oid),)
            case AskUndo(oids=oids):
                return tuple(sorted({self._ground.partition(oid) for oid in oids}))
            case AskTransactions(partitions=partitions):
                return partitions
            case AskRecords(partition=partition):
                return (partition,)

    def _is_refused(self, peer: NodeId, request: int, epoch: Epoch) -> bool:
        ground = self._ground
        if not ground.serving:
            self._fail(peer, request, ErrorCode.NOT_READY, "this storage does not serve yet")
        elif epoch != ground.image.epoch:
            self._fail(peer, request, ErrorCode.EPOCH, "another primary reigns")
        else:
            return False
        return True

    def _not_readable(self, peer: NodeId, request: int, partition: Partition) -> None:
        self._ground.send(peer, self._unreadable(partition), request)

    def _unreadable(self, partition: Partition) -> Error:
        version = self._ground.image.table.version
        text = f"the cell of partition {partition} is not readable here in partition table {version}"
        return Error(ErrorCode.NOT_READABLE, text)

    def _fail(self, peer: NodeId, request: int, code: ErrorCode, text: str) -> None:
        self._ground.send(peer, Error(code, text), request)


def _verified(oid: Oid, stored: Stored | DataCorrupted | None) -> Stored | DataCorrupted | None:
    if not isinstance(stored, Stored):
        return stored
    try:
        return checked(oid, stored, NO_TID)
    except DataCorrupted as error:
        return error


def _loaded(question: AskLoad, stored: Stored | None) -> Packet:
    if stored is None:
        return Error(ErrorCode.NOT_FOUND, f"oid {question.oid:#x} has no revision before {question.before:#x}")
    if stored.data.compression == Compression.ABSENT:
        return Error(ErrorCode.DELETED, f"oid {question.oid:#x} was deleted at {stored.tid:#x}")
    return AnswerLoad(stored.tid, stored.end, stored.data)
