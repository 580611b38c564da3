"""The logical schema as SQLite's, and the settings that must hold. Pure."""

from typing import Final

from neo_storage.backends.dialect import Many, Statement, listed, quoted
from neo_storage.backends.logical import TABLES, Column, Kind, Table

APPLICATION_ID: Final = 0x4E454F53
"""`NEOS`, in the header of the file, so that `file` and we can tell it from other SQLite databases."""

_TYPES: Final = {
    Kind.NUMBER: "INTEGER",
    Kind.NAME: "TEXT",
    Kind.CHECKSUM: "BLOB",
    Kind.BYTES: "BLOB",
    Kind.VALUE: "BLOB",
    Kind.MIXED: "",
}


class SqliteDialect:
    """`backends.dialect.Dialect` for SQLite: numbered parameters are its own; one row per statement, prepared."""

    def statement(self, text: str) -> Statement:
        """Return *text* as it is."""
        return Statement(text)

    def table(self, name: str, alias: str, index: str) -> str:
        """Return `name alias`. SQLite needs no hint for a key."""
        return f"{name} {alias}" if index == "PRIMARY" else f"{name} {alias} INDEXED BY {index}"

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
            f"{quoted(c.name)} = max({quoted(c.name)}, excluded.{quoted(c.name)})"
            if c.name == largest
            else f"{quoted(c.name)} = excluded.{quoted(c.name)}"
            for c in table.columns
            if c.name not in table.key
        )
        return self._insert(table, f" ON CONFLICT ({listed(table.key)}) DO UPDATE SET {changes}")

    def add(self, table: Table) -> Many:
        """Return what inserts new rows."""
        return self._insert(table, "")

    def delete(self, table: Table, columns: tuple[str, ...], unless: str = "") -> Many:
        """Return what deletes rows, one by one."""
        condition = " AND ".join(f"{quoted(name)} = ?" for name in columns)
        also = f" AND NOT {unless}" if unless else ""
        return Many(f"DELETE FROM {table.name} WHERE ", condition, also)

    def create(self, table: Table) -> list[str]:
        """Return the statements that make *table*. A key of one number is the row's own; others cluster the table."""
        is_rowid = len(table.key) == 1 and _kind(table, table.key[0]) == Kind.NUMBER
        columns = [_column(c, is_key=is_rowid and c.name in table.key) for c in table.columns]
        if is_rowid:
            text = f"CREATE TABLE {table.name} ({', '.join(columns)})"
        else:
            columns.append(f"PRIMARY KEY ({listed(table.key)})")
            text = f"CREATE TABLE {table.name} ({', '.join(columns)}) WITHOUT ROWID"
        indexes = [f"CREATE INDEX {i.name} ON {table.name} ({listed(i.columns)})" for i in table.indexes]
        return [text, *indexes]

    def add_column(self, table: Table, column: Column) -> str:
        """Return the statement that adds *column*."""
        return f"ALTER TABLE {table.name} ADD COLUMN {quoted(column.name)} {_TYPES[column.kind]}"

    def _insert(self, table: Table, tail: str) -> Many:
        # With names: a newer format may have more columns, and say that we may write all the same.
        names = listed(tuple(c.name for c in table.columns))
        return Many(f"INSERT INTO {table.name} ({names}) VALUES ", f"({', '.join('?' * len(table.columns))})", tail)


def _kind(table: Table, name: str) -> Kind:
    return next(c.kind for c in table.columns if c.name == name)


def _column(column: Column, *, is_key: bool) -> str:
    words = [quoted(column.name), _TYPES[column.kind]]
    if is_key:
        words.append("PRIMARY KEY")
    elif not column.is_null and column.kind not in (Kind.MIXED, Kind.NAME):
        words.append("NOT NULL")
    return " ".join(word for word in words if word)


DIALECT: Final = SqliteDialect()
CREATE: Final = tuple(text for table in TABLES for text in DIALECT.create(table))

COMMON_SETTINGS: Final = {
    "wal_autocheckpoint": 0,  # the applier decides when
    "journal_size_limit": -1,  # the log keeps its size: overwriting is twice as fast as growing
    "temp_store": 2,  # in memory
    "mmap_size": 0,  # measured slower than the page cache of SQLite
    "busy_timeout": 10000,  # ms; only a start after a crash makes anybody wait
    "synchronous": 1,  # NORMAL: durable at checkpoints, and by our own fdatasync of the log
}
"""Read back after they are set: a build of SQLite that ignores one would not keep our promises."""
