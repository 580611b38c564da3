"""`plan` against the best of all tables, found by trying every one; and its laws on larger ones."""

from collections import Counter
from itertools import combinations, product
from math import ceil, floor

from hypothesis import given, settings
from hypothesis import strategies as st

from neo_common.ids import Epoch, NodeId, Partition, Ptid, Version
from neo_common.model.balance import Place, Plan, _domains, _shares, plan
from neo_common.model.partition_table import Cell, PartitionTable
from neo_common.model.placement import Bounds, Placement
from neo_common.states import CellState

V1 = Version(Epoch(1), Ptid(1))
U, F, J, OUT = CellState.UP_TO_DATE, CellState.FEEDING, CellState.JOINING, CellState.OUT_OF_DATE
NODES = [NodeId(0x01000001 + n) for n in range(12)]


@st.composite
def tables(draw: st.DrawFn, rows: int, nodes: int) -> PartitionTable:
    """A table whose rows have an up-to-date cell first, and others in any state."""
    made = []
    for _ in range(draw(st.integers(1, rows))):
        order = draw(st.permutations(NODES[:nodes]))
        others = draw(st.lists(st.sampled_from([U, F, J, OUT]), max_size=nodes - 1))
        made.append(tuple(Cell(n, s) for n, s in zip(order, [U, *others], strict=False)))
    return PartitionTable(V1, 0, made)


@st.composite
def some_places(draw: st.DrawFn, nodes: int) -> list[Place]:
    """Some of the nodes, on few domains."""
    chosen = draw(st.lists(st.sampled_from(NODES[:nodes]), min_size=1, unique=True))
    weight = st.sampled_from([3, 3, 6, 1])
    return [Place(n, draw(st.sampled_from(["", "a", "b", "c"])), draw(weight)) for n in chosen]


def cost_of(table: PartitionTable, rows: tuple[tuple[NodeId, ...], ...]) -> int:
    """A cell that can be read costs nothing, one that has begun 1, a new one 2."""
    states = [dict(row) for row in table.rows]
    return sum(
        2 if n not in states[p] else 0 if states[p][n].is_readable else 1 for p, row in enumerate(rows) for n in row
    )


def laws(table: PartitionTable, places: list[Place], made: Plan, replicas: int) -> None:
    """What holds for every plan."""
    places = sorted(places)
    width = min(replicas + 1, len(places))
    domains, domain_max = _domains(places, width)
    shares = _shares(places, domains, domain_max, table.partitions, width)
    domain_of = {place.node: domain for place, domain in zip(places, domains, strict=True)}
    cells, leads = Counter[NodeId](), Counter[NodeId]()
    for row in made.rows:
        assert len(row) == len(set(row)) == width
        assert max(Counter(domain_of[n] for n in row).values()) <= domain_max
        cells.update(row)
        leads[row[0]] += 1
    for place, share in zip(places, shares, strict=True):
        assert floor(share) <= cells[place.node] <= ceil(share)
        assert cells[place.node] // width <= leads[place.node] <= -(-cells[place.node] // width)
    assert list(made.moves) == sorted(made.moves)
    there = {(p, n) for p, row in enumerate(table.rows) for n, _ in row}
    wanted = {(p, n) for p, row in enumerate(made.rows) for n in row}
    assert {(p, n) for p, n in made.moves} == wanted - there
    assert made.drops == len(there - wanted)


@settings(max_examples=300, deadline=None)
@given(table=tables(4, 4), places=some_places(4), replicas=st.integers(0, 2))
def test_no_table_within_the_bounds_costs_less(table: PartitionTable, places: list[Place], replicas: int) -> None:
    made = plan(table, places, replicas)
    laws(table, places, made, replicas)
    places = sorted(places)
    width = min(replicas + 1, len(places))
    domains, domain_max = _domains(places, width)
    shares = _shares(places, domains, domain_max, table.partitions, width)
    domain_of = {place.node: domain for place, domain in zip(places, domains, strict=True)}
    choices = [
        nodes
        for nodes in combinations([p.node for p in places], width)
        if max(Counter(domain_of[n] for n in nodes).values()) <= domain_max
    ]
    best = None
    for rows in product(choices, repeat=table.partitions):
        cells = Counter(n for row in rows for n in row)
        if all(floor(s) <= cells[p.node] <= ceil(s) for p, s in zip(places, shares, strict=True)):
            cost = cost_of(table, rows)
            best = cost if best is None else min(best, cost)
    assert best == cost_of(table, made.rows)


@settings(max_examples=200, deadline=None)
@given(table=tables(5, 4), replicas=st.integers(0, 2))
def test_no_choice_of_leads_within_the_bounds_changes_fewer(table: PartitionTable, replicas: int) -> None:
    places = [Place(n) for n in NODES[:4]]
    made = plan(table, places, replicas)
    width = min(replicas + 1, 4)
    cells = Counter(n for row in made.rows for n in row)
    best = min(
        sum(n != table.lead(Partition(p)) for p, n in enumerate(leads))
        for leads in product(*made.rows)
        if all(cells[n] // width <= Counter(leads)[n] <= -(-cells[n] // width) for n in cells)
    )
    assert made.leads_moved == best


@settings(max_examples=60, deadline=None)
@given(table=tables(40, 12), places=some_places(12), replicas=st.integers(0, 3))
def test_a_plan_keeps_its_laws_and_is_where_it_wants_to_be(
    table: PartitionTable, places: list[Place], replicas: int
) -> None:
    made = plan(table, places, replicas)
    laws(table, places, made, replicas)
    arrived = PartitionTable(V1, replicas, [tuple(Cell(n, U) for n in row) for row in made.rows])
    again = plan(arrived, places, replicas)
    assert again.rows == made.rows
    assert (again.moves, again.drops, again.leads_moved) == ((), 0, 0)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_placement_within_bounds_costs_least_with_several_copies_in_a_domain(data: st.DataObject) -> None:
    """The engine alone, with bounds that a plan never has: any that a random placement keeps."""
    count, rows, width = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    width = min(width, count)
    domains = [data.draw(st.integers(0, 2)) for _ in range(count)]
    domain_max = data.draw(st.integers(1, 2))
    choices = [
        c for c in combinations(range(count), width) if max(Counter(domains[n] for n in c).values()) <= domain_max
    ]
    if not choices:
        return
    one = [data.draw(st.sampled_from(choices)) for _ in range(rows)]
    cells = Counter(n for row in one for n in row)
    slack = [data.draw(st.integers(0, 1)) for _ in range(2 * count)]
    bounds = [Bounds(max(0, cells[n] - slack[n]), cells[n] + slack[count + n], domains[n]) for n in range(count)]
    costs = [
        data.draw(st.dictionaries(st.integers(0, count - 1), st.integers(0, 2), max_size=count)) for _ in range(rows)
    ]
    placement = Placement(costs, width, bounds, new_cost=3, domain_max=domain_max)
    found = placement.solve()
    assert all(tuple(sorted(row)) in choices for row in found)
    counts = Counter(n for row in found for n in row)
    assert all(b.low <= counts[n] <= b.high for n, b in enumerate(bounds))
    best = min(
        sum(costs[r].get(n, 3) for r, row in enumerate(rows_) for n in row)
        for rows_ in product(choices, repeat=rows)
        if all(
            b.low <= total <= b.high
            for b, total in zip(
                bounds, map(Counter(n for row in rows_ for n in row).__getitem__, range(count)), strict=True
            )
        )
    )
    assert placement.cost == best
