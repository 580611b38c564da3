"""Snapshot readers: what is read twice in one snapshot is the same, now and long after."""

import random
import time
from typing import Any

from support.nemesis.bank import ACCOUNTS, OPENING, balances
from support.nemesis.history import Facts

REMEMBERED = 5


class Snapshot:
    """`["twice", pause_s]` reads the bank, forgets what the connection has cached, and reads it again.

    `["past"]` reads it as of a moment of its own past, and again later: sees [then, now]; None when it has no past yet.
    """

    name = "snapshot"

    def __init__(self) -> None:
        self._past: list[tuple[bytes, list[int]]] = []

    def set_up(self, root: Any) -> None:
        """It reads what the bank has."""

    def next(self, rng: random.Random, session: str, number: int) -> Any:
        return ["past", rng.randrange(REMEMBERED)] if rng.random() < 0.4 else ["twice", round(rng.expovariate(10), 3)]

    def changes(self, asked: Any) -> bool:
        return False

    def apply(self, connection: Any, asked: Any) -> Any:
        if asked[0] == "twice":
            first = balances(connection.root())
            time.sleep(min(asked[1], 1.0))
            connection.cacheMinimize()
            return [first, balances(connection.root())]
        db = connection.db()
        now = db.lastTransaction()
        self._past.append((now, self._at(db, now)))
        if len(self._past) <= REMEMBERED:
            return None
        tid, then = self._past.pop(asked[1])
        return [then, self._at(db, tid)]

    @staticmethod
    def _at(db: Any, tid: bytes) -> list[int]:
        old = db.open(at=tid)
        try:
            old.cacheMinimize()
            return balances(old.root())
        finally:
            old.close()

    def final(self, root: Any) -> Any:
        return None

    def check(self, facts: Facts) -> list[str]:
        wrong = []
        for op in facts.ok():
            if op.seen is None:
                continue
            first, second = op.seen
            if first != second:
                wrong.append(f"{op.note} ({op.asked[0]}) saw {first}, then {second} in the same snapshot")
            if sum(first) != ACCOUNTS * OPENING:
                wrong.append(f"{op.note} saw balances {first}, together {sum(first)}")
        return wrong
