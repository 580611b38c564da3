"""Orders about cells: what is legal, that it goes by safe steps, that it outlives the primary."""

from collections import Counter

import pytest

from neo_common.ids import NodeId, Partition
from neo_common.model.orders import Orders
from neo_common.model.partition_table import Row
from neo_common.states import CellState, NodeState, Role, node_id
from neo_common.wire import schema as s
from support.reign import A1, C1, S1, S2, S3, Reign, p

U, J, OUT, F = CellState.UP_TO_DATE, CellState.JOINING, CellState.OUT_OF_DATE, CellState.FEEDING
S4 = node_id(Role.STORAGE, 4)


def with_admin(**settings: object) -> Reign:
    """A cluster that runs, with an admin and a client; storages that come later are named s3, s4."""
    r = Reign(**settings).run(C1)  # type: ignore[arg-type]  # settings of any kind
    r.admin()
    return r


def newcomer(r: Reign, node: NodeId) -> None:
    """A storage that the configuration does not name dials, and is adopted."""
    r.greet(Role.STORAGE, f"s{node & 0xFFFFFF}", node)


def change(r: Reign, kind: s.ChangeKind, *nodes: NodeId, replicas: int = 0, dry_run: bool = False) -> object:
    return r.ask(A1, s.AskChange(kind, nodes, replicas, dry_run, "test"))


def readable(r: Reign) -> list[int]:
    return [len(r.core.pt.readable(Partition(n))) for n in range(r.core.pt.partitions)]


def settle(r: Reign, least: list[int] | None = None) -> None:
    """Let every join succeed until nothing moves. No row may have fewer readable cells than *least* says."""
    for _ in range(300):
        joining = [(n, i) for i, row in enumerate(r.core.pt.rows) for n, state in row if state == J]
        for node, i in joining:
            version = r.core.joining[p(i), node]
            if r.core.pt.state(p(i), node) == J:
                r.say(node, s.Ready(version, p(i)))
        r.tick(0.1)
        if least is not None:
            assert all(now >= then for now, then in zip(readable(r), least, strict=True))
        if not joining and not r.core.pt.orders.is_balancing:
            return
    raise AssertionError(f"it does not settle: {r.core.debug()['table']}")


def held(r: Reign) -> Counter[NodeId]:
    return Counter(n for row in r.core.pt.rows for n, _ in row)


# ---------------------------------------------------------------------------------------------- add, tweak


def test_a_storage_that_is_added_gets_its_share() -> None:
    r = with_admin(storages=1, partitions=6, replicas=0)
    newcomer(r, S2)
    assert r.core.nodes[S2].state is NodeState.PENDING
    answer = change(r, s.ChangeKind.ADD, S2)
    assert isinstance(answer, s.AnswerChange)
    assert answer.moves == tuple(s.CellMove(p(n), S1, S2) for n in (0, 1, 2))
    assert r.core.nodes[S2].state is NodeState.RUNNING
    settle(r, [1] * 6)
    assert held(r) == {S1: 3, S2: 3}
    assert all(state == U for row in r.core.pt.rows for _, state in row)
    assert r.core.pt.orders == Orders()


def test_a_dry_run_changes_nothing() -> None:
    r = with_admin(storages=1, partitions=6, replicas=0)
    newcomer(r, S2)
    version = r.core.pt.version
    answer = change(r, s.ChangeKind.ADD, S2, dry_run=True)
    assert isinstance(answer, s.AnswerChange)
    assert (len(answer.moves), answer.drops, answer.leads) == (3, 3, 3)
    r.tick(1.0)
    assert r.core.pt.version == version


def test_a_table_that_is_even_stays_so() -> None:
    r = with_admin(storages=2, partitions=4, replicas=1)
    answer = change(r, s.ChangeKind.TWEAK)
    assert isinstance(answer, s.AnswerChange)
    assert answer.text.startswith("nothing to move")
    settle(r)
    assert held(r) == {S1: 4, S2: 4}


def test_leads_come_back_to_a_storage_that_was_away() -> None:
    r = with_admin(storages=2, partitions=4, replicas=1)
    r.lose(S1)
    r.dial(S1)
    settle(r)
    assert all(r.core.pt.lead(p(n)) == S2 for n in range(4))
    change(r, s.ChangeKind.TWEAK)
    settle(r, [2] * 4)
    assert Counter(r.core.pt.lead(p(n)) for n in range(4)) == {S1: 2, S2: 2}


