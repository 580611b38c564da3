"""Long reads: what each packet is answered with, and when."""

from collections import deque
from collections.abc import Callable, Iterator

import pytest

from neo_common.errors import NotReady
from neo_common.ids import NO_TID, NO_VERSION, Epoch, NodeId, Oid, Partition, Tid, Version
from neo_common.wire.codec import frame
from neo_common.wire.schema import (
    FRAME_MAX,
    PIECE_BYTES,
    AnswerHistory,
    AskHistory,
    AskRecords,
    AskSizes,
    AskTransactions,
    AskUndo,
    Compression,
    Data,
    Error,
    ErrorCode,
    Packet,
    Pull,
    PullData,
    Write,
)
from neo_storage.backends.base import ApplyTable
from neo_storage.core.events import ReadRange
from neo_storage.ranges import RangeReads, answer
from support.backend_contract import END, P0, T1, T2, T3, TABLE, commit, write
from support.memory_backend import MemoryBackend

C1 = NodeId(0x03000001)
E = Epoch(1)
BIG = Data(Compression.NONE, bytes(16), PIECE_BYTES + 1, b"")


def big_pieces(oid: Oid) -> Iterator[bytes]:
    return iter([b"a" * PIECE_BYTES, b"b"])


@pytest.fixture
def backend() -> MemoryBackend:
    backend = MemoryBackend()
    backend.open()
    big = Write(Oid(4), NO_TID, NO_TID, BIG)
    backend.apply([ApplyTable(TABLE), commit(T1, write(0, b"a"), big, pieces=big_pieces)], 0)
    backend.apply([commit(T2, write(0, b"b", base=T1)), commit(T3, write(1, b"c"))], 1)
    return backend


def ask(backend: MemoryBackend, packet: Packet) -> Packet:
    reader = backend.range_reader()
    return answer(reader, packet, 2, (10, 20))


def test_every_question_has_its_answer(backend: MemoryBackend) -> None:
    history = ask(backend, AskHistory(E, Oid(0), 10))
    assert isinstance(history, AnswerHistory)
    assert [c.tid for c in history.changes] == [T2, T1]
    questions: list[Packet] = [
        AskTransactions(E, (P0,), Tid(0), END, False, True, True, 10),
        AskRecords(E, P0, Oid(0), END, 10, False),
        AskUndo(E, T1, (Oid(0),)),
        AskSizes((P0,)),
    ]
    for question in questions:
        name = type(question).__name__.replace("Ask", "Answer")
        assert type(ask(backend, question)).__name__ == name


def test_limits_of_a_hostile_question_are_bounded(backend: MemoryBackend) -> None:
    top = 2**32 - 1
    for limit in (0, top):
        found = ask(backend, AskTransactions(E, (P0,), Tid(0), Tid(2**64 - 1), False, True, True, limit))
        assert not isinstance(found, Error)
        listed = ask(backend, AskRecords(E, P0, Oid(0), Tid(2**64 - 1), limit, True))
        assert not isinstance(listed, Error)


def test_undo_of_what_is_not_there_is_an_error(backend: MemoryBackend) -> None:
    error = ask(backend, AskUndo(E, T3, (Oid(0),)))
    assert isinstance(error, Error)
    assert error.code == ErrorCode.NOT_FOUND


def test_pulled_history_is_complete(backend: MemoryBackend) -> None:
    """Values in pieces are joined: a copy of history has nobody to ask for pieces."""
    pulled = ask(backend, Pull(E, NO_VERSION, P0, Tid(0), T2))
    assert isinstance(pulled, PullData)
    values = [(r.oid, r.data.value) for t in pulled.transactions for r in t.revisions if r.data is not None]
    assert values == [(0, b"a"), (4, b"a" * PIECE_BYTES + b"b"), (0, b"b")]
    assert pulled.next == 0
    assert pulled.stop == T2


