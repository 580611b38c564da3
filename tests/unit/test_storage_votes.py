"""Votes: taken, forwarded, answered, withdrawn."""

import pytest

from neo_common.ids import Oid
from neo_common.wire.schema import (
    Conflict,
    Contended,
    ErrorCode,
    Fwd,
    FwdFail,
    FwdOk,
    FwdUnvote,
    FwdUnvoteOk,
    Metadata,
    Mode,
    Refused,
    SAbort,
    Seal,
    SealOk,
    Sync,
    SyncOk,
    Unvote,
    UnvoteOk,
    Voted,
    VoteId,
)
from neo_storage.core.log_records import LogVote
from neo_storage.core.settings import StorageSettings
from neo_storage.core.tentative import ENTRY_BYTES
from support.storage_rig import (
    ABSENT,
    ALONE,
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
    U,
    data,
    of,
    only,
    table,
    ttid,
    vote,
    write,
)


def test_vote_is_answered_when_it_is_durable() -> None:
    rig = Rig().serve()
    assert rig.receive(C1, vote(write(0))) == []
    assert only(rig.flush(), Voted, C1) == Voted(ttid(), 1, (P0,))


def test_one_answer_for_all_partitions_of_a_vote() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), write(1)))
    assert only(rig.flush(), Voted).parts == (P0, P1)


def test_vote_waits_for_every_written_cell() -> None:
    rig = Rig().serve(PAIR, S2)
    sent = rig.receive(C1, vote(write(0)))
    assert only(sent, Fwd, S2).records[0].writes == (write(0),)
    assert of(rig.flush(), Voted) == []
    assert only(rig.receive(S2, FwdOk(ttid(), 1, (P0,))), Voted, C1).parts == (P0,)


def test_cell_answer_before_the_lead_is_durable_is_not_enough() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    assert rig.receive(S2, FwdOk(ttid(), 1, (P0,))) == []
    assert only(rig.flush(), Voted)


def test_answer_to_another_attempt_does_not_count() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0), attempt=2))
    rig.flush()
    assert rig.receive(S2, FwdOk(ttid(), 1, (P0,))) == []


def test_unreachable_cell_is_reported_to_the_primary() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.lose(S2)
    sent = rig.receive(C1, vote(write(0)))
    assert only(sent, FwdFail, M1) == FwdFail(PAIR.version, S2)


def test_cell_that_was_never_connected_is_reported_after_a_short_patience() -> None:
    rig = Rig().serve(PAIR)
    assert of(rig.receive(C1, vote(write(0))), FwdFail) == []
    assert of(rig.tick(0.9), FwdFail) == []
    assert only(rig.tick(0.2), FwdFail, M1) == FwdFail(PAIR.version, S2)
    assert of(rig.tick(2.0), FwdFail) == []
    assert only(rig.receive(C1, vote(write(2), counter=2)), FwdFail, M1) == FwdFail(PAIR.version, S2)


def test_first_connection_brings_the_votes_that_have_waited_for_it() -> None:
    rig = Rig().serve(PAIR)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    sync = only(rig.connect(S2), Sync, S2)
    assert [r.ttid for r in sync.records] == [ttid()]
    ok = SyncOk(P0, PAIR.version, (VoteId(ttid(), 1),))
    assert only(rig.receive(S2, ok), Voted, C1) == Voted(ttid(), 1, (P0,))
    assert of(rig.tick(2.0), FwdFail) == []


def test_cell_that_is_lost_after_its_first_connection_finds_no_patience() -> None:
    rig = Rig().serve(PAIR)
    rig.connect(S2)
    assert only(rig.lose(S2), FwdFail, M1) == FwdFail(PAIR.version, S2)


def test_cell_that_a_new_table_brings_is_given_time_to_connect() -> None:
    rig = Rig().serve(ALONE)
    both = table(((S1, U), (S2, U)), ((S1, U), (S2, U)), ptid=2)
    rig.set_table(both)
    assert of(rig.receive(C1, vote(write(0))), FwdFail) == []
    assert only(rig.tick(1.1), FwdFail, M1) == FwdFail(both.version, S2)