def test_no_storage_copies_more_cells_at_a_time_than_allowed() -> None:
    r = with_admin(storages=1, partitions=12, replicas=0, moves_max=2)
    newcomer(r, S2)
    change(r, s.ChangeKind.ADD, S2)
    for _ in range(100):
        for i in range(12):
            if r.core.pt.state(p(i), S2) == J:
                r.say(S2, s.Ready(r.core.joining[p(i), S2], p(i)))
                break
        r.tick(0.3)
        assert sum(state in (OUT, J) for row in r.core.pt.rows for _, state in row) <= 2
    assert held(r) == {S1: 6, S2: 6}


def test_who_says_its_domain_is_kept_apart() -> None:
    r = with_admin(storages=2, partitions=4, replicas=1)
    newcomer(r, S3)
    for node, domain in ((S1, "left"), (S2, "left"), (S3, "right")):
        r.say(node, s.StorageState(True, "", 1, 1, domain, 1))
    change(r, s.ChangeKind.ADD, S3)
    settle(r, [2] * 4)
    assert held(r) == {S1: 2, S2: 2, S3: 4}


def test_what_is_not_there_cannot_be_added() -> None:
    r = with_admin()
    assert change(r, s.ChangeKind.ADD, S3) == s.Error(s.ErrorCode.ILLEGAL, "S3 is not a storage of this cluster")
    newcomer(r, S3)
    r.lose(S3)
    answer = change(r, s.ChangeKind.ADD, S3)
    assert answer == s.Error(s.ErrorCode.NOT_READY, "s3 (S3) is not there: start it, then add it")


def test_nothing_is_planned_while_a_storage_with_cells_is_away() -> None:
    r = with_admin(storages=3, partitions=3)
    r.lose(S3)
    answer = change(r, s.ChangeKind.TWEAK)
    assert isinstance(answer, s.Error)
    assert answer.text == "s3 (S3) is not there: wait until it is back, or drop it if it will not come back"


# ---------------------------------------------------------------------------------------------- drain, keep, drop


def test_a_drained_storage_serves_until_others_have_its_cells() -> None:
    r = with_admin(storages=3, partitions=6, replicas=1)
    change(r, s.ChangeKind.DRAIN, S3)
    assert r.core.nodes[S3].state is NodeState.LEAVING
    assert any(r.core.pt.state(p(n), S3) == F for n in range(6))
    settle(r, [2] * 6)
    assert held(r) == {S1: 6, S2: 6}
    assert r.core.nodes[S3].state is NodeState.PENDING
    assert r.core.pt.orders == Orders()
    assert isinstance(r.ask(A1, s.AskDrop((S3,), False, "test")), s.AnswerDrop)
    assert S3 in r.core.nodes  # connected
    r.lose(S3)
    assert isinstance(r.ask(A1, s.AskDrop((S3,), False, "test")), s.AnswerDrop)
    assert S3 not in r.core.nodes


def test_a_storage_that_is_drained_stays_if_the_operator_wants_it() -> None:
    r = with_admin(storages=3, partitions=6, replicas=1)
    change(r, s.ChangeKind.DRAIN, S3)
    change(r, s.ChangeKind.KEEP, S3)
    assert r.core.nodes[S3].state is NodeState.RUNNING
    settle(r, [2] * 6)
    assert held(r) == {S1: 4, S2: 4, S3: 4}
    assert all(state == U for row in r.core.pt.rows for _, state in row)


def test_a_storage_that_leaves_is_leaving_again_after_it_was_away() -> None:
    r = with_admin(storages=3, partitions=6, replicas=1)
    change(r, s.ChangeKind.DRAIN, S3)
    r.lose(S3)
    assert r.core.nodes[S3].state is NodeState.UNAVAILABLE
    r.dial(S3)
    assert r.core.nodes[S3].state is NodeState.LEAVING
    settle(r)
    assert held(r) == {S1: 6, S2: 6}


def test_nobody_is_drained_if_too_few_would_be_left() -> None:
    r = with_admin(storages=2, partitions=4, replicas=1)
    answer = change(r, s.ChangeKind.DRAIN, S2)
    assert isinstance(answer, s.Error)
    assert answer.text.startswith("2 copies need 2 storages, 1 would have cells")


def test_a_feeding_cell_takes_the_place_of_the_last_that_is_up_to_date() -> None:
    r = with_admin(storages=3, partitions=3, replicas=1)
    one, two = (n for n, _ in r.core.pt.rows[0])
    change(r, s.ChangeKind.DRAIN, two)
    row = dict(r.core.pt.rows[0])
    assert (row[one], row[two]) == (U, F)
    r.lose(one)
    row = dict(r.core.pt.rows[0])
    assert (row[one], row[two]) == (OUT, U)


