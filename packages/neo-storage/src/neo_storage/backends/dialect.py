"""How the logical schema and its statements are written for one kind of database. Pure.

Statements are written once (`statements.py`), with numbered parameters `?1`, `?2`, names that some database reserves
in double quotes, and nothing else that databases disagree about: that is asked of the dialect.
"""

import re
from typing import NamedTuple, Protocol

from neo_storage.backends.logical import Column, Kind, Table


class Statement(NamedTuple):
    """A statement as its driver wants it. `order`: which argument each placeholder takes; () is: as they come."""

    text: str
    order: tuple[int, ...] = ()


class Many(NamedTuple):
    """A statement about any number of rows: `head`, then `row` as often as there are rows, commas or what is in
    `between` between them, then `tail`. With one row it is a statement for `executemany` too."""

    head: str
    row: str
    tail: str
    between: str = ", "

    @property
    def single(self) -> str:
        """The statement for one row."""
        return self.head + self.row + self.tail


class Scan(NamedTuple):
    """A walk in the order of a key, the first column; its first two arguments are the ends of the walk (included).

    Where a walk cannot be broken off cheaply it goes in pages: `page` has the most rows as its last argument.
    """

    rows: Statement
    page: Statement
    is_up: bool = True


class Dialect(Protocol):
    """What databases disagree about."""

    def statement(self, text: str) -> Statement:
        """Return *text*, with `?1`, `?2`..., for the driver."""

    def table(self, name: str, alias: str, index: str) -> str:
        """Return `name alias`, read through *index* (PRIMARY: its key) whatever the planner believes."""

    def removal(self, name: str, index: str) -> str:
        """Return the beginning of a DELETE, before WHERE, that finds the rows through *index* likewise."""

    def insert(self, table: Table) -> Many:
        """Return what inserts rows, in the order of columns, and leaves those alone that are there (by their key)."""

    def replace(self, table: Table, largest: str = "") -> Many:
        """Return what inserts rows, or replaces those of the same key; of column *largest* the larger one stays."""

    def add(self, table: Table) -> Many:
        """Return what inserts rows that cannot be there."""

    def delete(self, table: Table, columns: tuple[str, ...], unless: str = "") -> Many:
        """Return what deletes the rows that have such *columns*, unless a condition on `table.column` holds."""

    def create(self, table: Table) -> list[str]:
        """Return the statements that make *table* and its indexes."""

    def add_column(self, table: Table, column: Column) -> str:
        """Return the statement that gives *table* one more column, not of MIXED kind, without values."""


_PARAMETER = re.compile(r"\?(\d+)")


def pyformat(text: str) -> Statement:
    """Return *text* with `%s` for each parameter.

    >>> pyformat("SELECT 7 % ?2 FROM t WHERE a = ?1 AND b = ?2")
    Statement(text='SELECT 7 %% %s FROM t WHERE a = %s AND b = %s', order=(1, 0, 1))
    """
    order = tuple(int(n) - 1 for n in _PARAMETER.findall(text))
    return Statement(_PARAMETER.sub("%s", text.replace("%", "%%")), order)


def quoted(name: str) -> str:
    """Return *name* as an identifier: some of ours are words of SQL."""
    return f'"{name}"'


def listed(names: tuple[str, ...], prefix: str = "") -> str:
    """Return *names* as identifiers, with commas.

    >>> listed(("partition", "tid"), "obj.")
    'obj."partition", obj."tid"'
    """
    return ", ".join(prefix + quoted(name) for name in names)


def single_typed(table: Table) -> tuple[Column, ...]:
    """Return the columns of *table* where a column has one type: MIXED becomes `number` and `value`."""
    found = list[Column]()
    for column in table.columns:
        if column.kind == Kind.MIXED:
            found += [Column("number", is_null=True), Column(column.name, Kind.BYTES, is_null=True)]
        else:
            found.append(column)
    return tuple(found)
