"""Long reads: each waits until the back end has what it must see, then runs on a native thread.

As many run at once as there are readers; the others wait their turn, so that the memory of their answers is bounded.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Final

from xxhash import xxh3_128

from neo_common.checksum import checksum
from neo_common.errors import BackendError, BackendLost, DataCorrupted, NotReady
from neo_common.ids import MAX_TID, NO_TID, Oid, Partition, Tid
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerHistory,
    AnswerRecords,
    AnswerSizes,
    AnswerTransactions,
    AnswerUndo,
    AskFate,
    AskHistory,
    AskRecords,
    AskSizes,
    AskTransactions,
    AskUndo,
    Compare,
    Compared,
    Error,
    ErrorCode,
    Packet,
    Pull,
    PullData,
    PullNo,
    PullPiece,
    Revision,
    ToldFate,
    Transaction,
)
from neo_storage.backends.base import Backend, Place, RangeReader
from neo_storage.core.events import Own, OwnDigests, OwnKeys, OwnValues, ReadOwn, ReadRange
from neo_storage.native import Door, Worker
from neo_storage.points import PATIENCE_S, patient
from neo_storage.read_ahead import Ahead, ReadAhead

log = logging.getLogger("neo.storage")
ANSWER_BYTES: Final = 4 * 2**20
"""Values per answer, about: far below what a frame can carry."""
TRANSACTIONS_BYTES: Final = 2 * 2**20
"""The same of transactions: who iterates uses one answer while the next is made, the sooner the better."""
_TRANSACTIONS_MAX: Final = 10_000
_REVISIONS_MAX: Final = 150_000
"""Per answer: their ids alone fill half a frame."""
COPY_BYTES: Final = 2**20
"""Values per answer to a Pull, about: small enough that nobody waits long for what is behind it."""
_COPY_REVISIONS: Final = 2000
_KEYS_MAX: Final = 50_000


class RangeReads:
    """Runs `ReadRange` effects. All calls are the hub's.

    For who reads all transactions the next ones are read ahead, as long as that leaves a reader for others.
    """

    def __init__(
        self,
        backend: Backend,
        door: Door,
        hurry: Callable[[], None],
        done: Callable[[ReadRange, Packet], None],
        told: Callable[[Own], None],
        disk: Callable[[], tuple[int, int]],
        *,
        readers: int = 2,
    ) -> None:
        """*hurry* asks for what was not applied; *done* gets each answer; *disk* gives (used, free).

        *told* gets the answers for this node itself. Copying has a reader of its own: clients never wait for it.
        """
        self._door = door
        self._told = told
        self._hurry = hurry
        self._done = done
        self._disk = disk
        self._idle = [(Worker(door), backend.range_reader()) for _ in range(readers)]
        self._copying = [(Worker(door), backend.range_reader())]
        self._all = [*self._idle, *self._copying]
        self._applied = -1
        self._is_stopping = False
        self._stuck: Error | None = None
        self._early: list[tuple[ReadRange | ReadOwn, int]] = []
        self._ready: deque[tuple[ReadRange | ReadOwn, int]] = deque()
        self._to_copy: deque[ReadRange | ReadOwn] = deque()
        self._ahead = ReadAhead()

    def __len__(self) -> int:
        busy = len(self._all) - len(self._idle) - len(self._copying)
        return len(self._early) + len(self._ready) + len(self._to_copy) + busy

    def warm(self) -> None:
        """Have readers connect before anybody waits for them: the first read would take some ms longer."""
        while self._idle:
            self._warm(*self._idle.pop())

    def _warm(self, worker: Worker, reader: RangeReader) -> None:
        def done(result: object) -> None:
            if isinstance(result, Exception) and not isinstance(result, BackendError):
                raise result  # what we do not understand stops the node
            self._idle.append((worker, reader))  # a server that does not answer is told to who asks
            self._work()

        worker.submit(lambda: reader.packed(Partition(0)), done)

    def ask(self, read: ReadRange | ReadOwn, partitions: int) -> None:
        """Answer *read*, when it is time. *partitions*: how many the table has."""
        if read.position > self._applied:
            self._early.append((read, partitions))
            self._hurry()
            self._refuse_early()
        elif isinstance(read, ReadRange) and (ahead := self._ahead.claim(read)) is not None:
            if ahead.answer is not None:
                self._give_ahead(ahead, ahead.answer, partitions)
        else:
            self._ready.append((read, partitions))
            self._work()

    def applied(self, position: int) -> None:
        """The back end has everything up to *position*."""
        self._applied = position
        if self._early:
            self._ready += [item for item in self._early if item[0].position <= position]
            self._early = [item for item in self._early if item[0].position > position]
            self._work()

    def changed(self) -> None:
        """History has changed without a position of its own: what was read before is for nobody who asks now."""
        self._ahead.forget_unwanted()

    def stuck(self, code: ErrorCode, text: str) -> None:
        """Nothing is applied until `go_on`, and *text* says why: who waits for that is told."""
        self._stuck = Error(code, f"the last commits are not in the database: {text}")
        self._refuse_early()

    def go_on(self) -> None:
        """It is applied again."""
        self._stuck = None

    def _refuse_early(self) -> None:
        if self._stuck:
            early, self._early = self._early, [item for item in self._early if not _is_asked(item[0])]
            for read, _ in early:
                if isinstance(read, ReadRange) and read.request:  # a copy has nobody to tell: it goes on when it can
                    self._done(read, self._stuck)

    def close(self, timeout_s: float) -> None:
        """End the threads, blocking until what runs has ended."""
        self._is_stopping = True
        self._early.clear()
        self._ready.clear()
        self._to_copy.clear()
        self._ahead.forget_unwanted()
        for worker, reader in self._all:
            if worker.stop(timeout_s):
                reader.close()

    def _work(self) -> None:
        waiting, self._ready = self._ready, deque()
        for read, partitions in waiting:
            if isinstance(read, ReadRange) and read.request:
                self._ready.append((read, partitions))
            else:
                self._to_copy.append(read)
        while self._ready and self._idle:
            read, partitions = self._ready.popleft()
            assert isinstance(read, ReadRange)
            self._begin(read, partitions)
        while self._to_copy and self._copying:
            self._begin_copy(self._to_copy.popleft())

    def _begin_copy(self, read: ReadRange | ReadOwn) -> None:
        worker, reader = self._copying.pop()
        load = len(self._to_copy)

        def job() -> Packet | Own:
            match read:
                case ReadOwn(number, question, _):
                    return own(reader, number, question)
                case ReadRange(_, _, Compare() as packet, _):
                    return compare(reader, packet, load)
                case ReadRange(_, _, AskFate() as packet, _):
                    return look_for(reader, packet)
                case ReadRange(_, _, Pull() as packet, _):
                    return pull(reader, packet, lambda piece: self._door(self._done, read, piece))
                case _:
                    raise TypeError(f"{type(read).__name__} is not a matter of copying")

        def done(result: object) -> None:
            self._copying.append((worker, reader))
            if self._is_stopping and isinstance(result, BackendLost):
                return
            self._work()
            if isinstance(result, OverflowError) and isinstance(read, ReadRange):
                log.warning("peer=%s asks for numbers that no database has: %s", read.peer, result)
                return
            if isinstance(result, Exception):
                raise result  # what we do not understand stops the node
            if isinstance(result, Own):
                self._told(result)
            else:
                assert isinstance(read, ReadRange)
                assert isinstance(result, tuple)
                self._done(read, result)

        worker.submit(lambda: patient(job, inf, lambda: self._is_stopping), done)

    def _begin(self, read: ReadRange, partitions: int) -> None:
        worker, reader = self._idle.pop()
        disk = self._disk() if isinstance(read.packet, AskSizes) else (0, 0)

        def done(result: object) -> None:
            self._idle.append((worker, reader))
            self._work()
            if isinstance(result, DataCorrupted):
                result = Error(ErrorCode.CORRUPTED, str(result))
            elif isinstance(result, BackendLost):
                result = Error(ErrorCode.NOT_READY, f"the database does not answer: {result}")
            elif isinstance(result, NotReady):
                result = Error(ErrorCode.TOO_LARGE, str(result))
            elif isinstance(result, OverflowError):
                result = Error(ErrorCode.ILLEGAL, f"ids are below 2**63, as the databases' numbers: {result}")
            elif isinstance(result, Exception):
                raise result  # what we do not understand stops the node
            assert isinstance(result, tuple)
            self._read_ahead(read, result, partitions)
            self._done(read, result)

        worker.submit(
            lambda: patient(
                lambda: answer(reader, read.packet, partitions, disk), PATIENCE_S, lambda: self._is_stopping
            ),
            done,
        )

    def _read_ahead(self, read: ReadRange, packet: Packet, partitions: int) -> None:
        """Begin to read what *read.peer* will ask for when it has *packet*, if that leaves a reader for others."""
        if not isinstance(packet, AnswerTransactions) or len(self._idle) < 2 or self._ready or self._is_stopping:
            return
        assert isinstance(read.packet, AskTransactions)
        ahead = self._ahead.begin(read.peer, read.packet, packet, self._applied)
        if ahead is None:
            return
        worker, reader = self._idle.pop()

        def done(result: object) -> None:
            self._idle.append((worker, reader))
            if ahead in self._ahead:
                self._ahead_is_there(ahead, result, partitions)
            self._work()

        worker.submit(lambda: answer(reader, ahead.question, partitions, (0, 0)), done)

    def _ahead_is_there(self, ahead: Ahead, result: object, partitions: int) -> None:
        if not isinstance(result, AnswerTransactions):  # an error: who asks has it read again, and is told
            self._ahead.forget(ahead)
            if ahead.wanted is not None:
                self._ready.append((ahead.wanted, partitions))
        elif ahead.wanted is not None:
            self._give_ahead(ahead, result, partitions)
        else:
            ahead.answer = result

    def _give_ahead(self, ahead: Ahead, packet: AnswerTransactions, partitions: int) -> None:
        self._ahead.forget(ahead)
        assert ahead.wanted is not None
        self._read_ahead(ahead.wanted, packet, partitions)
        self._done(ahead.wanted, packet)


def _is_asked(read: ReadRange | ReadOwn) -> bool:
    return isinstance(read, ReadRange) and bool(read.request)


def answer(reader: RangeReader, packet: Packet, partitions: int, disk: tuple[int, int]) -> Packet:
    """Return the answer to *packet*. Raises: BackendError, NotReady."""
    match packet:
        case AskHistory(_, oid, limit):
            changes = reader.history(Partition(oid % partitions), oid, min(limit, _TRANSACTIONS_MAX))
            return AnswerHistory(changes)
        case AskTransactions(_, wanted, start, stop, descending, revisions, values, limit):
            found, following = reader.transactions(
                wanted,
                min(start, MAX_TID),
                min(stop, MAX_TID),
                descending=descending,
                revisions=revisions,
                values=values,
                limit=max(1, min(limit, _TRANSACTIONS_MAX)),
                limit_bytes=TRANSACTIONS_BYTES,
            )
            return _checked(AnswerTransactions(found, following), found)
        case AskRecords(_, partition, first, before, limit, newer):
            listed, rest = reader.records(
                partition,
                first,
                min(before, MAX_TID),
                newer=newer,
                limit=max(1, min(limit, _REVISIONS_MAX // 2)),
                limit_bytes=ANSWER_BYTES,
            )
            return AnswerRecords(listed, rest)
        case AskUndo(_, tid, oids):
            return _undo(reader, tid, oids, partitions)
        case AskSizes(wanted):
            return AnswerSizes(reader.sizes(wanted), *disk)
        case _:
            raise TypeError(f"no long read answers {type(packet).__name__}")


def _checked(packet: Packet, found: Sequence[Transaction]) -> Packet:
    count = sum(len(t.revisions) for t in found)
    if count > _REVISIONS_MAX:
        text = f"transaction {found[0].tid:#x} has {count} revisions here: ask for one partition at a time"
        return Error(ErrorCode.TOO_LARGE, text)
    return packet


def _undo(reader: RangeReader, tid: Tid, oids: Sequence[Oid], partitions: int) -> Packet:
    found = []
    for oid in oids:
        info = reader.undo(Partition(oid % partitions), oid, tid)
        if info is None:
            return Error(ErrorCode.NOT_FOUND, f"oid {oid:#x} has no revision at {tid:#x}")
        found.append(info)
    return AnswerUndo(tuple(found))


def pull(
    reader: RangeReader, m: Pull, send: Callable[[Packet], None], *, limit: int = _COPY_REVISIONS
) -> PullData | PullNo:
    """Return the answer to *m*, *limit* revisions at most, having sent the pieces of its large values.

    Raises: BackendError.

    Every value is verified before it leaves: who copies would believe it otherwise.
    """
    found, rest = reader.copy(
        m.partition,
        Place(m.start, m.first),
        min(m.stop, MAX_TID),
        values=m.values,
        limit=limit if m.values else _KEYS_MAX,
        limit_bytes=COPY_BYTES,
    )
    if m.values:
        for transaction in found:
            for revision in transaction.revisions:
                if problem := _give_value(reader, m, revision, send):
                    return PullNo(m.partition, m.number, problem, True)
    following = rest or Place(NO_TID, Oid(0))
    return PullData(m.epoch, m.version, m.partition, m.stop, found, (), following.tid, following.oid, m.number)


def _give_value(reader: RangeReader, m: Pull, revision: Revision, send: Callable[[Packet], None]) -> str:
    """Send a value that is in pieces, and verify any; return what is wrong with it."""
    where = f"the value of oid {revision.oid:#x} at {revision.tid:#x} is damaged"
    pieces = _pieces(reader, m.partition, revision)
    for offset, piece in pieces:
        send(PullPiece(m.partition, m.number, revision.oid, revision.tid, offset, piece))
    return "" if _is_intact(reader, m.partition, revision) else where


def _pieces(reader: RangeReader, partition: Partition, revision: Revision) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of a value in pieces, as far as they are there; nothing of another one."""
    data = revision.data
    assert data is not None
    if data.size > PIECE_BYTES and not data.value:
        for offset in range(0, data.size, PIECE_BYTES):
            piece = reader.piece(partition, revision.oid, revision.tid, offset)
            if piece is None:
                return
            yield offset, piece


