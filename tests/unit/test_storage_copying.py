"""A cell makes itself equal to a good one: two storages talk, and what passes between them is counted."""

import pytest

from neo_common.core import Tick
from neo_common.ids import NO_TID, Oid, Tid
from neo_common.model.partition_table import PartitionTable
from neo_common.wire.schema import (
    PIECE_BYTES,
    CaughtUp,
    Compare,
    Compared,
    Copying,
    Pull,
    PullData,
    PullNo,
    PullPiece,
    Ready,
    Transaction,
)
from neo_storage.backends.base import Place
from neo_storage.core.copying import difference, spans
from neo_storage.core.events import ReadRange
from neo_storage.core.settings import StorageSettings
from support.histories import HISTORY, fill, is_same, transaction
from support.storage_rig import (
    E1,
    E3,
    M1,
    META,
    P0,
    S1,
    S2,
    S3,
    T2,
    J,
    O,
    Rig,
    Sent,
    U,
    converse,
    of,
    only,
    relay,
    table,
    write,
)

OUT = table(((S1, U), (S2, O)), ((S1, U), (S2, O)))
JOIN = table(((S1, U), (S2, J)), ((S1, U), (S2, O)), ptid=2)
SMALL = StorageSettings(copy_range=4)


def pair(
    there: list[Transaction], here: list[Transaction], settings: StorageSettings = SMALL, new: PartitionTable = OUT
) -> dict[int, Rig]:
    """Return S1, which has *there*, and S2, whose cell is out of date and has *here*; S2 has begun to copy."""
    one, two = Rig(S1), Rig(S2, settings)
    fill(one, there)
    fill(two, here)
    one.serve(new, S2)
    two.serve(new)
    return {S1: one, S2: two}


def tap(rigs: dict[int, Rig]) -> list[object]:
    """Return a list that fills with all that S2 receives from S1."""
    heard: list[object] = []
    receive = rigs[S2].receive

    def listen(peer: int, packet: object, request: int = 0) -> list[Sent]:
        heard.append(packet)
        return receive(peer, packet, request)  # type: ignore[arg-type]

    rigs[S2].receive = listen  # type: ignore[method-assign, assignment]
    return heard


def catch_up(rigs: dict[int, Rig]) -> tuple[list[object], list[Sent]]:
    """Let S2 copy; return what it has heard, and what it has told others."""
    heard = tap(rigs)
    told = converse(rigs, rigs[S2].connect(S1), S2)
    return heard, told


def copied(heard: list[object]) -> list[int]:
    """Return the tids of the revisions that came with values."""
    pulled = [t for p in heard if isinstance(p, PullData) for t in p.transactions]
    return [t.tid for t in pulled for r in t.revisions if r.data is not None and r.data.value]


def test_empty_cell_is_filled() -> None:
    rigs = pair(HISTORY, [])
    heard, told = catch_up(rigs)
    assert is_same(rigs)
    assert len(copied(heard)) == 80
    assert of(told, CaughtUp, M1)[0].epoch == E1
    assert P0 in [p for packet in of(told, CaughtUp, M1) for p in packet.partitions]


def test_cell_that_was_away_copies_what_it_missed_only() -> None:
    rigs = pair(HISTORY, HISTORY[:35])
    heard, _ = catch_up(rigs)
    assert is_same(rigs)
    assert sorted(set(copied(heard))) == [36, 37, 38, 39, 40]


@pytest.mark.parametrize("missing", [(0,), (17,), (39,), (3, 4, 5, 20), tuple(range(10, 30))])
def test_hole_in_the_middle_is_found_and_filled(missing: tuple[int, ...]) -> None:
    rigs = pair(HISTORY, [t for n, t in enumerate(HISTORY) if n not in missing])
    heard, _ = catch_up(rigs)
    assert is_same(rigs)
    assert sorted(set(copied(heard))) == [n + 1 for n in missing]


def test_missing_revision_of_a_transaction_is_found() -> None:
    hurt = [t._replace(revisions=t.revisions[:1]) if t.tid == 20 else t for t in HISTORY]
    rigs = pair(HISTORY, hurt)
    heard, _ = catch_up(rigs)
    assert is_same(rigs)
    assert set(copied(heard)) == {20}


