"""Unique set: each element is an object of its own in one big tree; every acknowledged one is there, once, and itself.

New objects take new oids: an oid that is given twice shows as an element that is another one, or as a conflict of
objects that nobody shares. The tree's buckets split and are resolved all the time.
"""

import random
from typing import Any

from BTrees.LOBTree import LOBTree
from persistent.mapping import PersistentMapping

from support.nemesis.history import Facts

LATEST = 60
"""How many numbers of an own session back a read looks."""
SESSIONS = 1000


def element(session: str, number: int) -> int:
    """Return an element that only this operation adds. Sessions are named c1.unique: client 1."""
    return number * SESSIONS + int(session.partition(".")[0].lstrip("c")) % SESSIONS


class Unique:
    """`["add", element]`; `["read", lowest]` sees the elements from there on, each as [key, what it says it is]."""

    name = "unique"

    def set_up(self, root: Any) -> None:
        root["unique"] = LOBTree()

    def next(self, rng: random.Random, session: str, number: int) -> Any:
        if rng.random() < 0.15:
            return ["read", max(0, number - LATEST) * SESSIONS]
        return ["add", element(session, number)]

    def changes(self, asked: Any) -> bool:
        return bool(asked[0] == "add")

    def apply(self, connection: Any, asked: Any) -> Any:
        tree = connection.root()["unique"]
        if asked[0] == "read":
            return [[key, item["element"]] for key, item in tree.items(asked[1])]
        tree[asked[1]] = PersistentMapping(element=asked[1])
        return None

    def final(self, root: Any) -> Any:
        return [[key, item["element"]] for key, item in root["unique"].items()]

    def check(self, facts: Facts) -> list[str]:
        wrong = []
        adds = {op.asked[1]: op for op in facts.history if op.asked[0] == "add"}
        there = [key for key, _ in facts.final]
        wrong += [f"element {key} is another one: {says}" for key, says in facts.final if key != says]
        if len(set(there)) != len(there) or there != sorted(there):
            wrong.append("the tree is not in order, or has an element twice")
        committed = {op.asked[1] for op in facts.committed()}
        wrong += [f"element {key} is lost: {adds[key].note} was committed" for key in sorted(committed - set(there))]
        wrong += [f"element {key} is there, and was not committed" for key in sorted(set(there) - committed)]
        for op in facts.ok():
            if op.asked[0] != "read":
                continue
            keys = {key for key, _ in op.seen}
            wrong += [f"{op.note} saw element {key} as {says}" for key, says in op.seen if key != says]
            for key in sorted(keys):
                if key not in adds or adds[key].start > op.end:
                    wrong.append(f"{op.note} saw element {key} before anybody added it")
                elif key not in committed:
                    wrong.append(f"{op.note} saw element {key}, which was never committed")
            for key, add in adds.items():
                told = add.end < op.start and key in committed and (op.is_synced or add.client == op.client)
                if told and key >= op.asked[1] and key not in keys:
                    wrong.append(f"{op.note} did not see element {key}, which {add.note} had added before")
        return wrong
