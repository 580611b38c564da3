"""When recovery waits: the tables found, an operator's choice, and who was left behind."""

from typing import Any

import pytest

from neo_common.ids import NO_TID, NodeId, Oid, Ptid, Session, Tid, Ttid, Version, make_epoch, tid_from_time
from neo_common.model.orders import Choice, Orders
from neo_common.model.partition_table import EMPTY, Cell, PartitionTable, Row, whole
from neo_common.states import CellState, ClusterState, NodeState, Role
from neo_common.wire import schema as s
from neo_master.core.effects import NOTHING_HELD
from support.reign import A1, C1, M1, M2, M3, S1, S2, S3, WALL, Reign, p, record

U, F, J, OUT = CellState.UP_TO_DATE, CellState.FEEDING, CellState.JOINING, CellState.OUT_OF_DATE
OLD = make_epoch(3, M2)
CLUSTER_ID = b"0123456789abcdef"
T1, T2 = (Ttid(Session(3 << 32 | 1), n) for n in (1, 2))
BOTH = ((Cell(S1, U), Cell(S2, U)), (Cell(S2, U), Cell(S1, U)))
ONLY_S2 = ((Cell(S2, U), Cell(S1, OUT)), (Cell(S2, U), Cell(S1, OUT)))
ONLY_S1 = ((Cell(S1, U), Cell(S2, OUT)), (Cell(S1, U), Cell(S2, OUT)))
APART = ((Cell(S1, U),), (Cell(S2, U),))
T5, T7 = Version(OLD, Ptid(5)), Version(OLD, Ptid(7))


def table(version: Version, rows: tuple[Row, ...] = BOTH, orders: Orders = Orders()) -> PartitionTable:  # noqa: B008
    return PartitionTable(version, 1, rows, orders)


def found(tables: dict[NodeId, PartitionTable], **fields: Any) -> Reign:
    """Return a new master, with an admin; of its storages those in *tables* come, with what they have."""
    r = Reign(partitions=2, **fields)
    for node, storage in r.storages.items():
        storage.epoch, storage.cluster_id = OLD, CLUSTER_ID
        storage.table = tables.get(node, EMPTY)
        storage.ceilings, storage.last, storage.last_oid = s.Ceilings(Tid(1000), Oid(500)), Tid(900), Oid(77)
    r.tick(2.0)
    for node in tables:  # all are there before anybody tells what it has
        r.storages[node].answers.discard(s.Fence)
    r.dial(*tables)
    r.admin()
    for node in tables:
        r.storages[node].answers.add(s.Fence)
        r.storages[node].epoch = r.core.epoch
        r.say(node, r.storages[node].fenced())
    return r


def again(r: Reign, node: NodeId) -> None:
    """A storage comes again, with what it has now."""
    r.lose(node)
    r.dial(node)


def look(r: Reign) -> s.AnswerRecovery:
    answer = r.ask(A1, s.AskRecovery(False))
    assert isinstance(answer, s.AnswerRecovery), answer
    return answer


def choose(r: Reign, version: Version = T5, *, stale: bool = False, empty: bool = False, grace: float = 4.0) -> Any:
    answer = r.ask(A1, s.AskChoose(version, look(r).storages, stale, empty, "the disk of s2 is gone"))
    r.tick(grace)
    return answer


# ---------------------------------------------------------------------------------------------- showing


def test_every_table_is_shown_with_what_it_would_lose() -> None:
    r = found({S1: table(T5)})
    r.storages[S1].last = Tid(900)
    told = look(r)
    assert told.state is ClusterState.RECOVERING
    assert "s2" in told.reason
    assert (told.may_choose, told.is_torn, told.storages, told.masters) == (True, False, (S1,), (M1,))
    (one,) = told.tables
    assert (one.version, one.is_newest, one.storages, one.masters) == (T5, True, (S1,), ())
    assert (one.there, one.missing, one.behind, one.stale, one.lost) == ((S1,), (S2,), (), (), ())
    assert (one.last, one.known) == (900, 900)


