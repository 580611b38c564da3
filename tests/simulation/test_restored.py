"""The disk of a storage is replaced by an older copy: nobody goes on as if what it had were there."""

from __future__ import annotations

import pytest

from neo_common.states import ClusterState
from support.choosing import Operator, kept_by
from support.mutations import MUTATIONS, planted
from support.restoring import copied, restore
from support.scenarios import SCENARIOS
from support.simulation import Simulation

WAIT_S = 120.0
HELD_S = 4.0
"""By then masters hold what has happened."""


def restored(seed: int, name: str, victim: int = 0) -> Simulation:
    """Return a cluster of which all have died, and one storage comes back as it was some commits ago."""
    simulation = Simulation(seed, SCENARIOS[name], packs=False, pieces=False, early=False)
    simulation.start()
    simulation.begin_scripts()
    simulation.rest()
    storage = simulation.storages[victim]
    old = copied(storage)
    simulation.begin_scripts()
    simulation.rest()
    simulation.world.run(HELD_S)
    assert old.durable < storage.disk.durable
    notes = [list(master.noted) for master in simulation.masters]
    for process in (*simulation.masters, *simulation.storages):
        process.crash()
    for master, noted in zip(simulation.masters, notes, strict=True):
        master.noted = noted  # the processes have died, not the power
    restore(storage, old)
    return simulation


def begin(simulation: Simulation) -> None:
    """Start everything again."""
    for process in (*simulation.masters, *simulation.storages):
        process.start()


def reason(simulation: Simulation) -> str:
    """Return what recovery waits for."""
    return next(m.core.reason for m in simulation.masters if m.alive and m.core.is_primary)


def waits_for_an_operator(seed: int, name: str) -> None:
    """With one or two masters: the other copy has everything, and a person must say so."""
    simulation = restored(seed, name, seed % 2)
    world = simulation.world
    old, other = simulation.storages[seed % 2], simulation.storages[1 - seed % 2]
    begin(simulation)
    for _ in range(4):  # each time it is given another epoch, which is a record in its log
        world.run(5.0)
        old.crash()
        old.start()
    world.run(20.0)
    assert not simulation.primaries(), f"seed={seed}: it goes on as if nothing had happened"
    assert "older than masters know" in reason(simulation)
    operator = Operator(simulation, other)
    assert operator.run(WAIT_S)
    assert operator.told is not None
    assert operator.told.older == (old.node,)
    assert not operator.told.stale
    simulation.begin_scripts()
    assert operator.readmit(old.node, WAIT_S)
    simulation.rest()


@pytest.mark.parametrize("name", ["pair_1rep", "one_1rep"])
@pytest.mark.parametrize("seed", range(4))
def test_recovery_waits_and_nothing_is_lost_with_the_other_copy(name: str, seed: int) -> None:
    waits_for_an_operator(seed, name)


@pytest.mark.parametrize("seed", range(6))
def test_a_majority_of_masters_goes_on_without_the_old_disk(seed: int) -> None:
    simulation = restored(seed, "m3_pair", seed % 2)
    begin(simulation)
    assert simulation.world.run(WAIT_S, lambda: bool(simulation.primaries())), reason(simulation)
    (primary,) = simulation.primaries()
    assert simulation.storages[seed % 2].node not in primary.core.pt.readable_nodes()
    simulation.begin_scripts()
    simulation.rest()


@pytest.mark.parametrize("seed", range(4))
def test_without_another_copy_an_operator_may_go_on_with_the_old_disk(seed: int) -> None:
    """What is missing is named; it never comes back."""
    simulation = restored(seed, "alone")
    (storage,) = simulation.storages
    begin(simulation)
    simulation.world.run(20.0)
    assert not simulation.primaries()
    kept = kept_by(simulation, storage)
    lost = set(simulation.oracle.view[simulation.oracle.running]) - kept
    operator = Operator(simulation, storage, stale=True)
    simulation.oracle.give_up(kept, storage.core.image.voted)
    assert operator.run(WAIT_S)
    assert operator.told is not None
    assert lost
    assert {d.ttid for d in operator.told.decisions} == lost
    simulation.begin_scripts()
    simulation.rest()


@pytest.mark.parametrize("seed", range(4))
def test_an_old_disk_that_comes_into_a_running_cluster_copies_what_it_lacks(seed: int) -> None:
    simulation = Simulation(seed, SCENARIOS["pair_1rep"])
    world = simulation.world
    simulation.start()
    storage = simulation.storages[0]
    old = copied(storage)
    simulation.begin_scripts()
    simulation.rest()
    storage.crash()
    assert world.run(WAIT_S, lambda: storage.node not in simulation.primary_table().readable_nodes())
    restore(storage, old)
    storage.start()
    simulation.begin_scripts()
    simulation.rest()
    assert simulation.primaries()[0].core.state is ClusterState.RUNNING


def trust(seed: int) -> None:
    """Go on as if nothing had happened."""
    simulation = restored(seed, "pair_1rep", seed % 2)
    begin(simulation)
    simulation.begin_scripts()
    simulation.rest()


@pytest.mark.parametrize("seed", range(4))
def test_an_old_disk_that_is_trusted_is_noticed(seed: int) -> None:
    """The planted bug: without the comparison the checker finds a commit lost, or copies that differ."""
    with planted(MUTATIONS["old_disk_trusted"]), pytest.raises(AssertionError, match="invariant"):
        trust(seed)
