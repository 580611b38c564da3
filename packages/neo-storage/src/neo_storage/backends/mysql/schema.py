"""The logical schema as MariaDB's and MySQL's: InnoDB, clustered by the key. Pure."""

from typing import Final

from neo_storage.backends.dialect import Many, Statement, listed, pyformat, quoted, single_typed
from neo_storage.backends.logical import Column, Kind, Table

SESSION: Final = {
    "sql_mode": "ANSI_QUOTES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
}
"""Set for each connection: our names in double quotes, and nothing is ever cut to fit."""

_TYPES: Final = {
    Kind.NUMBER: "BIGINT",
    Kind.NAME: "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin",
    Kind.CHECKSUM: "VARBINARY(16)",
    Kind.BYTES: "LONGBLOB",
    Kind.VALUE: "LONGBLOB",
}


class MysqlDialect:
    """`backends.dialect.Dialect` for MariaDB and MySQL."""

    def statement(self, text: str) -> Statement:
        """Return *text* with the driver's marks."""
        return pyformat(text)

    def table(self, name: str, alias: str, index: str) -> str:
        """Return `name alias` with a hint: statistics of a table that grows fast are always out of date."""
        return f"{name} {alias} FORCE INDEX ({index})"

    def removal(self, name: str, index: str) -> str:
        """Return the beginning of a DELETE, in the form for several tables: the other one takes no hint."""
        return f"DELETE {name} FROM {name} FORCE INDEX ({index})"

    def insert(self, table: Table) -> Many:
        """Return what inserts rows that are not there. Not INSERT IGNORE, which would ignore other errors too."""
        same = quoted(table.key[-1])
        return self._insert(table, f" ON DUPLICATE KEY UPDATE {same} = {same}")

    def replace(self, table: Table, largest: str = "") -> Many:
        """Return what inserts or replaces rows; `flavour` has another form of it for MySQL."""
        changes = ", ".join(
            f"{q} = greatest({table.name}.{q}, VALUES({q}))" if c.name == largest else f"{q} = VALUES({q})"
            for c in single_typed(table)
            if c.name not in table.key
            for q in (quoted(c.name),)
        )
        return self._insert(table, f" ON DUPLICATE KEY UPDATE {changes}")

    def add(self, table: Table) -> Many:
        """Return what inserts new rows."""
        return self._insert(table, "")

    def delete(self, table: Table, columns: tuple[str, ...], unless: str = "") -> Many:
        """Return what deletes rows: by OR, which becomes ranges of the key; pairs with IN do not."""
        head, tail = f"{self.removal(table.name, 'PRIMARY')} WHERE ", ""
        if unless:
            head, tail = head + "(", f") AND NOT {unless}"
        return Many(head, "(" + " AND ".join(f"{quoted(c)} = %s" for c in columns) + ")", tail, " OR ")

    def create(self, table: Table) -> list[str]:
        """Return the statement that makes *table*."""
        lines = [f"{quoted(c.name)} {_TYPES[c.kind]}" + ("" if c.is_null else " NOT NULL") for c in single_typed(table)]
        lines.append(f"PRIMARY KEY ({listed(table.key)})")
        lines += [f"INDEX {index.name} ({listed(index.columns)})" for index in table.indexes]
        return [f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(lines)}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC"]

    def add_column(self, table: Table, column: Column) -> str:
        """Return the statement that adds *column*."""
        return f"ALTER TABLE {table.name} ADD COLUMN {quoted(column.name)} {_TYPES[column.kind]}"

    def _insert(self, table: Table, tail: str) -> Many:
        columns = single_typed(table)
        names = listed(tuple(c.name for c in columns))
        return Many(f"INSERT INTO {table.name} ({names}) VALUES ", f"({', '.join(['%s'] * len(columns))})", tail)


DIALECT: Final = MysqlDialect()
