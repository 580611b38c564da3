"""Lease, fencing, start, coming back."""

from neo_common.ids import NO_EPOCH, NO_NODE, NO_TID, Epoch, NodeId, Partition, Seconds, make_epoch
from neo_common.model.orders import Choice, Orders
from neo_common.model.partition_table import PartitionTable, whole
from neo_common.states import CellState, Role, node_id
from neo_common.wire.schema import (
    Adopt,
    Decision,
    Fence,
    Fenced,
    FwdFail,
    PtOk,
    Refused,
    Renew,
    Renewed,
    Resign,
    SHello,
    Start,
    StartOk,
    Sync,
    Tombstone,
    Unvote,
    Voted,
    VotedBy,
)
from neo_storage.core.events import Named
from neo_storage.core.log_records import LogClear
from neo_storage.core.settings import StorageSettings
from support.storage_rig import (
    ALONE,
    C1,
    C2,
    C3,
    CLUSTER,
    E1,
    E2,
    E3,
    M1,
    M2,
    NO_CEILINGS,
    P0,
    PAIR,
    S1,
    S2,
    T1,
    T2,
    F,
    O,
    Rig,
    U,
    of,
    only,
    packets,
    table,
    ttid,
    vote,
    write,
)

LEASE = StorageSettings(lease_s=3.0, lease_margin_s=0.5)
LATER = table(((S1, U),), ((S1, U),), epoch=E2)


def test_new_storage_greets_and_is_fenced() -> None:
    rig = Rig()
    assert only(rig.connect(M1), SHello) == SHello(
        NO_EPOCH, rig.core.image.table.version, (), 0, rig.core.image.last_tid, 0
    )
    assert rig.receive(M1, Fence(E1)) == []
    fenced = only(rig.flush(), Fenced, M1)
    assert (fenced.epoch, fenced.cluster_id, fenced.table.rows) == (E1, bytes(16), ())
    assert (fenced.position, rig.core.image.position) == (0, 0), "an epoch is no step forward"


def test_id_given_by_a_master_is_kept() -> None:
    rig = Rig(NO_NODE)
    rig.handle(Named(S2))
    rig.serve(table(((S2, U),), ((S2, U),)))
    rig.crash()
    assert rig.core.me == S2
    assert rig.core.image.cluster_id == CLUSTER


def test_fence_tells_all_that_is_durable() -> None:
    rig = Rig().serve()
    rig.write_all(T1, write(4), counter=7)
    rig.receive(C1, vote(write(0), known=T1))
    rig.adopt(ALONE, aborts=(Tombstone(ttid(C2), 3),))
    rig.flush()
    fenced = only(rig.fence(E3), Fenced)
    assert fenced.epoch == E3
    assert [(h.ttid, h.partition, h.floor) for h in fenced.voted] == [(ttid(), P0, T1)]
    assert fenced.decisions == (Decision(ttid(C3, 7), 1, T1, (P0,)),)
    assert fenced.tombstones == (Tombstone(ttid(C2), 3),)
    assert (fenced.ceilings, fenced.last, fenced.last_oid) == (NO_CEILINGS, T1, 4)
    assert fenced.table == whole(ALONE)


def test_lower_fence_is_ignored() -> None:
    rig = Rig().serve()
    rig.fence(E3)
    assert rig.fence(E1) == []
    assert rig.core.image.epoch == E3


def test_fence_of_the_epoch_that_reigns_is_ignored() -> None:
    rig = Rig().serve()
    assert of(rig.fence(E1), Fenced) == []
    assert rig.core.serving


def test_fence_ends_what_is_in_flight() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    assert only(rig.receive(M1, Fence(E3)), Refused, C1).ttid == ttid()
    assert of(rig.flush(), Voted) == []
    assert len(rig.core.locks) == 0
    assert rig.receive(C2, vote(write(2), client=C2)) == []


