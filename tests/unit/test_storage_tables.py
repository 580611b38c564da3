"""Partition tables: leads lost and won, cells that agree, cells that join."""

import pytest

from neo_common.ids import NO_TID, Ptid, Tid
from neo_common.model.partition_table import PartitionTable, difference
from neo_common.wire.schema import (
    CommitOk,
    Compare,
    Compared,
    Contended,
    Decision,
    Fwd,
    FwdFail,
    FwdOk,
    Mode,
    PtOk,
    Pull,
    PullData,
    Ready,
    Refused,
    SAbort,
    Seal,
    SetPT,
    Sync,
    SyncOk,
    Voted,
    VoteId,
    Write,
)
from support.storage_rig import (
    C1,
    C2,
    E1,
    M1,
    P0,
    P1,
    PAIR,
    S1,
    S2,
    S3,
    T1,
    T2,
    T3,
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
    ttid,
    vote,
    write,
)

OTHER = table(((S2, U), (S1, U)), ((S2, U), (S1, U)), ptid=2)
"""PAIR, with S2 leading both rows."""
JOINS = table(((S1, U), (S2, J)), ((S2, U), (S1, U)), ptid=2)
"""PAIR, with S2's cell of row 0 joining."""
OUT = table(((S1, U), (S2, O)), ((S2, U), (S1, U)))


def test_table_is_confirmed_when_durable() -> None:
    rig = Rig().serve(PAIR, S2)
    assert of(rig.set_table(OTHER), PtOk) == []
    assert only(rig.flush(), PtOk, M1).version == OTHER.version


def test_table_as_a_difference() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(M1, SetPT(difference(PAIR, OTHER), NO_TID))
    assert rig.core.image.table == OTHER


def test_difference_from_another_table_cuts_the_connection() -> None:
    rig = Rig().serve(PAIR, S2)
    later = table(((S1, U),), ((S1, U),), ptid=5)
    rig.receive(M1, SetPT(difference(OTHER, later), NO_TID))
    assert rig.cut == [M1]


def test_older_table_is_ignored() -> None:
    rig = Rig().serve(OTHER, S2)
    assert rig.set_table(PAIR) == []
    assert rig.core.image.table == OTHER


def test_table_survives_a_crash_only_when_durable() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.set_table(OTHER)
    rig.crash()
    assert rig.core.image.table == PAIR


# ---------------------------------------------------------------------------------------------- leads


def test_lost_lead_refuses_votes_in_progress() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    assert only(rig.set_table(OTHER), Refused, C1).parts == (P0,)
    rig.flush()
    assert of(rig.receive(S2, FwdOk(ttid(), 1, (P0,))), Voted) == []
    assert ttid() in rig.core.image.voted  # its new lead decides


def test_partitions_that_stay_led_are_answered_without_the_lost_one() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), write(1)))
    sent = rig.set_table(table(((S2, U), (S1, U)), ((S1, U),), ptid=2))
    assert only(sent, Refused).parts == (P0,)
    assert only(rig.flush(), Voted).parts == (P1,)


def test_new_lead_locks_what_is_voted() -> None:
    rig = Rig(S2).serve(PAIR, S1)
    lead = Rig().serve(PAIR, S2)
    rig.receive(S1, only(lead.receive(C1, vote(write(0), reads=((2, 0),))), Fwd))
    rig.set_table(OTHER)
    assert only(rig.receive(C2, vote(write(0), client=C2)), Contended)
    assert only(rig.receive(C2, vote(write(2), client=C2, counter=2)), Contended)


def test_new_lead_makes_the_other_cells_agree() -> None:
    rig = Rig(S2).serve(PAIR, S1)
    lead = Rig().serve(PAIR, S2)
    rig.receive(S1, only(lead.receive(C1, vote(write(0))), Fwd))
    sync = only(rig.set_table(OTHER), Sync, S1)
    assert (sync.partition, sync.version) == (P0, OTHER.version)
    assert [r.ttid for r in sync.records] == [ttid()]


def test_former_lead_serves_its_votes_again_when_it_leads_again() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    rig.set_table(OTHER)
    rig.set_table(table(((S1, U), (S2, U)), ((S2, U), (S1, U)), ptid=3))
    assert only(rig.receive(C2, vote(write(0), client=C2)), Contended)


# ---------------------------------------------------------------------------------------------- agreeing


