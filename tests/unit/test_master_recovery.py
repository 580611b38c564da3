"""From nothing to RUNNING: the first table, what recovery waits for, what it decides."""

from typing import Any

import pytest

from neo_common.core import Accept
from neo_common.ids import NO_NODE, Epoch, NodeId, Oid, Ptid, Session, Tid, Ttid, Version, make_epoch, tid_from_time
from neo_common.model.partition_table import Cell, PartitionTable
from neo_common.states import CellState, ClusterState, NodeState, Role
from neo_common.wire import schema as s
from support.reign import A1, C1, C2, M1, M2, S1, S2, S3, Reign, chello, p, record

U, J, OUT = CellState.UP_TO_DATE, CellState.JOINING, CellState.OUT_OF_DATE
OLD = make_epoch(3, M2)
CLUSTER_ID = b"0123456789abcdef"
SESSION = Session(3 << 32 | 1)
OTHER = Session(3 << 32 | 2)
T1, T2, T3 = (Ttid(SESSION, n) for n in (1, 2, 3))
X1 = Ttid(OTHER, 1)


def restarted(**fields: Any) -> Reign:
    """Return a new master; its storages have a table of two rows, and what a former reign has left."""
    r = Reign(partitions=2, **fields)
    table = PartitionTable(Version(OLD, Ptid(7)), 1, [(Cell(S1, U), Cell(S2, U)), (Cell(S2, U), Cell(S1, U))])
    for storage in r.storages.values():
        storage.epoch, storage.table, storage.cluster_id = OLD, table, CLUSTER_ID
        storage.ceilings, storage.last, storage.last_oid = s.Ceilings(Tid(1000), Oid(500)), Tid(900), Oid(77)
    return r


def voted_everywhere(r: Reign, ttid: Ttid, *, floor: int = 900, mode: s.Mode = s.Mode.C, attempt: int = 1) -> None:
    """Let every cell of partition 0 have a vote."""
    for storage in r.storages.values():
        storage.voted.append(record(ttid, 0, attempt=attempt, mode=mode, floor=floor))


def underway(ttid: Ttid, progress: s.Progress, attempt: int = 1) -> s.CHello:
    """Return the word of a client that has a transaction under way."""
    return chello(ttid.session, OLD, underway=(s.Underway(ttid, attempt, progress, (p(0),)),))


# ---------------------------------------------------------------------------------------------- the first table


def test_first_table_is_made_when_all_configured_storages_are_there() -> None:
    r = Reign(storages=2)
    r.dial(S1)
    assert r.core.state is ClusterState.RECOVERING
    assert "s2" in r.core.reason
    r.dial(S2)
    assert r.core.state is ClusterState.RUNNING
    assert r.core.pt.partitions == 4
    assert r.core.pt.readable_nodes() == {S1, S2}
    assert r.storages[S1].cluster_id == r.storages[S2].cluster_id != bytes(16)


def test_storages_without_id_are_parked_and_get_ids_in_the_order_of_names() -> None:
    r = Reign(storages=2)
    second = r.greet(Role.STORAGE, "s2")
    assert second in r.parked
    first = r.greet(Role.STORAGE, "s1")
    accepted = [e for e in r.effects if isinstance(e, Accept)]
    assert accepted == [Accept(first, S1), Accept(second, S2)]
    assert r.core.state is ClusterState.RUNNING


def test_auto_start_off_waits_for_an_order() -> None:
    r = Reign(storages=2, auto_start=False)
    r.dial(S1, S2)
    assert "neoadmin start" in r.core.reason
    r.admin()
    assert isinstance(r.ask(A1, s.AskStart("now")), s.AnswerStart)
    assert r.core.state is ClusterState.RUNNING


def test_start_with_too_few_storages_is_refused_with_what_is_missing() -> None:
    r = Reign(storages=2, auto_start=False, replicas=1)
    r.dial(S1)
    r.admin()
    answer = r.ask(A1, s.AskStart(""))
    assert isinstance(answer, s.Error)
    assert answer.code == s.ErrorCode.NOT_READY
    assert "needs 2 storages; there: s1" in answer.text


