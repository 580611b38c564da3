"""Loads and long reads."""

from typing import TypeVar

import pytest

from neo_common.ids import MAX_TID, NO_TID, Oid, Partition, Tid
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerDebug,
    AnswerLoad,
    AnswerLoads,
    AnswerPiece,
    AnswerRecords,
    Ask,
    AskDebug,
    AskHistory,
    AskLoad,
    AskLoads,
    AskOids,
    AskPiece,
    AskRecords,
    AskSizes,
    AskTransactions,
    AskUndo,
    Error,
    ErrorCode,
    Packet,
    SAbort,
    Told,
)
from neo_storage.core.settings import StorageSettings
from support.storage_rig import (
    ABSENT,
    C1,
    C2,
    E1,
    E2,
    M1,
    P0,
    P1,
    PAIR,
    S1,
    S2,
    T1,
    T2,
    T3,
    O,
    Rig,
    Sent,
    U,
    data,
    of,
    only,
    table,
    ttid,
    vote,
    write,
)

_P = TypeVar("_P")


def load(rig: Rig, oid: int, before: int = MAX_TID) -> list[Sent]:
    """C1 asks for *oid*."""
    return rig.receive(C1, AskLoad(E1, Oid(oid), Tid(before)), 7)


def answer(sent: list[Sent], cls: type[_P]) -> _P:
    """Return the answer to request 7 of C1."""
    packet = only(sent, cls, C1)
    assert [s.request for s in sent if s.packet is packet] == [7]
    return packet


def two_revisions() -> Rig:
    rig = Rig().serve()
    rig.write_all(T1, write(0, 0, b"one"), counter=1)
    rig.write_all(T3, write(0, T1, b"three"), counter=2)
    return rig


def test_load_gives_the_revision_below_and_its_end() -> None:
    rig = two_revisions()
    assert answer(load(rig, 0), AnswerLoad) == AnswerLoad(T3, NO_TID, data(b"three"))
    assert answer(load(rig, 0, T3), AnswerLoad) == AnswerLoad(T1, T3, data(b"one"))


def test_load_before_the_first_revision_finds_nothing() -> None:
    assert answer(load(two_revisions(), 0, T1), Error).code == ErrorCode.NOT_FOUND


def test_load_of_an_unknown_object_finds_nothing() -> None:
    assert answer(load(two_revisions(), 2), Error).code == ErrorCode.NOT_FOUND


def test_load_of_a_deleted_object_says_so() -> None:
    rig = two_revisions()
    rig.write_all(400, write(0, T3)._replace(data=ABSENT), counter=3)
    assert answer(load(rig, 0), Error).code == ErrorCode.DELETED
    assert answer(load(rig, 0, 400), AnswerLoad).end == 400


def test_commit_is_read_before_it_is_durable_or_applied() -> None:
    rig = two_revisions()
    rig.receive(C2, vote(write(0, T3, b"new"), client=C2))
    rig.flush()
    rig.commit(400, client=C2)
    assert answer(load(rig, 0), AnswerLoad) == AnswerLoad(Tid(400), NO_TID, data(b"new"))
    assert answer(load(rig, 0, 400), AnswerLoad) == AnswerLoad(T3, Tid(400), data(b"three"))


def test_applied_commit_is_read_from_the_back_end() -> None:
    rig = two_revisions()
    assert len(rig.core.ground.overlay) == 0
    assert rig.core.ground.overlay.bytes == 0


def test_node_without_a_readable_cell_says_so() -> None:
    rig = Rig(S2).serve(table(((S1, U), (S2, O)), ((S1, U),)))
    assert answer(load(rig, 0), Error).code == ErrorCode.NOT_READABLE
    assert answer(load(rig, 1), Error).code == ErrorCode.NOT_READABLE


def test_another_epoch_is_told() -> None:
    rig = two_revisions()
    assert only(rig.receive(C1, AskLoad(E2, Oid(0), T1), 7), Error).code == ErrorCode.EPOCH


def test_node_that_does_not_serve_says_so() -> None:
    rig = Rig()
    rig.core.ground.peers.add(C1)
    assert only(rig.receive(C1, AskLoad(E1, Oid(0), T1), 7), Error).code == ErrorCode.NOT_READY


# ---------------------------------------------------------------------------------------------- undecided


def undecided() -> Rig:
    """Two revisions, and a vote of C2 for a third, whose floor is T3."""
    rig = two_revisions()
    rig.receive(C2, vote(write(0, T3, b"new"), client=C2, known=T3))
    rig.flush()
    return rig


def test_reader_above_the_floor_waits_for_the_primary() -> None:
    rig = undecided()
    assert only(load(rig, 0, T3 + 2), Ask, M1).ttids == (ttid(C2),)
    assert answer(rig.receive(M1, Told(Tid(T3 + 1), (ttid(C2),))), AnswerLoad).tid == T3