def test_what_others_know_beyond_a_table_is_its_loss() -> None:
    r = found({S1: table(T5), S2: table(T7, (*ONLY_S2, (Cell(S3, U),)))}, storages=3)
    ahead = r.storages[S2]
    ahead.last, ahead.decisions = Tid(950), [s.Decision(T1, 1, Tid(950), (p(0),))]
    ahead.voted = [record(T2, 1, (1,))]
    again(r, S2)
    newest, older = look(r).tables
    assert (newest.version, newest.is_newest, newest.missing, newest.lost) == (T7, True, (S3,), (2,))
    assert (newest.last, newest.known, newest.decisions, newest.votes) == (950, 950, (), 0)
    assert (older.version, older.is_newest, older.there, older.behind) == (T5, False, (S1,), (S2,))
    assert (older.last, older.known) == (900, 950)
    assert older.decisions == tuple(ahead.decisions)
    assert older.votes == 1


def test_nothing_is_shown_of_a_cluster_that_runs() -> None:
    r = Reign().run()
    r.admin()
    told = look(r)
    assert (told.tables, told.may_choose, told.state) == ((), False, ClusterState.RUNNING)
    assert told.table == whole(r.core.pt)
    assert isinstance(choose(r), s.Error)


# ---------------------------------------------------------------------------------------------- choosing


def test_a_chosen_table_goes_on_with_who_is_there() -> None:
    r = found({S1: table(T5)})
    answer = choose(r)
    assert isinstance(answer, s.AnswerChoose), answer
    assert r.core.is_running, r.core.reason
    assert r.core.pt.rows == ONLY_S1
    (choice,) = r.core.pt.orders.choices
    assert choice == Choice(answer.choice, choice.at, T5, Tid(900), Tid(900), "the disk of s2 is gone")
    assert WALL <= choice.at <= r.wall
    assert r.storages[S1].table == r.core.pt
    assert r.core.register.table == whole(r.core.pt)
    assert any("an operator has chosen" in log.text and "s2" in log.text for log in r.logs)
    assert r.core.chosen is None


def test_what_was_known_beyond_is_recorded_and_no_tid_or_oid_of_it_is_given_again() -> None:
    r = found({S1: table(T5), S2: table(T7, (*ONLY_S2, (Cell(S3, U),)))}, storages=3)
    r.lose(S2)
    r.storages[S2].last, r.storages[S2].last_oid = Tid(5000), Oid(9000)
    r.storages[S2].ceilings = s.Ceilings(Tid(6000), Oid(9999))
    r.dial(S2)
    choose(r)
    assert r.core.is_running, r.core.reason
    (choice,) = r.core.pt.orders.choices
    assert (choice.last, choice.known) == (900, 5000)
    assert r.core.last >= 5000
    assert r.core.tid_floor >= 5999
    assert r.core.next_oid > 9000
    assert S2 not in r.connected
    assert "readmit s2" in r.core.nodes[S2].reason


def test_partitions_without_any_cell_begin_empty_only_if_the_operator_says_so() -> None:
    r = found({S1: table(T5, APART)}, replicas=0)
    assert look(r).tables[0].lost == (1,)
    refusal = choose(r)
    assert isinstance(refusal, s.Error)
    assert "--empty" in refusal.text
    assert isinstance(choose(r, empty=True), s.AnswerChoose)
    assert r.core.pt.rows == ((Cell(S1, U),), (Cell(S1, U), Cell(S2, OUT)))


def test_old_cells_are_used_only_if_the_operator_says_so() -> None:
    r = found({S1: table(T7, ONLY_S2)})
    assert look(r).tables[0].stale == (0, 1)
    refusal = choose(r, T7, empty=True)
    assert isinstance(refusal, s.Error)
    assert "--stale" in refusal.text
    assert isinstance(choose(r, T7, stale=True), s.AnswerChoose)
    assert r.core.pt.rows == ONLY_S1


def test_a_feeding_cell_takes_the_lead_when_no_other_is_there() -> None:
    r = found({S1: table(T5, ((Cell(S2, U), Cell(S1, F)), (Cell(S1, U),)))})
    choose(r)
    assert r.core.pt.rows[0] == (Cell(S1, U), Cell(S2, OUT))


