"""A majority of the masters: a machine lost for good, minorities, masters with empty disks."""

from __future__ import annotations

import pytest

from neo_common.states import CellState
from support import faults
from support.application import Step
from support.scenarios import SCENARIOS
from support.simulation import Simulation
from support.soak import attempt

SCENARIOS_M3 = sorted(name for name, s in SCENARIOS.items() if s.masters >= 3)
SERVES_S = 6.0
"""From the death of a machine until others serve, in the simulator: the patience of a second, and slow luck."""


def are_done(simulation: Simulation) -> bool:
    """Whether every client is through its script."""
    return all(c.step is Step.DONE for c in simulation.clients)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_a_machine_lost_for_good_needs_nobody(seed: int, number: int) -> None:
    """Its master and its storage never come back; all transactions of all clients end, and the rest is well."""
    simulation = Simulation(seed, SCENARIOS["m3_hosts"], calm=True)
    simulation.start()
    simulation.world.run(1.0)  # until the last promotion is stable
    simulation.begin_scripts()
    moment = faults.Moment(simulation)
    simulation.world.observers.append(moment)
    simulation.world.run(0.5, lambda: moment.is_there)
    for process in (simulation.masters[number], simulation.storages[number]):
        process.crash()
    lost = simulation.world.now
    served = simulation.world.run(SERVES_S, lambda: bool(simulation.primaries()) and are_done(simulation))
    assert served, f"seed={seed}: not served {simulation.world.now - lost:.1f} s after the loss"
    table = simulation.primary_table()
    gone = simulation.storages[number].node
    simulation.world.run(5.0, lambda: not simulation.primary_table().readable_nodes() & {gone})
    table = simulation.primary_table()
    assert all(any(s is CellState.UP_TO_DATE and n != gone for n, s in row) for row in table.rows)
    assert gone not in table.readable_nodes()
    simulation.rest()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_machine_alone_does_not_serve(number: int) -> None:
    """Of three machines, one is cut off with a client: it commits nothing, the others go on."""
    simulation = Simulation(number, SCENARIOS["m3_hosts"], calm=True)
    simulation.start()
    simulation.world.run(1.0)  # until the last promotion is stable
    here = {simulation.masters[number].name, simulation.storages[number].name, simulation.clients[0].name}
    faults.isolate(simulation, here, 1000.0)
    simulation.begin_scripts()
    assert simulation.world.run(60.0, lambda: simulation.clients[1].step is Step.DONE)
    assert simulation.clients[0].step is not Step.DONE
    simulation.rest()


@pytest.mark.parametrize("seed", range(6))
def test_masters_that_have_lost_their_disks_do_not_count(seed: int) -> None:
    """Two of three begin with empty disks while the third is away: they wait for every storage."""
    simulation = Simulation(seed, SCENARIOS["m3_hosts"], calm=True)
    simulation.start()
    simulation.world.run(1.0)  # until the last promotion is stable
    for master in simulation.masters:
        master.crash()
    for master in simulation.masters[1:]:
        master.disk = None
        master.start()
    victim = simulation.storages[seed % 3]
    victim.crash()
    simulation.world.run(60.0)
    assert not simulation.primaries(), f"seed={seed}: who has forgotten does not know whether that storage matters"
    victim.start()
    assert simulation.world.run(30.0, lambda: bool(simulation.primaries()))
    simulation.rest()


def test_who_comes_back_with_an_empty_disk_counts_when_all_were_there_once() -> None:
    simulation = Simulation(1, SCENARIOS["m3_hosts"], calm=True)
    simulation.start()
    simulation.world.run(1.0)  # until the last promotion is stable
    replaced, other = simulation.masters[2], simulation.masters[1]
    replaced.lose_disk()
    replaced.start()
    simulation.world.run(5.0)
    primary = simulation.primaries()[0].core
    assert (replaced.node, replaced.core.memory) in {tuple(v) for v in primary.voters}
    other.crash()
    simulation.world.run(10.0)
    assert simulation.primaries()
    simulation.rest()


@pytest.mark.parametrize("name", SCENARIOS_M3)
@pytest.mark.parametrize("first", [0, 1000])
def test_all_is_well_after_faults_of_machines(name: str, first: int) -> None:
    for seed in range(first, first + 12):
        _, error = attempt(name, seed, 4, ("host", "apart", "wipe", "crash", "cut", "power", "stall", "half_open"))
        assert error is None, f"seed={seed}: {error}"
