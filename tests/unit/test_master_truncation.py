"""Truncation: all or nothing, in recovery, as a table that carries the cut."""

from neo_common.ids import NO_TID, Oid, Ptid, Session, Tid, Ttid, Version
from neo_common.model.orders import Orders
from neo_common.model.partition_table import EMPTY
from neo_common.states import CellState, ClusterState
from neo_common.wire import schema as s
from support.reign import A1, C1, S1, S2, Reign, p, record


def with_history(**settings: object) -> tuple[Reign, Tid, Tid]:
    """A cluster that runs with two commits, an admin and a client; and their tids."""
    r = Reign(**settings).run(C1)  # type: ignore[arg-type]  # settings of any kind
    r.admin()
    first, second = r.commit(C1, 1), r.commit(C1, 2)
    for storage in r.storages.values():
        storage.last = second
    return r, first, second


def truncate(r: Reign, tid: Tid) -> object:
    return r.ask(A1, s.AskTruncate(tid, "test"))


def test_the_table_of_the_new_reign_carries_the_cut() -> None:
    r, first, second = with_history()
    before = r.core.pt.version
    answer = truncate(r, first)
    assert isinstance(answer, s.AnswerTruncate)
    r.tick(0.1)
    assert r.core.state is ClusterState.RUNNING
    start = r.last_to(S1, s.Start)
    table = start.table.apply(EMPTY)
    assert table.orders == Orders(cut_at=table.version, cut=first)
    assert table.version > before
    assert all(d.tid <= first for d in start.decisions)
    assert r.core.last > second, "snapshots of before are below it"
    r.client(C1)
    assert r.commit(C1, 3) > second
    assert r.core.cut_to is None


def test_clients_are_cut_off() -> None:
    r, first, _ = with_history()
    truncate(r, first)
    assert [d.peer for d in r.disconnected] == [C1]


def test_votes_are_not_counted() -> None:
    r, first, _ = with_history()
    for storage in r.storages.values():
        storage.voted.append(record(r.ttid(C1, 9), 0))
    truncate(r, first)
    r.tick(0.1)
    assert r.core.is_running
    assert not r.core.pending
    assert not r.last_to(S1, s.Start).aborts


def test_what_is_not_legal_is_refused() -> None:
    r, first, second = with_history()
    assert isinstance(truncate(r, second), s.Error)
    r.core.packed = Tid(first + 1)
    answer = truncate(r, first)
    assert isinstance(answer, s.Error)
    assert "packed" in answer.text
    r.core.packed = NO_TID
    r.core.pt = r.core.pt.changed(r.core.pt.version, {})
    r.lose(S2)
    r.lose(S1)
    answer = truncate(r, first)
    assert isinstance(answer, s.Error)
    assert "is not there" in answer.text


def test_a_recovery_that_finds_the_cut_at_one_storage_has_it_done_by_all() -> None:
    """The primary was lost when one storage had the table: the other still has votes and decisions from before."""
    r, first, second = with_history()
    r.storages[S2].answers.discard(s.Start)
    truncate(r, first)
    assert not r.core.is_running
    cut, uncut = r.storages[S1], r.storages[S2]
    cut.last = first
    uncut.table = uncut.table.changed(Version(cut.table.version.epoch, Ptid(1)), {}, orders=Orders())
    uncut.decisions = [s.Decision(Ttid(Session(77), 7), 1, second, (p(0),))]
    uncut.voted = [record(Ttid(Session(77), 8), 0)]
    uncut.answers.add(s.Start)
    r.core.step_down("test")
    r.connected.clear()
    r.tick(3.0)
    r.dial(S1, S2)
    r.tick(5.0)
    assert r.core.is_running, r.core.reason
    orders = r.last_to(S2, s.Start).table.apply(EMPTY).orders
    assert orders.cut == first
    assert r.last_to(S2, s.Start).decisions == ()
    assert r.core.last > second


def test_before_anybody_has_it_nothing_has_happened() -> None:
    r, first, second = with_history()
    for storage in r.storages.values():
        storage.answers.discard(s.Fence)
    truncate(r, first)
    for storage in r.storages.values():
        storage.answers.add(s.Fence)
    r.core.step_down("test")
    r.connected.clear()
    r.tick(3.0)
    r.dial(S1, S2)
    r.tick(5.0)
    assert r.core.is_running
    assert r.core.pt.orders == Orders()
    assert r.core.last == second


def test_a_loss_before_the_cluster_runs_does_not_forget_the_order() -> None:
    r, first, _ = with_history()
    r.storages[S2].answers.discard(s.Start)
    truncate(r, first)
    r.lose(S2)
    r.storages[S2].answers.add(s.Start)
    r.dial(S2)
    r.tick(5.0)
    assert r.core.is_running
    assert r.core.pt.orders.cut == first
    assert all(state is CellState.UP_TO_DATE for row in r.core.pt.rows for _, state in row)
    assert r.core.next_oid >= Oid(1)
