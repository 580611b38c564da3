"""Write skew: who takes from one of a pair has looked at the other, and says so with readCurrent."""

import random
from typing import Any

from persistent.mapping import PersistentMapping

from support.nemesis.history import Facts

PAIRS = 3


class Skew:
    """`["take" or "give", pair, side]` sees the pair before; together a pair never owes anything.

    Take: 1 less in that half, if the pair has 1 together; give: 1 more, if it has nothing. `["read", pair]` sees it.
    """

    name = "skew"

    def set_up(self, root: Any) -> None:
        for n in range(PAIRS):
            for side in range(2):
                root[f"skew-{n}-{side}"] = PersistentMapping(value=1 - side)

    def next(self, rng: random.Random, session: str, number: int) -> Any:
        pair = rng.randrange(PAIRS)
        word = rng.choice(("take", "take", "give", "read"))
        return ["read", pair] if word == "read" else [word, pair, rng.randrange(2)]

    def changes(self, asked: Any) -> bool:
        return bool(asked[0] != "read")

    def apply(self, connection: Any, asked: Any) -> Any:
        root = connection.root()
        halves = [root[f"skew-{asked[1]}-{side}"] for side in range(2)]
        seen = [half["value"] for half in halves]
        if asked[0] != "read":
            mine, other = halves[asked[2]], halves[1 - asked[2]]
            connection.readCurrent(other)
            if asked[0] == "take" and sum(seen) > 0:
                mine["value"] -= 1
            elif asked[0] == "give" and sum(seen) == 0:
                mine["value"] += 1
            else:
                mine._p_changed = True  # stored all the same: every transaction leaves its note
        return seen

    def final(self, root: Any) -> Any:
        return [[root[f"skew-{n}-{side}"]["value"] for side in range(2)] for n in range(PAIRS)]

    def check(self, facts: Facts) -> list[str]:
        wrong = [f"pair {n} ends as {pair}" for n, pair in enumerate(facts.final) if not 0 <= sum(pair) <= 1]
        for op in facts.ok():
            if not 0 <= sum(op.seen) <= 1:
                wrong.append(f"{op.note} saw pair {op.asked[1]} as {op.seen}")
        now = [[1, 0] for _ in range(PAIRS)]
        for op in facts.committed():  # readCurrent makes them serializable: each saw what the one before had left
            word, pair, side = op.asked
            if op.seen is not None and op.seen != now[pair]:
                wrong.append(f"{op.note} saw pair {pair} as {op.seen}, where {now[pair]} had been committed")
            total = sum(now[pair])
            now[pair][side] += {"take": -1 if total > 0 else 0, "give": 1 if total == 0 else 0}[word]
        if facts.final != now:
            wrong.append(f"the pairs are {facts.final}; the committed transactions make them {now}")
        return wrong