def with_vote(attempt: int = 1, mode: Mode = Mode.C) -> Rig:
    """S2, a cell of row 0 that S1 leads, with a vote there."""
    rig = Rig(S2).serve(PAIR, S1)
    lead = Rig().serve(PAIR, S2)
    rig.receive(S1, only(lead.receive(C1, vote(write(0), attempt=attempt, mode=mode)), Fwd))
    rig.flush()
    return rig


def sync(*records: Fwd, decisions: tuple[Decision, ...] = (), version: int = 1) -> Sync:
    """What S1 says of row 0."""
    new = PAIR.version._replace(ptid=Ptid(version))
    return Sync(E1, new, P0, tuple(r for f in records for r in f.records), decisions, ())


def forwarded(counter: int = 1, attempt: int = 1, mode: Mode = Mode.C, known: int = 0) -> Fwd:
    """A vote as S1 passes it on."""
    lead = Rig().serve(PAIR, S2)
    return only(lead.receive(C1, vote(write(0), counter=counter, attempt=attempt, mode=mode, known=known)), Fwd)


@pytest.mark.parametrize(
    ("writes", "reads", "kept"),
    [
        ((write(0),), (), {2}),  # the same object, from the same revision
        ((write(2),), ((0, 0),), {2}),  # checked to be at the revision from which the other one writes
        ((write(2),), (), {1, 2}),
    ],
)
def test_cell_forgets_a_vote_whose_locks_the_lead_gives_to_another(
    writes: tuple[Write, ...], reads: tuple[tuple[int, int], ...], kept: set[int]
) -> None:
    """The lead has aborted the first one; this cell has not heard, and may be the only one that recovery finds."""
    rig = with_vote()
    lead = Rig().serve(PAIR, S2)
    rig.receive(S1, only(lead.receive(C2, vote(*writes, reads=reads, counter=2)), Fwd))
    assert {t.counter for t in rig.core.image.voted} == kept
    assert only(rig.flush(), FwdOk, S1).ttid.counter == 2
    rig.crash()
    assert {t.counter for t in rig.core.image.voted} == kept


def test_sync_drops_what_it_does_not_list() -> None:
    rig = with_vote()
    rig.receive(S1, sync())
    assert not rig.core.image.voted
    assert only(rig.flush(), SyncOk, S1) == SyncOk(P0, PAIR.version, ())


def test_sync_that_a_commit_has_overtaken_brings_no_vote_back() -> None:
    """Found by simulation: the decision was durable everywhere, and forgotten; recovery might have repeated it."""
    rig = with_vote()
    rig.commit(T1)
    rig.receive(S1, forwarded(counter=2))
    rig.commit(T2, counter=2, durable=T1)
    assert ttid() not in rig.core.image.decisions
    rig.receive(S1, sync(forwarded()))
    assert ttid() not in rig.core.image.voted


def test_sync_keeps_what_the_lead_knows_as_committed() -> None:
    rig = with_vote()
    rig.receive(S1, sync(decisions=(Decision(ttid(), 1, T1, (P0,)),)))
    assert ttid() in rig.core.image.voted


def test_sync_brings_what_is_missing() -> None:
    rig = Rig(S2).serve(PAIR, S1)
    assert rig.receive(S1, sync(forwarded())) == []
    assert only(rig.flush(), SyncOk).votes == (VoteId(ttid(), 1),)
    assert ttid() in rig.core.image.voted


def test_sync_replaces_a_lower_attempt() -> None:
    rig = with_vote(attempt=1)
    rig.receive(S1, sync(forwarded(attempt=2)))
    assert [r.attempt for r in rig.core.image.records()] == [2]


def test_sync_leaves_a_record_that_it_lists() -> None:
    rig = with_vote()
    before = rig.log[-1]
    rig.receive(S1, sync(forwarded()))
    assert rig.log[-1] == before


def test_sync_brings_a_seal() -> None:
    rig = with_vote(mode=Mode.A)
    rig.receive(S1, sync(forwarded(mode=Mode.C)))
    assert next(rig.core.image.records()).mode == Mode.C


def test_sync_does_not_take_a_seal_away() -> None:
    rig = with_vote(mode=Mode.A)
    rig.receive(M1, Seal(ttid(), 1))
    rig.receive(S1, sync(forwarded(mode=Mode.A)))
    assert next(rig.core.image.records()).mode == Mode.C