def test_pull_stops_below_the_size_of_a_frame_and_goes_on(backend: MemoryBackend) -> None:
    tids = [Tid((10 + n) << 32) for n in range(5)]
    value = b"v" * (5 * PIECE_BYTES)
    large = Data(Compression.NONE, bytes(16), len(value), b"")

    def pieces(oid: Oid) -> Iterator[bytes]:
        return iter([b"v" * PIECE_BYTES] * 5)

    backend.apply([commit(t, Write(Oid(8), NO_TID, NO_TID, large), pieces=pieces) for t in tids], 2)
    start, seen = tids[0], []
    while start:
        pulled = ask(backend, Pull(E, NO_VERSION, P0, start, END))
        assert isinstance(pulled, PullData)
        assert len(frame(pulled)) <= FRAME_MAX
        assert all(r.data == large._replace(value=value) for t in pulled.transactions for r in t.revisions)
        seen += [t.tid for t in pulled.transactions]
        start = pulled.next
    assert seen == tids


def test_value_that_fits_in_no_frame_cannot_be_pulled(backend: MemoryBackend) -> None:
    huge = Data(Compression.NONE, bytes(16), 13 * PIECE_BYTES, b"")

    def pieces(oid: Oid) -> Iterator[bytes]:
        return iter([b"v" * PIECE_BYTES] * 13)

    backend.apply([commit(Tid(9 << 32), Write(Oid(8), NO_TID, NO_TID, huge), pieces=pieces)], 2)
    with pytest.raises(NotReady, match="at most"):
        ask(backend, Pull(E, Version(E, NO_VERSION.ptid), P0, Tid(9 << 32), END))


class Hub:
    """Calls of threads, done when the test says."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.answers: list[tuple[ReadRange, Packet]] = []
        self.hurries = 0

    def door(self, function: Callable[..., object], *args: object) -> None:
        self.calls.append((function, args))

    def hurry(self) -> None:
        self.hurries += 1

    def done(self, read: ReadRange, packet: Packet) -> None:
        self.answers.append((read, packet))

    def run_until(self, count: int) -> None:
        while len(self.answers) < count:
            if self.calls:
                function, args = self.calls.popleft()
                function(*args)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def reads(backend: MemoryBackend, hub: Hub) -> Iterator[RangeReads]:
    reads = RangeReads(backend, hub.door, hub.hurry, hub.done, lambda: (1, 2), readers=2)
    yield reads
    reads.close(10)


def read(position: int, request: int = 1) -> ReadRange:
    return ReadRange(C1, request, AskSizes((Partition(0),)), position)


@pytest.mark.timeout(20)
def test_read_waits_until_the_back_end_is_there(reads: RangeReads, hub: Hub) -> None:
    reads.applied(4)
    reads.ask(read(5), 2)
    assert hub.hurries == 1
    assert not hub.calls
    reads.applied(5)
    hub.run_until(1)
    assert hub.answers[0][0] == read(5)


@pytest.mark.timeout(20)
def test_all_are_answered_though_readers_are_few(reads: RangeReads, hub: Hub) -> None:
    reads.applied(0)
    wanted = [read(0, request) for request in range(1, 30)]
    for each in wanted:
        reads.ask(each, 2)
    assert len(reads) == 29
    hub.run_until(29)
    assert sorted(r.request for r, _ in hub.answers) == list(range(1, 30))
    assert len(reads) == 0
    assert hub.hurries == 0


def test_who_waits_for_a_database_without_room_is_told(backend: MemoryBackend) -> None:
    told: list[tuple[ReadRange, Packet]] = []
    reads = RangeReads(backend, lambda *_: None, lambda: None, lambda read, packet: told.append((read, packet)), _disk)
    reads.applied(1)
    early = ReadRange(NodeId(1), 7, AskHistory(E, Oid(0), 10), 2)
    pull = ReadRange(NodeId(2), 0, Pull(E, NO_VERSION, P0, Tid(0), T2), 2)
    reads.ask(early, 2)
    reads.ask(pull, 2)
    assert told == []
    reads.stuck("full")
    assert [(read, packet.code) for read, packet in told if isinstance(packet, Error)] == [(early, ErrorCode.NO_SPACE)]
    reads.ask(early, 2)
    assert len(told) == 2
    reads.stuck("")
    reads.ask(early, 2)
    assert (len(told), len(reads)) == (2, 2), "what cannot be told waits, as does what need not be"
    reads.close(10)


def _disk() -> tuple[int, int]:
    return 0, 0