def test_storage_without_id_gets_one_when_the_cluster_runs() -> None:
    r = Reign(storages=2).run()
    handle = r.greet(Role.STORAGE, "new")
    assert Accept(handle, S3) in r.effects
    assert r.core.nodes[S3].state is NodeState.PENDING
    assert r.storages[S3].table == r.core.pt


def test_copy_of_a_storage_is_refused() -> None:
    r = Reign().run()
    assert r.refused[r.greet(Role.STORAGE, "copy", S1)].code == s.RefusalCode.IDENTITY


def test_second_process_of_one_name_is_refused() -> None:
    r = Reign().run()
    assert r.refused[r.greet(Role.STORAGE, "s1")].code == s.RefusalCode.IDENTITY


def test_id_of_another_role_is_refused() -> None:
    r = Reign().run()
    assert r.refused[r.greet(Role.STORAGE, "s9", C1)].code == s.RefusalCode.IDENTITY
    assert r.refused[r.greet(Role.CLIENT, "c9", NodeId(0xFF000001))].code == s.RefusalCode.IDENTITY


def test_storage_that_comes_again_in_recovery_does_not_raise_the_epoch() -> None:
    r = Reign()
    r.dial(S1)
    epoch = r.core.epoch
    r.lose(S1)
    r.dial(S1)
    assert r.core.epoch == epoch
    assert len(r.to(S1, s.Fence)) == 2


def test_storage_that_has_lost_its_disk_does_not_count() -> None:
    r = restarted()
    wiped = r.storages[S2]
    wiped.table, wiped.epoch = PartitionTable(Version(Epoch(0), Ptid(0)), 0, ()), Epoch(0)
    r.dial(S1, S2)
    assert r.core.state is ClusterState.RECOVERING
    assert "s2 (S2)" in r.core.reason


def test_storage_of_another_cluster_is_refused() -> None:
    r = restarted()
    r.dial(S1)
    r.storages[S2].cluster_id = b"another cluster!"
    r.dial(S2)
    assert [e.code for e in r.refused.values()] == [s.RefusalCode.CLUSTER]


# ---------------------------------------------------------------------------------------------- what it waits for


def test_recovery_waits_for_every_readable_node_of_the_newest_table() -> None:
    r = restarted()
    r.dial(S1)
    assert r.core.state is ClusterState.RECOVERING
    assert r.core.reason == "waits for storages s2 (S2): readable in table 3.2:7"
    assert not r.to(S1, s.Start)
    r.dial(S2)
    assert r.core.state is ClusterState.RUNNING


def test_recovery_takes_the_newest_table_and_does_not_wait_for_who_is_out_of_date() -> None:
    r = restarted()
    r.storages[S1].table = PartitionTable(Version(OLD, Ptid(8)), 1, [(Cell(S1, U), Cell(S2, OUT)), (Cell(S1, U),)])
    r.dial(S2)
    assert r.core.state is ClusterState.RECOVERING
    r.dial(S1)
    assert r.core.state is ClusterState.RUNNING
    assert r.core.pt.readable_nodes() == {S1}


def test_joins_begin_again_in_the_new_table() -> None:
    r = restarted()
    for storage in r.storages.values():
        storage.table = PartitionTable(
            Version(OLD, Ptid(9)), 1, [(Cell(S1, U), Cell(S2, J)), (Cell(S2, U), Cell(S1, U))]
        )
    r.dial(S1, S2)
    first = r.to(S1, s.Start)[0].table
    assert first.rows[0][1] == (Cell(S1, U), Cell(S2, OUT))
    assert first.version == Version(r.core.epoch, Ptid(10))


def test_running_only_when_all_have_start_durable() -> None:
    r = restarted()
    r.storages[S2].answers.discard(s.Start)
    r.dial(S1, S2)
    assert r.core.state is ClusterState.VERIFYING
    assert not r.core.is_running
    assert "S2" in r.core.reason
    r.say(S2, s.StartOk(r.core.epoch))
    assert r.core.state is ClusterState.RUNNING