def test_sync_does_not_bring_back_what_is_aborted() -> None:
    rig = Rig(S2).serve(PAIR, S1)
    rig.receive(M1, SAbort(ttid(), 1))
    rig.receive(S1, sync(forwarded()))
    assert not rig.core.image.voted


def test_sync_from_who_does_not_lead_is_ignored() -> None:
    rig = with_vote()
    rig.connect(S3)
    rig.receive(S3, sync())
    assert ttid() in rig.core.image.voted


# ---------------------------------------------------------------------------------------------- joining


def joining() -> Rig:
    """S2, whose cell of row 0 has begun to join with cut T2."""
    rig = Rig(S2).serve(OUT, S1)
    rig.set_table(JOINS, last=T2)
    rig.settle()
    return rig


def decisions_of(join: PartitionTable, stop: int) -> PullData:
    """The lead's first answer: there are none."""
    return PullData(E1, join.version, P0, Tid(stop), (), (), Tid(1))


def compared(rig: Rig, sent: list[Sent], stop: int) -> list[Sent]:
    """The lead has nothing that is not here."""
    question = only(sent, Compare, S1)
    assert question.start == 1, "all is compared"
    sent = rig.receive(S1, Compared(P0, question.number, Tid(stop), 0, (), 0)) + rig.settle()
    pull = only(sent, Pull, S1)
    assert pull.number
    return rig.receive(S1, PullData(pull.epoch, pull.version, P0, pull.stop, (), (), NO_TID, number=pull.number))


def test_joining_cell_drops_what_is_above_the_cut_and_asks_for_decisions() -> None:
    rig = Rig(S2).serve(PAIR, S1)
    rig.receive(S1, forwarded())
    rig.commit(T3)
    rig.settle()
    rig.set_table(table(*OUT.rows, ptid=2))
    join = table(*JOINS.rows, ptid=3)
    assert only(rig.set_table(join, last=T2), Pull, S1) == Pull(E1, join.version, P0, NO_TID, T2)
    rig.settle()
    assert rig.backend.current(P0, write(0).oid) == NO_TID


def test_joining_cell_is_ready_with_history_and_votes() -> None:
    rig = joining()
    sent = compared(rig, rig.receive(S1, decisions_of(JOINS, T2)), T2)
    assert of(sent + rig.settle(), Ready) == []
    assert only(rig.receive(S1, sync(version=2)) + rig.settle(), Ready, M1) == Ready(JOINS.version, P0)


def test_joining_cell_is_not_ready_before_history_is_durable() -> None:
    rig = joining()
    rig.receive(S1, sync(version=2))
    compared(rig, rig.receive(S1, decisions_of(JOINS, T2)), T2)
    assert [c.durable for c in rig.copies] == [False, True]
    assert of(rig.flush(), Ready) == []
    assert only(rig.settle(), Ready)


def test_history_of_an_earlier_join_is_ignored() -> None:
    rig = joining()
    assert rig.receive(S1, decisions_of(OUT, T2)) == []


def test_join_begins_again_under_a_newer_table() -> None:
    rig = joining()
    first = rig.receive(S1, decisions_of(JOINS, T2))
    rig.set_table(table(*OUT.rows, ptid=3))
    again = table(*JOINS.rows, ptid=4)
    assert only(rig.set_table(again, last=T3), Pull).stop == T3
    rig.receive(S1, sync(version=4))
    question = only(first, Compare, S1)
    rig.receive(S1, Compared(P0, question.number, T2, 0, (), 0))  # of the first join
    assert of(rig.settle(), Ready) == []


def test_join_goes_on_under_a_newer_table_that_keeps_it() -> None:
    rig = joining()
    assert of(rig.set_table(table(*JOINS.rows, ptid=3), last=T3), Pull) == []
    rig.receive(S1, sync(version=2))
    compared(rig, rig.receive(S1, decisions_of(JOINS, T2)), T2)
    assert only(rig.settle(), Ready).version == JOINS.version


def test_what_was_sent_before_the_join_is_ignored() -> None:
    rig = joining()
    rig.receive(S1, forwarded())  # under the version of PAIR
    assert not rig.core.image.voted
    rig.receive(S1, sync(forwarded(), version=1))
    assert of(rig.flush(), SyncOk) == []


def test_out_of_date_cell_takes_nothing() -> None:
    rig = Rig(S2).serve(OUT, S1)
    rig.receive(S1, forwarded())
    rig.receive(S1, sync(forwarded()))
    assert rig.flush() == []
    assert not rig.core.image.voted


