"""An operator goes on with a storage that is behind. What was chosen is what exists, and nobody's else is mixed in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neo_client.core.client import ClientCore
from neo_common.ids import NO_TID, Partition
from neo_common.model.orders import Orders
from neo_common.model.partition_table import EMPTY, PartitionTable
from neo_common.states import ClusterState
from neo_master.core.choices import Choices
from neo_master.core.recovery import Recovery
from neo_master.core.underway import Chosen
from support.application import Step
from support.choosing import Operator, kept_by
from support.scenarios import SCENARIOS
from support.simulation import Simulation
from support.world import Process

WAIT_S = 120.0


def are_done(simulation: Simulation) -> bool:
    """Whether every client is through its script."""
    return all(c.step is Step.DONE for c in simulation.clients)


def diverged(seed: int, name: str) -> Simulation:
    """Return a cluster of which only S1 is left, which was away while S2 went on."""
    simulation = Simulation(seed, SCENARIOS[name], packs=False, pieces=False, early=False)
    simulation.start()
    simulation.begin_scripts()
    simulation.rest()
    first, second = simulation.storages
    first.crash()
    world = simulation.world
    assert world.run(WAIT_S, lambda: first.node not in simulation.primary_table().readable_nodes())
    simulation.begin_scripts()
    assert world.run(WAIT_S, lambda: are_done(simulation))
    for process in (*simulation.masters, second):
        process.crash()
    survivors = simulation.masters if seed % 2 else simulation.masters[:1]
    first.start()
    kept = kept_by(simulation, first)
    simulation.oracle.give_up(kept, first.core.image.voted)
    for master in survivors:
        master.start()
    return simulation


def crash_sometime(simulation: Simulation, number: int) -> None:
    """Let the survivor, or whoever is primary, die after some more effects, and come back."""
    victims: list[Process] = [simulation.storages[0], *(m for m in simulation.masters if m.alive)]
    victim = victims[number % len(victims)]
    victim.crash_countdown = 1 + number // len(victims)
    victim.restart_delay_s = 0.3


def run(seed: int, name: str, crash: int | None = None) -> Operator:
    """Choose, with a crash at that point; let the other storage come back; end with all well."""
    simulation = diverged(seed, name)
    world = simulation.world
    first, second = simulation.storages
    operator = Operator(simulation, first)
    world.run(3.0)
    if crash is not None:
        crash_sometime(simulation, crash)
    assert operator.run(WAIT_S), f"seed={seed} crash={crash}: it does not run"
    assert operator.chosen
    table = simulation.primaries()[0].core.pt
    assert table.orders.line
    assert set(table.orders.line) <= set(operator.chosen)
    assert table.readable_nodes() == {first.node}

    for master in simulation.masters:
        if not master.alive:
            master.start()
    assert world.run(WAIT_S, operator.have_masters_heard), f"seed={seed} crash={crash}: a master has not heard of it"
    second.start()
    world.run(10.0)
    assert_left_behind(simulation)
    everybody = (*simulation.masters, first, second)
    assert world.run(WAIT_S, lambda: all(p.alive for p in everybody))
    for process in everybody:  # power; the survivor is the last to come back
        process.crash_countdown = process.restart_delay_s = None
        process.crash()
    for process in (*simulation.masters, second):
        process.start()
    world.run(20.0)
    assert not simulation.primaries(), f"seed={seed} crash={crash}: what was given up has come back"
    assert_left_behind(simulation)
    first.start()
    assert world.run(WAIT_S, lambda: bool(simulation.primaries()))
    simulation.begin_scripts()
    world.run(1.0)
    assert operator.readmit(second.node, WAIT_S)
    simulation.rest()
    return operator


def assert_left_behind(simulation: Simulation) -> None:
    """Nothing of the new line has reached the storage that was left behind, and nothing of it has been taken."""
    second = simulation.storages[1]
    assert second.core.image.table.orders == Orders()
    for primary in simulation.primaries():
        assert second.node not in primary.core.adopted
        assert second.node not in primary.core.pt.readable_nodes()


@pytest.mark.parametrize("name", ["pair_1rep", "m3_pair"])
@pytest.mark.parametrize("seed", range(6))
def test_what_was_chosen_is_what_exists(name: str, seed: int) -> None:
    operator = run(seed, name)
    assert len(operator.chosen) == 1
    told = operator.told
    assert told is not None
    assert len(told.missing) == 1


@pytest.mark.parametrize("name", ["one_1rep", "m3_tiny"])
def test_a_crash_at_any_point_leaves_a_choice_or_none(name: str) -> None:
    for crash in range(0, 90, 3):
        run(crash % 2, name, crash)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["one_1rep", "pair_1rep", "m3_tiny", "m3_pair"])
@pytest.mark.parametrize(
    "seed", [pytest.param(0, marks=pytest.mark.slow), *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 4))]
)
def test_a_crash_at_every_point_leaves_a_choice_or_none(name: str, seed: int) -> None:
    for crash in range(120):
        run(seed, name, crash)


@pytest.mark.parametrize("seed", range(4))
def test_a_partition_that_is_gone_begins_empty_and_the_others_are_as_they_were(seed: int) -> None:
    simulation = Simulation(seed, SCENARIOS["pair_0rep"])
    simulation.start()
    simulation.begin_scripts()
    simulation.rest()
    world = simulation.world
    first, second = simulation.storages
    second.crash("its disk is lost")
    world.observers.remove(simulation._observe)  # half of what was committed is lost, as it shall be
    table = first.core.image.table
    mine = [p for p in map(Partition, range(2)) if first.node in table.readable(p)]
    before = {p: dict(first.disk.backend.state.cells.get(p, {})) for p in mine}
    operator = Operator(simulation, first, empty=True)
    assert world.run(WAIT_S, lambda: not simulation.primaries() or operator.begin())
    assert operator.run(WAIT_S)
    assert operator.told is not None
    assert set(operator.told.lost) == set(range(2)) - set(mine)
    for p in map(Partition, range(2)):
        cell = {oid: revisions for oid, revisions in first.disk.backend.state.cells.get(p, {}).items() if revisions}
        assert cell == (before[p] if p in mine else {})
    (primary,) = simulation.primaries()
    assert primary.core.state is ClusterState.RUNNING
    assert primary.core.last > NO_TID


# ---------------------------------------------------------------------------------------------- planted bugs


def without_line(core: Choices, chosen: Chosen) -> PartitionTable:
    """Make the table, and forget that it was chosen."""
    table = TRUE_TABLE(core, chosen)
    return table.changed(table.version, {}, orders=Orders())


def newest_of_storages(core: Recovery) -> PartitionTable:
    """Believe in no register of a minority, not even in one that carries a choice."""
    tables = [r.table.apply(EMPTY) for _, r in sorted(core.all_replies().items()) if r.table.partitions]
    return max(tables, key=lambda t: t.version, default=EMPTY)


TRUE_TABLE = Choices.chosen_table
BUGS: dict[str, tuple[tuple[type, str, Callable[..., object]], ...]] = {
    "anybody_is_let_in": ((Choices, "is_of_line", lambda *_: True),),
    "no_line_is_begun": ((Choices, "chosen_table", without_line),),
    # Each of these two alone keeps what was given up from coming back.
    "masters_forget_the_choice": (
        (Recovery, "newest_table", newest_of_storages),
        (Choices, "why_torn", lambda *_: ""),
    ),
    "caches_are_kept": ((ClientCore, "_is_of_other_line", lambda *_: False),),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for of, method, bug in BUGS[name]:
        monkeypatch.setattr(of, method, bug)
    with pytest.raises(AssertionError):
        hunt()


def hunt() -> None:
    """Choose until something is wrong."""
    for seed in range(12):
        run(seed, ("pair_1rep", "one_1rep", "m3_pair")[seed % 3])
