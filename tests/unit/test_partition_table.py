"""The partition table: who leads, who is read, who is written; updates that do not fit."""

import pytest

from neo_common.errors import RemoteProtocolError
from neo_common.ids import Epoch, NodeId, Oid, Partition, Ptid, Version
from neo_common.model.partition_table import (
    EMPTY,
    Cell,
    PartitionTable,
    Readiness,
    TableUpdate,
    difference,
    whole,
)
from neo_common.states import CellState

S1, S2, S3 = (NodeId(0x01000001 + n) for n in range(3))
O, J, U, F, C = CellState  # noqa: E741  the letters that people see
V1, V2, V3 = (Version(Epoch(1 << 24), Ptid(n)) for n in (1, 2, 3))
P0, P1 = Partition(0), Partition(1)


def table(*rows: tuple[tuple[NodeId, CellState], ...], version: Version = V1) -> PartitionTable:
    return PartitionTable(version, 1, [tuple(Cell(n, s) for n, s in row) for row in rows])


def test_the_first_up_to_date_cell_leads() -> None:
    assert table(((S1, F), (S2, O), (S3, U))).lead(P0) == S3
    assert table(((S1, F), (S2, J))).lead(P0) is None


def test_up_to_date_and_feeding_cells_are_read_joining_ones_written_too() -> None:
    row = ((S1, J), (S2, F), (S3, U))
    assert table(row).readable(P0) == (S2, S3)
    assert table(row).written(P0) == (S1, S2, S3)
    assert table(((S1, O), (S2, C))).written(P0) == ()


def test_an_oid_belongs_to_its_remainder() -> None:
    assert table((), (), ()).partition(Oid(2**63 + 1)) == (2**63 + 1) % 3


def test_a_table_knows_its_nodes_and_their_partitions() -> None:
    two = table(((S1, U), (S2, O)), ((S2, U),))
    assert two.nodes() == {S1, S2}
    assert two.partitions_of(S2) == (P0, P1)
    assert two.readable_nodes() == {S1, S2}
    assert two.state(P0, S2) is O
    assert two.state(P1, S1) is None


def test_an_update_from_another_version_is_refused() -> None:
    one = table(((S1, U),))
    update = difference(one, one.changed(V2, {P0: (Cell(S2, U),)}))
    assert update.apply(one).lead(P0) == S2
    with pytest.raises(RemoteProtocolError, match="0:3"):
        update.apply(one.changed(V3, {}))


def test_an_update_for_another_number_of_partitions_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        TableUpdate(V1, V2, 1, 2, ()).apply(table(()))


def test_a_difference_to_another_number_of_partitions_is_a_whole_table() -> None:
    assert difference(EMPTY, table(((S1, U),))) == whole(table(((S1, U),)))


def test_readiness_follows_nodes_and_cells() -> None:
    readiness = Readiness()
    readiness.node_changed(S1, True)
    assert not readiness.operational  # no table yet
    readiness.table_changed(table(((S1, U), (S2, U)), ((S2, U),)))
    assert readiness.rows_not_ready == 1
    readiness.node_changed(S2, True)
    assert readiness.operational
    readiness.node_changed(S1, False)
    assert readiness.operational  # S2 has the row too
    readiness.table_changed(table(((S1, U), (S2, O)), ((S2, U),)))
    assert not readiness.operational
