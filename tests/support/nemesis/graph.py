"""Cycles in graphs of transactions that snapshot isolation forbids. Pure.

Edges say that one transaction must come before another: ww (its write was replaced), wr (its write was read), so (its
session's next), rw (it read what the other replaced). Snapshot isolation forbids every cycle in which no two rw edges
follow each other (G0, G1c, G-single, G-nonadjacent); with two in a row it is write skew, which it allows.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple, TypeVar

_N = TypeVar("_N", bound=Hashable)


class Edge(NamedTuple):
    """`kind` is ww, wr, so or rw."""

    source: str
    kind: str
    target: str


def forbidden_cycle(edges: Iterable[Edge]) -> list[Edge]:
    """Return a shortest forbidden cycle of one knot, empty when there is none."""
    firm: dict[str, list[Edge]] = {}
    anti: dict[str, list[Edge]] = {}
    for edge in edges:
        if edge.source != edge.target:
            (anti if edge.kind == "rw" else firm).setdefault(edge.source, []).append(edge)
    # A step: a firm edge, perhaps with an rw edge after it. A cycle of steps has no two rw edges in a row.
    steps: dict[str, dict[str, list[Edge]]] = {}
    for source, outs in firm.items():
        for edge in outs:
            reach = steps.setdefault(source, {})
            reach[edge.target] = [edge]
            for after in anti.get(edge.target, ()):
                reach.setdefault(after.target, [edge, after])
    for knot in knots({node: list(targets) for node, targets in steps.items()}):
        members = set(knot)
        start = min(knot)
        path = _shortest({n: [t for t in steps[n] if t in members] for n in knot}, start)
        return [edge for a, b in pairwise(path) for edge in steps[a][b]]
    return []


def knots(graph: Mapping[_N, list[_N]]) -> list[list[_N]]:
    """Return the strongly connected components that contain a cycle (Tarjan, without recursion)."""
    index: dict[_N, int] = {}
    low: dict[_N, int] = {}
    stack: list[_N] = []
    on_stack: set[_N] = set()
    found: list[list[_N]] = []
    for root in graph:
        if root in index:
            continue
        work = [(root, iter(graph.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(graph.get(target, ()))))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == node:
                            break
                    if len(component) > 1 or node in graph.get(node, ()):
                        found.append(component)
    return found


def _shortest(graph: Mapping[str, list[str]], start: str) -> list[str]:
    """Return a shortest path from *start* back to itself; it exists."""
    came: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for target in graph[node]:
            if target == start:
                path = [start, node]
                while node != start:
                    node = came[node]
                    path.append(node)
                return path[::-1]
            if target not in came:
                came[target] = node
                queue.append(target)
    raise AssertionError(f"{start} is in no cycle")
