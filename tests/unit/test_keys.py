"""Packed tables in cases that people can read, and their sizes. Both packings, side by side."""

from random import Random
from types import ModuleType

import pytest

from neo_common.errors import LocalProtocolError, RemoteProtocolError
from neo_common.ids import Epoch, NodeId, Partition, Ptid, Tid, Version
from neo_common.model import _keys_c, _keys_py
from neo_common.model.balance import first_table
from neo_common.model.orders import NO_ORDERS, Orders
from neo_common.model.partition_table import EMPTY, Cell, PartitionTable, TableUpdate, difference, whole
from neo_common.states import CellState

S1, S2, S3 = (NodeId(0x01000001 + n) for n in range(3))
U, O = CellState.UP_TO_DATE, CellState.OUT_OF_DATE  # noqa: E741  the letters that people see
V1, V2 = Version(Epoch(1), Ptid(1)), Version(Epoch(1), Ptid(2))


@pytest.fixture(params=[_keys_py, _keys_c], ids=["reference", "fast"])
def either(request: pytest.FixtureRequest) -> ModuleType:
    """One packing, then the other."""
    assert isinstance(request.param, ModuleType)
    return request.param


def cells(*pairs: tuple[NodeId, CellState]) -> tuple[Cell, ...]:
    return tuple(Cell(node, state) for node, state in pairs)


def nodes(count: int) -> list[NodeId]:
    return [NodeId(0x01000001 + n) for n in range(count)]


def scattered(partitions: int, width: int, count: int) -> PartitionTable:
    """Rows without any pattern: the worst case."""
    rng = Random(partitions)
    rows = [cells(*((node, U) for node in rng.sample(nodes(count), width))) for _ in range(partitions)]
    return PartitionTable(Version(Epoch(5 << 24), Ptid(4711)), width - 1, rows)


def test_bytes_are_these(either: ModuleType) -> None:
    """They must not change within a protocol version: tables are on disk too."""
    table = PartitionTable(V1, 1, [cells((S1, U), (S3, O)), cells((S3, U))])
    packed = bytes.fromhex("00 01 01 01 02  02 81808008 01  02 02 02 08  02 01 0a")
    assert either.encode_update(whole(table)) == packed
    assert either.decode_update(packed) == whole(table)


def test_a_difference_has_the_rows_that_differ(either: ModuleType) -> None:
    old = first_table(nodes(10), 1000, 1, V1)
    update = difference(old, old.changed(V2, {Partition(7): old.rows[8], Partition(900): old.rows[9]}))
    packed = either.encode_update(update)
    assert len(packed) < 40
    assert either.decode_update(packed).apply(old).rows[900] == old.rows[9]


@pytest.mark.parametrize(
    ("table", "limit"),
    [
        (scattered(1000, 2, 10), 2_500),
        (scattered(12_000, 3, 100), 80_000),
        (first_table(nodes(10), 1000, 1, V1), 600),
        (first_table(nodes(100), 12_000, 2, V1), 1_500),
        (PartitionTable(V1, 1, [cells((S1, U), (S2, O))] * 50_000), 40),
    ],
    ids=["1000x2 on 10", "12000x3 on 100", "first 1000x2", "first 12000x3", "one row repeated"],
)
def test_large_tables_are_small(either: ModuleType, table: PartitionTable, limit: int) -> None:
    packed = either.encode_update(whole(table))
    assert len(packed) < limit
    assert either.decode_update(packed).apply(EMPTY) == table