def test_reader_at_the_floor_does_not_wait() -> None:
    assert answer(load(undecided(), 0, T3 + 1), AnswerLoad).tid == T3


def test_reader_of_another_object_does_not_wait() -> None:
    rig = undecided()
    assert answer(load(rig, 2, T3 + 2), Error).code == ErrorCode.NOT_FOUND


def test_commit_that_comes_answers_who_waits() -> None:
    rig = undecided()
    load(rig, 0, T3 + 2)
    assert answer(rig.commit(T3 + 1, client=C2), AnswerLoad).data == data(b"new")


def test_abort_that_comes_answers_who_waits() -> None:
    rig = undecided()
    load(rig, 0, T3 + 2)
    assert answer(rig.receive(M1, SAbort(ttid(C2), 1)), AnswerLoad).tid == T3


def test_told_raises_the_floor_for_the_next_reader() -> None:
    rig = undecided()
    load(rig, 0, T3 + 10)
    rig.receive(M1, Told(Tid(T3 + 9), (ttid(C2),)))
    assert answer(load(rig, 0, T3 + 10), AnswerLoad).tid == T3


def test_told_too_low_asks_again() -> None:
    rig = undecided()
    load(rig, 0, T3 + 10)
    assert of(rig.receive(M1, Told(Tid(T3 + 5), (ttid(C2),))), Ask) != []


def test_reader_of_what_is_current_waits_for_one_answer_only() -> None:
    rig = undecided()
    load(rig, 0, MAX_TID)
    assert answer(rig.receive(M1, Told(T3, (ttid(C2),))), AnswerLoad).tid == T3


def test_answer_to_an_earlier_question_does_not_count() -> None:
    """The primary may have committed in between: an unbounded reader needs an answer to its own question."""
    rig = undecided()
    rig.receive(C2, AskLoad(E1, Oid(0), MAX_TID), 1)
    load(rig, 0, MAX_TID)
    sent = rig.receive(M1, Told(T3, (ttid(C2),)))
    assert [s.peer for s in sent if isinstance(s.packet, AnswerLoad)] == [C2]


def test_who_waits_asks_the_next_primary() -> None:
    rig = undecided()
    load(rig, 0, T3 + 2)
    rig.lose(M1)
    rig.connect(M1)
    assert only(rig.adopt(rig.core.image.table), Ask, M1).ttids == (ttid(C2),)


def test_fence_answers_who_waits() -> None:
    rig = undecided()
    load(rig, 0, T3 + 2)
    assert answer(rig.fence(E2, M1), Error).code == ErrorCode.EPOCH


def test_table_that_takes_the_cell_answers_who_waits() -> None:
    rig = undecided()
    load(rig, 0, T3 + 2)
    sent = rig.set_table(table(((S2, U), (S1, O)), ((S1, U),), ptid=2))
    assert answer(sent, Error).code == ErrorCode.NOT_READABLE


def test_lost_client_waits_no_longer() -> None:
    rig = undecided()
    load(rig, 0, T3 + 2)
    rig.lose(C1)
    rig.connect(C1)
    assert of(rig.commit(T3 + 1, client=C2), AnswerLoad) == []


def test_too_many_reads_that_wait_are_refused() -> None:
    rig = Rig(settings=StorageSettings(loads=1)).serve()
    rig.receive(C2, vote(write(0), client=C2))
    load(rig, 0)
    assert answer(load(rig, 0), Error).code == ErrorCode.NOT_READY


@pytest.mark.parametrize(
    ("question", "waits"),
    [
        (AskHistory(E1, Oid(0), 9), True),
        (AskHistory(E1, Oid(2), 9), False),
        (AskUndo(E1, T1, (Oid(2), Oid(0))), True),
        (AskTransactions(E1, (P0,), T1, Tid(T3 + 1), False, True, False, 9), True),
        (AskTransactions(E1, (P0,), T1, T3, False, True, False, 9), False),
        (AskTransactions(E1, (P1,), T1, MAX_TID, False, True, False, 9), False),
        (AskRecords(E1, P0, Oid(0), Tid(T3 + 2), 9, False), True),
        (AskRecords(E1, P0, Oid(0), Tid(T3 + 1), 9, False), False),
        (AskRecords(E1, P0, Oid(0), Tid(T3 + 1), 9, True), True),
    ],
)
def test_long_read_waits_for_what_it_may_see(question: Packet, waits: bool) -> None:
    rig = undecided()
    sent = rig.receive(C1, question, 7)
    assert bool(of(sent, Ask)) == waits
    assert bool(rig.reads) == (not waits)
    if waits:
        rig.receive(M1, Told(Tid(T3 + 1), (ttid(C2),)))
        assert [(r.peer, r.request, r.packet) for r in rig.reads] == [(C1, 7, question)]