def test_start_serves_when_durable() -> None:
    rig = Rig()
    rig.fence()
    assert rig.start(ALONE) == []
    sent = rig.flush()
    assert only(sent, StartOk, M1).epoch == E1
    assert only(sent, PtOk).version == ALONE.version
    assert list(packets(sent)).index("PtOk") < list(packets(sent)).index("StartOk")


def test_start_of_another_epoch_is_ignored() -> None:
    rig = Rig()
    rig.fence(E3)
    rig.start(ALONE, epoch=E1)
    assert not rig.core.serving


def test_start_commits_and_aborts_what_recovery_decided() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.receive(C2, vote(write(2), client=C2))
    rig.flush()
    rig.fence(E3)
    rig.start(
        table(((S1, U),), ((S1, U),), epoch=E3),
        epoch=E3,
        decisions=(Decision(ttid(), 1, T1, (P0,)),),
        aborts=(Tombstone(ttid(C2), 1),),
    )
    rig.settle()
    assert rig.backend.current(P0, write(0).oid) == T1
    assert not rig.core.image.voted


def test_start_keeps_what_is_pending_locked() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.fence(E3)
    rig.start(table(((S1, U),), ((S1, U),), epoch=E3), epoch=E3)
    assert ttid() in rig.core.locks.owners(write(0).oid)


def test_tombstones_end_with_the_reign() -> None:
    rig = Rig().serve()
    rig.adopt(ALONE, aborts=(Tombstone(ttid(), 1),))
    rig.fence(E3)
    assert rig.core.image.tombstones
    rig.start(table(((S1, U),), ((S1, U),), epoch=E3), epoch=E3)
    assert not rig.core.image.tombstones


def test_other_cluster_is_cut_off() -> None:
    rig = Rig().serve()
    rig.fence(E3)
    new = whole(table(((S1, U),), ((S1, U),), epoch=E3))
    rig.receive(M1, Start(E3, bytes(15) + b"x", new, NO_CEILINGS, (), ()))
    assert rig.cut == [M1]
    assert not rig.core.serving


# ---------------------------------------------------------------------------------------------- lease


def other_master(rig: Rig, epoch: Epoch = E2) -> bool:
    """Whether M2 is heard."""
    rig.connect(M2)
    rig.receive(M2, Fence(epoch))
    heard = bool(of(rig.flush(), Fenced, M2))
    rig.lose(M2)
    return heard


def test_other_master_waits_for_the_end_of_the_lease() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.lose(M1)
    rig.tick(3.4)
    rig.connect(M2)
    rig.receive(M2, Fence(E2))
    assert of(rig.flush(), Fenced) == []
    rig.tick(0.2)
    assert only(rig.flush(), Fenced, M2)


def test_a_disk_that_waits_in_recovery_does_not_seem_to_go_on() -> None:
    """Each epoch is a record; after as many as it lacks, an old copy would be taken for the disk that it was."""
    rig = Rig(settings=LEASE).serve()
    rig.flush()
    had = rig.core.ground.durable_records()
    assert had > 1
    rig.tick(10.0)
    for number in range(5, 9):
        rig.receive(M1, Fence(make_epoch(number, M1)))
        assert only(rig.flush(), Fenced, M1).position == had
    assert rig.core.image.position > had
    rig.connect(M2)
    assert rig.core.image.length(rig.core.image.position) == had


def test_only_what_is_durable_of_the_log_is_told() -> None:
    """The primary takes a disk with less for one that has lost something."""
    rig = Rig(settings=LEASE).serve()
    durable = rig.core.ground.durable + 1
    rig.receive(C1, vote(write(0)))
    assert rig.core.image.position + 1 > durable
    assert only(rig.receive(M1, Renew(E1, 17)), Renewed).position == durable
    rig.flush()
    assert only(rig.receive(M1, Renew(E1, 18)), Renewed).position == rig.core.image.position + 1


def test_lease_is_renewed() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.tick(3.0)
    durable = rig.core.ground.durable + 1
    assert only(rig.receive(M1, Renew(E1, 17)), Renewed) == Renewed(E1, 17, durable)
    rig.tick(3.0)
    assert not other_master(rig)