def test_commit_that_comes_before_its_vote_is_remembered() -> None:
    rig = joining()
    rig.commit(T3)
    assert only(rig.flush(), CommitOk)
    rig.receive(S1, forwarded()._replace(version=JOINS.version))
    assert only(rig.settle(), FwdOk)
    assert rig.backend.current(P0, write(0).oid) == T3
    assert not rig.core.image.voted


def test_commit_that_comes_before_sync_is_remembered() -> None:
    rig = joining()
    rig.commit(T3)
    rig.receive(S1, sync(forwarded(), version=2))
    rig.settle()
    assert rig.backend.current(P0, write(0).oid) == T3


def test_joining_cell_without_its_lead_says_so() -> None:
    rig = Rig(S2).serve(OUT)
    assert only(rig.set_table(JOINS, last=T2), FwdFail, M1).node == S2


def test_joining_cell_that_loses_its_lead_says_so() -> None:
    rig = joining()
    assert only(rig.lose(S1), FwdFail, M1).node == S2


def test_adopt_begins_no_join() -> None:
    rig = Rig(S2).serve(OUT, S1)
    assert of(rig.adopt(JOINS), Pull) == []


def test_lead_syncs_and_awaits_a_cell_that_joins() -> None:
    rig = Rig().serve(OUT, S2)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    sent = rig.set_table(JOINS, last=T2)
    assert [r.ttid for r in only(sent, Sync, S2).records] == [ttid()]
    rig.receive(C1, vote(write(2), counter=2))
    assert of(rig.flush(), Voted) == []


def test_lead_does_not_take_up_a_join_that_a_break_has_ended() -> None:
    """What it sent before the break is lost, and Sync alone would make the cell believe that it has everything."""
    rig = Rig().serve(OUT, S2)
    rig.set_table(JOINS, last=T2)
    rig.receive(C1, vote(write(0)))
    assert only(rig.lose(S2), FwdFail, M1) == FwdFail(JOINS.version, S2)
    assert of(rig.connect(S2), Sync) == []
    again = rig.set_table(table(*OUT.rows, ptid=3)) + rig.set_table(table(*JOINS.rows, ptid=4), last=T2)
    assert [r.ttid for r in only(again, Sync, S2).records] == [ttid()]


def test_lead_that_cannot_reach_a_cell_that_joins_says_so() -> None:
    rig = Rig().serve(OUT)
    assert only(rig.set_table(JOINS, last=T2), FwdFail, M1) == FwdFail(JOINS.version, S2)


def test_lead_gives_decisions_then_transactions() -> None:
    rig = Rig().serve(OUT, S2)
    rig.write_all(T1, write(0), counter=1)
    rig.write_all(T3, write(2), counter=2)
    rig.set_table(JOINS, last=T2)
    first = only(rig.receive(S2, Pull(E1, JOINS.version, P0, NO_TID, T2)), PullData)
    assert [d.tid for d in first.decisions] == [T1]
    assert (first.transactions, first.next) == ((), 1)
    rig.receive(S2, Pull(E1, JOINS.version, P0, first.next, T2))
    assert [r.packet for r in rig.reads] == [Pull(E1, JOINS.version, P0, Tid(1), T2)]


def test_pull_waits_for_its_table() -> None:
    """The table's place among the commits is the cut: what is committed before it is here then."""
    rig = Rig().serve(OUT, S2)
    assert rig.receive(S2, Pull(E1, JOINS.version, P0, NO_TID, T2)) == []
    assert only(rig.set_table(JOINS, last=T2), PullData)


def test_two_storages_join() -> None:
    """A whole join: history, a vote in flight, commits meanwhile."""
    one, two = Rig().serve(OUT, S2), Rig(S2).serve(OUT, S1)
    rigs = {S1: one, S2: two}
    for n, tid in enumerate((T1, T2), 1):
        one.write_all(tid, write(2 * n, 0, b"%d" % tid), counter=n)
    one.receive(C1, vote(write(8, 0, b"pending")))
    one.flush()
    outside = relay(rigs, two.set_table(JOINS, last=T2), S2)
    outside += relay(rigs, one.set_table(JOINS, last=T2), S1)
    outside += converse(rigs)
    assert only(outside, Ready) == Ready(JOINS.version, P0)
    assert two.core.image.voted.keys() == {ttid()}
    assert {o: [r.tid for r in revs] for o, revs in two.backend.state.cells[P0].items()} == {2: [T1], 4: [T2]}
