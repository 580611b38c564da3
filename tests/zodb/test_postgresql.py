"""Some of ZODB's suites: two storages on PostgreSQL, each with all partitions (`test_mixed.py` runs all of them)."""

import pytest

from support.zodb_cases import DatabaseCase, ExternalGCCase, RecoveryCase, make
from support.zodb_clusters import POSTGRESQL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(POSTGRESQL, DatabaseCase, ExternalGCCase, RecoveryCase))
