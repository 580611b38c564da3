"""The first table, in the cases that an operator can check by hand. Its laws are in property/test_partition_table."""

from collections import Counter

from neo_common.ids import Epoch, NodeId, Ptid, Version
from neo_common.model.balance import first_table
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
