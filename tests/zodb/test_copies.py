"""ZODB's suites: two storages, each with all partitions (replicas: 1); plain threads."""

import pytest

from support.zodb_cases import CASES, make
from support.zodb_clusters import COPIES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(COPIES, *CASES))
