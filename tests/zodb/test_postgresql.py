"""ZODB's suites: two storages on PostgreSQL, each with all partitions (replicas: 1); plain threads."""

import pytest

from support.zodb_cases import CASES, make
from support.zodb_clusters import POSTGRESQL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(POSTGRESQL, *CASES))