def test_stable_table_without_a_cell_ends_the_waiting_for_it() -> None:
    rig = Rig().serve(PAIR)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    without = table(((S1, U), (S2, O)), ((S1, U), (S2, O)), ptid=2)
    assert of(rig.set_table(without), Voted) == []
    assert of(rig.flush(), Voted) == []
    assert only(rig.stable(without), Voted, C1)


def test_new_vote_waits_for_the_cells_of_the_last_stable_table() -> None:
    rig = Rig().serve(PAIR)
    without = table(((S1, U), (S2, O)), ((S1, U), (S2, O)), ptid=2)
    rig.set_table(without)
    rig.receive(C1, vote(write(0)))
    assert of(rig.flush(), Voted) == []
    assert only(rig.stable(without), Voted)


def test_stable_of_an_older_table_is_ignored() -> None:
    rig = Rig().serve(PAIR)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.set_table(table(((S1, U), (S2, O)), ((S1, U), (S2, O)), ptid=2))
    assert rig.stable(PAIR) == []


def test_vote_for_a_partition_that_is_not_led_is_refused() -> None:
    rig = Rig().serve(PAIR, S2)
    refused = only(rig.receive(C1, vote(write(0), write(1))), Refused)
    assert (refused.parts, refused.code) == ((P0, P1), ErrorCode.NOT_READY)
    assert not rig.core.image.voted


def test_vote_of_another_epoch_is_dropped() -> None:
    rig = Rig().serve()
    assert rig.receive(C1, vote(write(0), epoch=E2)) == []
    assert rig.flush() == []


def test_stale_base_is_a_conflict_with_serial_and_data() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0, 0, b"first"), counter=1)
    conflict = only(rig.receive(C1, vote(write(0, 0, b"mine"), write(2))), Conflict)
    assert conflict.parts == (P0,)
    assert [(s.oid, s.serial, s.data) for s in conflict.stale] == [(0, T1, data(b"first"))]
    assert not rig.core.image.voted
    assert len(rig.core.locks) == 0


def test_conflict_leaves_large_values_out() -> None:
    rig = Rig(settings=StorageSettings(stale_bytes=10)).serve()
    rig.write_all(T1, write(0, 0, b"eleven byte"), counter=1)
    conflict = only(rig.receive(C1, vote(write(0, 0, b"mine"))), Conflict)
    assert conflict.stale[0].data is None


def test_new_object_that_exists_is_a_conflict() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0), counter=1)
    assert only(rig.receive(C1, vote(write(0, 0))), Conflict).stale[0].serial == T1


def test_object_that_vanished_is_a_conflict_without_data() -> None:
    rig = Rig().serve()
    conflict = only(rig.receive(C1, vote(write(0, T1))), Conflict)
    assert (conflict.stale[0].serial, conflict.stale[0].data) == (0, None)


def test_current_serial_is_no_conflict() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0), counter=1)
    rig.receive(C1, vote(write(0, T1, b"second")))
    assert only(rig.flush(), Voted)


def test_commit_is_the_base_of_the_next_vote_at_once() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.commit(T1)  # neither durable nor applied
    rig.receive(C2, vote(write(0, T1), client=C2))
    assert only(rig.flush(), Voted, C2)


def test_read_check_is_compared_and_locked() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(0), write(2), counter=1)
    assert only(rig.receive(C1, vote(write(4), reads=((0, 50),))), Conflict).stale[0].oid == 0
    rig.receive(C1, vote(write(4), reads=((0, T1),)))
    assert only(rig.receive(C2, vote(write(0, T1), client=C2)), Contended)
    rig.receive(C2, vote(write(2, T1), reads=((0, T1),), client=C2))  # two may have it shared
    assert len(of(rig.flush(), Voted)) == 2


def test_second_writer_is_contended() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    contended = only(rig.receive(C2, vote(write(0), write(2), client=C2)), Contended)
    assert contended == Contended(ttid(C2), 1, (P0,))
    assert rig.core.locks.owners(Oid(2)) == {}


def test_vote_that_has_overtaken_a_commit_waits_for_it() -> None:
    """The client has heard that T1 is committed, over another connection than this storage has."""
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    following = vote(write(0, T1), counter=2, known=T1)
    assert not rig.receive(C1, following)
    rig.commit(T1)
    assert only(rig.flush(), Voted) == Voted(ttid(counter=2), 1, (P0,))