def test_only_what_nothing_needs_is_dropped() -> None:
    r = with_admin(storages=2, partitions=4, replicas=1)
    answer = r.ask(A1, s.AskDrop((S2,), False, "test"))
    assert answer == s.Error(s.ErrorCode.ILLEGAL, "4 partitions would have a copy less: drain it first, or --force")
    answer = r.ask(A1, s.AskDrop((S1, S2), True, "test"))
    assert isinstance(answer, s.Error)
    assert "has the only complete copy of 4 partitions" in answer.text


@pytest.mark.parametrize("busy", [False, True], ids=["at rest", "while the table changes"])
def test_two_orders_do_not_drop_what_either_has_to_leave(busy: bool) -> None:
    """Found by simulation: while a table waited to become stable, each order was judged as if it were the only one."""
    r = with_admin(storages=3, partitions=4, replicas=2)
    if busy:
        r.storages[S2].answers.discard(s.SetPT)
    r.lose(S3)
    first = r.ask(A1, s.AskDrop((S1,), True, "test"))
    assert first is None if busy else isinstance(first, s.AnswerDrop), "it is answered when it is carried out"
    answer = r.ask(A1, s.AskDrop((S2,), True, "test"))
    assert isinstance(answer, s.Error)
    assert "has the only complete copy of 4 partitions" in answer.text
    r.storages[S2].answers.add(s.SetPT)
    r.say(S2, s.PtOk(r.core.pt.version))
    assert held(r) == {S2: 4, S3: 4}


def test_drops_of_one_table_leave_a_complete_cell() -> None:
    """As above, the orders being given to two primaries, or before a copy was lost."""
    r = with_admin(storages=2, partitions=4, replicas=1)
    rows: dict[Partition, Row] = {}
    r.core.drop(S1, rows)
    r.core.drop(S2, rows)
    assert [[n for n, _ in rows[p(i)]] for i in range(4)] == [[S2]] * 4


def test_a_storage_that_is_lost_for_ever_is_dropped_and_replaced() -> None:
    r = with_admin(storages=2, partitions=4, replicas=1)
    r.lose(S2)
    assert isinstance(r.ask(A1, s.AskDrop((S2,), False, "its disk is broken")), s.AnswerDrop)
    assert held(r) == {S1: 4}
    assert S2 not in r.core.nodes
    newcomer(r, S3)
    change(r, s.ChangeKind.ADD, S3)
    settle(r, [1] * 4)
    assert held(r) == {S1: 4, S3: 4}


def test_the_last_of_several_orders_counts_that_wait_for_a_table() -> None:
    """Found by simulation: a pause that was taken back before it was carried out stayed."""
    r = with_admin(storages=1, partitions=6, replicas=0)
    newcomer(r, S2)
    r.storages[S1].answers.discard(s.SetPT)
    for kind, nodes in ((s.ChangeKind.ADD, (S2,)), (s.ChangeKind.PAUSE, ()), (s.ChangeKind.TWEAK, ())):
        assert not isinstance(change(r, kind, *nodes), s.Error)
    r.storages[S1].answers.add(s.SetPT)
    r.say(S1, s.PtOk(r.core.pt.version))
    settle(r, [1] * 6)
    assert held(r) == {S1: 3, S2: 3}


def test_a_drop_in_the_middle_of_moves_plans_anew() -> None:
    r = with_admin(storages=3, partitions=6, replicas=1)
    newcomer(r, S4)
    change(r, s.ChangeKind.ADD, S4)
    r.lose(S4)
    assert isinstance(r.ask(A1, s.AskDrop((S4,), False, "test")), s.AnswerDrop)
    settle(r)
    assert held(r) == {S1: 4, S2: 4, S3: 4}


# ---------------------------------------------------------------------------------------------- replicas, pause


def test_copies_are_added_and_taken_away() -> None:
    r = with_admin(storages=3, partitions=6, replicas=0)
    change(r, s.ChangeKind.REPLICAS, replicas=2)
    assert r.core.pt.replicas == 2
    settle(r, [1] * 6)
    assert readable(r) == [3] * 6
    change(r, s.ChangeKind.REPLICAS, replicas=1)
    settle(r, [2] * 6)
    assert readable(r) == [2] * 6
    assert held(r) == {S1: 4, S2: 4, S3: 4}


def busy_with_two_copies() -> Reign:
    """A cluster whose table changes, until S2 has it durable: orders wait."""
    r = with_admin(storages=2, partitions=4, replicas=1)
    newcomer(r, S3)
    r.storages[S2].answers.discard(s.SetPT)
    change(r, s.ChangeKind.ADD, S3)
    return r


