"""The small clusters that are simulated: those of the model, word for word, and some that the model has not.

`oid mod partitions` is the partition of an object, so that `pair` is two partitions, `one` is one...
"""

from __future__ import annotations

from typing import Final

from model.scenarios import SCENARIOS as MODEL
from neo_common.wire.schema import Mode
from support.application import Spec
from support.simulation import Scenario


def _of_model(name: str) -> Scenario:
    config = MODEL[name]
    clients = tuple(
        tuple(
            Spec(
                writes=t.writes,
                reads=t.reads,
                current=t.current,
                resolve=t.resolve,
                may_abort=t.may_abort,
                mode=Mode[t.mode],
            )
            for t in script
        )
        for script in config["clients"]
    )
    return Scenario(
        partitions=config["np"],
        storages=config["storages"],
        replicas=config["replicas"],
        clients=clients,
        oids=config["oids"],
        masters=config["masters"],
    )


def _write(*oids: int, **more: object) -> Spec:
    return Spec(writes=oids, **more)  # type: ignore[arg-type]


OURS: Final = {
    "ahead": Scenario(
        2,
        2,
        1,
        (
            (_write(0, 1, 2, 3, ahead=True, resolve=True), _write(0, 1, 2, ahead=True)),
            (
                _write(1, 2, resolve=True, ahead=True),
                Spec(reads=(0, 1, 2, 3)),
                _write(3, 0, may_abort=True, ahead=True),
            ),
        ),
        4,
    ),
    "create": Scenario(
        3, 2, 0, ((Spec(creates=3), Spec(writes=(0,), creates=2)), (Spec(writes=(1, 0), creates=1, resolve=True),)), 3
    ),
    "alone": Scenario(
        2, 1, 0, ((_write(0, 1), _write(1)), (_write(1, resolve=True), Spec(reads=(0, 1)))), 2, masters=1
    ),
    "grow": Scenario(
        4,
        1,
        0,
        (
            (_write(0, 1, resolve=True), Spec(reads=(0, 1, 2, 3)), _write(2, 3)),
            (_write(1, 2, resolve=True), Spec(writes=(3,), current=(0,), may_abort=True)),
        ),
        4,
        spares=2,
    ),
    "rebuild": Scenario(
        5,
        2,
        1,
        (
            (_write(0, 1, 4, resolve=True), Spec(reads=(0, 1, 2, 3, 4)), _write(2, 3, mode=Mode.A)),
            (_write(1, 2, resolve=True), _write(3, 4, resolve=True)),
        ),
        5,
        spares=2,
        domains=("left", "left", "right", "right"),
    ),
    "copy": Scenario(
        2, 2, 1, ((Spec(reads=(0, 1)), _write(1)),), 2, copy=((10, 11), (10,), (11, 12), (10, 12), (13,), (10, 11, 13))
    ),
    "copy_apart": Scenario(3, 2, 0, ((Spec(reads=(0, 1)), _write(1)),), 2, copy=((10, 11, 12), (10,), (11, 12), (10,))),
    "m3_copy": Scenario(
        2,
        3,
        1,
        ((Spec(reads=(0, 1)), _write(0, 1)),),
        2,
        masters=3,
        copy=((10, 11), (11, 12), (10,), (10, 11), (12,), (10, 12)),
    ),
    "crowd": Scenario(
        12,
        3,
        1,
        tuple(
            (
                _write(c, 4, resolve=True),
                Spec(reads=(0, 1, 2, 3, 4)),
                _write(4, (c + 1) % 6, resolve=True, mode=Mode.A if c % 2 else Mode.C),
                Spec(writes=(c,), current=((c + 2) % 6,), may_abort=c == 0),
            )
            for c in range(5)
        ),
        6,
        masters=3,
    ),
}
SCENARIOS: Final[dict[str, Scenario]] = {**{name: _of_model(name) for name in MODEL}, **OURS}
