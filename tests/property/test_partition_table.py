"""Laws of partition tables: differences, readiness counted against counting again, first tables."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from neo_common.ids import Epoch, NodeId, Partition, Ptid, Version
from neo_common.model.balance import first_table
from neo_common.model.keys import decode_update, encode_update
from neo_common.model.partition_table import EMPTY, PartitionTable, Readiness, Row, difference, whole
from support.packets import rows

V = [Version(Epoch(1 << 24), Ptid(n)) for n in range(8)]
SOME = [NodeId(0x01000001 + n) for n in range(8)]

tables = st.lists(rows, min_size=1, max_size=8)


@given(tables, tables, st.integers(0, 3))
@settings(deadline=None)
def test_a_difference_makes_the_old_table_the_new_one(before: list[Row], after: list[Row], replicas: int) -> None:
    """By way of the wire, and whatever happened to the number of partitions."""
    old, new = PartitionTable(V[1], 1, before), PartitionTable(V[2], replicas, after)
    update = decode_update(encode_update(difference(old, new)))
    assert update.apply(old) == new
    if len(before) == len(after):
        assert [p for p, _ in update.rows] == [p for p, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


@given(tables)
def test_a_whole_table_needs_no_other(body: list[Row]) -> None:
    table = PartitionTable(V[3], 1, body)
    assert whole(table).apply(EMPTY) == table


@given(st.lists(st.one_of(st.tuples(st.sampled_from(SOME), st.booleans()), tables), max_size=12))
@settings(deadline=None)
def test_readiness_is_what_counting_again_says(steps: list[tuple[NodeId, bool] | list[Row]]) -> None:
    readiness, table = Readiness(), EMPTY
    up: set[NodeId] = set()
    for step in steps:
        if isinstance(step, tuple):
            node, is_up = step
            (up.add if is_up else up.discard)(node)
            readiness.node_changed(node, is_up)
        else:
            table = PartitionTable(V[0], 1, step)
            readiness.table_changed(table)
        missing = sum(not up.intersection(table.readable(Partition(p))) for p in range(table.partitions))
        assert readiness.rows_not_ready == missing
        assert readiness.operational == (table.partitions > 0 and missing == 0)


@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 6))
@settings(max_examples=200, deadline=None)
def test_a_first_table_is_even(count: int, partitions: int, replicas: int) -> None:
    """Cells and leads per node differ by 1 at most, no node is twice in a row, neighbours have other leads."""
    nodes = [NodeId(0x01000001 + n) for n in range(count)]
    table = first_table(nodes, partitions, replicas, V[1])
    assert table.partitions == partitions
    assert table.replicas == replicas
    for row in table.rows:
        assert len({node for node, _ in row}) == len(row) == min(replicas + 1, count)
    cells = Counter(node for row in table.rows for node, _ in row)
    leads = Counter(row[0].node for row in table.rows)
    for counter in (cells, leads):
        numbers = [counter[node] for node in nodes]
        assert max(numbers) - min(numbers) <= 1
    for start in range(partitions - count + 1):
        assert len({row[0].node for row in table.rows[start : start + count]}) == count