def test_vote_does_not_wait_for_long_for_a_commit_that_it_may_have_overtaken() -> None:
    """What has the lock was not that commit after all."""
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, vote(write(0), client=C2, known=T1))
    assert only(rig.tick(1.0), Contended) == Contended(ttid(C2), 1, (P0,))


def test_votes_of_an_import_rest_on_each_other_before_they_are_committed() -> None:
    """The next one has the locks of those before it, and replaces what they will have written."""
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), write(2), given_tid=T1))
    assert only(rig.flush(), Voted)
    rig.receive(C1, vote(write(0, T1), counter=2, known=T1, given_tid=T2))
    assert only(rig.flush(), Voted) == Voted(ttid(counter=2), 1, (P0,))
    rig.receive(C1, vote(write(0, T2), write(2, T1), counter=3, known=T2, given_tid=T3))
    assert only(rig.flush(), Voted) == Voted(ttid(counter=3), 1, (P0,))
    for counter, tid in enumerate((T1, T2, T3), 1):
        rig.commit(tid, counter=counter)
    assert not len(rig.core.locks)
    assert [rig.core.ground.current(Oid(oid)) for oid in (0, 2)] == [T3, T3]


def test_vote_of_an_import_says_what_it_replaces_of_those_before_it() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), given_tid=T1))
    rig.flush()
    conflict = only(rig.receive(C1, vote(write(0), counter=2, known=T1, given_tid=T2)), Conflict)
    assert [(s.oid, s.serial, s.data) for s in conflict.stale] == [(Oid(0), T1, None)]


def test_vote_of_an_import_rests_on_no_other_session_and_on_nothing_later() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), given_tid=T2))
    rig.flush()
    assert not rig.receive(C2, vote(write(0, T2), client=C2, known=T2, given_tid=T3))
    assert not rig.receive(C1, vote(write(0, T2), counter=2, known=T1, given_tid=T3))
    assert {c.ttid for c in of(rig.tick(0.06), Contended)} == {ttid(C2), ttid(counter=2)}


def test_locks_of_an_import_outlive_the_abort_of_what_it_rests_on() -> None:
    """Its client aborts both; until it has, nobody else may write there."""
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), given_tid=T1))
    rig.receive(C1, vote(write(0, T1), counter=2, known=T1, given_tid=T2))
    rig.flush()
    rig.receive(M1, SAbort(ttid(), 1))
    assert only(rig.receive(C2, vote(write(0), client=C2)), Contended)
    rig.receive(M1, SAbort(ttid(counter=2), 1))
    rig.receive(C2, vote(write(0), client=C2, attempt=2))
    assert only(rig.flush(), Voted, C2)


def test_new_lead_gives_the_locks_of_an_import_on() -> None:
    """It makes them from its records, and the next vote comes to it."""
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), given_tid=T1))
    rig.receive(C1, vote(write(0, T1), counter=2, known=T1, given_tid=T2))
    rig.flush()
    rig.crash()
    rig.serve()
    rig.receive(C1, vote(write(0, T2), counter=3, known=T2, given_tid=T3))
    assert only(rig.flush(), Voted) == Voted(ttid(counter=3), 1, (P0,))


def test_read_only_lock_does_not_let_a_writer_in() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(2), reads=((0, 0),)))
    assert only(rig.receive(C2, vote(write(0), client=C2)), Contended)


def test_decided_attempt_is_refused() -> None:
    rig = Rig().serve()
    rig.receive(M1, SAbort(ttid(), 1))
    assert only(rig.receive(C1, vote(write(0))), Refused).code == ErrorCode.NOT_READY
    rig.receive(C1, vote(write(0), attempt=2))
    assert only(rig.flush(), Voted).attempt == 2


def test_abort_takes_a_vote_in_progress() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    refused = only(rig.receive(M1, SAbort(ttid(), 1)), Refused, C1)
    assert refused.parts == (P0,)
    assert of(rig.receive(S2, FwdOk(ttid(), 1, (P0,))) + rig.flush(), Voted) == []
    assert len(rig.core.locks) == 0


def test_floor_is_the_last_tid_that_client_or_lead_knows() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), known=T2))
    assert next(rig.core.image.records()).floor == T2
    rig.write_all(500, write(2), counter=9)
    rig.receive(C2, vote(write(4), client=C2, known=T1))
    assert {r.floor for r in rig.core.image.records()} == {T2, 500}


