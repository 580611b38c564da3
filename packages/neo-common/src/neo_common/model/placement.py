"""Placing copies: the cheapest assignment of rows to nodes within bounds. Pure.

Each row is to have so many different nodes; each node so many rows, between a lowest and a highest count; of each
domain a row may have so many nodes at most. A node costs a row nothing if it has the row's data already, else more.

This is a flow of least cost from rows, through (row, domain), to nodes. What is done here is exact, not a guess: any
assignment within the bounds is made first (greedily, then along shortest paths), and then improved along cycles of
negative cost until there is none, which is the proof that no other assignment is cheaper. The search runs on the nodes
alone: an edge from a to b stands for the cheapest row that can leave a for b, and is kept up to date as rows change.
Each improvement lowers an integer cost that is `new_cost` per cell at most, so the work is polynomial.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_FAR: Final = 1 << 40
"""More than any cost."""


class Bounds(NamedTuple):
    """How many rows a node may have, and the domain (a small number) that it belongs to."""

    low: int
    high: int
    domain: int


class _Step(NamedTuple):
    """Row *row* leaves node *source* for node *target*."""

    source: int
    target: int
    row: int


class Placement:
    """Rows on nodes. Nodes and rows are numbers from 0 on.

    Invariants, once `solve` has returned:
      * every row has `width` nodes, at most `domain_max` of one domain, all of them allowed;
      * every node has between `low` and `high` rows;
      * no assignment with both costs less.
    """

    def __init__(
        self,
        costs: Sequence[Mapping[int, int]],
        width: int,
        nodes: Sequence[Bounds],
        *,
        new_cost: int,
        domain_max: int = 1,
        allowed: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Prepare. `costs[row]` has the nodes that cost less than `new_cost`; `allowed[row]` may limit the choice.

        There must be an assignment within the bounds.
        """
        self._costs = costs
        self._width = width
        self._nodes = nodes
        self._new_cost = new_cost
        self._domain_max = domain_max
        self._allowed = None if allowed is None else [frozenset(a) for a in allowed]
        self.on: list[list[int]] = [[] for _ in costs]
        """The nodes of each row, the cheapest first when it was filled."""
        self._cells: list[dict[int, None]] = [{} for _ in nodes]
        self._best: list[list[tuple[int, int]]] = []
        """`[a][b]`: cost and row of the cheapest step from a to b; (_FAR, -1) if there is none. Empty: not made yet."""
        self._used: dict[int, set[tuple[int, int]]] = {}
        """For each row the pairs (a, b) of which it is the best."""

    def solve(self) -> list[list[int]]:
        """Return the nodes of each row."""
        self._fill()
        self._even_out()
        while (path := self._path()) is not None:
            self._walk(path)
        while (cycle := self._cycle()) is not None:
            self._walk(cycle)
        return self.on

    @property
    def cost(self) -> int:
        """What it costs now."""
        return sum(self._cost(row, node) for row, nodes in enumerate(self.on) for node in nodes)

    # ------------------------------------------------------------------------------------------ one row, one node

    def _cost(self, row: int, node: int) -> int:
        return self._costs[row].get(node, self._new_cost)

    def _fits(self, row: int, node: int, instead_of: int | None) -> bool:
        """Whether *row* may have *node* too, or in place of another."""
        on = self.on[row]
        if node in on or (self._allowed is not None and node not in self._allowed[row]):
            return False
        domain = self._nodes[node].domain
        if instead_of is not None and self._nodes[instead_of].domain == domain:
            return True
        count = 0
        for other in on:
            count += self._nodes[other].domain == domain
        return count < self._domain_max

    def _put(self, row: int, node: int) -> None:
        self.on[row].append(node)
        self._cells[node][row] = None

    def _move(self, step: _Step) -> None:
        self.on[step.row].remove(step.source)
        del self._cells[step.source][step.row]
        self._put(step.row, step.target)

    def _count(self, node: int) -> int:
        return len(self._cells[node])

    # ------------------------------------------------------------------------------------------ something within bounds

    def _fill(self) -> None:
        """Give each row its nodes: those that cost least, then those with the most room. Bounds do not count yet."""
        numbers = range(len(self._nodes))
        for row, costs in enumerate(self._costs):
            for node in sorted(costs, key=lambda n: (costs[n], n)):
                if len(self.on[row]) < self._width and self._fits(row, node, None):
                    self._put(row, node)
        for row in range(len(self._costs)):
            while len(self.on[row]) < self._width:
                choice = numbers if self._allowed is None else sorted(self._allowed[row])
                fit = (n for n in choice if self._fits(row, n, None))
                self._put(row, min(fit, key=lambda n: (self._count(n) - self._nodes[n].low, n)))

    def _even_out(self) -> None:
        """Move rows from nodes with too many straight to nodes with too few, as far as that goes."""
        for source, bounds in enumerate(self._nodes):
            if self._count(source) > bounds.high:
                cells = sorted(self._cells[source], key=lambda r: -self._cost(r, source))
                self._hand_out(source, cells, bounds.high)
        for source, bounds in enumerate(self._nodes):
            if self._count(source) > bounds.low:
                cells = sorted(self._cells[source], key=lambda r: -self._cost(r, source))
                self._hand_out(source, cells, bounds.low, is_needed=True)

    def _hand_out(self, source: int, cells: Sequence[int], keep: int, *, is_needed: bool = False) -> None:
        room = [n for n, b in enumerate(self._nodes) if self._count(n) < (b.low if is_needed else b.high)]
        for row in cells:
            if self._count(source) <= keep or not room:
                return
            fit = [n for n in room if self._fits(row, n, source)]
            if fit:
                target = min(fit, key=lambda n: (self._cost(row, n), self._count(n) - self._nodes[n].low, n))
                self._move(_Step(source, target, row))
                bounds = self._nodes[target]
                if self._count(target) >= (bounds.low if is_needed else bounds.high):
                    room.remove(target)

    # ------------------------------------------------------------------------------------------ the edges

    def _edges(self) -> list[list[tuple[int, int]]]:
        if not self._best:
            count = len(self._nodes)
            self._best = [[(_FAR, -1)] * count for _ in range(count)]
            for source in range(count):
                for row in self._cells[source]:
                    self._offer(source, row)
        return self._best

    def _offer(self, source: int, row: int) -> None:
        """Let *row* be the best of every edge from *source* for which it is."""
        best = self._best[source]
        costs, own = self._costs[row], self._cost(row, source)
        on, domains = self.on[row], self._nodes
        full: set[int] = set()
        seen: dict[int, int] = {}
        for node in on:
            domain = domains[node].domain
            seen[domain] = seen.get(domain, 0) + (node != source)
            if seen[domain] >= self._domain_max:
                full.add(domain)
        allowed = None if self._allowed is None else self._allowed[row]
        new = self._new_cost - own
        for target in range(len(best)) if allowed is None else sorted(allowed):
            cost = costs[target] - own if target in costs else new
            if cost < best[target][0] and domains[target].domain not in full and target not in on:
                self._set_edge(source, target, cost, row)

    def _set_edge(self, source: int, target: int, cost: int, row: int) -> None:
        former = self._best[source][target][1]
        if former >= 0:
            self._used[former].discard((source, target))
        self._best[source][target] = (cost, row)
        if row >= 0:
            self._used.setdefault(row, set()).add((source, target))

    def _row_changed(self, row: int) -> None:
        """Bring every edge up to date after *row* has changed."""
        stale = sorted(self._used.pop(row, ()))
        for source, target in stale:
            self._best[source][target] = (_FAR, -1)
        for source in self.on[row]:
            self._offer(source, row)
        for source, target in stale:
            self._search(source, target)

    def _search(self, source: int, target: int) -> None:
        """Find the best row for one edge anew."""
        cost, best = self._best[source][target]
        for row in self._cells[source]:
            costs = self._costs[row]
            other = costs.get(target, self._new_cost) - costs.get(source, self._new_cost)
            if other < cost and self._fits(row, target, source):
                cost, best = other, row
                if cost <= -self._new_cost:
                    break  # nothing is cheaper
        if best != self._best[source][target][1]:
            self._set_edge(source, target, cost, best)

    # ------------------------------------------------------------------------------------------ paths and cycles

    def _path(self) -> list[_Step] | None:
        """Return the cheapest steps that bring one node within its bounds, None when all are."""
        counts = [self._count(n) for n in range(len(self._nodes))]
        over = [n for n, b in enumerate(self._nodes) if counts[n] > b.high]
        under = [n for n, b in enumerate(self._nodes) if counts[n] < b.low]
        if not over and not under:
            return None
        sources = over or [n for n, b in enumerate(self._nodes) if counts[n] > b.low]
        sinks = under or [n for n, b in enumerate(self._nodes) if counts[n] < b.high]
        distance, before, looped = self._distances(sources)
        if looped is not None:
            return looped  # a cycle of negative cost: taken first, as there is no shortest path beside it
        end = min(sinks, key=lambda n: (distance[n], n))
        assert distance[end][0] < _FAR, "there is no assignment within the bounds"
        return self._back(before, end)

    def _cycle(self) -> list[_Step] | None:
        """Return steps that cost less than nothing and leave all nodes within their bounds, None if there are none."""
        counts = [self._count(n) for n in range(len(self._nodes))]
        spare = [n for n, b in enumerate(self._nodes) if counts[n] > b.low]
        distance, before, looped = self._distances(spare)
        if looped is not None:
            return looped
        ends = [n for n, b in enumerate(self._nodes) if counts[n] < b.high and distance[n][0] < 0]
        if ends:
            return self._back(before, min(ends, key=lambda n: (distance[n], n)))
        # What no spare node reaches may still be a cycle of its own.
        return self._distances(range(len(self._nodes)))[2]

    def _distances(
        self, sources: Sequence[int]
    ) -> tuple[list[tuple[int, int]], list[_Step | None], list[_Step] | None]:
        """Return from *sources* to every node: cost and number of steps, the last step; or a cycle of negative cost.

        Fewest steps among those that cost the same: so a path visits no row twice (see `_walk`).
        """
        edges = self._edges()
        count = len(self._nodes)
        distance = [(_FAR, 0)] * count
        before: list[_Step | None] = [None] * count
        for node in sources:
            distance[node] = (0, 0)
        active = sorted(sources)
        for turn in range(2 * count + 2):
            changed: dict[int, None] = {}
            for a in active:
                cost, steps = distance[a]
                for b, (more, row) in enumerate(edges[a]):
                    if row >= 0 and (cost + more, steps + 1) < distance[b]:
                        distance[b] = (cost + more, steps + 1)
                        before[b] = _Step(a, b, row)
                        changed[b] = None
            if not changed:
                return distance, before, None
            active = sorted(changed)
            if turn >= 2 and (loop := self._loop(before)):
                return distance, before, loop
        raise AssertionError("distances do not settle, yet there is no cycle")

    def _loop(self, before: Sequence[_Step | None]) -> list[_Step]:
        """Return a cycle among the last steps, which costs less than nothing; empty if there is none."""
        state = [0] * len(before)
        for start in range(len(before)):
            node, trail = start, []
            while state[node] == 0 and (step := before[node]) is not None:
                state[node] = 1 + start + 1
                trail.append(node)
                node = step.source
            if trail and state[node] == start + 2:
                loop: list[_Step] = []
                end = node
                while not loop or node != end:
                    step = before[node]
                    assert step is not None
                    loop.append(step)
                    node = step.source
                return loop
        return []

    def _back(self, before: Sequence[_Step | None], end: int) -> list[_Step]:
        steps: list[_Step] = []
        step = before[end]
        while step is not None:
            steps.append(step)
            step = before[step.source]
        return steps

    def _walk(self, steps: Sequence[_Step]) -> None:
        """Take *steps*; of a cycle that passes the same place of a row twice, the cheaper half, which is one too.

        Such a place is the row itself, or the row in one domain: each flow through it may as well go on as the other
        does. Of a shortest path with the fewest steps no part can be left out, so a path never does.
        """
        steps = self._simple(list(steps))
        for step in steps:
            self._move(step)
        for row in sorted({step.row for step in steps}):
            assert self._is_right(row), f"row {row} does not fit"
            self._row_changed(row)

    def _simple(self, steps: list[_Step]) -> list[_Step]:
        for i, one in enumerate(steps):
            for j in range(i + 1, len(steps)):
                two = steps[j]
                if one.row == two.row and self._meet(one, two):
                    # `steps` are from the last to the first: ... one(source -> target) ... two(source -> target) ...
                    inner = [*steps[i + 1 : j], _Step(one.source, two.target, one.row)]
                    outer = [*steps[:i], _Step(two.source, one.target, one.row), *steps[j + 1 :]]
                    halves = [self._without_idle(half) for half in (inner, outer)]
                    return self._simple(min(halves, key=self._price))
        return steps

    def _meet(self, one: _Step, two: _Step) -> bool:
        """Whether both steps of a row pass the row itself, or the same domain of it."""
        domains = [{self._nodes[s.source].domain, self._nodes[s.target].domain} for s in (one, two)]
        return all(len(d) == 2 for d in domains) or bool(domains[0] & domains[1])

    def _without_idle(self, steps: list[_Step]) -> list[_Step]:
        return [s for s in steps if s.source != s.target]

    def _price(self, steps: Sequence[_Step]) -> int:
        return sum(self._cost(s.row, s.target) - self._cost(s.row, s.source) for s in steps)

    def _is_right(self, row: int) -> bool:
        on = self.on[row]
        domains = [self._nodes[n].domain for n in on]
        return len(set(on)) == self._width and all(domains.count(d) <= self._domain_max for d in domains)
