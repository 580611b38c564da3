"""Long reads: each waits until the back end has what it must see, then runs on a native thread.

As many run at once as there are readers; the others wait their turn, so that the memory of their answers is bounded.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from neo_common.errors import DataCorrupted, NotReady
from neo_common.ids import MAX_TID, Oid, Partition, Tid
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerHistory,
    AnswerRecords,
    AnswerSizes,
    AnswerTransactions,
    AnswerUndo,
    AskHistory,
    AskRecords,
    AskSizes,
    AskTransactions,
    AskUndo,
    Error,
    ErrorCode,
    Packet,
    Pull,
    PullData,
    Revision,
    Transaction,
)
from neo_storage.backends.base import Backend, RangeReader
from neo_storage.core.events import ReadRange
from neo_storage.native import Door, Worker

ANSWER_BYTES: Final = 4 * 2**20
"""Values per answer, about: far below what a frame can carry."""
_TRANSACTIONS_MAX: Final = 10_000
_REVISIONS_MAX: Final = 150_000
"""Per answer: their ids alone fill half a frame."""
_PULL_BYTES: Final = 12 * 2**20
"""The largest value that history is copied with: it must fit in one frame."""


class RangeReads:
    """Runs `ReadRange` effects. All calls are the hub's."""

    def __init__(
        self,
        backend: Backend,
        door: Door,
        hurry: Callable[[], None],
        done: Callable[[ReadRange, Packet], None],
        disk: Callable[[], tuple[int, int]],
        *,
        readers: int = 2,
    ) -> None:
        """*hurry* asks for what was not applied; *done* gets each answer; *disk* gives (used, free)."""
        self._hurry = hurry
        self._done = done
        self._disk = disk
        self._idle = [(Worker(door), backend.range_reader()) for _ in range(readers)]
        self._all = list(self._idle)
        self._applied = -1
        self._stuck = ""
        self._early: list[tuple[ReadRange, int]] = []
        self._ready: deque[tuple[ReadRange, int]] = deque()

    def __len__(self) -> int:
        return len(self._early) + len(self._ready) + len(self._all) - len(self._idle)

    def ask(self, read: ReadRange, partitions: int) -> None:
        """Answer *read*, when it is time. *partitions*: how many the table has."""
        if read.position > self._applied:
            self._early.append((read, partitions))
            self._hurry()
            self._refuse_early()
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

    def stuck(self, text: str) -> None:
        """Nothing is applied until further notice (""), and *text* says why: who waits for that is told."""
        self._stuck = text
        self._refuse_early()

    def _refuse_early(self) -> None:
        if self._stuck:
            early, self._early = self._early, [item for item in self._early if not item[0].request]
            for read, _ in early:
                if read.request:  # a Pull has nobody to tell: it goes on when it can
                    self._done(
                        read, Error(ErrorCode.NO_SPACE, f"the last commits are not in the database: {self._stuck}")
                    )

    def close(self, timeout_s: float) -> None:
        """End the threads, blocking until what runs has ended."""
        self._early.clear()
        self._ready.clear()
        for worker, reader in self._all:
            if worker.stop(timeout_s):
                reader.close()

    def _work(self) -> None:
        while self._ready and self._idle:
            read, partitions = self._ready.popleft()
            self._begin(read, partitions)

    def _begin(self, read: ReadRange, partitions: int) -> None:
        worker, reader = self._idle.pop()
        disk = self._disk() if isinstance(read.packet, AskSizes) else (0, 0)

        def done(result: object) -> None:
            self._idle.append((worker, reader))
            self._work()
            if isinstance(result, DataCorrupted):
                result = Error(ErrorCode.CORRUPTED, str(result))
            elif isinstance(result, NotReady):
                result = Error(ErrorCode.TOO_LARGE, str(result))
            elif isinstance(result, Exception):
                raise result  # what we do not understand stops the node
            assert isinstance(result, tuple)
            self._done(read, result)

        worker.submit(lambda: answer(reader, read.packet, partitions, disk), done)


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
                limit_bytes=ANSWER_BYTES,
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
        case Pull(epoch, version, partition, start, stop):
            found, following = reader.transactions(
                (partition,),
                min(start, MAX_TID),
                min(stop, MAX_TID),
                descending=False,
                revisions=True,
                values=True,
                limit=_TRANSACTIONS_MAX,
                limit_bytes=ANSWER_BYTES,
            )
            return _pulled(reader, PullData(epoch, version, partition, stop, found, (), following))
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


def _pulled(reader: RangeReader, data: PullData) -> PullData:
    """Return *data* with every value: those left out are read; what does not fit any more is left to the next Pull.

    Raises: NotReady for a transaction that fits in no frame.
    """
    room = _PULL_BYTES
    whole: list[Transaction] = []
    for transaction in data.transactions:
        size = sum(r.data.size for r in transaction.revisions if r.data is not None)
        if whole and size > room:
            return data._replace(transactions=tuple(whole), next=transaction.tid)
        if size > _PULL_BYTES:
            raise NotReady(
                f"transaction {transaction.tid:#x} has {size} bytes in partition {data.partition}: history is copied"
                f" with at most {_PULL_BYTES} per transaction"
            )
        room -= size
        revisions = tuple(_with_value(reader, data.partition, r) for r in transaction.revisions)
        whole.append(transaction._replace(revisions=revisions))
    return data._replace(transactions=tuple(whole))


def _with_value(reader: RangeReader, partition: Partition, revision: Revision) -> Revision:
    data = revision.data
    if data is None or data.value or not data.size:
        return revision
    pieces: list[bytes] = []
    for offset in range(0, data.size, PIECE_BYTES):
        piece = reader.piece(partition, revision.oid, revision.tid, offset)
        if piece is None:
            raise DataCorrupted(f"oid {revision.oid:#x} at {revision.tid:#x} has no piece {offset}")
        pieces.append(piece)
    return revision._replace(data=data._replace(value=b"".join(pieces)))
