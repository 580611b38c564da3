"""Commits, aborts, sessions given up."""

from neo_common.ids import NO_TID, Tid
from neo_common.wire.schema import (
    AbortOk,
    Commit,
    CommitOk,
    Decision,
    FwdOk,
    Gone,
    SAbort,
    Voted,
    VotedBy,
    VotedId,
)
from neo_storage.backends.base import ApplyCommit, ApplyDecision
from neo_storage.core.log_records import LogAbort, LogCommit
from support.storage_rig import (
    ALONE,
    C1,
    C2,
    M1,
    M2,
    META,
    P0,
    P1,
    PAIR,
    S1,
    S2,
    T1,
    T2,
    T3,
    J,
    Rig,
    U,
    of,
    only,
    table,
    ttid,
    vote,
    write,
)


def voted(rig: Rig | None = None) -> Rig:
    rig = rig or Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    return rig


def test_commit_is_confirmed_when_durable() -> None:
    rig = voted()
    assert rig.commit(T1) == []
    assert only(rig.flush(), CommitOk, M1).ttids == (ttid(),)


def test_commits_of_one_flush_are_confirmed_together() -> None:
    rig = voted()
    rig.receive(C2, vote(write(2), client=C2))
    rig.flush()
    rig.commit(T1)
    rig.commit(T2, client=C2)
    assert only(rig.flush(), CommitOk).ttids == (ttid(), ttid(C2))


def test_commit_reaches_the_back_end_with_its_metadata() -> None:
    rig = voted()
    rig.commit(T1)
    rig.flush()
    ((_, (op,)),) = rig.to_apply
    assert isinstance(op, ApplyCommit)
    assert (op.tid, op.metadata, op.parts, op.partitions) == (T1, META, (P0,), ((P0, (write(0),)),))


def test_nothing_is_applied_before_it_is_durable() -> None:
    rig = voted()
    rig.commit(T1)
    assert rig.to_apply == []


def test_commit_of_another_attempt_forgets_the_vote() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), attempt=1))
    rig.flush()
    rig.receive(M1, Commit(ttid(), 2, T1, (P1,), (), NO_TID))
    rig.settle()
    assert not rig.core.image.voted
    assert rig.backend.state.cells == {}


def test_commit_without_its_vote_stops_the_node() -> None:
    rig = Rig().serve()
    rig.commit(T1)
    assert rig.exit is not None
    assert rig.exit.status == 1
    assert "is committed and not here" in rig.exit.reason


def test_commit_without_its_vote_is_normal_where_nothing_is_read() -> None:
    rig = Rig(S2).serve(table(((S1, U), (S2, J)), ((S1, U),)), S1)
    rig.commit(T1)
    assert rig.exit is None
    assert only(rig.flush(), CommitOk)


def test_repeated_commit_is_confirmed_again() -> None:
    rig = voted()
    rig.commit(T1)
    rig.settle()
    assert only(rig.commit(T1), CommitOk)
    assert rig.log[-1][1] == LogCommit(ttid(), 1, T1, (P0,), NO_TID)


def test_tail_makes_earlier_commits_known() -> None:
    rig = voted()
    earlier = Decision(ttid(C2, 5), 1, T1, (P1,))
    rig.commit(T2, tail=(earlier,))
    assert rig.core.image.decisions[earlier.ttid] == earlier
    rig.flush()
    assert [op for _, ops in rig.to_apply for op in ops if isinstance(op, ApplyDecision)] == [ApplyDecision(earlier)]


def test_tail_leaves_alone_what_is_voted_here() -> None:
    """Its own Commit comes on the same connection."""
    rig = voted()
    rig.receive(C2, vote(write(2), client=C2))
    rig.flush()
    rig.commit(T2, tail=(Decision(ttid(C2), 1, T1, (P0,)),))
    assert ttid(C2) in rig.core.image.voted


def test_decisions_up_to_the_mark_are_forgotten() -> None:
    rig = Rig().serve()
    for n, tid in enumerate((T1, T2, T3), 1):
        rig.write_all(tid, write(2 * n), counter=n)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.commit(400, durable=T2)
    rig.settle()
    assert sorted(d.tid for d in rig.core.image.decisions.values()) == [T3, 400]
    assert sorted(d.tid for d in rig.backend.state.decisions.values()) == [T3, 400]


