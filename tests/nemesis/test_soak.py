"""Hours of nemesis: every shape, seeds that nobody has seen, and daemons that must not grow.

`make soak` runs it. `NEO_SOAK_SECONDS` in the environment says how long (two hours), `NEO_NEMESIS_SEED` the first seed.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.nemesis.__main__ import SHAPES
from support.nemesis.run import Run
from support.nemesis.schedule import Shape
from support.zygote import Zygote

SECONDS = float(os.environ.get("NEO_SOAK_SECONDS", "7200"))
FIRST_SEED = int(os.environ.get("NEO_NEMESIS_SEED", str(int(time.time()))))
RUN_S = 60.0
LONG_S = 900.0
GROWTH_MAX_KB = 48 * 1024
"""How much more memory a daemon may hold at the end of a long run; its caches fill in the first minutes."""
FILES_GROWTH_MAX = 20

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    parent = Zygote()
    yield parent
    parent.close()


def test_no_seed_loses_or_mixes_up_anything(zygote: Zygote, tmp_path: Path) -> None:
    until, seed, wrong = time.monotonic() + SECONDS, FIRST_SEED, []
    while time.monotonic() < until:
        shape = SHAPES[seed % len(SHAPES)]
        report = Run(tmp_path / str(seed), shape, seed, RUN_S, zygote)()
        wrong += [f"--shape {shape} --seed {seed} --seconds {RUN_S:g}: {text}" for text in report.wrong]
        seed += 1
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("shape", [Shape(1, 1, 0), Shape(3, 3, 1)], ids=str)
def test_daemons_do_not_grow(shape: Shape, zygote: Zygote, tmp_path: Path) -> None:
    """Only links are disturbed: the same processes run from beginning to end."""
    kinds = ("cut", "half", "isolate", "reset", "slow", "pause", "kill-client", "pause-client")
    report = Run(tmp_path / "run", shape, FIRST_SEED, LONG_S, zygote, kinds=kinds)()
    assert not report.wrong, "\n".join(report.wrong)
    for name, ((memory_before, files_before), (memory, files)) in report.resources.items():
        print(f"{name}: {memory_before} -> {memory} kB, {files_before} -> {files} files")  # noqa: T201  the report
        assert memory - memory_before < GROWTH_MAX_KB, name
        assert files - files_before < FILES_GROWTH_MAX, name
