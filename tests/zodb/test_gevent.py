"""ZODB's suites under gevent's monkey patching: a process for each, because patching is for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.zodb_cases import CASES, DatabaseCase, RecoveryCase, StorageCase

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROGRAM = Path(__file__).parents[1] / "support" / "zodb_green.py"


DIRECT = (StorageCase, DatabaseCase, RecoveryCase)


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
@pytest.mark.parametrize("shape", ["ONE", "TWO", "COPIES"])
def test_suite_passes_under_gevent(shape: str, case: str) -> None:
    run(shape, case)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case.__name__, marks=() if case in DIRECT else pytest.mark.soak) for case in CASES],
)
def test_suite_passes_under_gevent_on_servers(case: str) -> None:
    """One copy on MariaDB, one on PostgreSQL; those of wrappers in `make soak`."""
    run("MIXED", case)


def run(shape: str, case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), shape, case], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    before, rule, failures = done.stdout.partition("=" * 70)
    assert done.returncode == 0, (rule + failures if failures else before)[:8000]
