"""Whole clusters of real cores under faults: safety at every moment, liveness once faults stop.

A seed that fails prints how to see it. What a failing seed has taught stands in `test_seeds.py`.
"""

from __future__ import annotations

import pytest

from support.scenarios import SCENARIOS
from support.simulation import Simulation
from support.soak import attempt, story

CALM_SEEDS = range(3)
FAULT_SEEDS = range(30)
SOAK_SEEDS = range(1000, 1400)


def run(name: str, seed: int, fault_count: int) -> Simulation:
    """Run one seed; a failure says how to repeat it, and how it ended."""
    simulation, error = attempt(name, seed, fault_count)
    if error is not None:
        again = f"python -m support.soak --scenario {name} --seed {seed} --faults {fault_count}"
        pytest.fail(f"{error}\n{again}\n{story(simulation, 40)}")
    return simulation


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scripts_come_to_their_end_without_faults(name: str) -> None:
    for seed in CALM_SEEDS:
        simulation = run(name, seed, 0)
        if simulation.importer is not None:
            assert simulation.importer.outcomes == ["copied"]
        clients = [c for c in simulation.clients if c is not simulation.importer]
        for client, script in zip(clients, SCENARIOS[name].clients, strict=True):
            own = client.outcomes[-len(script) :]
            assert len(own) == len(script)
            assert "unknown" not in own


@pytest.mark.parametrize("name", ["pair_1rep", "tiny_2rep"])
def test_no_cell_is_put_out_of_date_while_storages_dial_each_other_first(name: str) -> None:
    for seed in range(20):
        simulation = Simulation(seed, SCENARIOS[name], calm=True)
        simulation.start()
        assert simulation.primary_table().version.ptid == 1, seed


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_invariants_hold_under_faults(name: str) -> None:
    reads = 0
    for seed in FAULT_SEEDS:
        reads += run(name, seed, 1 + seed % 5).oracle.reads
    assert reads, "the oracle has seen nothing"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_invariants_hold_in_long_runs(name: str) -> None:
    for seed in SOAK_SEEDS:
        run(name, seed, 1 + seed % 8)


def test_one_seed_has_one_history() -> None:
    first, _ = attempt("mixed", 5, 4)
    second, _ = attempt("mixed", 5, 4)
    assert [repr(e) for e in first.world.history] == [repr(e) for e in second.world.history]
    assert len(first.world.history) > 300


def test_other_seeds_have_other_histories() -> None:
    first, _ = attempt("mixed", 5, 4)
    second, _ = attempt("mixed", 6, 4)
    assert [repr(e) for e in first.world.history] != [repr(e) for e in second.world.history]
