"""`python -P zodb_green.py SHAPE CASE`: ZODB's suites in a process under gevent's monkey patching."""

# ruff: noqa: E402, T201 - patching comes before the other imports; a program that prints

from gevent import monkey

monkey.patch_all()

import gc
import sys
import unittest
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import greenlet

from support import zodb_cases, zodb_clusters


def main(shape: str, case: str) -> int:
    """Run all tests of a case; return the exit status."""
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", ResourceWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    found = zodb_cases.make(getattr(zodb_clusters, shape), getattr(zodb_cases, case))
    (cls,) = found.values()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(cls)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    zodb_clusters.Pool.close_all()
    left = _left_behind()
    if left:
        print("left behind:", left, file=sys.stderr)
    return 0 if result.wasSuccessful() and result.testsRun and not left else 1


def _left_behind() -> list[str]:
    """Return the clients' greenlets that are still there after everything was closed."""
    alive = [g for g in gc.get_objects() if isinstance(g, greenlet.greenlet) and not g.dead]
    return [repr(g) for g in alive if "neo_client" in repr(g)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