def test_what_is_too_much_is_dropped_and_nothing_transferred() -> None:
    """As after a pack, or a garbage collection, that the cell has missed."""
    packed = [t._replace(revisions=t.revisions[1:]) if t.tid < 30 else t for t in HISTORY if t.tid % 3]
    rigs = pair(packed, HISTORY)
    heard, _ = catch_up(rigs)
    assert is_same(rigs)
    assert copied(heard) == []


def test_what_another_reign_has_decided_otherwise_is_replaced() -> None:
    other = [t if t.tid < 38 else transaction(t.tid, 2, 4, value=b"other") for t in HISTORY]
    rigs = pair(HISTORY, [*other, transaction(50, 0), transaction(51, 2)])
    catch_up(rigs)
    # What is above the source's last tid is the business of the join, whose cut is above it.
    reader = rigs[S2].backend.range_reader()
    assert reader.digest(P0, Tid(1), Tid(40)) == rigs[S1].backend.range_reader().digest(P0, Tid(1), Tid(40))
    outside = relay(rigs, rigs[S2].set_table(JOIN, last=40), S2) + relay(rigs, rigs[S1].set_table(JOIN, last=40), S1)
    outside += converse(rigs)
    assert only(outside, Ready).partition == P0
    assert is_same(rigs)


def test_what_was_equal_in_one_reign_is_compared_again_in_the_next() -> None:
    """A recovery may have decided otherwise about what was equal."""
    rigs = pair(HISTORY, HISTORY)
    catch_up(rigs)
    other = Rig(S1)
    fill(other, [t if t.tid < 38 else transaction(t.tid, 2, 4, value=b"other") for t in HISTORY])
    rigs[S1] = other
    rigs[S2].lose(S1)
    for rig in rigs.values():
        rig.fence(E3)
        rig.start(table(*OUT.rows, epoch=E3), epoch=E3)
        rig.settle()
    other.connect(S2)
    converse(rigs, rigs[S2].connect(S1), S2)
    assert is_same(rigs)


def test_other_metadata_are_a_difference() -> None:
    rigs = pair(HISTORY, [t._replace(metadata=META._replace(user=b"x")) if t.tid == 9 else t for t in HISTORY])
    catch_up(rigs)
    assert is_same(rigs)


def test_join_copies_what_came_since_and_knows_the_last_tid() -> None:
    rigs = pair(HISTORY[:30], HISTORY[:30])
    catch_up(rigs)
    one, two = rigs[S1], rigs[S2]
    one.write_all(100, write(4, 2), counter=1)
    heard = tap(rigs)
    outside = relay(rigs, two.set_table(JOIN, last=100), S2) + relay(rigs, one.set_table(JOIN, last=100), S1)
    outside += converse(rigs)
    assert copied(heard) == [100]
    assert only(outside, Ready).version == JOIN.version
    assert two.core.image.last_tid == 100
    assert two.core.image.last_oid >= 4
    two.crash()
    assert two.core.image.last_tid >= 100