def test_storage_lost_before_running_begins_recovery_again_under_a_higher_epoch() -> None:
    r = restarted()
    r.storages[S2].answers.discard(s.Start)
    r.client(C1)
    r.dial(S1, S2)
    epoch = r.core.epoch
    r.lose(S2)
    assert (r.core.state, r.core.epoch >> 24) == (ClusterState.RECOVERING, (epoch >> 24) + 1)
    assert C1 in r.connected
    r.storages[S2].answers.add(s.Start)
    r.dial(S2)
    assert r.core.state is ClusterState.RUNNING
    assert r.last_to(C1, s.Welcome).epoch == r.core.epoch


def test_reply_to_an_earlier_fence_does_not_count() -> None:
    r = restarted()
    for storage in r.storages.values():
        storage.answers.discard(s.Fence)
    r.dial(S1, S2)
    stale = r.storages[S2].fenced()._replace(epoch=make_epoch(1, M1))
    r.say(S2, stale)
    assert S2 not in r.core.replies


def test_storage_that_comes_between_start_and_running_is_adopted_then() -> None:
    r = restarted(storages=3)
    r.storages[S2].answers.discard(s.Start)
    r.dial(S1, S2)
    r.dial(S3)
    assert not r.to(S3, s.Adopt)
    r.say(S2, s.StartOk(r.core.epoch))
    assert r.to(S3, s.Adopt)


def test_new_reign_starts_above_the_ceilings() -> None:
    r = restarted()
    ahead = tid_from_time(r.wall + 100)
    r.storages[S1].ceilings = s.Ceilings(ahead, Oid(500))
    r.dial(S1, S2)
    r.client(C1)
    assert r.commit(C1) == ahead
    answer = r.ask(C1, s.AskOids(10))
    assert answer == s.AnswerOids(Oid(500), 10)


def test_oids_in_the_database_are_not_given_again() -> None:
    r = restarted()
    r.storages[S2].last_oid = Oid(12345)
    r.dial(S1, S2)
    r.client(C1)
    assert r.ask(C1, s.AskOids(1)) == s.AnswerOids(Oid(12346), 1)


# ---------------------------------------------------------------------------------------------- what it decides


def decided(r: Reign) -> dict[Ttid, tuple[int, int]]:
    """Return what Start says is committed."""
    return {d.ttid: (d.attempt, d.tid) for d in r.to(S1, s.Start)[-1].decisions}


def aborted(r: Reign) -> dict[Ttid, int]:
    """Return what Start says is aborted."""
    return {t.ttid: t.attempt for t in r.to(S1, s.Start)[-1].aborts}


def test_decision_of_any_storage_stands() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.storages[S2].decisions.append(s.Decision(T1, 1, Tid(950), (p(0),)))
    r.dial(S1, S2)
    assert decided(r) == {T1: (1, 950)}
    assert r.core.last == 950


def test_readable_nodes_say_before_others_what_is_decided() -> None:
    r = restarted()
    for storage in r.storages.values():
        storage.table = PartitionTable(Version(OLD, Ptid(9)), 1, [(Cell(S2, U), Cell(S1, OUT)), (Cell(S2, U),)])
    r.storages[S1].decisions.append(s.Decision(T1, 1, Tid(950), (p(0),)))
    r.storages[S2].decisions.append(s.Decision(T1, 1, Tid(960), (p(0),)))
    r.dial(S1, S2)
    assert decided(r) == {T1: (1, 960)}


def test_tid_that_only_a_client_knows_is_kept() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.client(C1, chello(OTHER, OLD, known=(s.Decision(T1, 1, Tid(955), ()),)))
    r.dial(S1, S2)
    assert decided(r) == {T1: (1, 955)}
    assert not r.last_to(C1, s.Welcome).reset


