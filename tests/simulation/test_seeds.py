"""What simulation has found. Each run failed once, for the reason beside it.

A seed loses its meaning when a core or the simulator draws another number; then the random runs of `test_clusters`
stand for it, and what can be shown in a few lines has a unit test of the core.
"""

from __future__ import annotations

import pytest

from neo_common.core import Send
from neo_common.wire.schema import Finished
from support.application import Spec, Step
from support.simulation import Scenario, Simulation
from support.soak import attempt
from support.world import Process


@pytest.mark.parametrize(
    ("scenario", "seed", "fault_count"),
    [
        # A join asked for the rest of history under a newer table than the one that began it: the answer was ignored.
        ("ahead", 1, 0),
        ("abort_A", 6, 0),
        ("crowd", 5, 0),
        # A Commit came between what went ahead of a vote and the Sync that names it: the record was not whole.
        ("tiny_2rep", 7, 0),
        # A client was given up while its sealed transaction waited for a ceiling: nobody ended its votes.
        ("rebuild", 500093, 4),
        # A change was begun before the new primary's own promise was on its disk: no master was asked to hold it.
        ("m3_abort_A", 500157, 4),
        # Of the simulator: what it takes from a cell out of date was not told to the checker.
        ("m3_pair", 500087, 4),
        # Of the simulator: it took from a cell whose table, out of date, was not durable yet.
        ("pair_1rep", 500323, 4),
        # An order that waited for a table took the steps of the one after it: a copy went that was still wanted.
        ("rebuild", 85000812, 4),
        # Of the simulator: a client believed a storage that repeated the id which a master had just replaced.
        ("m3_2rep", 20000204, 4),
        # A cell that was no more in use answered what it was asked before: another took it for equal, holes and all.
        ("m3_2rep", 95000511, 4),
        # The lead moved there and back while a value came again: half of that was left, and the vote took the rest.
        ("one_1rep", 95000424, 4),
    ],
)
def test_what_once_failed_does_not(scenario: str, seed: int, fault_count: int) -> None:
    _, error = attempt(scenario, seed, fault_count, early=False)
    assert error is None


@pytest.mark.parametrize(
    ("scenario", "seed", "fault_count"),
    [
        # A cell that was copying when the order came was never packed.
        ("read_1rep", 0, 4),
        # One that had been packed copied what its source had not packed yet: its mark said "done".
        ("one_1rep", 1020, 4),
        # A storage that was away when the pack was promised heard of it by Adopt only, not when all began together.
        ("m3_0rep", 6, 4),
        # A pack was promised while there was no storage.
        ("abort_A", 1007, 4),
        ("alone", 1017, 4),
        # One was promised by a primary whose register no other master held, when it had lost the other storage.
        ("m3_tiny", 95000307, 4),
    ],
)
def test_what_once_failed_with_packs_does_not(scenario: str, seed: int, fault_count: int) -> None:
    _, error = attempt(scenario, seed, fault_count, packs=True, early=False)
    assert error is None


@pytest.mark.parametrize(
    ("scenario", "seed", "fault_count"),
    [
        # An abort overtook pieces of a value: storages took the rest for a gap, and cut their connection.
        ("m3_abort", 100, 0),
        ("m3_pair", 100, 0),
        # What went ahead of a vote that never came stayed for an hour.
        ("alone", 0, 4),
        ("crowd", 103, 0),
    ],
)
def test_what_once_failed_with_values_in_pieces_does_not(scenario: str, seed: int, fault_count: int) -> None:
    _, error = attempt(scenario, seed, fault_count, packs=True, pieces=True)
    assert error is None


def test_what_once_failed_on_slow_databases_does_not() -> None:
    """Two forced orders to drop a storage, given while a table became stable, left a table without cells."""
    _, error = attempt("rebuild", 1158, 6, reads_at_once=False, early=False)
    assert error is None


def test_a_client_that_comes_back_in_a_later_reign_is_told_the_truth() -> None:
    """Finished is lost, the client is away for longer than its grace, others commit, the primary restarts, without its
    notes: only history knows.
    """
    write = Spec(writes=(1,))
    simulation = Simulation(1, Scenario(1, 1, 0, ((Spec(writes=(0,)),), (write, write)), 2, masters=1), calm=True)
    world = simulation.world
    first, second = simulation.clients
    primary = simulation.masters[0]
    simulation.start()

    def lose_the_answer(process: Process, effect: object) -> None:
        if isinstance(effect, Send) and isinstance(effect.packet, Finished) and effect.peer == first.node:
            connection = primary.connections.get(first.node)
            if connection is not None and not world.is_blocked("M1", "C1"):
                world.block("M1", "C1")
                world.block("C1", "M1")
                connection.cut("cut", (0.0, 0.0), (0.01, 0.01))

    world.observers.append(lose_the_answer)
    first.run_script([Spec(writes=(0,))])
    world.run(1.0)
    world.observers.remove(lose_the_answer)
    assert first.step is Step.FINISHING
    world.run(10.0)
    second.run_script([write, write])
    world.run(10.0)
    primary.restart_delay_s = 0.1
    primary.crash()
    primary.noted.clear()
    simulation.rest()
    assert first.outcomes[-1] == "committed"