def test_higher_attempt_replaces_the_lower_one() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0, 0, b"one")))
    rig.receive(C1, vote(write(0, 0, b"two"), attempt=2))
    assert [v.attempt for v in of(rig.flush(), Voted)] == [2]
    assert [(r.attempt, r.writes[0].data.value) for r in rig.core.image.records()] == [(2, b"two")]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (write(0)._replace(data=data(b"x")._replace(checksum=bytes(16))), ErrorCode.CORRUPTED),
        (write(0)._replace(data=data(b"x")._replace(size=2)), ErrorCode.CORRUPTED),
        (write(0)._replace(data=ABSENT._replace(value=b"x")), ErrorCode.ILLEGAL),
        (write(0)._replace(data=ABSENT._replace(size=1)), ErrorCode.ILLEGAL),
        (write(0, 0, b"x" * 101), ErrorCode.TOO_LARGE),
    ],
)
def test_wrong_value_is_refused_for_good(bad: object, code: ErrorCode) -> None:
    rig = Rig(settings=StorageSettings(object_bytes=100)).serve()
    refused = only(rig.receive(C1, vote(bad)), Refused)  # type: ignore[arg-type]  # a Write
    assert refused.code == code
    assert not rig.core.image.voted


def test_object_of_another_partition_is_refused() -> None:
    rig = Rig().serve()
    good = vote(write(0))
    bad = good._replace(work=(good.work[0]._replace(partition=P1),), parts=(P1,))
    assert only(rig.receive(C1, bad), Refused).code == ErrorCode.PARTITION


def test_object_written_twice_is_refused() -> None:
    rig = Rig().serve()
    assert only(rig.receive(C1, vote(write(0), write(0, 0, b"again"))), Refused).code == ErrorCode.ILLEGAL


def test_transaction_above_the_limit_is_refused() -> None:
    rig = Rig(settings=StorageSettings(transaction_bytes=10)).serve()
    both = vote(write(0, 0, b"sixsix"), write(2, 0, b"sixsix"))
    assert only(rig.receive(C1, both), Refused).code == ErrorCode.TOO_LARGE


def test_too_many_undecided_bytes_are_refused() -> None:
    rig = Rig(settings=StorageSettings(undecided_bytes=10 + ENTRY_BYTES)).serve()
    rig.receive(C1, vote(write(0, 0, b"sixsix")))
    assert only(rig.receive(C2, vote(write(2, 0, b"sixsix"), client=C2)), Refused).code == ErrorCode.NO_SPACE


def test_votes_of_deletions_and_reads_count_too() -> None:
    """Thousands of them take memory, although they have no bytes."""
    rig = Rig(settings=StorageSettings(undecided_bytes=5 * ENTRY_BYTES)).serve()
    reads = tuple((2 * n, 0) for n in range(1, 4))
    assert rig.receive(C1, vote(write(0, 0, b""), reads=reads)) == []
    refused = only(rig.receive(C2, vote(write(8, 0, b""), reads=((10, 0),), client=C2)), Refused)
    assert refused.code == ErrorCode.NO_SPACE


def test_full_disk_refuses_votes_until_there_is_room() -> None:
    rig = Rig(settings=StorageSettings(disk_reserve_bytes=100)).serve()
    rig.disk(free=99)
    assert only(rig.receive(C1, vote(write(0))), Refused).code == ErrorCode.NO_SPACE
    rig.disk(free=100)
    rig.receive(C1, vote(write(0)))
    assert only(rig.flush(), Voted)


def test_votes_wait_while_the_applier_is_behind() -> None:
    rig = Rig(settings=StorageSettings(overlay_bytes=100)).serve()
    rig.receive(C1, vote(write(0, 0, bytes(200))))
    rig.flush()
    rig.commit(T1)
    rig.flush()
    assert rig.receive(C1, vote(write(2), counter=2)) == []
    assert rig.flush() == []
    rig.apply()
    assert only(rig.flush(), Voted).ttid == ttid(C1, 2)