def stepped_down(r: Reign) -> Tid:
    """Let it commit what no storage keeps but as a vote, and no client remembers; then lose its lease."""
    for kind in (s.Commit, s.Renew):
        r.storages[S1].answers.discard(kind)
    tid = r.commit(C1)
    voted_everywhere(r, r.ttid(C1, 1))
    r.lose(C1)
    r.tick(7.0)
    assert r.core.state is ClusterState.RECOVERING
    r.storages[S1].answers |= {s.Commit, s.Renew}
    return tid


def test_tid_that_only_the_last_reign_of_this_process_knows_is_kept() -> None:
    r = Reign(storages=1, replicas=0).run(C1)
    tid = stepped_down(r)
    r.dial(S1)
    r.tick(4.0)
    assert list(decided(r).values()) == [(1, tid)]


def test_not_so_after_another_reign() -> None:
    """It has decided what was voted, and what is voted still may have been given up by then."""
    r = Reign(storages=1, replicas=0).run(C1)
    tid = stepped_down(r)
    storage = r.storages[S1]
    storage.epoch = make_epoch(9, M2)
    storage.table = PartitionTable(Version(storage.epoch, Ptid(1)), 0, storage.table.rows)
    r.dial(S1)
    r.tick(4.0)
    ((_, found),) = decided(r).values()
    assert found > tid


def test_fully_voted_without_client_waits_for_the_grace_then_is_committed_above_the_ceilings() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.dial(S1, S2)
    assert r.core.state is ClusterState.VERIFYING
    r.tick(2.5)
    assert r.core.state is ClusterState.VERIFYING
    r.tick(1.0)
    assert r.core.state is ClusterState.RUNNING
    assert decided(r) == {T1: (1, 1000)}


def test_doubts_are_committed_in_the_order_of_their_floors() -> None:
    r = restarted()
    for ttid, floor in ((T1, 920), (T2, 930), (T3, 910), (X1, 915)):
        voted_everywhere(r, ttid, floor=floor)
    r.dial(S1, S2)
    r.tick(4.0)
    assert decided(r) == {T3: (1, 1000), X1: (1, 1001), T1: (1, 1002), T2: (1, 1003)}


def test_not_fully_voted_is_aborted() -> None:
    r = restarted()
    r.storages[S1].voted.append(record(T1, 0))
    r.dial(S1, S2)
    assert (decided(r), aborted(r)) == ({}, {T1: 1})


def test_votes_of_different_attempts_do_not_add_up() -> None:
    r = restarted()
    r.storages[S1].voted.append(record(T1, 0, attempt=1))
    r.storages[S2].voted.append(record(T1, 0, attempt=2))
    r.dial(S1, S2)
    r.tick(4.0)
    assert (decided(r), aborted(r)) == ({}, {T1: 2})


def test_record_on_a_cell_that_joins_does_not_count_nor_is_needed() -> None:
    r = restarted()
    for storage in r.storages.values():
        storage.table = PartitionTable(
            Version(OLD, Ptid(9)), 1, [(Cell(S1, U), Cell(S2, J)), (Cell(S2, U), Cell(S1, U))]
        )
    r.storages[S1].voted.append(record(T1, 0))
    r.storages[S2].voted.append(record(T2, 0))
    r.dial(S1, S2)
    r.tick(4.0)
    assert (set(decided(r)), aborted(r)) == ({T1}, {T2: 1})


def test_tombstone_anywhere_aborts() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.storages[S2].tombstones.append(s.Tombstone(T1, 1))
    r.dial(S1, S2)
    assert aborted(r) == {T1: 1}


def test_tombstone_of_an_earlier_attempt_does_not() -> None:
    r = restarted()
    voted_everywhere(r, T1, attempt=2)
    r.storages[S2].tombstones.append(s.Tombstone(T1, 1))
    r.dial(S1, S2)
    r.tick(4.0)
    assert set(decided(r)) == {T1}