def test_recovery_that_goes_on_by_itself_needs_no_choice() -> None:
    r = found({S1: table(T5)}, masters=3)
    hold(r, M2, table(T5))
    assert r.core.can_do_without(r.core.newest_table()), "it waits for s2 a little while"
    refusal = choose(r, grace=0.0)
    assert isinstance(refusal, s.Error)
    assert "by itself" in refusal.text


def test_a_choice_for_other_storages_than_those_that_are_there_is_refused() -> None:
    r = found({S1: table(T5)}, storages=3)
    seen = look(r).storages
    r.storages[S3].table = table(T5)
    r.dial(S3)
    refusal = r.ask(A1, s.AskChoose(T5, seen, False, False, "late"))
    assert isinstance(refusal, s.Error)
    assert "have changed" in refusal.text


def test_a_choice_is_forgotten_when_somebody_comes_before_it_stands() -> None:
    r = found({S1: table(T5)})
    r.storages[S1].voted = [record(T1, 0)]
    again(r, S1)
    choose(r, grace=0.5)
    assert r.core.state is ClusterState.VERIFYING, "it waits for the client"
    r.storages[S2].table = table(T5)
    r.dial(S2)
    r.tick(4.0)
    assert r.core.is_running
    assert r.core.pt.orders.choices == ()
    assert r.core.pt.readable_nodes() == {S1, S2}


def test_a_vote_in_a_partition_that_is_gone_is_not_kept_by_halves() -> None:
    r = found({S1: table(T5, APART)}, replicas=0)
    r.storages[S1].voted = [record(T1, 0, (0, 1)), record(T2, 0)]
    again(r, S1)
    choose(r, empty=True)
    start = r.last_to(S1, s.Start)
    assert [d.ttid for d in start.decisions] == [T2]
    assert [t.ttid for t in start.aborts] == [T1]


def test_a_table_that_was_not_found_cannot_be_chosen() -> None:
    r = found({S1: table(T5)})
    refusal = choose(r, T7)
    assert isinstance(refusal, s.Error)
    assert str(T5) in refusal.text


# ---------------------------------------------------------------------------------------------- masters


def hold(r: Reign, master: NodeId, held: PartitionTable, last: Tid = NO_TID, number: int = 5) -> None:
    """Another master promises, and tells what it holds; three masters are voters."""
    voters = tuple(s.Voter(m, bytes([m & 0xFF] * 16)) for m in (M1, M2, M3))
    register = NOTHING_HELD._replace(
        epoch=held.version.epoch, number=number, table=whole(held), voters=voters, last=last
    )
    r.core.memory = bytes([M1 & 0xFF] * 16)
    r.core.promises[M1] = r.core.promises[M1]._replace(memory=r.core.memory)
    r.master(master)
    r.say(master, s.Promised(r.core.epoch, bytes([master & 0xFF] * 16), register))


def test_with_a_minority_of_the_masters_it_goes_on_by_order() -> None:
    r = found({S1: table(T5)}, masters=3)
    r.tick(2.0)
    assert r.core.state is ClusterState.RECOVERING
    assert "s2" in r.core.reason
    assert isinstance(choose(r), s.AnswerChoose)
    assert r.core.is_running, r.core.reason
    assert [v.node for v in r.core.voters] == [M1], "from now on those count that are there"
    r.client(C1)
    r.commit(C1)


def test_a_choice_stands_when_every_master_that_is_there_holds_it() -> None:
    r = found({S1: table(T5)}, masters=2)
    r.master(M2)
    r.say(M2, s.Promised(r.core.epoch, b"2" * 16, NOTHING_HELD))
    choose(r)
    assert not r.to(S1, s.Start)
    register = r.last_to(M2, s.Hold).register
    assert register.table.orders.choices
    r.say(M2, s.Held(register.epoch, register.number, b"2" * 16))
    assert r.to(S1, s.Start)
    assert r.core.is_running


