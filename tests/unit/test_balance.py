"""The first table and plans, in cases that an operator can check by hand. The laws are in tests/property."""

from collections import Counter
from time import process_time

from neo_common.ids import Epoch, NodeId, Ptid, Version
from neo_common.model.balance import Place, first_table, plan
from neo_common.model.partition_table import Cell, PartitionTable
from neo_common.states import CellState

V1 = Version(Epoch(1), Ptid(1))
S1, S2, S3, S4 = (NodeId(0x01000001 + n) for n in range(4))


def drawn(nodes: list[NodeId], partitions: int, replicas: int) -> list[list[int]]:
    return [[n & 0xFFFFFF for n, _ in row] for row in first_table(nodes, partitions, replicas, V1).rows]


def test_one_node_holds_everything_once_whatever_the_replicas() -> None:
    assert drawn([S1], 3, 2) == [[1], [1], [1]]


def test_two_nodes_with_a_replica_lead_in_turn() -> None:
    assert drawn([S1, S2], 4, 1) == [[1, 2], [2, 1], [1, 2], [2, 1]]


def test_fewer_nodes_than_copies_give_as_many_copies_as_nodes() -> None:
    table = first_table([S1, S2], 2, 3, V1)
    assert [len(row) for row in table.rows] == [2, 2]
    assert table.replicas == 3  # still wanted


def test_the_partners_of_a_node_are_all_others_alike() -> None:
    """So the load of a lost node spreads."""
    rows = drawn([S1, S2, S3, S4], 12, 1)
    assert Counter(frozenset(row) for row in rows) == dict.fromkeys(
        [frozenset(pair) for pair in ([1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4])], 2
    )


def test_fewer_partitions_than_nodes_use_different_nodes() -> None:
    assert sorted(n for row in drawn([S1, S2, S3, S4], 2, 1) for n in row) == [1, 2, 3, 4]


def test_the_order_of_nodes_is_kept_and_cells_are_up_to_date() -> None:
    table = first_table([S3, S1], 2, 0, V1)
    assert [row[0].node for row in table.rows] == [S3, S1]
    assert {state for row in table.rows for _, state in row} == {CellState.UP_TO_DATE}
    assert table.version == V1


# ------------------------------------------------------------------------------------------------ plans


def grown(table: PartitionTable, places: list[Place], replicas: int) -> list[list[int]]:
    return [[n & 0xFFFFFF for n in row] for row in plan(table, places, replicas).rows]


def test_a_second_node_takes_half_and_nothing_else_moves() -> None:
    made = plan(first_table([S1], 4, 0, V1), [Place(S1), Place(S2)], 0)
    assert [Counter(row[0] for row in made.rows)[n] for n in (S1, S2)] == [2, 2]
    assert (len(made.moves), made.drops, made.leads_moved) == (2, 2, 2)


def test_a_table_that_is_even_stays() -> None:
    table = first_table([S1, S2, S3], 7, 1, V1)
    made = plan(table, [Place(S1), Place(S2), Place(S3)], 1)
    assert (made.moves, made.drops) == ((), 0)


def test_a_drained_node_gives_all_it_has() -> None:
    made = plan(first_table([S1, S2, S3], 6, 1, V1), [Place(S1), Place(S3)], 1)
    assert {n for row in made.rows for n in row} == {S1, S3}
    assert (len(made.moves), made.drops) == (4, 4)


def test_copies_go_to_different_hosts() -> None:
    places = [Place(S1, "a"), Place(S2, "a"), Place(S3, "b"), Place(S4, "b")]
    rows = grown(first_table([S1, S2, S3, S4], 12, 1, V1), places, 1)
    assert all({n <= 2 for n in row} == {True, False} for row in rows)


def test_a_host_that_stands_alone_takes_a_copy_of_everything() -> None:
    """Copies apart come before even shares."""
    places = [Place(S1, "a"), Place(S2, "b"), Place(S3, "b"), Place(S4, "b")]
    rows = grown(first_table([S1, S2, S3, S4], 12, 1, V1), places, 1)
    assert Counter(n for row in rows for n in row) == {1: 12, 2: 4, 3: 4, 4: 4}


def test_with_fewer_hosts_than_copies_no_host_has_more_than_it_must() -> None:
    places = [Place(S1, "a"), Place(S2, "a"), Place(S3, "a"), Place(S4, "b")]
    rows = grown(first_table([S1, S2, S3, S4], 12, 2, V1), places, 2)
    assert all(4 in row and len(row) == 3 for row in rows)


def test_shares_follow_weights() -> None:
    places = [Place(S1, weight=1), Place(S2, weight=2), Place(S3, weight=3)]
    rows = grown(first_table([S1, S2, S3], 60, 0, V1), places, 0)
    assert Counter(row[0] for row in rows) == {1: 10, 2: 20, 3: 30}


def test_a_copy_that_has_begun_is_finished_rather_than_another_begun() -> None:
    up, out = CellState.UP_TO_DATE, CellState.OUT_OF_DATE
    table = PartitionTable(V1, 0, [(Cell(S1, up),), (Cell(S1, up), Cell(S2, out))])
    assert grown(table, [Place(S1), Place(S2)], 0) == [[1], [2]]


def test_ten_thousand_partitions_on_a_hundred_nodes_take_seconds() -> None:
    """Polynomial, and small: some 1 s of processor for the largest of these (docs/partition-table.md)."""
    nodes = [NodeId(0x01000001 + n) for n in range(100)]
    places = [Place(n, f"host{i % 20}") for i, n in enumerate(nodes)]
    before = process_time()
    plan(first_table(nodes[:1], 10_000, 2, V1), places, 2)
    plan(first_table(nodes[:90], 10_000, 2, V1), places, 2)
    assert process_time() - before < 30
