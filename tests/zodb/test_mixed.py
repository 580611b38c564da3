"""ZODB's suites: two storages with all partitions, one on MariaDB, the other on PostgreSQL; plain threads."""

import pytest

from support.zodb_cases import CASES, make
from support.zodb_clusters import MIXED

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(MIXED, *CASES))