def test_masters_that_leave_meanwhile_are_not_waited_for() -> None:
    r = found({S1: table(T5)}, masters=2)
    r.master(M2)
    r.say(M2, s.Promised(r.core.epoch, b"2" * 16, NOTHING_HELD))
    choose(r)
    r.lose(M2)
    assert r.core.is_running


def chosen_before(rows: tuple[Row, ...] = ONLY_S1, *, ready: bool = True) -> PartitionTable:
    """Return a table of a line that was begun after T5; `ready`: without s3, which it waits for."""
    choice = Choice(77, int(WALL) - 1000, T5, Tid(900), Tid(900), "before")
    rows = rows if ready else tuple((*row, Cell(S3, U)) for row in rows)
    return table(Version(make_epoch(4, M1), Ptid(6)), rows, Orders(choices=(choice,)))


def with_register(held: PartitionTable, tables: dict[NodeId, PartitionTable], **fields: Any) -> Reign:
    """Return a master that holds *held* on its disk, and the storages."""
    r = found({}, **fields)
    r.core.set_register(r.core.register._replace(epoch=held.version.epoch, number=3, table=whole(held)))
    for node, its in tables.items():
        r.storages[node].table = its
    r.dial(*tables)
    return r


def test_a_choice_that_was_interrupted_is_carried_out() -> None:
    r = with_register(chosen_before(), {S1: table(T5)})
    r.tick(4.0)
    assert r.core.is_running, r.core.reason
    assert r.core.pt.orders.line == (77,)
    assert r.core.pt.readable_nodes() == {S1}


def test_what_was_given_up_does_not_come_back_with_its_storage_alone() -> None:
    r = with_register(chosen_before(), {S2: table(T7, ONLY_S2)})
    r.tick(60.0)
    assert r.core.state is ClusterState.RECOVERING
    assert "s1" in r.core.reason
    assert look(r).tables[0].behind == (S2,)


# ---------------------------------------------------------------------------------------------- left behind


def test_who_was_left_behind_is_turned_away_until_the_operator_readmits_it() -> None:
    r = found({S1: table(T5)})
    choose(r)
    left = r.storages[S2]
    left.table, left.last = table(T7, ONLY_S2), Tid(5000)
    r.dial(S2)
    assert S2 not in r.connected
    assert not r.to(S2, s.Adopt)
    assert r.core.nodes[S2].state is NodeState.UNKNOWN
    assert "readmit s2" in r.core.nodes[S2].reason
    handle = r.greet(Role.STORAGE, "s2", S2, cluster_id=left.cluster_id)
    assert r.refused[handle].code is s.RefusalCode.IDENTITY
    assert isinstance(r.ask(A1, s.AskReadmit((S2,), "look at it no more")), s.AnswerReadmit)
    r.dial(S2)
    adopt = r.last_to(S2, s.Adopt)
    assert adopt.table.apply(EMPTY).state(p(0), S2) is OUT
    assert r.core.tid_floor >= 5000, "its tids are not given again"


def test_a_storage_of_before_the_choice_is_not_counted_in_a_later_recovery() -> None:
    r = found({S1: chosen_before(), S2: table(T7, ONLY_S2)})
    r.storages[S2].decisions = [s.Decision(T1, 1, Tid(899), (p(0),))]
    assert r.core.is_running
    assert r.core.pt.orders.line == (77,)
    assert not r.to(S2, s.Start)
    assert S2 not in r.connected


def test_a_new_storage_may_come_after_a_choice() -> None:
    r = found({S1: chosen_before()}, storages=3)
    assert r.core.is_running
    r.dial(S3)
    assert r.core.nodes[S3].state is NodeState.PENDING
    assert r.to(S3, s.Adopt)


