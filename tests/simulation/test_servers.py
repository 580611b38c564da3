"""The same clusters on databases that take their time to answer, as servers do: votes and loads wait for reads.

Each read sees the database at one random moment and is answered at a later one, so that commits, removals, copies and
table changes come before, between and after. The oracle, as always, has its own idea of the truth.
"""

import pytest

from support.scenarios import SCENARIOS
from support.soak import attempt, story

FAULT_SEEDS = range(6)
SOAK_SEEDS = range(1000, 1400)


def run(name: str, seed: int, fault_count: int) -> int:
    """Run one seed; return how many reads of clients the oracle has checked."""
    simulation, error = attempt(name, seed, fault_count, reads_at_once=False)
    if error is not None:
        pytest.fail(f"{error}\nscenario {name} seed {seed} faults {fault_count}\n{story(simulation, 40)}")
    return simulation.oracle.reads


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_invariants_hold_when_reads_take_time(name: str) -> None:
    assert sum(run(name, seed, seed % 6) for seed in FAULT_SEEDS), "the oracle has seen nothing"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_invariants_hold_in_long_runs_when_reads_take_time(name: str) -> None:
    for seed in SOAK_SEEDS:
        run(name, seed, seed % 8)
