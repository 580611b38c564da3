"""Simulate for as long as wanted: `python -m support.soak --seconds 600` (in tests/). Prints each seed that fails.

python -m support.soak --scenario pair_1rep --seed 17 --faults 3     one run, with the end of its history
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from support.faults import FAULTS, Plan
from support.mutations import MUTATIONS, Mutation
from support.scenarios import SCENARIOS
from support.simulation import Simulation
from support.traces import lines


def attempt(
    name: str,
    seed: int,
    fault_count: int,
    kinds: Sequence[str] = (),
    mutation: Mutation | None = None,
    plan: Plan = (),
    slow: Sequence[str] = (),
    *,
    reads_at_once: bool = True,
    packs: bool | None = None,
    pieces: bool | None = None,
    early: bool | None = None,
) -> tuple[Simulation, BaseException | None]:
    """Run one seed; return the simulation and what was wrong with it."""
    simulation = Simulation(
        seed,
        SCENARIOS[name],
        mutation=mutation,
        slow=slow,
        reads_at_once=reads_at_once,
        packs=packs,
        pieces=pieces,
        early=early,
    )
    try:
        simulation.go(fault_count, kinds, plan)
    except Exception as error:  # noqa: BLE001 - whatever a core raises is a finding
        return simulation, error
    return simulation, None


class Found(NamedTuple):
    """A run in which a planted bug was noticed."""

    run: int
    scenario: str
    error: BaseException


def run_of(name: str, run: int, *, is_planted: bool = True) -> tuple[str, BaseException | None]:
    """Do the *run*-th run of the hunt for the planted bug *name*, or the same without the bug; return its scenario."""
    m = MUTATIONS[name]
    scenario = m.scenarios[run % len(m.scenarios)]
    turn = run // len(m.scenarios)
    planned = m.plan if turn % 4 != 3 else ()
    fault_count = (0, 3, 6, 10)[turn % 4] if not planned else (0, 0, 2)[turn % 3]
    kinds = m.kinds if turn % 2 == 0 else ()
    slow = m.slow if turn % 4 != 2 else ()
    planted = m if is_planted else None
    _, error = attempt(
        scenario, run, fault_count, kinds, planted, planned, slow, packs=m.packs, pieces=m.pieces, early=m.early
    )
    return scenario, error


def hunt(name: str, runs: int, first: int = 0, seconds: float = 1e9) -> Found | None:
    """Look for a run in which the planted bug *name* is noticed; *seconds* of processor time at most."""
    end = time.process_time() + seconds
    for run in range(first, first + runs):
        if time.process_time() > end:
            break
        scenario, error = run_of(name, run)
        if error is not None:
            return Found(run, scenario, error)
    return None


def story(simulation: Simulation, last: int) -> str:
    """Return the end of the history of a run, for people."""
    return "\n".join(lines(simulation.world, simulation.world.history)[-last:])


def mutants(names: Sequence[str], seconds: float, first: int) -> int:
    """Hunt planted bugs; say what has noticed each, and after how many runs."""
    missed = 0
    for name in sorted(MUTATIONS) if "all" in names else names:
        began = time.process_time()
        found = hunt(name, 10**9, first, seconds)
        took = time.process_time() - began
        if found is None:
            missed += 1
            sys.stdout.write(f"{name:27} NOT CAUGHT in {took:.0f} s: {MUTATIONS[name].text}\n")
        else:
            what = str(found.error).partition("\n")[0][:150]
            sys.stdout.write(f"{name:27} run {found.run:4} {found.scenario:10} {took:5.1f} s: {what}\n")
        sys.stdout.flush()
    return missed


def main() -> int:
    """Run; the exit status is 1 when a seed has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), action="append")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--faults", type=int, default=3)
    parser.add_argument("--kinds", default="", help=f"some of {','.join(FAULTS)}")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pieces", action="store_true", help="values in pieces in every run, not in a few")
    parser.add_argument("--early", action="store_true", help="small values stored before the vote in every run")
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--stop", action="store_true", help="at the first failure")
    parser.add_argument("--mutant", action="append", help="plant this bug, or `all` one after the other, and hunt it")
    arguments = parser.parse_args()
    if arguments.mutant:
        return mutants(arguments.mutant, arguments.seconds, arguments.first)
    names = arguments.scenario or sorted(SCENARIOS)
    kinds = tuple(k for k in arguments.kinds.split(",") if k)
    end = time.monotonic() + arguments.seconds
    seed = arguments.first if arguments.seed is None else arguments.seed
    runs = events = transactions = failures = 0
    out = sys.stdout.write
    while arguments.seed is not None or time.monotonic() < end:
        for name in names:
            for fault_count in (arguments.faults,) if arguments.seed is not None else (0, arguments.faults):
                simulation, error = attempt(
                    name, seed, fault_count, kinds, pieces=arguments.pieces or None, early=arguments.early or None
                )
                runs += 1
                events += simulation.world.event_count
                transactions += len(simulation.oracle.committed)
                if error is None and arguments.seed is None:
                    continue
                if error is not None:
                    failures += 1
                    last = "".join(traceback.format_tb(error.__traceback__)[-2:])
                    again = f"--scenario {name} --seed {seed} --faults {fault_count}" + " --pieces" * arguments.pieces
                    again += " --early" * arguments.early
                    out(f"{again}: {type(error).__name__} {error}\n{last}")
                if arguments.seed is not None or arguments.stop:
                    out(story(simulation, arguments.lines) + "\n")
                if arguments.stop and error is not None:
                    return 1
                sys.stdout.flush()
        if arguments.seed is not None:
            break
        seed += 1
    out(f"{runs} runs, {events} events, {transactions} transactions committed, {failures} failures,")
    out(f" seeds {arguments.first} to {seed}\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