def test_votes_that_wait_are_refused_when_there_is_no_room() -> None:
    """The applier is behind as it has no room: what waits for it is told now, not when its client gives up."""
    rig = Rig(settings=StorageSettings(overlay_bytes=100)).serve()
    rig.receive(C1, vote(write(0, 0, bytes(200))))
    rig.flush()
    rig.commit(T1)
    rig.flush()
    assert rig.receive(C1, vote(write(2), counter=2)) == []
    assert only(rig.disk(free=0), Refused).code == ErrorCode.NO_SPACE
    assert only(rig.receive(C1, vote(write(4), counter=3)), Refused).code == ErrorCode.NO_SPACE


def test_session_that_was_given_up_is_refused() -> None:
    rig = Rig().serve()
    rig.adopt(ALONE, gone=(C1 & 0xFFFFFF,))
    assert only(rig.receive(C1, vote(write(0))), Refused).code == ErrorCode.NOT_READY


# ---------------------------------------------------------------------------------------------- on the other cells


def replica() -> Rig:
    """S2, whose row 0 S1 leads."""
    return Rig(S2).serve(PAIR, S1)


def record(rig: Rig, attempt: int = 1) -> Fwd:
    """The Fwd that a lead sends of a vote on oid 0."""
    lead = Rig().serve(PAIR, S2)
    fwd = only(lead.receive(C1, vote(write(0))), Fwd)
    return fwd._replace(records=(fwd.records[0]._replace(attempt=attempt),))


def test_cell_confirms_when_durable() -> None:
    rig = replica()
    assert rig.receive(S1, record(rig)) == []
    assert only(rig.flush(), FwdOk, S1) == FwdOk(ttid(), 1, (P0,))


SAME = table(((S1, U), (S2, U)), ((S1, U), (S2, U)))
"""S1 leads both rows."""


def test_records_of_one_vote_travel_together() -> None:
    lead, cell = Rig().serve(SAME, S2), Rig(S2).serve(SAME, S1)
    fwd = only(lead.receive(C1, vote(write(0), write(1))), Fwd, S2)
    assert [r.partition for r in fwd.records] == [P0, P1]
    cell.receive(S1, fwd)
    assert only(cell.flush(), FwdOk, S1) == FwdOk(ttid(), 1, (P0, P1))
    lead.flush()
    assert only(lead.receive(S2, FwdOk(ttid(), 1, (P0, P1))), Voted).parts == (P0, P1)


def test_records_that_repeat_much_travel_apart() -> None:
    """Metadata stand once in a Vote, and in each of its records: together they would not fit into a packet."""
    lead = Rig().serve(SAME, S2)
    long = vote(write(0), write(1))._replace(metadata=Metadata(b"user", bytes(3 * 2**20), b""))
    sent = of(lead.receive(C1, long), Fwd, S2)
    assert [[r.partition for r in fwd.records] for fwd in sent] == [[P0], [P1]]


def test_cell_takes_of_a_forward_what_its_sender_leads() -> None:
    lead, cell = Rig().serve(SAME, S2), Rig(S2).serve(PAIR, S1)
    cell.receive(S1, only(lead.receive(C1, vote(write(0), write(1))), Fwd, S2))
    assert only(cell.flush(), FwdOk, S1).parts == (P0,)


def test_cell_refuses_who_does_not_lead() -> None:
    rig = replica()
    rig.set_table(table(((S2, U), (S1, U)), ((S2, U), (S1, U)), ptid=2))
    rig.flush()
    rig.receive(S1, record(rig))
    assert of(rig.flush(), FwdOk) == []
    assert not rig.core.image.voted


def test_forward_of_a_newer_table_waits_for_it() -> None:
    rig = replica()
    newer = table(((S1, U), (S2, U)), ((S2, U), (S1, U)), ptid=2)
    rig.receive(S1, record(rig)._replace(version=newer.version))
    assert of(rig.flush(), FwdOk) == []
    rig.set_table(newer)
    assert only(rig.flush(), FwdOk)


def test_what_follows_a_packet_that_waits_waits_too() -> None:
    rig = replica()
    newer = table(((S1, U), (S2, U)), ((S2, U), (S1, U)), ptid=2)
    rig.receive(S1, record(rig)._replace(version=newer.version))
    rig.receive(S1, FwdUnvote(E1, PAIR.version, ttid(), 1, P0))
    rig.set_table(newer)
    assert [type(s.packet).__name__ for s in rig.flush() if s.peer == S1] == ["FwdOk", "FwdUnvoteOk"]
    assert not rig.core.image.voted