@pytest.mark.parametrize("progress", [s.Progress.VOTING, s.Progress.VOTED])
def test_vote_of_a_client_that_is_there_is_left_to_it(progress: s.Progress) -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.client(C1, underway(T1, progress))
    r.dial(S1, S2)
    assert (decided(r), aborted(r)) == ({}, {})
    assert r.last_to(C1, s.Welcome).fates == (s.Fate(T1, 1, s.FateKind.VOTED, Tid(0)),)
    r.say(C1, s.Finish(T1, 1, OLD, (p(0),), (Oid(0),), s.Mode.C, Tid(0)))
    assert r.to(C1, s.Finished)[0].ttid == T1


def test_what_its_client_finishes_is_committed() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.client(C1, underway(T1, s.Progress.FINISHING))
    r.dial(S1, S2)
    assert set(decided(r)) == {T1}
    assert r.last_to(C1, s.Welcome).fates == (s.Fate(T1, 1, s.FateKind.COMMITTED, Tid(1000)),)


def test_what_its_client_aborts_is_aborted() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.client(C1, underway(T1, s.Progress.ABORTING))
    r.dial(S1, S2)
    assert aborted(r) == {T1: 1}
    assert r.last_to(C1, s.Welcome).fates[0].kind == s.FateKind.ABORTED


def test_attempt_that_its_client_has_withdrawn_is_aborted() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.client(C1, underway(T1, s.Progress.VOTING, attempt=2))
    r.dial(S1, S2)
    assert aborted(r) == {T1: 1}


def test_mode_a_not_sealed_is_aborted() -> None:
    r = restarted()
    voted_everywhere(r, T1, mode=s.Mode.A)
    r.dial(S1, S2)
    r.tick(4.0)
    assert (decided(r), aborted(r)) == ({}, {T1: 1})


def test_mode_a_not_sealed_is_left_to_a_client_that_finishes() -> None:
    r = restarted()
    voted_everywhere(r, T1, mode=s.Mode.A)
    r.client(C1, underway(T1, s.Progress.FINISHING))
    r.dial(S1, S2)
    assert r.last_to(C1, s.Welcome).fates[0].kind == s.FateKind.VOTED


def test_mode_a_sealed_is_committed() -> None:
    r = restarted()
    for storage in r.storages.values():
        storage.voted.append(record(T1, 0, (0, 1), mode=s.Mode.C))
        storage.voted.append(record(T1, 1, (0, 1), mode=s.Mode.A))
    r.dial(S1, S2)
    r.tick(4.0)
    assert set(decided(r)) == {T1}


def test_given_tid_is_used_by_recovery() -> None:
    r = restarted()
    for storage in r.storages.values():
        storage.voted.append(record(T1, 0, floor=900, given_tid=950))
    r.dial(S1, S2)
    r.tick(4.0)
    assert decided(r) == {T1: (1, 950)}


def test_import_is_committed_in_a_row_only() -> None:
    """Of an import's transactions the first two are voted, the fourth rests on a third that is not."""
    r = restarted()
    fourth = Ttid(T1.session, T1.counter + 3)
    for storage in r.storages.values():
        storage.voted.append(record(T1, 0, floor=900, given_tid=950))
        storage.voted.append(record(T2, 0, floor=950, given_tid=960))
        storage.voted.append(record(fourth, 0, floor=970, given_tid=980))
    r.dial(S1, S2)
    r.tick(4.0)
    assert decided(r) == {T1: (1, 950), T2: (1, 960)}
    assert aborted(r) == {fourth: 1}


def test_import_is_committed_before_what_others_had_voted_meanwhile() -> None:
    """While it was under way nobody else could: the tid that T1 brings is below any new one, as that of T2."""
    r = restarted()
    for storage in r.storages.values():
        storage.voted.append(record(T1, 0, floor=900, given_tid=950))
        storage.voted.append(record(T2, 1, (1,), floor=890))
    r.dial(S1, S2)
    r.tick(4.0)
    assert decided(r)[T1] == (1, 950)
    assert decided(r)[T2][1] > 950


def test_vote_of_a_client_lost_after_recovery_is_aborted_when_its_grace_is_over() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.client(C1, underway(T1, s.Progress.VOTED))
    r.dial(S1, S2)
    r.lose(C1)
    r.tick(4.0)
    assert r.to(S1, s.SAbort) == [s.SAbort(T1, 1)]
    assert r.to(S1, s.Gone) == [s.Gone(SESSION)]


