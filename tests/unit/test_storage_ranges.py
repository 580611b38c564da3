"""Long reads: what each packet is answered with, and when."""

from collections import deque
from collections.abc import Callable, Iterator

import pytest

from neo_common.checksum import checksum
from neo_common.ids import NO_TID, NO_VERSION, Epoch, NodeId, Oid, Partition, Tid
from neo_common.wire.codec import frame
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerHistory,
    AskFate,
    AskHistory,
    AskRecords,
    AskSizes,
    AskTransactions,
    AskUndo,
    Compare,
    Compared,
    Compression,
    Data,
    Error,
    ErrorCode,
    Packet,
    Pull,
    PullData,
    PullNo,
    PullPiece,
    Write,
)
from neo_storage.backends.base import ApplyTable, Place
from neo_storage.core.events import Own, OwnDigests, OwnKeys, ReadOwn, ReadRange
from neo_storage.ranges import RangeReads, answer, compare, look_for, pull
from support.backend_contract import END, P0, T1, T2, T3, TABLE, commit, ttid
from support.memory_backend import MemoryBackend

C1 = NodeId(0x03000001)
E = Epoch(1)
BIG = Data(Compression.NONE, checksum(b"a" * PIECE_BYTES + b"b"), PIECE_BYTES + 1, b"")


def big_pieces(oid: Oid) -> Iterator[bytes]:
    return iter([b"a" * PIECE_BYTES, b"b"])


def write(oid: int, value: bytes, base: Tid = NO_TID) -> Write:
    return Write(Oid(oid), base, NO_TID, Data(Compression.NONE, checksum(value), len(value), value))


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


def test_transaction_is_found_in_history_by_its_ttid(backend: MemoryBackend) -> None:
    reader = backend.range_reader()
    parts = (P0, Partition(1))
    for tid, where in ((T1, P0), (T2, P0), (T3, Partition(1))):
        assert look_for(reader, AskFate(ttid(tid >> 32), parts, NO_TID), limit=1).tid == tid
        assert look_for(reader, AskFate(ttid(tid >> 32), (where,), Tid(tid - 1))).tid == tid
        assert look_for(reader, AskFate(ttid(tid >> 32), parts, tid)).tid == NO_TID
    assert look_for(reader, AskFate(ttid(999), parts, NO_TID), limit=1).tid == NO_TID


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


def given(backend: MemoryBackend, start: Tid, **fields: object) -> list[Packet]:
    """Everything that a cell is given from *start* on, by as many Pulls as it takes."""
    sent: list[Packet] = []
    place = Place(start, Oid(0))
    while place.tid:
        question = Pull(E, NO_VERSION, P0, place.tid, END, place.oid, 7, **fields)  # type: ignore[arg-type]
        found = pull(backend.range_reader(), question, sent.append, limit=2)
        sent.append(found)
        assert isinstance(found, PullData)
        place = Place(found.next, found.next_oid)
    return sent


def test_pulled_history_is_complete(backend: MemoryBackend) -> None:
    """Values in pieces come before what names them."""
    sent = given(backend, T1)
    found = [p for p in sent if isinstance(p, PullData)]
    values = [(r.oid, r.data.value) for p in found for t in p.transactions for r in t.revisions if r.data is not None]
    assert values == [(0, b"a"), (4, b""), (0, b"b")]
    assert [(p.oid, p.offset, len(p.value)) for p in sent if isinstance(p, PullPiece)] == [
        (4, 0, PIECE_BYTES),
        (4, PIECE_BYTES, 1),
    ]
    assert {p.number for p in found} == {7}


def test_keys_come_without_values(backend: MemoryBackend) -> None:
    sent = given(backend, T1, values=False)
    found = [r.data for p in sent if isinstance(p, PullData) for t in p.transactions for r in t.revisions]
    assert len(found) == 3
    assert all(data is not None and data.size and not data.value for data in found)


def test_damaged_value_is_not_given(backend: MemoryBackend) -> None:
    backend.state.cells[P0][Oid(0)] = tuple(
        rev._replace(data=rev.data._replace(value=b"x")) for rev in backend.state.cells[P0][Oid(0)]
    )
    question = Pull(E, NO_VERSION, P0, T1, END, Oid(0), 7)
    answered = pull(backend.range_reader(), question, lambda _: None)
    assert isinstance(answered, PullNo)
    assert "damaged" in answered.text


