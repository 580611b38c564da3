"""A client that was away for longer than its grace goes on by itself, unless tpc_vote had returned.

The client does not run (a stopped process, a host that sleeps) from the moment in which something is done in its name;
everybody else sees its connections end and gives its session up.
"""

from __future__ import annotations

import pytest

from neo_client.core.events import Failed, Resolve, VoteDone
from neo_common.core import Send
from neo_common.wire.schema import Conflict, Contended, Finish, Lock, Locked, Unvote, Vote, Voted
from support.application import Spec
from support.simulation import Scenario, Simulation
from support.world import Process

BOTH = Spec(writes=(0, 1), resolve=True)
SHAPE = Scenario(2, 2, 1, ((BOTH,) * 3, (BOTH,) * 3), 2, masters=1)
AHEAD = SHAPE._replace(clients=((BOTH._replace(ahead=True),) * 3, (BOTH,) * 3))
AWAY_S = 6.0
"""The grace is 3 s."""


class Pause:
    """Stops a client when something of a kind was done for or by it, and notes what fails."""

    def __init__(self, simulation: Simulation, kind: type, count: int) -> None:
        self.client = simulation.clients[0]
        self.kind, self.left = kind, count
        self.voted: set[object] = set()
        self.failed: list[object] = []
        for client in simulation.clients:
            client.runs_away = False
        simulation.world.observers.append(self)

    def __call__(self, process: Process, effect: object) -> None:
        """Look at an effect."""
        if isinstance(effect, VoteDone):
            self.voted.add((process.name, effect.handle))
        elif isinstance(effect, Failed) and (process.name, effect.handle) not in self.voted:
            self.failed.append((process.name, effect))
        what = effect.packet if isinstance(effect, Send) else effect
        concerned = process is self.client or (isinstance(effect, Send) and effect.peer == self.client.node)
        if concerned and type(what) is self.kind and self.left:
            self.left -= 1
            if not self.left:
                self.client.stall(AWAY_S)
                for connection in self.client.all_connections():
                    connection.cut("silence", (1.0, 1.0), (0.01, 0.01))


@pytest.mark.parametrize("kind", [Vote, Voted, Conflict, Resolve, Contended, Unvote, Lock, Locked])
@pytest.mark.parametrize("shape", [SHAPE, AHEAD])
def test_what_was_not_voted_does_not_fail(kind: type, shape: Scenario) -> None:
    happened = renamed = 0
    for seed in range(6):
        simulation = Simulation(seed, shape, calm=True)
        simulation.start()
        pause = Pause(simulation, kind, 1 + seed % 2)
        simulation.begin_scripts()
        simulation.world.run(20.0)
        simulation.rest()
        happened += not pause.left
        renamed += bool(simulation.oracle.first_names)
        assert not pause.failed
        assert "unknown" not in pause.client.outcomes
    assert happened
    assert renamed


def test_what_was_voted_fails_and_can_be_tried_again() -> None:
    simulation = Simulation(1, SHAPE, calm=True)
    simulation.start()
    pause = Pause(simulation, Finish, 1)
    simulation.begin_scripts()
    simulation.world.run(20.0)
    simulation.rest()
    assert not pause.left
    assert len(pause.client.outcomes) == 4
    assert pause.client.outcomes.count("committed") >= 3
