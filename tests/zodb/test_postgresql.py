"""ZODB's suites: two storages with all partitions, both on PostgreSQL; plain threads."""

import pytest

from support.zodb_cases import CASES, make
from support.zodb_clusters import POSTGRESQL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(POSTGRESQL, *CASES))
