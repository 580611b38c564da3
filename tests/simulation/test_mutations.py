"""If no test fell when a rule is broken, the tests would be the bug. Each planted bug must be noticed.

The search begins at the seed that has found it last; when the cores have changed since, other seeds do.
"""

from __future__ import annotations

import pytest

from support.mutations import MUTATIONS
from support.soak import hunt, run_of

RUNS = 250
LONG_RUNS = 20_000
QUICK = sorted(name for name, m in MUTATIONS.items() if not m.is_rare)
RARE = sorted(name for name, m in MUTATIONS.items() if m.is_rare)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_noticed(name: str) -> None:
    assert hunt(name, RUNS, MUTATIONS[name].first_run) is not None, MUTATIONS[name].text


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", RARE)
def test_a_planted_bug_is_noticed_in_long_runs(name: str) -> None:
    if hunt(name, LONG_RUNS, MUTATIONS[name].first_run) is None:
        pytest.xfail(f"never shown to matter yet: {MUTATIONS[name].text}")


@pytest.mark.parametrize("name", QUICK[::4])
def test_the_same_run_without_the_bug_is_well(name: str) -> None:
    """What was noticed is the bug, not the run."""
    found = hunt(name, RUNS, MUTATIONS[name].first_run)
    assert found is not None
    _, error = run_of(name, found.run, is_planted=False)
    assert error is None
