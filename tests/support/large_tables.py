"""Databases of many objects, made by SQL of the database itself: a million rows in seconds."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from support.mysql_server import MySQL
from support.servers import MariaDB, Server

PARTITIONS: Final = 12
TID: Final = 32
"""Object n is written by the transaction with tid n << TID; each tenth has an older revision at 1."""
_ROWS: Final = {
    "data": ("id, value", "n + 1, {value}"),
    "trans": (
        '"partition", tid, session, counter, "user", description, extension, parts',
        "n % 12, (n + 1) * 4294967296, 1, n, {empty}, {empty}, {empty}, {empty}",
    ),
    "obj": (
        '"partition", oid, tid, data_id, compression, checksum, size, copied_from',
        "n % 12, n, (n + 1) * 4294967296, n + 1, 0, {checksum}, 128, 0",
    ),
}


def fill(server: Server, database: str, first: int, last: int) -> None:
    """Write objects *first* to *last* - 1, a transaction each, into the tables of a back end that nobody has open."""
    is_mysql = isinstance(server, MariaDB)
    values = {"empty": "''", "value": "repeat('x', 128)", "checksum": "repeat('y', 16)"}
    if not is_mysql:
        values = {name: f"convert_to({text}, 'LATIN1')" for name, text in values.items()}
    for table, (columns, expressions) in _ROWS.items():
        verb, source = "INSERT", f"(SELECT seq AS n FROM seq_{first}_to_{last - 1}) s"
        if isinstance(server, MySQL):
            verb += f" /*+ SET_VAR(cte_max_recursion_depth = {last}) */"
            counted = f"SELECT {first} UNION ALL SELECT n + 1 FROM t WHERE n < {last - 1}"
            source = f"(WITH RECURSIVE t (n) AS ({counted}) SELECT n FROM t) s"
        elif not is_mysql:
            source = f"generate_series({first}::bigint, {last - 1}) AS n"
        text = f"{verb} INTO {table} ({columns}) SELECT {expressions.format(**values)} FROM {source}"
        server.execute(text.replace('"', "`") if is_mysql else text, database)


def fill_sqlite(path: Path, first: int, last: int) -> None:
    """The same in the file of a back end."""
    values = {"empty": "x''", "value": "zeroblob(128)", "checksum": "zeroblob(16)"}
    counted = f"WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last - 1})"
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, (columns, expressions) in _ROWS.items():
            names, chosen = columns, expressions.format(**values)
            connection.execute(f"{counted} INSERT INTO {table} ({names}) SELECT {chosen} FROM s")


def analyze(server: Server, database: str) -> None:
    """Have the server make its statistics now."""
    if isinstance(server, MariaDB):
        how = "" if isinstance(server, MySQL) else " PERSISTENT FOR ALL"
        server.execute(f"ANALYZE TABLE obj, trans, data{how}", database)
    else:
        server.execute("ANALYZE", database)
