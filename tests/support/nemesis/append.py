"""List-append: from what was read and appended the order of all transactions follows, and must have no forbidden cycle.

Lists are short-lived: a new generation of them begins after some operations of a session.
"""

import random
from itertools import pairwise
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping

from support.nemesis.graph import Edge, forbidden_cycle
from support.nemesis.history import Facts, Operation

LISTS = 5
GENERATION = 60


class Append:
    """A list of `["r", key]` and `["a", key, value]`, at most one for each key; sees for each the list before it."""

    name = "append"

    def set_up(self, root: Any) -> None:
        root["append"] = OOBTree()

    def next(self, rng: random.Random, session: str, number: int) -> Any:
        generation = number // GENERATION
        keys = rng.sample(range(LISTS), rng.randint(1, 3))
        return [
            ["a", f"{generation}.{key}", f"{session}/{number}.{i}"]
            if rng.random() < 0.6
            else ["r", f"{generation}.{key}"]
            for i, key in enumerate(keys)
        ]

    def changes(self, asked: Any) -> bool:
        return any(step[0] == "a" for step in asked)

    def apply(self, connection: Any, asked: Any) -> Any:
        tree = connection.root()["append"]
        seen = []
        for step in asked:
            items = tree.get(step[1])
            seen.append(list(items["values"]) if items is not None else [])
            if step[0] == "a":
                if items is None:
                    items = tree[step[1]] = PersistentMapping(values=())
                items["values"] += (step[2],)
        return seen

    def final(self, root: Any) -> Any:
        return {key: list(items["values"]) for key, items in root["append"].items()}

    def check(self, facts: Facts) -> list[str]:
        wrong: list[str] = []
        writer: dict[str, Operation] = {}
        for op in facts.history:
            writer.update({step[2]: op for step in op.asked if step[0] == "a"})
        orders = _orders(facts, writer, wrong)
        edges = set(_edges(facts, orders, writer))
        for op in facts.ok():
            for step, seen in zip(op.asked, op.seen, strict=True):
                wrong += [
                    f"{op.note} saw {value} of a transaction that failed"
                    for value in seen
                    if _failed(facts, writer, value)
                ]
                if seen != orders.get(step[1], [])[: len(seen)]:
                    wrong.append(f"{op.note} saw {step[1]} as {seen}, which was {orders.get(step[1], [])}")
        cycle = forbidden_cycle(edges)
        if cycle:
            wrong.append("a cycle: " + "; ".join(f"{e.source} -{e.kind}-> {e.target}" for e in cycle))
        return wrong


def _failed(facts: Facts, writer: dict[str, Operation], value: str) -> bool:
    return value not in writer or writer[value].note not in facts.tids


def _orders(facts: Facts, writer: dict[str, Operation], wrong: list[str]) -> dict[str, list[str]]:
    """Return the order of appends of each list: as it is at the end, where everything committed must be."""
    orders: dict[str, list[str]] = dict(facts.final)
    for key, values in orders.items():
        if len(set(values)) != len(values):
            wrong.append(f"list {key} has a value twice: {values}")
        wrong += [
            f"list {key} has {value}, which was not committed" for value in values if _failed(facts, writer, value)
        ]
    there = {value for values in orders.values() for value in values}
    for value, op in writer.items():
        if op.note in facts.tids and value not in there:
            wrong.append(f"{value} was committed, and is lost")
    return orders


def _edges(facts: Facts, orders: dict[str, list[str]], writer: dict[str, Operation]) -> list[Edge]:
    edges = []
    for values in orders.values():
        for one, two in pairwise(values):
            if one in writer and two in writer:
                edges.append(Edge(writer[one].note, "ww", writer[two].note))
    last: dict[str, str] = {}
    for op in facts.history:
        if op.seen is None:
            continue
        if op.session in last:
            edges.append(Edge(last[op.session], "so", op.note))
        last[op.session] = op.note
        for step, seen in zip(op.asked, op.seen, strict=True):
            if seen and seen[-1] in writer:
                edges.append(Edge(writer[seen[-1]].note, "wr", op.note))
            order = orders.get(step[1], [])
            if step[0] == "r" and len(seen) < len(order) and order[len(seen)] in writer:
                edges.append(Edge(op.note, "rw", writer[order[len(seen)]].note))
    return edges