def test_renewal_of_another_epoch_is_ignored() -> None:
    rig = Rig(settings=LEASE).serve()
    assert rig.receive(M1, Renew(E3, 17)) == []
    rig.tick(3.6)
    assert other_master(rig)


def test_same_master_started_again_need_not_wait() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.lose(M1)
    rig.connect(M1)
    rig.receive(M1, Fence(E3))
    assert only(rig.flush(), Fenced)


def test_resigning_ends_the_lease() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.receive(M1, Resign(E1))
    assert other_master(rig)


def test_restarted_storage_waits_out_the_lease_that_it_may_have_given() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.crash()
    assert not other_master(rig)
    rig.tick(3.6)
    assert other_master(rig)


def test_lease_runs_from_the_answer_on() -> None:
    rig = Rig(settings=LEASE)
    rig.fence()
    rig.start(ALONE)
    rig.tick(2.0)
    rig.flush()
    rig.tick(3.4)
    assert not other_master(rig)


def test_new_master_cuts_off_the_old_one() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.tick(3.6)
    assert other_master(rig)
    assert rig.cut == [M1]


# ---------------------------------------------------------------------------------------------- coming back


def test_adopt_of_a_lower_epoch_is_answered_with_ours() -> None:
    rig = Rig().serve()
    rig.fence(E3)
    sent = rig.receive(M1, Adopt(E1, CLUSTER, whole(ALONE), True, NO_CEILINGS, (), (), (), T1))
    assert only(sent, SHello).epoch == E3


def test_adopt_brings_a_storage_into_a_later_reign() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.crash()
    rig.tick(4.0)
    rig.connect(M2)
    rig.adopt(LATER, epoch=E2, master=M2)
    assert only(rig.flush(), StartOk, M2).epoch == E2
    assert rig.core.image.epoch == E2
    rig.crash()
    assert rig.core.image.epoch == E2


def test_storage_that_was_left_out_of_a_reign_forgets_its_decisions() -> None:
    """They may be those of a reign that never ran: others have been told otherwise."""
    rig = Rig().serve(ALONE)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    rig.commit(int(T1))
    rig.settle()
    assert rig.core.image.decisions
    rig.adopt(table(((S1, O), (S2, U)), ((S1, O), (S2, U)), epoch=E3), epoch=E3, master=M1)
    assert not rig.core.image.decisions


def test_adopt_tells_the_votes_of_sessions_given_up() -> None:
    rig = Rig().serve()
    rig.receive(C1, vote(write(0)))
    rig.flush()
    told = only(rig.adopt(ALONE, gone=(1,)), VotedBy)
    assert [v.ttid for v in told.voted] == [ttid()]


def test_adopted_table_is_relied_on_when_it_is_durable_here() -> None:
    rig = Rig().serve(PAIR)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    without = table(((S1, U), (S2, O)), ((S1, U), (S2, O)), ptid=2)
    assert of(rig.adopt(without), Voted) == []
    assert only(rig.flush(), Voted)


def test_adopted_table_that_is_not_stable_is_not_relied_on() -> None:
    rig = Rig().serve(PAIR)
    rig.receive(C1, vote(write(0)))
    rig.flush()
    without = table(((S1, U), (S2, O)), ((S1, U), (S2, O)), ptid=2)
    rig.adopt(without, stable=False)
    assert of(rig.flush(), Voted) == []


def test_adopt_reports_cells_that_votes_in_flight_wait_for() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    rig.lose(M1)
    rig.lose(S2)
    rig.connect(M1)
    assert only(rig.adopt(PAIR), FwdFail) == FwdFail(PAIR.version, S2)


def test_storage_goes_on_serving_without_a_primary() -> None:
    rig = Rig().serve()
    rig.lose(M1)
    rig.receive(C1, vote(write(0)))
    assert only(rig.flush(), Voted)


# ---------------------------------------------------------------------------------------------- connections


def test_client_that_comes_early_is_sent_away() -> None:
    rig = Rig()
    rig.connect(C1)
    assert rig.cut == [C1]
    assert rig.receive(C1, Unvote(ttid(), 1, E1, (P0,))) == []


