"""Locks of the ordered path: granted together, first come, first served."""

from neo_common.ids import NodeId, Oid, Ptid, Tid, Version
from neo_common.wire.schema import (
    Conflict,
    Contended,
    ErrorCode,
    Gone,
    Lock,
    Locked,
    LockMode,
    Mode,
    Overdue,
    Refused,
    SAbort,
    Unvote,
    Voted,
    VotedId,
    Want,
)
from neo_storage.core.settings import StorageSettings
from support.storage_rig import (
    C1,
    C2,
    C3,
    E1,
    M1,
    P0,
    S1,
    S2,
    T1,
    F,
    Rig,
    U,
    data,
    of,
    only,
    table,
    ttid,
    vote,
    write,
)

X, S = LockMode.X, LockMode.S


def lock(*wants: tuple[int, LockMode, int], client: NodeId = C1, counter: int = 1, attempt: int = 2) -> Lock:
    """Return the Lock of (oid, mode, base)s."""
    return Lock(
        ttid(client, counter),
        attempt,
        E1,
        Version(E1, Ptid(1)),
        tuple(Want(Oid(o), m, Tid(b)) for o, m, b in wants),
    )


def test_free_locks_are_granted_at_once() -> None:
    rig = Rig().serve()
    assert only(rig.receive(C1, lock((0, X, 0), (2, S, 0))), Locked, C1) == Locked(ttid(), 2, ())
    assert rig.core.locks.owners(Oid(0)) == {ttid(): X}


def test_granted_locks_tell_what_is_stale() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0, 0, b"now"), counter=1)
    locked = only(rig.receive(C1, lock((0, X, 0))), Locked)
    assert [(s.oid, s.serial, s.data) for s in locked.stale] == [(0, T1, data(b"now"))]


def test_waiter_gets_its_locks_when_the_owner_commits() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    assert rig.receive(C2, lock((0, X, 0), client=C2)) == []
    rig.flush()
    locked = only(rig.commit(T1), Locked, C2)
    assert locked.stale[0].serial == T1


def test_all_locks_of_one_message_are_granted_together() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, lock((0, X, 0), (2, X, 0), client=C2))
    assert rig.core.locks.owners(Oid(2)) == {}
    rig.flush()
    assert only(rig.commit(T1), Locked, C2)
    assert rig.core.locks.owners(Oid(2)) == {ttid(C2): X}


def test_waiters_are_served_in_order() -> None:
    rig = Rig().serve()
    rig.connect(C3)
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, lock((0, X, 0), client=C2))
    rig.receive(C3, lock((0, X, 0), client=C3))
    rig.flush()
    assert [s.peer for s in rig.commit(T1) if isinstance(s.packet, Locked)] == [C2]
    assert only(rig.lose(C2), Locked, C3)


def test_waiter_is_not_overtaken_by_what_conflicts_with_it() -> None:
    rig = Rig().serve()
    rig.connect(C3)
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, lock((0, X, 0), (2, X, 0), client=C2))
    assert rig.receive(C3, lock((2, X, 0), client=C3)) == []  # free, but C2 came first
    assert only(rig.receive(C3, vote(write(2), client=C3, counter=2)), Contended)


def test_waiter_is_overtaken_by_what_does_not_conflict() -> None:
    rig = Rig().serve()
    rig.connect(C3)
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, lock((0, X, 0), client=C2))
    assert only(rig.receive(C3, lock((4, X, 0), client=C3)), Locked)


def test_readers_share() -> None:
    rig = Rig().serve()
    assert only(rig.receive(C1, lock((0, S, 0))), Locked)
    assert only(rig.receive(C2, lock((0, S, 0), client=C2)), Locked)


def test_vote_under_its_own_locks_passes_waiters() -> None:
    rig = Rig().serve()
    rig.receive(C1, lock((0, X, 0)))
    rig.receive(C2, lock((0, X, 0), client=C2))
    rig.receive(C1, vote(write(0), attempt=2))
    assert only(rig.flush(), Voted, C1).attempt == 2


def test_conflict_of_the_ordered_path_gives_its_locks_back() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0), counter=1)
    rig.receive(C1, lock((0, X, 0)))
    rig.receive(C2, lock((0, X, T1), client=C2))
    sent = rig.receive(C1, vote(write(0, 50), attempt=2))
    assert only(sent, Conflict, C1)
    assert only(sent, Locked, C2)


def test_lock_withdraws_the_vote_of_a_lower_attempt() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    assert only(rig.receive(C1, lock((0, X, 0), attempt=2)), Locked)
    assert not rig.core.image.voted


def test_lock_with_a_higher_attempt_replaces_the_waiter() -> None:
    rig = Rig().serve()
    rig.receive(C2, vote(write(0), client=C2))
    rig.receive(C1, lock((0, X, 0), attempt=2))
    rig.receive(C1, lock((0, X, 0), attempt=3))
    rig.flush()
    assert [p.attempt for p in of(rig.commit(T1, client=C2), Locked)] == [3]


def test_unvote_takes_waiter_and_locks() -> None:
    rig = Rig().serve()
    rig.receive(C2, lock((0, X, 0), client=C2))
    rig.receive(C1, lock((0, X, 0)))
    rig.receive(C1, Unvote(ttid(), 2, E1, (P0,)))
    assert rig.core.locks.waiters == []
    rig.receive(C2, Unvote(ttid(C2), 2, E1, (P0,)))
    assert len(rig.core.locks) == 0


