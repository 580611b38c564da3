"""ZODB's suites: two storages, each with half of the partitions; plain threads."""

import pytest

from support.zodb_cases import CASES, make
from support.zodb_clusters import TWO

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(TWO, *CASES))