def _is_intact(reader: RangeReader, partition: Partition, revision: Revision) -> bool:
    data = revision.data
    assert data is not None
    if not data.size:
        return True
    if data.size <= PIECE_BYTES:
        return len(data.value) == data.size and checksum(data.value) == data.checksum
    digest, size = xxh3_128(), 0
    for _, piece in _pieces(reader, partition, revision):
        digest.update(piece)
        size += len(piece)
    return size == data.size and digest.digest() == data.checksum


def look_for(reader: RangeReader, m: AskFate, *, limit: int = _TRANSACTIONS_MAX) -> ToldFate:
    """Return the answer to *m*. Raises: BackendError."""
    start = Tid(m.above + 1)
    while start:
        found, start = reader.transactions(
            m.parts,
            start,
            MAX_TID,
            descending=False,
            revisions=False,
            values=False,
            limit=limit,
            limit_bytes=ANSWER_BYTES,
        )
        for transaction in found:
            if transaction.ttid == m.ttid:
                return ToldFate(m.ttid, m.parts, transaction.tid)
    return ToldFate(m.ttid, m.parts, NO_TID)


def compare(reader: RangeReader, m: Compare, load: int) -> Compared:
    """Return the answer to *m*. Raises: BackendError."""
    packed = reader.packed(m.partition)
    if not m.ranges:
        count = reader.count(m.partition, m.start, m.stop) if m.start <= m.stop else 0
        return Compared(m.partition, m.number, m.stop, count, (), load, *packed)
    different = [i for i, r in enumerate(m.ranges) if reader.digest(m.partition, r.start, r.stop).digest != r.digest]
    return Compared(m.partition, m.number, m.stop, 0, tuple(different), load, *packed)