def test_values_of_any_size_are_copied() -> None:
    large = bytes(range(256)) * (5 * PIECE_BYTES // 512)
    rigs = pair([*HISTORY[:3], transaction(50, 0, 2, value=large), transaction(51, 4, value=large)], HISTORY[:2])
    two = rigs[S2]
    heard, _ = catch_up(rigs)
    assert is_same(rigs)
    assert len([p for p in heard if isinstance(p, PullPiece)]) == 9
    assert two.core.needed_from(two.durable) > two.durable, "the pieces in the log are not needed any more"


def test_pieces_stay_in_the_log_until_the_value_is_in_the_database() -> None:
    large = b"x" * (2 * PIECE_BYTES)
    rigs = pair([transaction(50, 0, value=large)], [])
    one, two = rigs[S1], rigs[S2]
    sent = two.connect(S1)
    while not two.copies:
        answers = [s for x in sent for s in one.receive(S2, x.packet)] + one.settle() + one.give()
        sent = [s for x in answers if x.peer == S2 for s in two.receive(S1, x.packet)]
        if not two.copies:
            sent += two.settle()
    first = min(position for position, record in two.log if type(record).__name__ == "LogCopyPiece")
    two.flush()
    assert two.core.needed_from(two.durable) == first
    two.settle()
    assert two.core.needed_from(two.durable) > first


def test_damaged_value_is_not_taken_and_another_source_is_asked() -> None:
    three = table(((S1, U), (S3, U), (S2, O)), ((S1, U), (S3, U)))
    one, two, good = Rig(S1), Rig(S2, SMALL), Rig(S3)
    fill(one, HISTORY)
    fill(good, HISTORY)
    for rig, others in ((one, (S2, S3)), (good, (S1, S2))):
        rig.serve(three, *others)
    two.serve(three)
    rigs = {S1: one, S2: two, S3: good}
    bad = good.backend.state.cells[P0]
    bad[Oid(40)] = tuple(r._replace(data=r.data._replace(value=b"w" * r.data.size)) for r in bad[Oid(40)])
    converse(rigs, two.connect(S1, S3), S2)
    two.now += 60
    converse(rigs)
    assert one.backend.range_reader().digest(P0, Tid(1), Tid(99)) == two.backend.range_reader().digest(
        P0, Tid(1), Tid(99)
    )
    assert two.backend.load(P0, Oid(40), Tid(99)) == one.backend.load(P0, Oid(40), Tid(99))


def asked(rig: Rig, sent: list[Sent]) -> Compare:
    return only(sent, Compare, S1)


def test_value_that_was_hurt_on_its_way_is_refused() -> None:
    rigs = pair(HISTORY, [])
    two = rigs[S2]
    question = asked(two, [s for s in two.connect(S1) if s.packet.partition == P0])  # type: ignore[attr-defined]
    sent = two.receive(S1, Compared(P0, question.number, Tid(40), 80, (), 0)) + two.settle()
    pull = only(sent, Pull, S1)
    hurt = transaction(1, 0)
    revision = hurt.revisions[0]
    assert revision.data is not None
    hurt = hurt._replace(revisions=(revision._replace(data=revision.data._replace(value=b"xx")),))
    two.receive(S1, PullData(E1, pull.version, P0, pull.stop, (hurt,), (), NO_TID, number=pull.number))
    assert not two.copies
    assert any("checksum" in log.text for log in two.logged)


def test_answers_of_the_past_are_ignored() -> None:
    rigs = pair(HISTORY, [])
    two = rigs[S2]
    question = asked(two, [s for s in two.connect(S1) if s.packet.partition == P0])  # type: ignore[attr-defined]
    assert two.receive(S1, Compared(P0, question.number - 1, Tid(40), 80, (), 0)) == []
    assert two.receive(S1, PullNo(P0, question.number + 9, "no")) == []
    two.lose(S1)
    assert two.receive(S1, Compared(P0, question.number, Tid(40), 80, (), 0)) == []


def test_source_that_is_lost_is_replaced_at_once() -> None:
    three = table(((S1, U), (S3, U), (S2, O)), ((S1, U), (S3, U)))
    two = Rig(S2, SMALL)
    two.serve(three)
    sent = two.connect(S1, S3)
    (first,) = {s.peer for s in sent if isinstance(s.packet, Compare)}
    again = two.lose(first)
    assert [s.peer for s in again if isinstance(s.packet, Compare)] == [S1 + S3 - first]


def test_source_that_is_not_readable_any_more_is_replaced_at_once() -> None:
    """Its cell may be erased meanwhile: what it does not find would be taken for equal."""
    good = ((S1, U), (S3, U), (S2, O))
    two = Rig(S2, SMALL)
    two.serve(table(good, ((S1, U), (S3, U))))
    sent = two.connect(S1, S3)
    (first,) = {s.peer for s in sent if isinstance(s.packet, Compare)}
    (question,) = of(sent, Compare)
    rest = tuple(cell for cell in good if cell[0] != first)
    again = two.set_table(table(rest, ((S1, U), (S3, U)), ptid=2)) + two.tick(0.1)
    assert [s.peer for s in again if isinstance(s.packet, Compare)] == [S1 + S3 - first]
    assert of(two.receive(first, Compared(P0, question.number, Tid(40), 0, (), 0)), CaughtUp) == []


def test_cell_that_left_the_table_while_it_was_read_says_nothing() -> None:
    one = Rig(S1).serve(table(((S1, U), (S2, O)), ((S1, U),)), S2)
    read = ReadRange(S2, 0, Compare(E1, OUT.version, P0, 5, Tid(1), T2, ()), 0)
    assert one.core.giving.may_say(read)
    one.set_table(table(((S2, U),), ((S1, U),), ptid=2))
    assert not one.core.giving.may_say(read)


def test_silent_source_is_given_up() -> None:
    rigs = pair(HISTORY, [])
    two = rigs[S2]
    two.connect(S1)
    assert of(two.tick(29), Compare) == []
    two.tick(2)
    assert any("no answer" in log.text for log in two.logged)


def test_so_many_cells_at_once() -> None:
    rows = [((S1, U), (S2, O))] * 10
    two = Rig(S2, StorageSettings(copy_parallel=3))
    two.serve(table(*rows))
    questions = of(two.connect(S1), Compare)
    assert len(questions) == 3
    done = two.receive(S1, PullNo(questions[0].partition, questions[0].number, "not now"))
    assert len(of(done, Compare)) == 1


def test_nothing_is_pulled_while_the_database_is_behind() -> None:
    rigs = pair([transaction(n, 0, value=b"v" * 2000) for n in range(1, 60)], [], StorageSettings(copy_backlog_bytes=1))
    one, two = rigs[S1], rigs[S2]
    sent = two.connect(S1)
    for _ in range(20):
        answers = [s for x in sent for s in one.receive(S2, x.packet)] + one.settle() + one.give()
        sent = [s for x in answers if x.peer == S2 for s in two.receive(S1, x.packet)]
        if two.copies:
            break
        sent += two.settle()
    assert two.copies
    two.now += 10
    assert of(two.handle(Tick()), Pull) == []


def test_speed_is_bounded() -> None:
    big = [transaction(n, 0, value=b"v" * 50_000) for n in range(1, 101)]
    rigs = pair(big, [], StorageSettings(copy_ceiling=2**20))
    began = rigs[S2].now
    catch_up(rigs)
    assert is_same(rigs)
    assert rigs[S2].now - began > 5_000_000 / 2**20 - 1


def test_only_a_readable_cell_gives() -> None:
    two = Rig(S2).serve(OUT, S1)
    question = Compare(E1, OUT.version, P0, 5, Tid(1), T2, ())
    assert only(two.receive(S1, question), PullNo, S1).number == 5
    assert only(two.receive(S1, Pull(E1, OUT.version, P0, Tid(1), T2, number=6)), PullNo, S1).number == 6


def test_progress_is_told() -> None:
    rigs = pair(HISTORY, [])
    two = rigs[S2]
    sent = two.connect(S1)
    (question,) = [p for p in of(sent, Compare) if p.partition == P0]
    two.receive(S1, Compared(P0, question.number, Tid(40), 80, (), 0))
    cells = {c.partition: c for c in only(two.tick(1.5), Copying, M1).cells}
    assert (cells[P0].left, cells[P0].source, cells[P0].stop) == (80, S1, 40)


def test_what_has_caught_up_is_told_again_to_whoever_takes_the_storage_in() -> None:
    rigs = pair(HISTORY, HISTORY)
    catch_up(rigs)
    two = rigs[S2]
    sent = two.adopt(OUT)
    outside = relay(rigs, sent, S2) + converse(rigs)
    assert of(outside, CaughtUp, M1)


# ---------------------------------------------------------------------------------------------- what differs


def test_spans_are_runs() -> None:
    assert spans([Tid(n) for n in (1, 2, 4, 7, 9)], {Tid(2), Tid(4), Tid(9)}) == [(2, 4), (9, 9)]


def test_transaction_cut_by_a_page_is_not_dropped() -> None:
    whole = transaction(5, 0, 2, 4)
    first, second = (whole._replace(revisions=r) for r in (whole.revisions[:2], whole.revisions[2:]))
    assert difference([whole], [first], Place(Tid(1), Oid(0)), Place(Tid(5), Oid(4)))[0][1:] == ((), ())
    assert difference([whole], [second], Place(Tid(5), Oid(4)), None) == difference([], [], Place(Tid(0), Oid(0)), None)
