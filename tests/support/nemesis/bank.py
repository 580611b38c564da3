"""Bank: money moves between accounts of different partitions; every snapshot shows the same total."""

import random
from typing import Any

from persistent.mapping import PersistentMapping

from support.nemesis.history import Facts

ACCOUNTS = 8
OPENING = 100


class Bank:
    """`["move", from, to, amount]` sees both balances before; `["read"]` sees all."""

    name = "bank"

    def set_up(self, root: Any) -> None:
        root["bank"] = PersistentMapping({n: PersistentMapping(balance=OPENING) for n in range(ACCOUNTS)})

    def next(self, rng: random.Random, session: str, number: int) -> Any:
        if rng.random() < 0.3:
            return ["read"]
        source, target = rng.sample(range(ACCOUNTS), 2)
        return ["move", source, target, rng.randint(1, 9)]

    def changes(self, asked: Any) -> bool:
        return bool(asked[0] == "move")

    def apply(self, connection: Any, asked: Any) -> Any:
        accounts = connection.root()["bank"]
        match asked:
            case ["move", source, target, amount]:
                seen = [accounts[source]["balance"], accounts[target]["balance"]]
                accounts[source]["balance"] -= amount
                accounts[target]["balance"] += amount
                return seen
            case _:
                return balances(connection.root())

    def final(self, root: Any) -> Any:
        return balances(root)

    def check(self, facts: Facts) -> list[str]:
        wrong = []
        now = [OPENING] * ACCOUNTS
        for op in facts.committed():  # there is no conflict resolution: each saw what the one before it had left
            _, source, target, amount = op.asked
            if op.seen is not None and op.seen != [now[source], now[target]]:
                wrong.append(f"{op.note} saw {op.seen}, where {[now[source], now[target]]} had been committed")
            now[source] -= amount
            now[target] += amount
        if facts.final != now:
            wrong.append(f"the balances are {facts.final}; the committed moves make them {now}")
        for op in facts.ok():
            if op.asked == ["read"] and (len(op.seen) != ACCOUNTS or sum(op.seen) != ACCOUNTS * OPENING):
                wrong.append(f"{op.note} saw balances {op.seen}, together {sum(op.seen)}")
        return wrong


def balances(root: Any) -> list[int]:
    """Return all balances of a snapshot."""
    return [root["bank"][n]["balance"] for n in range(ACCOUNTS)]