def test_transactions_of_any_size_fit_into_frames(backend: MemoryBackend) -> None:
    large = Data(Compression.NONE, checksum(b"v" * PIECE_BYTES), PIECE_BYTES, b"v" * PIECE_BYTES)
    writes = [Write(Oid(2 * n), NO_TID, NO_TID, large) for n in range(40)]
    backend.apply([commit(Tid(9 << 32), *writes)], 2)
    sent = given(backend, Tid(9 << 32))
    assert all(len(frame(p)) < 4 * PIECE_BYTES for p in sent)
    oids = [r.oid for p in sent if isinstance(p, PullData) for t in p.transactions for r in t.revisions]
    assert oids == [w.oid for w in writes]


def test_ranges_are_compared(backend: MemoryBackend) -> None:
    reader = backend.range_reader()
    ranges = (
        reader.digest(P0, T1, T1),
        reader.digest(P0, T2, T2)._replace(digest=bytes(16)),
        reader.digest(P0, T3, T3),
    )
    question = Compare(E, NO_VERSION, P0, 7, T1, END, ranges)
    assert compare(reader, question, 3) == Compared(P0, 7, END, 0, (1,), 3)
    assert compare(reader, question._replace(ranges=()), 3).revisions == 3


class Hub:
    """Calls of threads, done when the test says."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.answers: list[tuple[ReadRange, Packet]] = []
        self.owned: list[Own] = []
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
    reads = RangeReads(backend, hub.door, hub.hurry, hub.done, hub.owned.append, lambda: (1, 2), readers=2)
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
def test_copying_has_its_turn_beside_clients(reads: RangeReads, hub: Hub) -> None:
    reads.applied(0)
    wanted = [ReadRange(C1, 0, Compare(E, NO_VERSION, P0, n, T1, END, ()), 0) for n in range(3)]
    for each in wanted:
        reads.ask(each, 2)
    reads.ask(ReadOwn(5, OwnDigests(P0, T1, END, 10, 10), 0), 2)
    reads.ask(ReadOwn(6, OwnKeys(P0, Place(T1, Oid(0)), END), 0), 2)
    reads.ask(read(0), 2)
    hub.run_until(4)
    while len(hub.owned) < 2:
        if hub.calls:
            function, args = hub.calls.popleft()
            function(*args)
    loads = [packet.load for _, packet in hub.answers if isinstance(packet, Compared)]
    assert sorted(loads) == [0, 2, 3]
    assert [o.number for o in hub.owned] == [5, 6]
    assert [d.revisions for d in hub.owned[0].digests] == [3]
    assert [len(t.revisions) for t in hub.owned[1].transactions] == [2, 1]


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
    reads = RangeReads(
        backend, lambda *_: None, lambda: None, lambda read, packet: told.append((read, packet)), _never, _disk
    )
    reads.applied(1)
    early = ReadRange(NodeId(1), 7, AskHistory(E, Oid(0), 10), 2)
    pull = ReadRange(NodeId(2), 0, Pull(E, NO_VERSION, P0, Tid(0), T2), 2)
    reads.ask(early, 2)
    reads.ask(pull, 2)
    assert told == []
    reads.stuck(ErrorCode.NO_SPACE, "full")
    assert [(read, packet.code) for read, packet in told if isinstance(packet, Error)] == [(early, ErrorCode.NO_SPACE)]
    reads.stuck(ErrorCode.NOT_READY, "away")
    reads.ask(early, 2)
    assert [packet.code for _, packet in told if isinstance(packet, Error)] == [ErrorCode.NO_SPACE, ErrorCode.NOT_READY]
    reads.go_on()
    reads.ask(early, 2)
    assert (len(told), len(reads)) == (2, 2), "what cannot be told waits, as does what need not be"
    reads.close(10)


def _never(own: Own) -> None:
    raise AssertionError(own)


def _disk() -> tuple[int, int]:
    return 0, 0
