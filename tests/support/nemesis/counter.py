"""Counter: increments that conflict and are resolved; none is lost, none is counted twice, and it never goes back."""

import random
from typing import Any

from BTrees.Length import Length

from support.nemesis.history import Facts

COUNTERS = 2


class Counter:
    """`["add", which, by]`, and `["read", which]` which sees the value."""

    name = "counter"

    def set_up(self, root: Any) -> None:
        for n in range(COUNTERS):
            root[f"counter-{n}"] = Length()

    def next(self, rng: random.Random, session: str, number: int) -> Any:
        which = rng.randrange(COUNTERS)
        return ["read", which] if rng.random() < 0.4 else ["add", which, rng.randint(1, 3)]

    def changes(self, asked: Any) -> bool:
        return bool(asked[0] == "add")

    def apply(self, connection: Any, asked: Any) -> Any:
        value = connection.root()[f"counter-{asked[1]}"]
        if asked[0] == "read":
            return value()
        value.change(asked[2])
        return None

    def final(self, root: Any) -> Any:
        return [root[f"counter-{n}"]() for n in range(COUNTERS)]

    def check(self, facts: Facts) -> list[str]:
        return [text for n in range(COUNTERS) for text in self._check(n, facts)]

    def _check(self, which: int, facts: Facts) -> list[str]:
        wrong = []
        adds = [op for op in facts.committed() if op.asked[:2] == ["add", which]]
        total = sum(op.asked[2] for op in adds)
        if facts.final[which] != total:
            wrong.append(f"counter {which} is {facts.final[which]}; the committed increments make it {total}")
        reads = [op for op in facts.ok() if op.asked == ["read", which]]
        highest: dict[str, list[tuple[float, int]]] = {}
        for op in sorted(reads, key=lambda op: op.end):
            told = [a for a in adds if a.end < op.start and (op.is_synced or a.client == op.client)]
            least, most = sum(a.asked[2] for a in told), sum(a.asked[2] for a in adds if a.start < op.end)
            if not least <= op.seen <= most:
                wrong.append(f"{op.note} saw {op.seen} in counter {which}: not between {least} and {most}")
            for end, value in highest.get(op.client, ()):
                if end < op.start and op.seen < value:
                    wrong.append(f"{op.note} saw {op.seen} in counter {which}, after {op.client} had seen {value}")
                    break
            recent = highest.setdefault(op.client, [])
            if not recent or op.seen > recent[-1][1]:
                recent.append((op.end, op.seen))
                del recent[:-8]
        return wrong
