"""The statements of the PostgreSQL back end. Pure.

Reads of one revision are prepared, once per connection: planning takes longer than they do.
"""

from typing import Final

from neo_storage.backends.dialect import Statement
from neo_storage.backends.postgresql.schema import DIALECT, PreparedDialect
from neo_storage.backends.statements import Statements

_PREPARED: Final = Statements(PreparedDialect())
QUERIES: Final = Statements(DIALECT)

PREPARE: Final = (
    f"PREPARE neo_current (bigint, bigint) AS {_PREPARED.current.text}",
    f"PREPARE neo_load (bigint, bigint, bigint) AS {_PREPARED.load.text}",
    f"PREPARE neo_trans (bigint, bigint) AS {_PREPARED.trans.text}",
    f"PREPARE neo_revisions (bigint, bigint) AS {_PREPARED.revisions.text}",
)
"""For each new connection."""

QUERIES.current = Statement("EXECUTE neo_current (%s, %s)", (0, 1))
QUERIES.load = Statement("EXECUTE neo_load (%s, %s, %s)", (0, 1, 2))
QUERIES.trans = Statement("EXECUTE neo_trans (%s, %s)", (0, 1))
QUERIES.revisions = Statement("EXECUTE neo_revisions (%s, %s)", (0, 1))
