"""See `run`. Without a seed: seeds from --first on, every shape in turn, until --seconds-in-all have passed."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from support.nemesis.run import Run, parse_shape
from support.nemesis.schedule import KINDS, Shape
from support.zygote import Zygote

SHAPES = (
    Shape(1, 1, 0),
    Shape(1, 3, 0),
    Shape(1, 3, 1),
    Shape(1, 4, 1),
    Shape(3, 1, 0),
    Shape(3, 3, 1),
    Shape(3, 3, 2),
    Shape(3, 4, 2),
    Shape(1, 2, 0, ("mariadb", "postgresql")),
    Shape(3, 3, 1, ("mariadb", "postgresql")),
    Shape(1, 2, 1, ("managed",)),
)


def main() -> int:
    """Run; return 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m support.nemesis", description=__doc__)
    parser.add_argument("--shape", type=parse_shape, action="append", help="e.g. 1m-3s-1r; default: all in turn")
    parser.add_argument("--seed", type=int, help="one run with this seed")
    parser.add_argument("--seconds", type=float, default=30.0, help="of faults, in each run")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seconds-in-all", type=float, default=3600.0)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these faults")
    parser.add_argument("--keep", type=Path, help="a folder for the files of the runs that fail")
    options = parser.parse_args()
    shapes = options.shape or SHAPES
    zygote = Zygote()
    until = time.monotonic() + options.seconds_in_all
    failed = []
    seed = options.first if options.seed is None else options.seed
    try:
        while True:
            shape = shapes[seed % len(shapes)]
            path = Path(tempfile.mkdtemp(prefix=f"neo-nemesis-{shape}-{seed}-", dir=options.keep))
            run = Run(path / "run", shape, seed, options.seconds, zygote, kinds=options.kind or KINDS)
            try:
                wrong = run().wrong
            except AssertionError as error:
                wrong = [str(error)]
            for text in wrong:
                print(f"WRONG (shape {shape}, seed {seed}): {text}", flush=True)  # noqa: T201
            for name, (before, after) in run.report.resources.items():
                print(f"  {name}: {before[0]} -> {after[0]} kB, {before[1]} -> {after[1]} files", flush=True)  # noqa: T201
            if wrong:
                failed.append((shape, seed))
            if not (wrong and options.keep):
                shutil.rmtree(path)
            seed += 1
            if options.seed is not None or time.monotonic() > until:
                break
    finally:
        zygote.close()
    print("wrong: " + (", ".join(f"--shape {shape} --seed {seed}" for shape, seed in failed) or "nothing"))  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