def test_client_that_knows_another_tid_must_reset() -> None:
    r = restarted()
    voted_everywhere(r, T1)
    r.dial(S1, S2)
    r.tick(4.0)
    r.client(C2, chello(OTHER, OLD, known=(s.Decision(T1, 1, Tid(955), ()),)))
    assert r.last_to(C2, s.Welcome).reset


def test_client_of_the_last_reign_need_not_reset_for_what_is_durable_everywhere() -> None:
    r = restarted()
    r.dial(S1, S2)
    r.client(C1, chello(SESSION, OLD, known=(s.Decision(T1, 1, Tid(890), ()),)))
    assert not r.last_to(C1, s.Welcome).reset


def test_client_of_an_earlier_reign_must_reset_for_what_nobody_can_compare() -> None:
    r = restarted()
    r.dial(S1, S2)
    r.client(C1, chello(SESSION, make_epoch(2, M1), known=(s.Decision(T1, 1, Tid(890), ()),)))
    assert r.last_to(C1, s.Welcome).reset


# ---------------------------------------------------------------------------------------------- adopting


def test_adopt_repeats_what_is_not_durable_everywhere() -> None:
    r = Reign().run(C1)
    tid = r.commit(C1)
    r.lose(S2)
    r.dial(S2)
    adopt = r.last_to(S2, s.Adopt)
    assert [d.tid for d in adopt.decisions] == [tid]
    assert adopt.cluster_id == r.core.cluster_id


def test_adopt_aborts_votes_that_nobody_will_finish() -> None:
    r = Reign().run()
    unknown = Ttid(Session(99), 1)
    r.lose(S2)
    r.storages[S2].voted.append(record(unknown, 0))
    r.dial(S2)
    assert s.Tombstone(unknown, 1) in r.last_to(S2, s.Adopt).aborts
    assert r.to(S1, s.SAbort) == [s.SAbort(unknown, 1)]


def test_adopt_leaves_votes_of_clients_that_are_there() -> None:
    r = Reign().run(C1)
    r.lose(S2)
    r.storages[S2].voted.append(record(r.ttid(C1), 0))
    r.dial(S2)
    assert r.last_to(S2, s.Adopt).aborts == ()


def test_adopt_carries_the_sessions_given_up() -> None:
    r = Reign().run(C1)
    session = r.session(C1)
    r.lose(C1)
    r.tick(4.0)
    r.lose(S2)
    r.dial(S2)
    assert r.last_to(S2, s.Adopt).gone == (session,)


def test_clients_hear_of_a_storage_only_when_it_is_ready() -> None:
    r = Reign().run(C1)
    r.lose(S2)
    r.storages[S2].answers.discard(s.Adopt)
    r.dial(S2)
    states = [i.state for n in r.to(C1, s.Nodes) for i in n.nodes if i.node == S2]
    assert states == [NodeState.UNAVAILABLE]
    r.say(S2, s.StartOk(r.core.epoch))
    states = [i.state for n in r.to(C1, s.Nodes) for i in n.nodes if i.node == S2]
    assert states == [NodeState.UNAVAILABLE, NodeState.RUNNING]


def test_storages_hear_of_each_other_before_start() -> None:
    r = Reign()
    r.dial(S1, S2)
    kinds = [type(packet) for packet in r.sent[S1]]
    assert kinds.index(s.Nodes) < kinds.index(s.Start)
    assert {i.node for i in r.to(S1, s.Nodes)[0].nodes} == {S1, S2}


def test_node_without_cells_stays_pending() -> None:
    r = Reign().run()
    r.greet(Role.STORAGE, "new", NodeId(S3))
    assert r.core.nodes[S3].state is NodeState.PENDING
    assert r.core.nodes[S1].state is NodeState.RUNNING
    assert r.core.nodes.get(NO_NODE) is None