def test_unvote_of_a_lower_attempt_leaves_the_locks() -> None:
    rig = Rig().serve()
    rig.receive(C1, lock((0, X, 0), attempt=2))
    rig.receive(C1, Unvote(ttid(), 1, E1, (P0,)))
    assert rig.core.locks.owners(Oid(0)) == {ttid(): X}


def test_locks_go_with_the_connection_but_not_those_of_a_vote() -> None:
    rig = Rig().serve()
    rig.receive(C1, lock((0, X, 0), (2, X, 0)))
    rig.receive(C1, vote(write(4), counter=2))
    rig.lose(C1)
    assert rig.core.locks.owners(Oid(0)) == {}
    assert rig.core.locks.owners(Oid(4)) == {ttid(C1, 2): X}


def test_locks_are_taken_back_after_a_while_only_if_others_wait() -> None:
    rig = Rig(settings=StorageSettings(lock_s=10.0)).serve()
    rig.receive(C1, lock((0, X, 0)))
    rig.tick(11.0)
    assert rig.core.locks.owners(Oid(0)) == {ttid(): X}
    rig.receive(C2, lock((0, X, 0), client=C2))
    assert only(rig.tick(0.1), Locked, C2)


def test_locks_are_not_taken_back_too_soon() -> None:
    rig = Rig(settings=StorageSettings(lock_s=10.0)).serve()
    rig.receive(C1, lock((0, X, 0)))
    rig.receive(C2, lock((0, X, 0), client=C2))
    assert rig.tick(9.9) == []


def test_too_many_waiters_are_refused() -> None:
    rig = Rig(settings=StorageSettings(waiters=1)).serve()
    rig.connect(C3)
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, lock((0, X, 0), client=C2))
    assert only(rig.receive(C3, lock((0, X, 0), client=C3)), Refused).code == ErrorCode.NOT_READY


def test_lock_at_a_node_that_does_not_lead_is_refused() -> None:
    rig = Rig().serve(table(((S2, U), (S1, U)), ((S2, U), (S1, F))))
    assert only(rig.receive(C1, lock((0, X, 0))), Refused).parts == (P0,)


def test_abort_refuses_a_waiter() -> None:
    rig = Rig().serve()
    rig.receive(C2, vote(write(0), client=C2))
    rig.receive(C1, lock((0, X, 0)))
    assert only(rig.receive(M1, SAbort(ttid(), 2)), Refused, C1).attempt == 2
    assert rig.core.locks.waiters == []


def test_abort_of_a_lower_attempt_leaves_a_waiter() -> None:
    rig = Rig().serve()
    rig.receive(C2, vote(write(0), client=C2))
    rig.receive(C1, lock((0, X, 0), attempt=2))
    assert of(rig.receive(M1, SAbort(ttid(), 1)), Refused) == []
    assert len(rig.core.locks.waiters) == 1


def test_session_given_up_loses_locks_and_place() -> None:
    rig = Rig().serve()
    rig.connect(C3)
    rig.receive(C1, lock((0, X, 0)))
    rig.receive(C1, lock((0, X, 0), counter=2))
    rig.receive(C3, lock((0, X, 0), client=C3))
    sent = rig.receive(M1, Gone(ttid().session))
    assert only(sent, Locked, C3)


def test_lost_lead_refuses_waiters_and_forgets_locks() -> None:
    rig = Rig().serve()
    rig.receive(C2, vote(write(0), client=C2))
    rig.receive(C1, lock((0, X, 0)))
    rig.receive(C1, lock((2, X, 0), counter=2))
    sent = rig.set_table(table(((S2, U), (S1, U)), ((S2, U), (S1, U)), ptid=2))
    assert {p.ttid for p in of(sent, Refused)} == {ttid(C2), ttid()}
    assert len(rig.core.locks) == 0
    assert not rig.core.locks.held


def test_long_waiting_is_told_to_the_primary() -> None:
    rig = Rig(settings=StorageSettings(overdue_s=30.0)).serve()
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, lock((0, X, 0), client=C2))
    assert of(rig.tick(29.0), Overdue) == []
    assert only(rig.tick(1.5), Overdue, M1).voted == (VotedId(ttid(), 1, (P0,)),)
    assert of(rig.tick(1.0), Overdue) == []  # not at every tick
    assert of(rig.tick(30.0), Overdue) != []


def test_votes_of_mode_a_are_never_overdue() -> None:
    rig = Rig(settings=StorageSettings(overdue_s=30.0)).serve()
    rig.receive(C1, vote(write(0), mode=Mode.A))
    rig.receive(C2, lock((0, X, 0), client=C2))
    assert of(rig.tick(31.0), Overdue) == []


def test_vote_above_the_age_is_reported_though_nobody_waits() -> None:
    """And again while it is there; not before its time, and never in mode A."""
    rig = Rig(settings=StorageSettings(transaction_age_s=60.0)).serve()
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, vote(write(2), client=C2, mode=Mode.A))
    rig.flush()

    aged = Overdue((VotedId(ttid(), 1, (P0,)),))
    assert of(rig.tick(1.0), Overdue) == []
    assert of(rig.tick(59.0), Overdue) == []
    assert of(rig.tick(2.0), Overdue) == [aged]
    assert of(rig.tick(0.1), Overdue) == [], "not at every tick"
    assert of(rig.tick(1.0), Overdue) == [aged]
    rig.receive(M1, SAbort(ttid(), 1))
    assert of(rig.tick(2.0), Overdue) == []
