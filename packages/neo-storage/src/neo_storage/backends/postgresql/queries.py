"""The statements of the PostgreSQL back end. Pure.

What is read often is prepared, once per connection: planning takes longer than a read of one revision.
"""

from typing import Final

from neo_storage.backends.dialect import Statement
from neo_storage.backends.postgresql.schema import DIALECT, PreparedDialect
from neo_storage.backends.statements import Statements

_PREPARED: Final = Statements(PreparedDialect())
QUERIES: Final = Statements(DIALECT)

# Their parameters are numbers, all of them. Of scans, the pages.
_STATEMENTS: Final = (
    "current",
    "load",
    "trans",
    "revisions",
    "copy",
    "copy_trans",
    "history",
    "piece",
    "undo_revisions",
)
_SCANS: Final = ("trans_up", "trans_down", "trans_one_up", "trans_one_down", "records")

# The sum keeps the planner from using the array to find rows: they would come in another order, and be sorted.
_HEADS: Final = """
SELECT DISTINCT ON (tid) tid, session, counter, "user", description, extension, parts FROM trans
 WHERE tid BETWEEN ?1 AND ?2 AND "partition" + 0 = ANY (?3::bigint[])
 ORDER BY tid{order}, "partition"{order} LIMIT ?4"""
QUERIES.heads_up = DIALECT.statement(_HEADS.format(order=""))
QUERIES.heads_down = DIALECT.statement(_HEADS.format(order=" DESC"))


def _prepare(name: str, bound: Statement, text: str) -> tuple[str, Statement]:
    """Return what prepares *text* as `neo_{name}`, and what runs it, with the arguments of *bound*."""
    count = 1 + max(bound.order)
    marks, types = ", ".join(["%s"] * count), ", ".join(["bigint"] * count)
    return f"PREPARE neo_{name} ({types}) AS {text}", Statement(f"EXECUTE neo_{name} ({marks})", tuple(range(count)))


def _all() -> tuple[str, ...]:
    """Have QUERIES run prepared statements; return what prepares them."""
    texts = []
    for name in _STATEMENTS:
        text, statement = _prepare(name, getattr(QUERIES, name), getattr(_PREPARED, name).text)
        setattr(QUERIES, name, statement)
        texts.append(text)
    for name in _SCANS:
        scan = getattr(QUERIES, name)
        text, statement = _prepare(name, scan.page, getattr(_PREPARED, name).page.text)
        setattr(QUERIES, name, scan._replace(page=statement))
        texts.append(text)
    return tuple(texts)


PREPARE: Final = _all()
"""For each new connection."""
