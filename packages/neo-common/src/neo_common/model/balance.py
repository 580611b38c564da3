"""Which cells go where. Pure.

The first table of a cluster is even in four ways at once: cells per node, leads per node, neighbouring partitions on
different nodes, and the partners of a node, so that the load of a lost node spreads over all others.

Later, `plan` says which table a cluster should come to, given the one that it has: what moves is the least that makes
it even again (docs/partition-table.md, "Balance"). How to come there safely is the master's business.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor, gcd
from typing import Final, NamedTuple

from neo_common.ids import NodeId, Partition, Version
from neo_common.model.partition_table import Cell, PartitionTable
from neo_common.model.placement import Bounds, Placement
from neo_common.states import CellState

_UP: Final = CellState.UP_TO_DATE
_BEGUN: Final = 1
_NEW: Final = 2
"""What a cell costs: nothing where it can be read, less where a copy has begun than where there is none."""


class Place(NamedTuple):
    """A node that may hold cells. `domain`: what fails together (empty: it alone); `weight`: its share, above 0."""

    node: NodeId
    domain: str = ""
    weight: int = 1


class Move(NamedTuple):
    """A cell to make: the data of *partition* will be copied to *target*."""

    partition: Partition
    target: NodeId


class Plan(NamedTuple):
    """Where a table should come to. `rows[p]`: the nodes of partition p, the lead first."""

    replicas: int
    rows: tuple[tuple[NodeId, ...], ...]
    moves: tuple[Move, ...]
    """The cells that are not there yet, by partition."""
    drops: int
    """How many cells are there now and will not be."""
    leads_moved: int


def plan(table: PartitionTable, places: Sequence[Place], replicas: int) -> Plan:
    """Return the table that *table* should come to on *places*: even by weight, copies apart, the least data moved.

    Each row gets `replicas + 1` nodes, or as many as there are. Copies of a row are on different domains; with fewer
    domains than copies no domain has more of them than it must. Within that a node gets its share by weight, up or
    down to a whole number, in cells and in leads. Of all such tables this is one for which least is copied, and for
    which then the fewest leads change. Nodes that are not among *places* get nothing.
    """
    places = sorted(places)
    assert places, "a table needs a node"
    assert len({place.node for place in places}) == len(places), "a node has one place"
    assert all(place.weight > 0 for place in places), "every place has a weight above 0"
    width = min(replicas + 1, len(places))
    numbers = {place.node: number for number, place in enumerate(places)}
    domains, domain_max = _domains(places, width)
    shares = _shares(places, domains, domain_max, table.partitions, width)
    bounds = [Bounds(floor(share), ceil(share), domain) for share, domain in zip(shares, domains, strict=True)]
    costs = [{numbers[n]: 0 if state.is_readable else _BEGUN for n, state in row if n in numbers} for row in table.rows]
    found = Placement(costs, width, bounds, new_cost=_NEW, domain_max=domain_max).solve()
    leads = _leads(table, found, numbers, len(places), width)
    rows = []
    moves = []
    for p, (row, on) in enumerate(zip(table.rows, found, strict=True)):
        nodes = [places[number].node for number in sorted(on)]
        lead = places[leads[p]].node
        there = [n for n, _ in row if n in nodes and n != lead]
        rows.append((lead, *there, *(n for n in nodes if n != lead and n not in there)))
        moves += [Move(Partition(p), n) for n in nodes if table.state(Partition(p), n) is None]
    drops = sum(n not in rows[p] for p, row in enumerate(table.rows) for n, _ in row)
    moved = sum(table.lead(Partition(p)) != row[0] for p, row in enumerate(rows))
    return Plan(replicas, tuple(rows), tuple(moves), drops, moved)


def _domains(places: Sequence[Place], width: int) -> tuple[list[int], int]:
    """Return the domain of each place, as a small number, and how many copies of a row a domain must take at most."""
    names: dict[tuple[str, NodeId], int] = {}
    domains = []
    for place in places:
        key = (place.domain, NodeId(0)) if place.domain else ("", place.node)
        domains.append(names.setdefault(key, len(names)))
    sizes = [domains.count(domain) for domain in range(len(names))]
    domain_max = 1
    while sum(min(domain_max, size) for size in sizes) < width:
        domain_max += 1
    return domains, domain_max


def _shares(
    places: Sequence[Place], domains: Sequence[int], domain_max: int, partitions: int, width: int
) -> list[Fraction]:
    """Return how many cells each place should have: by weight, but no node more than one of a row, no domain more than
    *domain_max*.

    As water fills vessels of unequal width: all levels (cells per weight) rise together; who is full stays behind.
    """
    count = len(places)
    shares = [Fraction(0)] * count
    left = Fraction(partitions * width)
    rising = set(range(count))
    while left and rising:
        total = sum((places[n].weight for n in rising), Fraction(0))
        step = left / total
        for n in rising:
            step = min(step, (partitions - shares[n]) / places[n].weight)
        for domain in sorted({domains[n] for n in rising}):
            weight = sum((places[n].weight for n in rising if domains[n] == domain), Fraction(0))
            have = sum((shares[n] for n in range(count) if domains[n] == domain), Fraction(0))
            step = min(step, (partitions * domain_max - have) / weight)
        for n in rising:
            shares[n] += step * places[n].weight
        left -= step * total
        full = {
            domain
            for domain in set(domains)
            if sum((shares[n] for n in range(count) if domains[n] == domain), Fraction(0)) >= partitions * domain_max
        }
        rising = {n for n in rising if shares[n] < partitions and domains[n] not in full}
    assert not left, "there is room for every cell"
    return shares


def _leads(
    table: PartitionTable, found: Sequence[Sequence[int]], numbers: Mapping[NodeId, int], count: int, width: int
) -> list[int]:
    """Return the lead of each row: a node leads its share of the rows that it has, and the fewest leads change."""
    rows_of = [0] * count
    for on in found:
        for number in on:
            rows_of[number] += 1
    bounds = [Bounds(n // width, -(-n // width), number) for number, n in enumerate(rows_of)]
    costs: list[dict[int, int]] = []
    for p, on in enumerate(found):
        lead = table.lead(Partition(p))
        number = -1 if lead is None else numbers.get(lead, -1)
        costs.append({number: 0} if number in on else {})
    return [on[0] for on in Placement(costs, 1, bounds, new_cost=1, allowed=found).solve()]


def first_table(nodes: Sequence[NodeId], partitions: int, replicas: int, version: Version) -> PartitionTable:
    """Return the table of a new cluster: every cell UP_TO_DATE, the first of each row leads.

    *nodes* are distinct and keep their order. Each row has `replicas + 1` cells, or as many as there are nodes.
    Cells per node differ by 1 at most, leads per node too.

    >>> table = first_table([NodeId(1), NodeId(2), NodeId(3)], 4, 1, Version(0, 1))
    >>> [tuple(node for node, _ in row) for row in table.rows]
    [(1, 2), (2, 3), (3, 1), (1, 2)]
    """
    assert partitions > 0, partitions
    assert replicas >= 0, replicas
    assert nodes, "a table needs a node"
    assert len(set(nodes)) == len(nodes), "a node has one cell of a row at most"
    count = len(nodes)
    width = min(replicas + 1, count)
    rounds, rest = divmod(partitions, count)
    rows = []
    for turn in range(rounds + (rest > 0)):
        # Within a turn each row is the one before moved on by one node (`keys` codes a turn as one run), so a whole
        # turn gives every node one cell of each offset, whatever the offsets are.
        offsets = _offsets(turn, width, count) if turn < rounds else _last_offsets(rest, width, count)
        for first in range(count if turn < rounds else rest):
            rows.append(tuple(Cell(nodes[(first + offset) % count], _UP) for offset in offsets))
    return PartitionTable(version, replicas, rows)


def _offsets(turn: int, width: int, count: int) -> list[int]:
    """Return how far after the lead the cells of a row stand: others in each turn, so that partners change."""
    return [0] + [1 + (turn * (width - 1) + copy) % (count - 1) for copy in range(width - 1)]


def _last_offsets(rest: int, width: int, count: int) -> list[int]:
    """Return the offsets for a last turn of *rest* rows, fewer than nodes.

    Copy j covers *rest* neighbouring nodes; the next copy begins where it ended, so no node is ahead of another by
    more than one. Where that would come back to a node that the row has, all nodes are level: one step further.
    """
    period = count // gcd(rest, count)
    return [(copy * rest + copy // period) % count for copy in range(width)]
