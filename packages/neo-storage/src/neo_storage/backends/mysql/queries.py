"""The statements of the MariaDB back end. Pure.

mysqlclient has no prepared statements, but MariaDB's SQL has: parsing and the first half of planning are then done once
per connection (a load of 79 us takes 65). MySQL's EXECUTE takes no values, so there they are sent whole.
"""

from typing import Final

from neo_storage.backends.mysql.schema import DIALECT
from neo_storage.backends.statements import Statements

QUERIES: Final = Statements(DIALECT)

_NAMES: Final = ("current", "load", "load_short", "piece", "trans", "revisions", "copy", "copy_trans")
PREPARE: Final = tuple(
    "PREPARE neo_{} FROM '{}'".format(name, text.replace("%s", "?").replace("%%", "%").replace("'", "''"))
    for name in _NAMES
    for text in (getattr(QUERIES, name).text,)
)
"""For each new connection to a server that can."""
EXECUTE: Final[dict[str, str]] = {
    statement.text: f"EXECUTE neo_{name} USING {', '.join(['%s'] * len(statement.order))}"
    for name in _NAMES
    for statement in (getattr(QUERIES, name),)
}
"""Text of a statement, and what runs it prepared, with the same arguments."""