def test_equal_cells_are_one_object(either: ModuleType) -> None:
    """A table of 36,000 cells takes the memory of 500."""
    update = either.decode_update(either.encode_update(whole(scattered(500, 2, 5))))
    assert len({id(cell) for _, row in update.rows for cell in row}) == 5


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        ("", "kind: the bytes end within a number"),
        ("00 01 01 01", "partitions: the bytes end within a number"),
        ("00 01 01 01 81808001", "partitions: 0x200001 is outside 0..0x20000"),
        ("00 8100", "epoch: a number that is longer than it must be"),
        ("00 ffffffffffffffffff02", "epoch: a number of more than 64 bits"),
        ("00 01 01 01 01 ffffffff0f", "nodes announced, 0 bytes left"),
        ("00 01 01 01 01 02 ffffffff0f 00", "node: 0x100000000 is outside"),
        ("00 01 01 01 02 01 05 02 00", "1 rows of 2 in a whole table"),
        ("00 01 01 01 02 01 05 06 00", "3 rows from partition 0 on, of 2"),
        ("00 01 01 01 02 01 05 00 00", "0 rows from partition 0 on, of 2"),
        ("00 01 01 01 01 02 05 00 02 03", "cells: 0x3 is outside 0..0x2"),
        ("00 01 01 01 01 02 05 00 02 02 02 03", "partition 0: key 0 twice"),
        ("00 01 01 01 01 02 05 00 02 01 05", "partition 0: 5 is no CellState"),
        ("00 01 01 01 01 02 05 00 02 01 12", "partition 0: key 2 of 2"),
        ("00 01 01 01 02 02 05 00 05 01 02 02", "shift: 0x2 is outside 0..0x1"),
        ("01 01 01 01 02 01 02 01 05 02 02 00", "1 rows from partition 2 on, of 2"),
        ("00 01 01 01 04 01 05 08 01 02 02", "4 rows of 1 cells announced, 2 bytes left"),
    ],
)
def test_what_no_table_packs_to_is_refused(either: ModuleType, packed: str, text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=text.replace(".", r"\.")):
        either.decode_update(bytes.fromhex(packed))


def test_a_bomb_of_cells_is_refused(either: ModuleType) -> None:
    """A run of 131,072 rows of 9 cells would be 1.2 million cells in 40 bytes."""
    head = bytes.fromhex("00 01 01 01 808008 09") + bytes(9)
    bomb = head + bytes.fromhex("818010 09") + bytes(key << 3 for key in range(9)) + b"\0"
    with pytest.raises(RemoteProtocolError, match="more than 1048576 cells"):
        either.decode_update(bomb)


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (TableUpdate(None, V1, 1, 2, ((Partition(0), ()),)), "1 rows of 2 in a whole table"),
        (TableUpdate(V1, V2, 1, 2, ((Partition(1), ()), (Partition(0), ()))), "partition 0 where 2 is next"),
        (TableUpdate(V1, V2, 1, 2, ((Partition(2), ()),)), "partition 2 of 2"),
        (TableUpdate(V1, V2, 1, 2, ((Partition(0), cells((S1, U), (S1, O))),)), "partition 0: node 0x1000001 twice"),
        (TableUpdate(V1, V2, -1, 0, ()), "replicas: -0x1 is outside"),
        (TableUpdate(V1, V2, 1, 2**17 + 1, ()), "partitions: 0x20001 is outside"),
        (TableUpdate(V1, V2, 1, 1, ((Partition(0), (Cell(S1, 2),)),)), "partition 0: a int where CellState is wanted"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_table_is_our_error(either: ModuleType, update: TableUpdate, text: str) -> None:
    with pytest.raises(LocalProtocolError, match=text):
        either.encode_update(update)


def test_both_have_the_same_constants() -> None:
    for name in ("PARTITIONS_MAX", "CELLS_MAX", "RUN_GAIN"):
        assert getattr(_keys_c, name) == getattr(_keys_py, name)


def test_orders_cost_nothing_where_there_are_none_and_come_back_where_there_are(either: ModuleType) -> None:
    orders = Orders((S1, S3), is_balancing=True, cut_at=V1, cut=Tid(700))
    table = PartitionTable(V2, 1, [cells((S1, U))], orders)
    packed = either.encode_update(whole(table))
    assert packed == bytes.fromhex("02 01 02 01 01  01 01 01 bc05 02 81808008 01  01 81808008 02 01 02")
    assert either.decode_update(packed).apply(EMPTY) == table
    without = table.changed(V2, {}, orders=NO_ORDERS)
    assert difference(table, without).orders == NO_ORDERS


def test_orders_that_are_none_are_not_written(either: ModuleType) -> None:
    with pytest.raises(RemoteProtocolError, match="announced, and there are none"):
        either.decode_update(bytes.fromhex("02 01 02 01 00  00 00 00 00 00 00"))
