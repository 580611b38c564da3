"""The logical schema as PostgreSQL's. Pure."""

from typing import Final

from neo_storage.backends.dialect import Many, Statement, listed, pyformat, quoted, single_typed
from neo_storage.backends.logical import TABLES, Column, Kind, Table

SESSION: Final = {
    "synchronous_commit": "on",
    # Every statement of ours has its index. Statistics of a table that grows fast are always out of date, and a plan
    # made of them falls off a cliff one day: so the other ways are closed, and a prepared plan is kept.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # A limit that the operator has set for others would end a long removal of ours, again and again.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
}
"""Set for each connection, and read back."""

_TYPES: Final = {
    Kind.NUMBER: "bigint",
    Kind.NAME: 'varchar(64) COLLATE "C"',
    Kind.CHECKSUM: "bytea",
    Kind.BYTES: "bytea",
    Kind.VALUE: "bytea",
}
_KEYS: Final = {table.name: table.key for table in TABLES}


class PostgresqlDialect:
    """`backends.dialect.Dialect` for PostgreSQL."""

    def statement(self, text: str) -> Statement:
        """Return *text* with the driver's marks."""
        return pyformat(text)

    def table(self, name: str, alias: str, index: str) -> str:
        """Return `name alias`: there are no hints; SESSION leaves only the index."""
        del index
        return f"{name} {alias}"

    def removal(self, name: str, index: str) -> str:
        """Return the beginning of a DELETE."""
        del index
        return f"DELETE FROM {name}"

    def insert(self, table: Table) -> Many:
        """Return what inserts rows that are not there."""
        return self._insert(table, " ON CONFLICT DO NOTHING")

    def replace(self, table: Table, largest: str = "") -> Many:
        """Return what inserts or replaces rows."""
        changes = ", ".join(
            f"{q} = greatest({table.name}.{q}, excluded.{q})" if c.name == largest else f"{q} = excluded.{q}"
            for c in single_typed(table)
            if c.name not in table.key
            for q in (quoted(c.name),)
        )
        return self._insert(table, f" ON CONFLICT ({listed(table.key)}) DO UPDATE SET {changes}")

    def add(self, table: Table) -> Many:
        """Return what inserts new rows. `data` is copied instead, see `connection`."""
        return self._insert(table, "")

    def delete(self, table: Table, columns: tuple[str, ...], unless: str = "") -> Many:
        """Return what deletes rows, joined with the list of them."""
        names = ", ".join(f"c{at}" for at in range(len(columns)))
        join = " AND ".join(f"{table.name}.{quoted(c)} = v.c{at}" for at, c in enumerate(columns))
        also = f" AND NOT {unless}" if unless else ""
        row = f"({', '.join(['%s::bigint'] * len(columns))})"
        return Many(f"DELETE FROM {table.name} USING (VALUES ", row, f") AS v({names}) WHERE {join}{also}")

    def create(self, table: Table) -> list[str]:
        """Return the statements that make *table*. Values are compressed already: PostgreSQL need not try."""
        lines = [f"{quoted(c.name)} {_TYPES[c.kind]}" + ("" if c.is_null else " NOT NULL") for c in single_typed(table)]
        lines.append(f"PRIMARY KEY ({listed(table.key)})")
        texts = [f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(lines)})"]
        texts += [f"CREATE INDEX IF NOT EXISTS {i.name} ON {table.name} ({listed(i.columns)})" for i in table.indexes]
        texts += [
            f"ALTER TABLE {table.name} ALTER COLUMN {quoted(c.name)} SET STORAGE EXTERNAL"
            for c in table.columns
            if c.kind == Kind.VALUE
        ]
        return texts

    def add_column(self, table: Table, column: Column) -> str:
        """Return the statement that adds *column*."""
        return f"ALTER TABLE {table.name} ADD COLUMN {quoted(column.name)} {_TYPES[column.kind]}"

    def _insert(self, table: Table, tail: str) -> Many:
        columns = single_typed(table)
        names = listed(tuple(c.name for c in columns))
        return Many(f"INSERT INTO {table.name} ({names}) VALUES ", f"({', '.join(['%s'] * len(columns))})", tail)


class PreparedDialect(PostgresqlDialect):
    """The same, with the parameters of PREPARE."""

    def statement(self, text: str) -> Statement:
        """Return *text* with `$1`, `$2`."""
        return Statement(text.replace("?", "$"))


DIALECT: Final = PostgresqlDialect()