def test_long_read_waits_for_the_applier() -> None:
    rig = undecided()
    rig.commit(400, client=C2)
    rig.receive(C1, AskHistory(E1, Oid(0), 9), 7)
    position = rig.reads[0].position
    rig.flush()
    assert rig.to_apply[-1][0] == position


def test_long_read_of_a_cell_that_is_not_readable_is_refused() -> None:
    rig = Rig(S2).serve(table(((S1, U), (S2, O)), ((S2, U),)))
    question = AskTransactions(E1, (P1, P0), T1, T2, False, True, False, 9)
    assert only(rig.receive(C1, question, 7), Error).code == ErrorCode.NOT_READABLE
    assert rig.reads == []


def test_long_read_of_a_cell_that_has_left_the_table_meanwhile_is_refused() -> None:
    """It may be half erased: who packs with garbage collection would take what is not there for garbage."""
    rig = Rig(S2).serve(table(((S1, U), (S2, U)), ((S2, U),)))
    everything = AskTransactions(E1, (P0, P1), T1, T2, False, True, False, 9)
    rest, answer = AskRecords(E1, P1, Oid(0), T2, 9, False), AnswerRecords((), None)
    assert rig.core.reading.said(everything, answer) is answer
    rig.set_table(table(((S1, U),), ((S2, U),), ptid=2))
    refused = rig.core.reading.said(everything, answer)
    assert isinstance(refused, Error)
    assert refused.code == ErrorCode.NOT_READABLE
    assert rig.core.reading.said(rest, answer) is answer


def test_sizes_are_of_all_cells_unless_some_are_named() -> None:
    rig = Rig(S2).serve(table(((S1, U), (S2, O)), ((S1, U),)))
    rig.receive(C1, AskSizes(()), 7)
    assert rig.reads[0].packet == AskSizes((P0,))
    assert only(rig.receive(C1, AskSizes((P1,)), 8), Error).code == ErrorCode.PARTITION


# ---------------------------------------------------------------------------------------------- many, pieces, others


def test_loads_leave_out_what_cannot_be_answered_at_once() -> None:
    rig = undecided()
    rig.write_all(T2, write(2, 0, b"two"), write(4, 0)._replace(data=ABSENT), counter=3)
    rig.set_table(table(((S1, U),), ((S2, U),), ptid=2))
    wanted = tuple(Oid(o) for o in (0, 1, 2, 4, 6))
    loaded = only(rig.receive(C1, AskLoads(E1, wanted, MAX_TID), 7), AnswerLoads).loaded
    assert [(one.oid, one.tid, one.data) for one in loaded] == [(2, T2, data(b"two"))]


def test_loads_stop_when_there_is_enough() -> None:
    rig = Rig().serve()
    size = 900_000
    rig.write_all(T1, *(write(2 * n, 0, bytes([n]) * size) for n in range(8)), counter=1)
    wanted = tuple(Oid(2 * n) for n in range(8))
    loaded = only(rig.receive(C1, AskLoads(E1, wanted, MAX_TID), 7), AnswerLoads).loaded
    assert 4 <= len(loaded) <= 6


def test_piece_of_a_value_that_is_not_there() -> None:
    rig = two_revisions()
    assert only(rig.receive(C1, AskPiece(E1, Oid(0), T2, 0), 7), Error).code == ErrorCode.NOT_FOUND
    assert only(rig.receive(C1, AskPiece(E1, Oid(0), T1, 0), 7), AnswerPiece).value == b"one"


def test_damaged_value_is_not_served() -> None:
    rig = two_revisions()
    cell = rig.backend.state.cells[Partition(0)]
    cell[Oid(0)] = tuple(r._replace(data=r.data._replace(value=b"wrong")) for r in cell[Oid(0)])
    assert answer(load(rig, 0), Error).code == ErrorCode.CORRUPTED


def test_large_value_is_loaded_without_its_pieces() -> None:
    rig = Rig().serve()
    value = bytes(PIECE_BYTES + 1)
    cell = rig.backend.state.cells.setdefault(Partition(0), {})
    rig.write_all(T1, write(0, 0, b"x"), counter=1)
    cell[Oid(0)] = tuple(r._replace(data=data(value)) for r in cell[Oid(0)])
    loaded = answer(load(rig, 0), AnswerLoad)
    assert (loaded.data.size, loaded.data.value) == (len(value), b"")
    piece = only(rig.receive(C1, AskPiece(E1, Oid(0), T1, PIECE_BYTES), 7), AnswerPiece)
    assert piece.value == b"\0"


def test_question_for_somebody_else_is_answered_with_an_error() -> None:
    rig = two_revisions()
    assert only(rig.receive(C1, AskOids(1), 7), Error).code == ErrorCode.ILLEGAL


def test_debug_is_answered_as_json() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    text = only(rig.receive(C1, AskDebug(), 7), AnswerDebug).json
    assert '"node": "S1"' in text
    assert "waiting={0: [" in text
