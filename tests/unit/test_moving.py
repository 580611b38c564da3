"""The steps from one table to another, row by row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_common.ids import Epoch, NodeId, Partition, Ptid, Version
from neo_common.model.moving import is_there, left, next_rows, stepped
from neo_common.model.partition_table import Cell, PartitionTable, Row
from neo_common.states import CellState, check_cell

S1, S2, S3, S4 = (NodeId(0x01000001 + n) for n in range(4))
LETTERS = {state.letter: state for state in CellState}
V1 = Version(Epoch(1), Ptid(1))


def row(text: str) -> Row:
    """`1U 2F` is S1 up to date, S2 feeding."""
    return tuple(Cell(NodeId(0x01000000 + int(word[0])), LETTERS[word[1]]) for word in text.split())


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ("1U", "2", "1U 2O"),
        ("1U 2O", "2", "1U 2O"),
        ("1U 2U", "2", "2U 1F"),
        ("2U 1F", "2", "2U"),
        ("1U 2U", "13", "1U 2F 3O"),
        ("1U 2U", "23", "2U 1F 3O"),
        ("1U 2F 3U", "13", "1U 3U"),
        ("1U 2F 3J", "13", "1U 2F 3J"),
        ("1U 2F 3O", "12", "1U 2U"),
        ("1U 2U 3O", "12", "1U 2U"),
        ("1U 2U 3J", "12", "1U 2U 3J"),
        ("1U 2U", "21", "2U 1U"),
        ("1U 2U 3J", "23", "2U 1F 3O"),
        ("1U 2O 3C", "1", "1U"),
        ("1U 2O 3O", "14", "1U 2O 3O 4O"),
    ],
)
def test_a_row_goes_on_like_this(before: str, wanted: str, after: str) -> None:
    nodes = [NodeId(0x01000000 + int(n)) for n in wanted]
    missing = [n for n in nodes if n not in dict(row(before))]
    assert stepped(row(before), nodes, missing) == row(after)


@st.composite
def a_row(draw: st.DrawFn) -> Row:
    """A row with an UP_TO_DATE cell."""
    order = draw(st.permutations([S1, S2, S3, S4]))
    states = draw(st.lists(st.sampled_from(CellState), max_size=3))
    cells = [Cell(n, s) for n, s in zip(order, [CellState.UP_TO_DATE, *states], strict=False)]
    return tuple(draw(st.permutations(cells)))


@settings(max_examples=500, deadline=None)
@given(rows=st.lists(a_row(), min_size=1, max_size=4), data=st.data())
def test_every_walk_is_safe_and_arrives(rows: list[Row], data: st.DataObject) -> None:
    """Whatever happens between two steps, no readable cell is given up before its replacement can be read."""
    goal = [
        tuple(data.draw(st.lists(st.sampled_from([S1, S2, S3, S4]), min_size=1, max_size=3, unique=True))) for _ in rows
    ]
    table = PartitionTable(V1, 0, rows)
    for _ in range(60):
        steps = next_rows(table, goal, 2, lambda _: True)
        for p, new in steps.items():
            old = table.rows[p]
            states = dict(old)
            for node, state in new:
                check_cell(states.get(node, CellState.OUT_OF_DATE), state)
            assert any(s == CellState.UP_TO_DATE for _, s in new)
            before, after = (sum(s.is_readable for _, s in r) for r in (old, new))
            assert after >= min(before, len(goal[p]))
        table = table.changed(V1, steps)
        copying = [n for r in table.rows for n, s in r if not s.is_readable]
        new_ones = {n for p, r in steps.items() for n, _ in r if n not in dict(rows[p])}
        assert all(copying.count(n) <= 2 or n not in new_ones for n in copying)
        # What copies gets on, some of it at a time; now and then a join breaks off.
        moved: dict[Partition, Row] = {}
        for i, old in enumerate(table.rows):
            following = {
                CellState.OUT_OF_DATE: CellState.JOINING,
                CellState.JOINING: data.draw(st.sampled_from([CellState.UP_TO_DATE, CellState.OUT_OF_DATE])),
                CellState.CORRUPTED: CellState.OUT_OF_DATE,
            }
            moved[Partition(i)] = tuple(Cell(n, following.get(s, s)) for n, s in old)
        table = table.changed(V1, moved)
        if left(table, goal).is_nothing and all(is_there(r, w) for r, w in zip(table.rows, goal, strict=True)):
            return
    raise AssertionError(f"{table.rows} is not {goal}")
