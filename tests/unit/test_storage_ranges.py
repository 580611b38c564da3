"""Long reads: what each packet is answered with, and when."""

from collections import deque
from collections.abc import Callable, Iterator

import pytest

from neo_common.checksum import checksum
from neo_common.errors import DataCorrupted
from neo_common.ids import NO_TID, NO_VERSION, Epoch, NodeId, Oid, Partition, Tid
from neo_common.wire.codec import frame
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerHistory,
    AnswerTransactions,
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
from neo_storage.backends.base import ApplyTable, Place, RangeReader
from neo_storage.core.events import Own, OwnDigests, OwnKeys, ReadOwn, ReadRange
from neo_storage.ranges import RangeReads, answer, compare, look_for, pull
from neo_storage.read_ahead import AHEAD_MAX, ReadAhead
from support.backend_contract import END, P0, P1, T1, T2, T3, TABLE, commit, ttid
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


def everything(start: Tid = NO_TID, limit: int = 1, stop: Tid = END) -> AskTransactions:
    return AskTransactions(E, (P0, P1), start, stop, False, True, True, limit)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Packet]:
    """Every question whose reading has begun, in order."""
    begun = list[Packet]()

    def recorded(reader: RangeReader, packet: Packet, partitions: int, disk: tuple[int, int]) -> Packet:
        begun.append(packet)
        return answer(reader, packet, partitions, disk)

    monkeypatch.setattr("neo_storage.ranges.answer", recorded)
    return begun


def settle(reads: RangeReads, hub: Hub) -> None:
    """Let everything end that was begun."""
    while len(reads) or hub.calls:
        if hub.calls:
            function, args = hub.calls.popleft()
            function(*args)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("is_late", [False, True], ids=["there when asked", "asked before it is there"])
def test_iteration_is_read_ahead(reads: RangeReads, hub: Hub, begun: list[Packet], is_late: bool) -> None:
    reads.applied(1)
    start, tids, questions = NO_TID, list[Tid](), 0
    while questions == 0 or start:
        reads.ask(ReadRange(C1, 1, everything(start, 1 + questions), 1), 2)
        questions += 1
        hub.run_until(questions)
        packet = hub.answers[-1][1]
        assert isinstance(packet, AnswerTransactions)
        tids += [t.tid for t in packet.transactions]
        start = packet.next
        if not is_late:
            settle(reads, hub)
            assert len(begun) == questions + bool(start), "the next was read before it was asked for"
    settle(reads, hub)
    assert tids == [T1, T2, T3]
    assert len(begun) == questions, "nothing was read twice"


@pytest.mark.timeout(20)
def test_what_was_read_ahead_is_not_given_to_who_must_see_more(
    reads: RangeReads, hub: Hub, begun: list[Packet], backend: MemoryBackend
) -> None:
    reads.applied(1)
    reads.ask(ReadRange(C1, 1, everything(T1, 2), 1), 2)
    settle(reads, hub)
    assert [packet.start for packet in begun if isinstance(packet, AskTransactions)] == [T1, T3]
    t4 = Tid(T3 + 1)
    backend.apply([commit(t4, write(1, b"d", base=T3))], 2)
    reads.applied(2)
    reads.ask(ReadRange(C1, 2, everything(T3, 2), 2), 2)
    settle(reads, hub)
    packet = hub.answers[-1][1]
    assert isinstance(packet, AnswerTransactions)
    assert [t.tid for t in packet.transactions] == [T3, t4]


@pytest.mark.timeout(20)
def test_nothing_from_before_a_pack_is_given_after_it(reads: RangeReads, hub: Hub, begun: list[Packet]) -> None:
    reads.applied(1)
    reads.ask(ReadRange(C1, 1, everything(T1, 2), 1), 2)
    settle(reads, hub)
    reads.changed()
    reads.ask(ReadRange(C1, 2, everything(T3, 2), 1), 2)
    settle(reads, hub)
    assert [packet.start for packet in begun if isinstance(packet, AskTransactions)] == [T1, T3, T3]


@pytest.mark.timeout(20)
def test_who_asks_for_fewer_gets_no_more(reads: RangeReads, hub: Hub) -> None:
    reads.applied(1)
    reads.ask(ReadRange(C1, 1, everything(T1, 1), 1), 2)
    settle(reads, hub)
    reads.ask(ReadRange(C1, 2, everything(T2, 2), 1), 2)  # ahead: one from T2 on
    settle(reads, hub)
    reads.ask(ReadRange(C1, 3, everything(T3, 1), 1), 2)
    settle(reads, hub)
    counts = [len(a.transactions) for _, a in hub.answers if isinstance(a, AnswerTransactions)]
    assert counts == [1, 1, 1]


@pytest.mark.timeout(20)
def test_failed_reading_ahead_is_for_who_asks(reads: RangeReads, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(reader: RangeReader, packet: Packet, partitions: int, disk: tuple[int, int]) -> Packet:
        assert isinstance(packet, AskTransactions)
        if packet.start:
            raise DataCorrupted("a page is broken")
        return answer(reader, packet, partitions, disk)

    reads.applied(1)
    monkeypatch.setattr("neo_storage.ranges.answer", failing)
    reads.ask(ReadRange(C1, 1, everything(), 1), 2)
    settle(reads, hub)
    assert [type(packet) for _, packet in hub.answers] == [AnswerTransactions]
    reads.ask(ReadRange(C1, 2, everything(T2), 1), 2)
    settle(reads, hub)
    packet = hub.answers[-1][1]
    assert isinstance(packet, Error)
    assert packet.code == ErrorCode.CORRUPTED


def test_reading_ahead_keeps_few_answers_and_the_latest() -> None:
    found = AnswerTransactions((), T2)
    ahead = ReadAhead()
    kept = [ahead.begin(NodeId(n), everything(), found, 5) for n in range(AHEAD_MAX + 2)]
    assert [one is not None and one in ahead for one in kept] == [False] * 2 + [True] * AHEAD_MAX
    for n in range(2, AHEAD_MAX + 2):
        assert ahead.claim(ReadRange(NodeId(n), 1, everything(T2, 9), 5)) is kept[n]
        assert ahead.claim(ReadRange(NodeId(n), 2, everything(T2, 9), 5)) is None, "it is for one question"
    assert ahead.begin(NodeId(99), everything(), found, 5) is None, "all are wanted"
    assert ahead.begin(NodeId(2), everything(), AnswerTransactions((), NO_TID), 5) is None, "there is no more"
    last = kept[-1]
    assert last is not None
    ahead.forget(last)
    down = ahead.begin(C1, everything()._replace(descending=True), found, 5)
    assert down is not None
    assert down.question == everything(stop=T2)._replace(descending=True)
    ahead.forget_unwanted()
    assert down not in ahead
    assert kept[2] in ahead


@pytest.mark.timeout(20)
def test_readers_connect_before_they_are_asked(backend: MemoryBackend, hub: Hub) -> None:
    reads = RangeReads(backend, hub.door, hub.hurry, hub.done, hub.owned.append, lambda: (1, 2), readers=2)
    reads.warm()
    reads.applied(0)
    reads.ask(read(0), 2)
    hub.run_until(1)
    settle(reads, hub)
    assert [r.request for r, _ in hub.answers] == [1]
    reads.close(10)