def test_lead_agrees_with_a_readable_cell_that_comes_back() -> None:
    rig = Rig().serve(PAIR, S2)
    rig.receive(C1, vote(write(0)))
    rig.lose(S2)
    sync = only(rig.connect(S2), Sync)
    assert [r.ttid for r in sync.records] == [ttid()]


def test_lost_cell_is_reported() -> None:
    rig = Rig().serve(table(((S1, U), (S2, F)), ((S1, U),)), S2)
    assert only(rig.lose(S2), FwdFail) == FwdFail(PAIR.version, S2)


def test_lost_lead_is_not_reported_by_a_readable_cell() -> None:
    rig = Rig(S2).serve(table(((S1, U), (S2, U)), ((S1, U), (S2, U))), S1)
    assert rig.lose(S1) == []


def test_wanted_peers_are_higher_ids_that_share_a_partition() -> None:
    three = table(((S1, U), (S2, U)), ((S2, U),))
    assert Rig(S1).serve(three).core.wanted_peers() == {S2}
    assert Rig(S2).serve(three).core.wanted_peers() == frozenset()
    assert Rig(S1).core.wanted_peers() == frozenset()


def test_cells_that_are_both_out_of_date_need_no_connection() -> None:
    other = node_id(Role.STORAGE, 3)
    new = table(((other, U), (S1, O), (S2, O)), ((S1, CellState.CORRUPTED), (S2, U)))
    assert Rig(S1).serve(new).core.wanted_peers() == {other}
    assert Rig(S2).serve(new).core.wanted_peers() == {other}


def test_packets_of_a_connection_that_was_cut_are_not_handled() -> None:
    rig = Rig().serve()
    rig.lose(C1)
    assert rig.receive(C1, vote(write(0))) == []
    assert not rig.core.image.voted


def test_master_id_is_in_the_epoch() -> None:
    rig = Rig(settings=LEASE).serve()
    rig.crash()
    assert rig.core.reign.lease_holder() == node_id(Role.MASTER, 1)
    rig.now = Seconds(rig.now + 10)
    rig.tick()
    assert rig.core.reign.lease_holder() is None


def test_last_tid_survives() -> None:
    rig = Rig().serve()
    rig.write_all(T2, write(0), counter=1)
    rig.crash()
    assert rig.core.image.last_tid == T2
    assert rig.core.ground.seen == T2


# ---------------------------------------------------------------------------------------------- an operator's choice


def chosen(former: PartitionTable, *rows: tuple[tuple[NodeId, CellState], ...]) -> PartitionTable:
    """Return the first table of a new line."""
    choice = Choice(77, 1_700_000_000, former.version, NO_TID, NO_TID, "test")
    new = table(*rows, epoch=E3)
    return new.changed(new.version, {}, orders=Orders(choices=(choice,)))


def started(rig: Rig, new: PartitionTable) -> None:
    """Let a new reign begin with that table."""
    rig.receive(M1, Fence(E3))
    rig.flush()
    rig.receive(M1, Start(E3, CLUSTER, whole(new), NO_CEILINGS, (), ()))
    rig.settle()


def test_hello_tells_of_the_choice_and_of_the_last_tid() -> None:
    rig = Rig().serve(ALONE)
    assert only(rig.connect(M2), SHello).choice == 0
    rig.lose(M2)
    started(rig, chosen(ALONE, ((S1, U),), ((S1, U),)))
    assert only(rig.connect(M2), SHello).choice == 77


def test_a_partition_that_begins_empty_has_nothing_of_an_earlier_time() -> None:
    """What was left of a dropped cell, not erased yet, must not be served."""
    apart = table(((S1, U),), ((S2, U),))
    rig = Rig().serve(apart, S2)
    started(rig, chosen(apart, ((S1, U),), ((S1, U), (S2, O))))
    clears = [record for _, record in rig.log if isinstance(record, LogClear)]
    assert clears == [LogClear(Partition(1), NO_TID)], "the other partition stays"
