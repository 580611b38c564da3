"""Our storage on MariaDB and PostgreSQL beside RelStorage on PostgreSQL and NEO/py on MariaDB, in one run.

    make bench-databases                     or, when `make servers` was done: python -m benchmarks.databases
    python -m benchmarks.databases --scale 0.2 --runs 1          the short version: some three minutes

All have one client, in a process of its own, with `benchmarks/work.py`; a client and its servers share the machine.
Every figure is the median over the runs, in which the storages take turns, each with fresh servers. What is measured:
    tiny commit   one object with 128 bytes of state; ms, median of a run
    100 x 1 kB    a commit of 100 objects of 1 kB; ms, median of a run
    cold load     a new client with an empty cache loads objects of 128 bytes in random order; us, median of a run
    import        `copyTransactionsFrom` of a FileStorage (transactions of 20 objects of 1 kB); MB/s of values
    iterate       every record of every transaction by `iterator()`; records/s
A peer that cannot be installed here is left out, and said why.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.database_peers import (
    MARIADB,
    NEOPY_NAME,
    POSTGRESQL,
    RELSTORAGE_NAME,
    SQLITE,
    DatabasePeer,
    database_peers,
)
from benchmarks.environments import Unavailable

FIGURES = ("tiny commit ms", "100 x 1 kB ms", "cold load us", "import MB/s", "iterate records/s")
HIGHER_IS_BETTER = {"import MB/s", "iterate records/s"}
WORK_S = 900.0
REST_S = 2.0
"""Between what is stored and its reading: so that the database is read, not what is still on its way there."""

Results = dict[str, dict[str, list[float]]]
"""Storage, figure: a value for each run."""


class Goal(NamedTuple):
    """`ours` is at least `factor` times as good as `theirs`; below 1, it may be that much worse."""

    figure: str
    ours: str
    theirs: str
    factor: float


GOALS = (
    Goal("tiny commit ms", MARIADB, SQLITE, 1 / 1.25),
    Goal("tiny commit ms", POSTGRESQL, SQLITE, 1 / 1.25),
    Goal("tiny commit ms", POSTGRESQL, RELSTORAGE_NAME, 5),
    Goal("tiny commit ms", MARIADB, NEOPY_NAME, 5),
    Goal("cold load us", POSTGRESQL, RELSTORAGE_NAME, 1),
    Goal("100 x 1 kB ms", MARIADB, NEOPY_NAME, 4),
    Goal("import MB/s", MARIADB, NEOPY_NAME, 5),
    Goal("iterate records/s", POSTGRESQL, RELSTORAGE_NAME, 1),
)


def measure(peer: DatabasePeer, python: Path, scale: float) -> dict[str, float]:
    """Return one run's figures; the servers are fresh for each kind of work."""
    figures: dict[str, float] = {}
    for works in (("commit", "fill", "load"), ("bulk",)):
        directory = Path(tempfile.mkdtemp(prefix="bench-"))
        peer.start(directory)
        job: dict[str, Any] = {"open": peer.job(), "scale": scale, "rest_s": REST_S}
        try:
            for work in works:
                found = work_in(python, peer.name, {**job, "work": work})
                if work == "fill":
                    job |= found
                    time.sleep(REST_S)
                else:
                    figures |= found
        finally:
            peer.stop()
            shutil.rmtree(directory)
    return figures


def work_in(python: Path, name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Return what a job gives in a process of its own."""
    command = [str(python), str(Path(__file__).with_name("work.py"))]
    done = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, timeout=WORK_S, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SystemExit(f"{name}: the work {job['work']} has failed:\n    " + "\n    ".join(said[-30:]))
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def better(figure: str, ours: float, theirs: float) -> float:
    """Return how many times as good *ours* is."""
    return ours / theirs if figure in HIGHER_IS_BETTER else theirs / ours


def table(results: Results) -> str:
    """Return medians and spreads as a Markdown table."""
    lines = ["| storage | " + " | ".join(FIGURES) + " |", "|---|" + "---|" * len(FIGURES)]
    for name, figures in results.items():
        cells = []
        for figure in FIGURES:
            values = figures[figure]
            value = statistics.median(values)
            digits = ",.2f" if value < 100 else ",.0f"
            cells.append(f"{value:{digits}} [{min(values):{digits}}-{max(values):{digits}}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(results: Results) -> str:
    """Return what was wanted beside what was found, as a Markdown table."""
    lines = ["| figure | of | as good as | wanted | found |", "|---|---|---|---|---|"]
    median: Callable[[str, str], float] = lambda name, figure: statistics.median(results[name][figure])  # noqa: E731
    for goal in GOALS:
        if goal.ours in results and goal.theirs in results:
            found = better(goal.figure, median(goal.ours, goal.figure), median(goal.theirs, goal.figure))
            word = "" if found >= goal.factor else " **not met**"
            wanted = f"{goal.factor:.2g}x"
            lines.append(f"| {goal.figure} | {goal.ours} | {goal.theirs} | {wanted} | {found:.2f}x{word} |")
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the amounts of work (default 1)")
    parser.add_argument("--only", action="append", help="part of the name of a storage; may be repeated")
    parser.add_argument("--json", type=Path, help="write every figure of every run there")
    arguments = parser.parse_args()
    chosen: list[tuple[DatabasePeer, Path]] = []
    for peer in database_peers():
        if not arguments.only or any(word in peer.name for word in arguments.only):
            try:
                chosen.append((peer, peer.prepare()))
            except Unavailable as error:
                sys.stderr.write(f"{peer.name} is left out: {error}\n")
    results: Results = {peer.name: {figure: [] for figure in FIGURES} for peer, _ in chosen}
    for run in range(arguments.runs):
        for peer, python in chosen:
            figures = measure(peer, python, arguments.scale)
            sys.stderr.write(f"run {run + 1}: {peer.name}: {figures}\n")
            for figure, value in figures.items():
                results[peer.name][figure].append(value)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    sys.stdout.write(f"{table(results)}\n\n{goals(results)}\n")


if __name__ == "__main__":
    main()