def own(reader: RangeReader, number: int, question: OwnDigests | OwnKeys | OwnValues) -> Own:
    """Return the answer to *question*. Raises: BackendError."""
    match question:
        case OwnDigests(partition, start, stop, size, limit):
            digests = reader.digests(partition, start, stop, size=size, limit=limit)
            return Own(number, digests=digests, packed=reader.packed(partition))
        case OwnValues():
            return _verify(reader, number, question)
        case OwnKeys(partition, start, stop):
            found: list[Transaction] = []
            place: Place | None = start
            while place is not None:
                part, place = reader.copy(partition, place, stop, values=False, limit=_KEYS_MAX, limit_bytes=COPY_BYTES)
                found += part
            return Own(number, transactions=merged(found))


def _verify(reader: RangeReader, number: int, question: OwnValues) -> Own:
    partition, start, stop, limit_bytes = question
    found, rest = reader.copy(partition, start, stop, values=True, limit=_COPY_REVISIONS, limit_bytes=limit_bytes)
    revisions = [r for t in found for r in t.revisions]
    size = sum(r.data.size for r in revisions if r.data is not None)
    damaged = tuple(Place(r.tid, r.oid) for r in revisions if not _is_intact(reader, partition, r))
    return Own(number, damaged=damaged, next=rest, revisions=len(revisions), bytes=size)


def merged(parts: Sequence[Transaction]) -> tuple[Transaction, ...]:
    """Return *parts* with those of one transaction put together."""
    whole: list[Transaction] = []
    for part in parts:
        if whole and whole[-1].tid == part.tid:
            whole[-1] = whole[-1]._replace(revisions=whole[-1].revisions + part.revisions)
        else:
            whole.append(part)
    return tuple(whole)