def go_on(r: Reign) -> None:
    r.storages[S2].answers.add(s.SetPT)
    r.say(S2, s.PtOk(r.core.pt.version))


def test_a_copy_is_given_up_by_no_table_that_still_wants_it() -> None:
    """Found by simulation: an order that waited took the steps of the one after it."""
    r = busy_with_two_copies()
    change(r, s.ChangeKind.PAUSE)
    change(r, s.ChangeKind.TWEAK)
    change(r, s.ChangeKind.REPLICAS, replicas=0)
    go_on(r)
    for update in (packet.table for packet in r.to(S1, s.SetPT)):
        assert update.replicas == 0 or all(sum(c.state.is_readable for c in row) > 1 for _, row in update.rows)
    settle(r, [1] * 4)
    assert (r.core.pt.replicas, readable(r)) == (0, [1] * 4)


def test_an_order_that_is_given_again_counts_after_the_one_between() -> None:
    """The same change waited already, before the one that it takes back."""
    r = busy_with_two_copies()
    change(r, s.ChangeKind.TWEAK)
    change(r, s.ChangeKind.REPLICAS, replicas=0)
    change(r, s.ChangeKind.REPLICAS, replicas=1)
    go_on(r)
    settle(r, [2] * 4)
    assert (r.core.pt.replicas, readable(r)) == (1, [2] * 4)


def test_more_copies_than_storages_are_refused() -> None:
    r = with_admin(storages=2, partitions=4, replicas=0)
    answer = change(r, s.ChangeKind.REPLICAS, replicas=2)
    assert isinstance(answer, s.Error)
    assert answer.text.startswith("3 copies need 3 storages, 2 would have cells")


def test_a_pause_lets_end_what_has_begun() -> None:
    r = with_admin(storages=1, partitions=6, replicas=0, moves_max=1)
    newcomer(r, S2)
    change(r, s.ChangeKind.ADD, S2)
    change(r, s.ChangeKind.PAUSE)
    settle(r)
    assert held(r)[S2] == 1
    change(r, s.ChangeKind.TWEAK)
    settle(r, [1] * 6)
    assert held(r) == {S1: 3, S2: 3}


def test_progress_is_told() -> None:
    r = with_admin(storages=1, partitions=6, replicas=0, moves_max=1)
    newcomer(r, S2)
    change(r, s.ChangeKind.ADD, S2)
    told = r.ask(A1, s.AskMoves())
    assert told == s.AnswerMoves(True, 0, (), 3, 1, 3, 0, "") or told.cells_left == 3
    r.lose(S2)
    assert r.ask(A1, s.AskMoves()).reason == "waits for s2 (S2)"
    r.dial(S2)
    settle(r)
    assert r.ask(A1, s.AskMoves()) == s.AnswerMoves(False, 0, (), 0, 0, 0, 0, "")


@pytest.mark.parametrize("kind", [s.ChangeKind.ADD, s.ChangeKind.DRAIN])
def test_the_next_primary_goes_on(kind: s.ChangeKind) -> None:
    r = with_admin(storages=3, partitions=6, replicas=1)
    newcomer(r, S4)
    change(r, s.ChangeKind.ADD, S4)
    if kind is s.ChangeKind.DRAIN:
        settle(r)
        change(r, s.ChangeKind.DRAIN, S4)
    r.core.step_down("test")
    r.connected.clear()
    r.tick(3.0)
    r.dial(S1, S2, S3, S4)
    r.tick(3.0)
    assert r.core.is_running, r.core.reason
    if kind is s.ChangeKind.DRAIN:
        assert r.core.nodes[S4].state is NodeState.LEAVING
    settle(r)
    assert set(held(r).values()) == ({3} if kind is s.ChangeKind.ADD else {4})


# ---------------------------------------------------------------------------------------------- who stays away


def test_a_storage_that_stays_away_alerts_once_and_is_not_dropped() -> None:
    r = with_admin(storages=3, partitions=3, node_expiry_s=60.0)
    r.lose(S3)
    r.tick(59.0)
    assert not [log for log in r.logs if "away for more" in log.text]
    r.tick(5.0)
    r.tick(5.0)
    assert len([log for log in r.logs if "away for more than 60 s" in log.text]) == 1
    assert "repair it, or drop it" in r.core.nodes[S3].reason
    assert S3 in r.core.pt.nodes()
    r.dial(S3)
    assert r.core.nodes[S3].reason == ""