@pytest.mark.parametrize(
    ("last", "is_later"), [(Tid(901), False), (tid_from_time(WALL - 995), False), (tid_from_time(WALL - 500), True)]
)
def test_who_has_gone_on_without_hearing_of_the_choice_stops_recovery(last: Tid, is_later: bool) -> None:
    """Tids of before it may be some seconds later than the choice: they run ahead of the clock."""
    r = found({S1: chosen_before(ready=False), S2: table(T7, ONLY_S2)}, storages=3)
    r.storages[S2].last = last
    again(r, S2)
    r.storages[S3].table = r.storages[S1].table
    r.dial(S3)
    r.tick(5.0)
    assert r.core.is_running is not is_later
    assert look(r).is_torn is is_later
    if is_later:
        assert "neoadmin recovery" in r.core.reason
        assert isinstance(choose(r, r.storages[S1].table.version), s.AnswerChoose)
        assert r.core.is_running
        assert len(r.core.pt.orders.choices) == 2


def test_who_is_readmitted_stops_no_later_recovery() -> None:
    """What it has gone on to is discarded: so the operator has said, and it has not heard of that yet."""
    chosen = chosen_before(ready=False)
    chosen = chosen.changed(chosen.version, {}, orders=chosen.orders._replace(readmitted=(S2,)))
    r = found({S1: chosen, S2: table(T7, ONLY_S2)}, storages=3)
    r.storages[S2].last = tid_from_time(WALL - 500)
    again(r, S2)
    r.storages[S3].table = chosen
    r.dial(S3)
    r.tick(5.0)
    assert r.core.is_running, r.core.reason


def test_a_newer_table_that_has_not_heard_of_the_choice_stops_recovery() -> None:
    newer = table(Version(make_epoch(9, M2), Ptid(1)), (*ONLY_S2, (Cell(S2, U), Cell(S3, U))))
    r = found({S2: newer, S1: chosen_before()}, storages=3)
    told = look(r)
    assert told.is_torn
    assert not r.core.is_running
    assert isinstance(choose(r, newer.version), s.AnswerChoose)
    assert r.core.pt.readable_nodes() == {S2}
    assert S1 not in r.connected


def test_a_running_cluster_does_not_take_in_a_line_that_it_does_not_know() -> None:
    r = found({S1: table(T5, ((Cell(S1, U),), (Cell(S1, U),)))})
    assert r.core.is_running
    r.storages[S2].table = chosen_before(((Cell(S2, U),), (Cell(S2, U),)))
    r.dial(S2)
    assert S2 not in r.connected
    assert r.core.is_running


# ---------------------------------------------------------------------------------------------- left out


def test_who_was_left_out_of_the_last_reign_is_adopted_and_so_forgets_its_decisions() -> None:
    r = found(
        {
            S2: table(Version(make_epoch(2, M1), Ptid(3))),
            S1: table(T7, ONLY_S1),
        }
    )
    assert r.core.is_running
    assert not r.to(S2, s.Start)
    assert r.to(S2, s.Adopt)


# ---------------------------------------------------------------------------------------------- while it runs


def test_a_cluster_that_runs_without_some_partitions_recovers_when_the_operator_wants_to_choose() -> None:
    r = Reign(partitions=2, replicas=0).run(C1)
    r.admin()
    refusal = r.ask(A1, s.AskRecovery(True))
    assert isinstance(refusal, s.Error), "every partition can be read"
    r.lose(S2)
    assert r.core.is_running
    told = r.ask(A1, s.AskRecovery(True))
    assert isinstance(told, s.AnswerRecovery)
    assert told.state is ClusterState.RECOVERING
    assert C1 not in r.connected
    (found,) = look(r).tables
    assert found.lost == (1,)
    assert isinstance(choose(r, found.version, empty=True), s.AnswerChoose)
    assert r.core.pt.rows == ((Cell(S1, U),), (Cell(S1, U), Cell(S2, OUT)))


def test_a_feeding_cell_leads_when_a_majority_goes_on_without_the_last_complete_one() -> None:
    rows = ((Cell(S2, U), Cell(S1, F)), (Cell(S1, U), Cell(S2, F)))
    r = found({S1: table(T5, rows)}, masters=3, takeover_s=0.5, power_on_s=0.5)
    hold(r, M2, table(T5, rows))
    r.tick(10.0)
    put = r.last_to(M2, s.Hold).register.table.apply(EMPTY)
    assert put.rows == ((Cell(S1, U), Cell(S2, OUT)), (Cell(S1, U), Cell(S2, OUT)))
