"""One connection to a database as the parts that all back ends share use it: reader, writer, removal. Pure.

A back end implements it with its driver. Nothing here begins or ends a transaction: the caller does, by `transaction`
or `snapshot`. Errors of the driver come out as BackendError and below, from those two.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from neo_common.ids import Partition
from neo_storage.backends.dialect import Many, Scan, Statement
from neo_storage.backends.statements import Statements

Row = tuple[Any, ...]
"""A row, as the driver makes it; each statement's own columns. Any: numbers, bytes, None."""


class Database(Protocol):
    """A connection, used by one thread at a time."""

    statements: Statements

    def one(self, statement: Statement, arguments: Sequence[object] = ()) -> Row | None:
        """Return the first row, None if there is none."""

    def rows(self, statement: Statement, arguments: Sequence[object] = ()) -> list[Row]:
        """Return all rows: of statements that give few."""

    def scan(self, scan: Scan, low: int, high: int, *also: object) -> Iterator[Row]:
        """Yield the rows of a walk. It may be left at any time, and other statements may run meanwhile."""

    def run(self, statement: Statement, arguments: Sequence[object] = ()) -> None:
        """Run what gives no rows."""

    def run_many(self, many: Many, rows: Sequence[Row]) -> int:
        """Run it for all *rows*, in as few statements as the database takes. Return how many rows it has changed."""

    def rows_of_many(self, many: Many, rows: Sequence[Row]) -> list[Row]:
        """Run a Many that reads, for a bounded number of rows, in one statement if possible; return all it gives."""

    def revisions(
        self, partitions: Sequence[Partition], low: int, high: int, limit: int
    ) -> Iterable[tuple[Partition, list[Row]]]:
        """Return the first *limit* rows of `statements.copy` in each of *partitions*, in their order, for tids from
        *low* to *high*. The rows may have more columns behind. A partition without rows may be left out.
        """

    def values(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the rows of `data` with these ids; what is not there is left out."""

    def config(self) -> dict[str, int | bytes]:
        """Return `config`."""

    def set_config(self, values: dict[str, int | bytes]) -> None:
        """Write into `config`."""

    def columns(self, table: str) -> set[str]:
        """Return the names of the columns of *table*; none when there is no such table."""

    def transaction(self, doing: str) -> AbstractContextManager[None]:
        """A transaction that writes: committed at the end of the block, rolled back when it raises."""

    def snapshot(self, doing: str, *, is_single: bool = False) -> AbstractContextManager[None]:
        """A transaction that reads: all of it sees one moment. `is_single`: it is one statement."""

    def close(self) -> None:
        """Release it; never raises."""