def test_decisions_are_kept_while_a_cell_joins() -> None:
    """Its record may come after the decision that everybody else has forgotten."""
    rig = Rig(S2).serve(table(((S1, U), (S2, J)), ((S2, U),)), S1)
    rig.commit(T1)
    rig.receive(C2, vote(write(1), client=C2))
    rig.flush()
    rig.commit(T2, client=C2, parts=(1,), durable=T1)
    assert sorted(d.tid for d in rig.core.image.decisions.values()) == [T1, T2]


def test_commit_ends_what_waits_for_it() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.commit(T1)
    assert of(rig.receive(S2, FwdOk(ttid(), 1, (P0,))), Voted) == []
    assert len(rig.core.locks) == 0


def test_partition_that_was_only_read_has_no_part_in_history() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), reads=((1, 0),)))
    rig.flush()
    rig.commit(T1, parts=(0, 1))
    rig.settle()
    assert {p: sorted(t) for p, t in rig.backend.state.transactions.items()} == {P0: [T1]}


def test_abort_is_confirmed_when_durable_and_leaves_a_tombstone() -> None:
    rig = voted()
    assert rig.receive(M1, SAbort(ttid(), 1)) == []
    assert only(rig.flush(), AbortOk, M1) == AbortOk(ttid(), 1)
    assert not rig.core.image.voted
    assert rig.core.image.tombstones == {ttid(): 1}


def test_abort_leaves_a_higher_attempt() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), attempt=2))
    rig.receive(M1, SAbort(ttid(), 1))
    assert only(rig.flush(), Voted).attempt == 2


def test_abort_of_what_is_committed_changes_nothing() -> None:
    rig = voted()
    rig.commit(T1)
    rig.receive(M1, SAbort(ttid(), 1))
    assert only(rig.flush(), AbortOk)
    assert rig.core.image.tombstones == {}
    assert ttid() in rig.core.image.decisions


def test_lower_abort_does_not_lower_a_tombstone() -> None:
    rig = Rig().serve()
    rig.receive(M1, SAbort(ttid(), 3))
    rig.receive(M1, SAbort(ttid(), 1))
    assert rig.core.image.tombstones == {ttid(): 3}
    assert isinstance(rig.log[-1][1], LogAbort)


def test_session_given_up_tells_its_votes() -> None:
    rig = voted()
    rig.receive(C2, vote(write(2), client=C2))
    rig.flush()
    told = only(rig.receive(M1, Gone(ttid().session)), VotedBy, M1)
    assert told == VotedBy(ttid().session, (VotedId(ttid(), 1, (P0,)),))


def test_session_given_up_may_have_no_votes() -> None:
    rig = Rig().serve()
    assert only(rig.receive(M1, Gone(ttid().session)), VotedBy).voted == ()


def test_only_the_primary_that_is_obeyed_decides() -> None:
    rig = voted()
    rig.connect(M2)
    rig.receive(M2, Commit(ttid(), 1, T1, (P0,), (), NO_TID))
    assert rig.flush() == []
    assert ttid() in rig.core.image.voted


def test_nothing_is_decided_between_fence_and_start() -> None:
    rig = voted()
    rig.fence(ALONE.version.epoch + (1 << 24))  # type: ignore[arg-type]  # an Epoch
    rig.commit(T1)
    assert ttid() in rig.core.image.voted


def test_commit_survives_a_crash_before_it_is_applied() -> None:
    rig = voted()
    rig.commit(T1)
    rig.flush()
    rig.crash()
    assert rig.backend.current(P0, write(0).oid) == T1
    assert rig.core.image.decisions[ttid()].tid == T1


def test_commit_that_was_not_durable_is_a_vote_again() -> None:
    rig = voted()
    rig.commit(T1)
    rig.crash()
    assert ttid() in rig.core.image.voted
    assert rig.backend.current(P0, write(0).oid) == Tid(0)


def test_repeated_decision_after_a_restart_commits_it() -> None:
    rig = voted()
    rig.commit(T1)
    rig.crash()
    rig.connect(M1)
    rig.adopt(ALONE, decisions=(Decision(ttid(), 1, T1, (P0,)),))
    assert only(rig.settle(), CommitOk).ttids == (ttid(),)
    assert rig.backend.current(P0, write(0).oid) == T1
