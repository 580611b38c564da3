"""The statements of the SQLite back end: one text each, so that `sqlite3` finds it prepared, by the text. Pure."""

from typing import Final

from neo_storage.backends.dialect import Statement
from neo_storage.backends.sqlite.schema import DIALECT
from neo_storage.backends.statements import ABSENT, Statements

QUERIES: Final = Statements(DIALECT)

# One walk instead of two: `c` is the compression of the row with the greatest tid, so SQLite defines a bare column
# beside max().
QUERIES.sizes = Statement(f"""
SELECT coalesce(sum(n), 0), coalesce(sum(b), 0), coalesce(sum(c != {ABSENT}), 0)
  FROM (SELECT count(*) AS n, sum(size) AS b, max(tid), compression AS c
          FROM obj WHERE "partition" = ?1 GROUP BY oid)""")

# Digests are made by SQLite without the interpreter: nothing of Python waits meanwhile.
QUERIES.digest_texts = (
    Statement("""
SELECT count(*), CAST(coalesce(group_concat(line, ''), '') AS BLOB) FROM (
  SELECT tid || ',' || session || ',' || counter || ',' || hex("user") || ',' || hex(description) || ','
      || hex(extension) || ';' AS line
    FROM trans WHERE "partition" = ?1 AND tid BETWEEN ?2 AND ?3 ORDER BY tid)"""),
    Statement("""
SELECT count(*), CAST(coalesce(group_concat(line, ''), '') AS BLOB) FROM (
  SELECT tid || ',' || oid || ',' || copied_from || ',' || compression || ',' || size || ',' || hex(checksum) || ';'
      AS line
    FROM obj INDEXED BY obj_tid WHERE "partition" = ?1 AND tid BETWEEN ?2 AND ?3 ORDER BY tid, oid)"""),
)
