"""Which faults happen when, from a seed. Pure: the same seed and shape give the same faults."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

CLIENT: Final = "client"


class Shape(NamedTuple):
    """A cluster."""

    masters: int
    storages: int
    replicas: int
    servers: tuple[str, ...] = ()
    """On which kinds of servers the storages have their databases, in turn, or `managed`; none: SQLite."""

    @property
    def names(self) -> list[str]:
        """All nodes, masters first."""
        return [f"m{n + 1}" for n in range(self.masters)] + [f"s{n + 1}" for n in range(self.storages)]

    def __str__(self) -> str:
        return "-".join((f"{self.masters}m-{self.storages}s-{self.replicas}r", *self.servers))


class Fault(NamedTuple):
    """`seconds` is how long it lasts; `targets` are nodes, or the two ends of a link."""

    at: float
    kind: str
    targets: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:6.2f} s  {self.kind} {' '.join(self.targets)} for {self.seconds:.2f} s"


WEIGHTS: Final = {
    "kill": 6,  # -9 one, start it again
    "pause": 4,  # SIGSTOP, SIGCONT
    "cut": 3,  # a link, both ways
    "half": 3,  # a link, one way
    "isolate": 2,  # all links of a node
    "reset": 2,  # all connections of a link, at once
    "slow": 1,  # a link
    "storm": 2,  # one node killed again and again
    "kill-all": 2,  # everything at once, started in any order
    "power": 2,  # the same, and what was not flushed is lost
    "full": 1,  # a disk
    "clock": 2,  # of one node, an hour
    "drain": 2,  # not a fault, but an operator at a bad time: a storage is drained, and added again
    "tweak": 1,  # the same: cells and leads are to be made even
    "server": 4,  # the one with a storage's database: kill -9
    "kill-client": 2,
    "pause-client": 1,
}
KINDS: Final = tuple(WEIGHTS)


def schedule(
    shape: Shape, seed: int, seconds: float, clients: Sequence[str] = (), kinds: Sequence[str] = KINDS
) -> list[Fault]:
    """Return the faults of a run, by time. No node suffers two at once; all have ended after *seconds*."""
    if not shape.servers:
        kinds = [kind for kind in kinds if kind != "server"]
    rng = random.Random(f"{seed} {shape}")
    overlap = rng.choice((1, 1, 2))
    busy: dict[str, float] = {}
    found: list[Fault] = []
    at = rng.uniform(0.5, 1.5)
    while at < seconds:
        kind = rng.choices(kinds, [WEIGHTS[k] for k in kinds])[0]
        targets = _targets(kind, shape, clients, rng)
        lasts = _duration(kind, rng)
        pause = rng.uniform(0.5, 2.5)
        if not targets:
            continue
        touched = shape.names if len(targets) > 2 or kind in ("isolate", "kill-all", "power") else targets
        running = sum(end > at for end in busy.values())
        if running and (overlap == 1 or touched == shape.names):
            at = max(busy.values()) + 0.1
        if any(busy.get(name, 0.0) > at for name in touched):
            at = max(busy.get(name, 0.0) for name in touched) + 0.1
        if at >= seconds:
            break
        lasts = min(lasts, max(0.2, seconds - at))
        fault = Fault(round(at, 3), kind, tuple(targets), round(lasts, 3))
        found.append(fault)
        busy.update(dict.fromkeys(touched, fault.at + fault.seconds))
        at += pause if overlap == 2 else lasts + pause
    return found


def _targets(kind: str, shape: Shape, clients: Sequence[str], rng: random.Random) -> list[str]:
    names = shape.names
    match kind:
        case "kill-all" | "power":
            return rng.sample(names, len(names))
        case "full" | "server":
            return [rng.choice([n for n in names if n.startswith("s")])]
        case "drain":
            return [f"s{rng.randint(1, shape.storages)}"] if shape.storages > shape.replicas + 1 else []
        case "tweak":
            return [f"s{rng.randint(1, shape.storages)}"]  # any: it is only that nothing else happens to it
        case "kill-client" | "pause-client":
            return [rng.choice(clients)] if clients else []
        case "cut" | "half" | "reset" | "slow":
            one, two = rng.sample([*names, CLIENT], 2)
            return [one, two]
        case _:
            return [rng.choice(names)]


def _duration(kind: str, rng: random.Random) -> float:
    match kind:
        case "reset":
            return 0.2
        case "kill" | "kill-all" | "power" | "storm" | "server" | "kill-client":
            return rng.choice((0.1, 0.3, 1.0, 2.0))
        case _:
            return float(min(9.0, 0.3 * 30 ** rng.random()))