def test_forward_of_an_older_epoch_is_dropped() -> None:
    rig = replica()
    rig.adopt(table(((S1, U), (S2, U)), ((S2, U), (S1, U)), epoch=E2), epoch=E2, master=M1)
    rig.receive(S1, record(rig))
    assert of(rig.flush(), FwdOk) == []


def test_too_many_packets_that_wait_cut_the_connection() -> None:
    rig = Rig(S2, StorageSettings(held_packets=2)).serve(PAIR, S1)
    fwd = record(rig)._replace(version=table(ptid=9).version)
    for _ in range(3):
        rig.receive(S1, fwd)
    assert rig.cut == [S1]


def test_abort_that_overtook_the_vote_wins() -> None:
    rig = replica()
    rig.receive(M1, SAbort(ttid(), 1))
    rig.receive(S1, record(rig))
    assert only(rig.flush(), FwdOk)  # the lead need not wait
    assert not rig.core.image.voted


def test_lower_attempt_does_not_replace_a_higher_one() -> None:
    rig = replica()
    rig.receive(S1, record(rig, attempt=2))
    rig.receive(S1, record(rig, attempt=1))
    assert [ok.attempt for ok in of(rig.flush(), FwdOk)] == [2]
    assert [r.attempt for r in rig.core.image.records()] == [2]


def test_seal_turns_mode_a_into_c() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), mode=Mode.A))
    rig.receive(M1, Seal(ttid(), 1))
    assert only(rig.flush(), SealOk) == SealOk(ttid(), 1)
    assert next(rig.core.image.records()).mode == Mode.C


def test_seal_of_another_attempt_seals_nothing() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), mode=Mode.A, attempt=2))
    rig.receive(M1, Seal(ttid(), 1))
    assert next(rig.core.image.records()).mode == Mode.A


# ---------------------------------------------------------------------------------------------- withdrawing


def test_unvote_frees_the_locks_at_once() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.receive(C1, Unvote(ttid(), 1, E1, (P0,)))
    rig.receive(C2, vote(write(0), client=C2))
    assert only(rig.flush(), Voted, C2)


def test_unvote_is_confirmed_when_every_cell_has_forgotten() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.receive(S2, FwdOk(ttid(), 1, (P0,)))
    assert only(rig.receive(C1, Unvote(ttid(), 1, E1, (P0,))), FwdUnvote, S2).partition == P0
    assert of(rig.flush(), UnvoteOk) == []
    assert only(rig.receive(S2, FwdUnvoteOk(ttid(), 1, P0)), UnvoteOk, C1) == UnvoteOk(ttid(), 1, (P0,))


def test_unvote_of_what_is_not_there_is_confirmed() -> None:
    rig = Rig().serve()
    sent = rig.receive(C1, Unvote(ttid(), 3, E1, (P0,))) + rig.flush()
    assert only(sent, UnvoteOk).attempt == 3


def test_unvote_leaves_a_higher_attempt_alone() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0), attempt=2))
    rig.receive(C1, Unvote(ttid(), 1, E1, (P0,)))
    assert only(rig.flush(), Voted).attempt == 2
    assert only(rig.receive(C2, vote(write(0), client=C2)), Contended)


def test_withdrawn_vote_is_not_answered() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.receive(C1, Unvote(ttid(), 1, E1, (P0,)))
    assert of(rig.flush(), Voted) == []


def test_sync_ok_counts_as_the_answers_that_it_lists() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    assert only(rig.receive(S2, SyncOk(P0, PAIR.version, (VoteId(ttid(), 1),))), Voted)


# ---------------------------------------------------------------------------------------------- restart


def test_vote_survives_a_crash_with_its_locks() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.crash()
    rig.connect(M1)
    rig.adopt(ALONE)
    rig.connect(C2)
    assert only(rig.receive(C2, vote(write(0), client=C2)), Contended)


def test_vote_that_was_not_durable_is_gone() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    assert isinstance(rig.log[-1][1], LogVote)
    rig.crash()
    assert not rig.core.image.voted
