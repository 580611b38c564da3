"""ZODB's suites: two storages with all partitions, both on MariaDB; plain threads."""

import pytest

from support.zodb_cases import CASES, make
from support.zodb_clusters import MARIADB

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(MARIADB, *CASES))
