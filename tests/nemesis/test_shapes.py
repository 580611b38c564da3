"""Clusters of several shapes under load and the faults of a seed: nothing acknowledged is lost or mixed up.

A failure prints its seed and faults; `python -m support.nemesis --shape S --seed N` in `tests/` gives the same again.
`NEO_NEMESIS_SEED` in the environment chooses another seed.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.nemesis.run import Run
from support.nemesis.schedule import Shape
from support.zygote import Zygote

SECONDS = 25.0
SEED = int(os.environ.get("NEO_NEMESIS_SEED", "1"))
SHAPES = [
    Shape(1, 1, 0),
    Shape(1, 3, 1),
    Shape(3, 1, 0),
    Shape(3, 3, 1),
    Shape(3, 4, 2),
    Shape(1, 3, 1, ("mariadb", "postgresql")),
    Shape(1, 2, 1, ("managed",)),
]
MEMORY_MAX_KB = 128 * 1024
FILES_MAX = 100

pytestmark = [pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    parent = Zygote()
    yield parent
    parent.close()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nothing_is_lost_or_mixed_up(shape: Shape, zygote: Zygote, tmp_path: Path) -> None:
    report = Run(tmp_path / "run", shape, SEED, SECONDS, zygote)()
    assert not report.wrong, "\n".join(report.wrong)
    for name, (_, (memory_kb, files)) in report.resources.items():
        assert memory_kb < MEMORY_MAX_KB, f"{name} holds {memory_kb} kB"
        assert files < FILES_MAX, f"{name} has {files} files open"
