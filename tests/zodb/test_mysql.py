"""ZODB's suites: two storages with all partitions, both on MySQL where there is one; plain threads.

`make test` runs two of the suites, `make soak` the others: what is above the back ends is the same as on MariaDB.
"""

import pytest

from support.server_kinds import KINDS
from support.zodb_cases import CASES, DatabaseCase, RecoveryCase, make
from support.zodb_clusters import MYSQL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
SHORT = (RecoveryCase, DatabaseCase)
if "mysql" in KINDS:
    globals().update(make(MYSQL, *SHORT))
    others = make(MYSQL, *(case for case in CASES if case not in SHORT))
    globals().update({name: pytest.mark.soak(case) for name, case in others.items()})
