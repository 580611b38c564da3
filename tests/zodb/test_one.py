"""ZODB's suites: one storage; plain threads."""

import pytest

from support.zodb_cases import CASES, make
from support.zodb_clusters import ONE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
globals().update(make(ONE, *CASES))
