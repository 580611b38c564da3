"""Every crash point of one commit, with every one and every two processes lost there: enumerated, not left to chance.

A crash point is the moment before somebody performs an effect (a packet sent, a record written, an answer given), from
the beginning of a transaction over two partitions until all that follows from it is done. What the dying processes had
just sent arrives, or none of it does; the others go on without them for a while, and then they come back. The checks
are those of every simulation. With two points, the second process is lost after the first, at every later moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations
from typing import Final, NamedTuple

import pytest

from neo_common.states import Role
from neo_common.wire.schema import Mode
from support.application import Spec, Step
from support.simulation import Scenario, Simulation
from support.soak import story
from support.world import Process

DOWN_S: Final = 8.0
"""How long the others go on alone: longer than leases, graces and silences."""
LATER: Final = 80
"""Effects after the first loss among which the second one comes."""
ARRIVES: Final[dict[str, Mapping[Role, float]]] = {
    "all": dict.fromkeys(Role, 1.0),
    "nothing": dict.fromkeys(Role, 0.0),
}


class Shape(NamedTuple):
    """A small cluster, and the one transaction."""

    storages: int
    replicas: int
    masters: int
    mode: Mode = Mode.C

    def simulation(self) -> Simulation:
        """Return a run, not begun."""
        script = (Spec(writes=(0, 1), mode=self.mode),)
        return Simulation(0, Scenario(2, self.storages, self.replicas, (script,), 2, self.masters), calm=True)


SHAPES: Final = {
    "apart": Shape(2, 0, 2),
    "pair": Shape(2, 1, 2),
    "pair, sealed": Shape(2, 1, 2, Mode.A),
    "three masters": Shape(3, 1, 3),
}


class Loss(NamedTuple):
    """Who is lost, after how many more effects; what of their last words arrives."""

    after: int
    victims: tuple[str, ...]
    arrives: str


class _Losses:
    """Counts the effects, and kills."""

    def __init__(self, simulation: Simulation, losses: Sequence[Loss]) -> None:
        self._simulation = simulation
        self._left = list(losses)
        self._count = 0

    def __call__(self, process: Process, effect: object) -> None:
        """Look at an effect that is about to be performed."""
        while self._left and self._count == self._left[0].after:
            loss = self._left.pop(0)
            self._count = 0
            for name in loss.victims:
                self._simulation.world.processes[name].crash(f"before {type(effect).__name__}", ARRIVES[loss.arrives])
        self._count += 1


def run(shape: Shape, losses: Sequence[Loss]) -> None:
    """Let it happen; a failure tells the story."""
    simulation = shape.simulation()
    try:
        simulation.start()
        simulation.world.observers.append(_Losses(simulation, losses))
        simulation.begin_scripts()
        simulation.world.run(DOWN_S)
        simulation.rest()
    except Exception as error:  # noqa: BLE001  whatever a core raises is a finding
        pytest.fail(f"{losses}: {error}\n{story(simulation, 60)}")


def effects_of_a_commit(shape: Shape) -> int:
    """Return how many effects one transaction has, from its beginning until nothing is left to do."""
    simulation = shape.simulation()
    count = 0

    def see(process: Process, effect: object) -> None:
        nonlocal count
        count += 1

    simulation.start()
    simulation.world.observers.append(see)
    simulation.begin_scripts()
    simulation.world.run(DOWN_S, lambda: simulation.clients[0].step is Step.DONE)
    assert simulation.clients[0].outcomes[-1] == "committed"
    simulation.world.run(1.0)
    return count


def names(shape: Shape) -> list[str]:
    """Return every process."""
    return sorted(shape.simulation().world.processes)


def at_one_point(shape: Shape) -> Iterator[Loss]:
    """Yield every loss of one or two processes at every point."""
    everybody = names(shape)
    for after in range(effects_of_a_commit(shape)):
        for victims in (*((name,) for name in everybody), *combinations(everybody, 2)):
            for arrives in ARRIVES:
                yield Loss(after, victims, arrives)


def test_one_process_lost_at_every_point_of_a_commit() -> None:
    """The part of the next test that `make check` has time for."""
    losses = [loss for loss in at_one_point(SHAPES["pair"]) if len(loss.victims) == 1]
    for loss in losses:
        run(SHAPES["pair"], [loss])
    assert len(losses) > 300, "five processes, more than thirty points, two ways to die"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SHAPES)
def test_one_or_two_processes_lost_at_every_point_of_a_commit(name: str) -> None:
    count = 0
    for loss in at_one_point(SHAPES[name]):
        run(SHAPES[name], [loss])
        count += 1
    assert count > 900, "fifteen losses at more than thirty points, two ways to die"


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", SHAPES)
def test_a_second_process_lost_at_every_moment_after_the_first(name: str) -> None:
    shape = SHAPES[name]
    for after in range(effects_of_a_commit(shape)):
        for first, second in permutations(names(shape), 2):
            for later in range(1, LATER):
                run(shape, [Loss(after, (first,), "all"), Loss(later, (second,), "nothing")])
