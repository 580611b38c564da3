"""ZODB's suites while one of two storages is killed and restarted all the time; plain threads.

`make test` runs the cases that use a storage or a database directly, `make soak` those of wrappers too.
"""

from collections.abc import Iterator

import pytest

from support.zodb_cases import CASES, DatabaseCase, RecoveryCase, StorageCase, make
from support.zodb_disturbed import DISTURBED, DisturbedCluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
DIRECT = (StorageCase, DatabaseCase, RecoveryCase)
MANY = 20

globals().update(make(DISTURBED, *DIRECT))
for name, case in make(DISTURBED, *(case for case in CASES if case not in DIRECT)).items():
    globals()[name] = pytest.mark.soak(case)


@pytest.fixture(autouse=True, scope="module")
def _disturbed() -> Iterator[None]:
    """They were indeed disturbed: a kill for every second of them, at least; many are over in a moment."""
    yield
    tests, kills = DisturbedCluster.ended, DisturbedCluster.kills
    assert 2 * kills >= tests or tests < MANY, f"{kills} kills in {tests} tests"
