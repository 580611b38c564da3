"""Walking through the history of a partition, in the order of tids, then oids."""

from neo_common.ids import Partition, Tid
from neo_storage.backends.base import Place
from neo_storage.backends.database import Database, Row


def rows_from(db: Database, partition: Partition, start: Place, stop: Tid, limit: int) -> list[Row]:
    """Return at most *limit* revisions from *start* to all of tid *stop*.

    Each: tid, oid, copied_from, data id, compression, checksum, size.
    """
    sql = db.statements
    if not start.oid:
        return db.rows(sql.copy, (partition, start.tid, stop, limit))
    rows = db.rows(sql.copy_rest, (partition, start.tid, start.oid, limit))
    if len(rows) < limit and start.tid < stop:
        rows += db.rows(sql.copy, (partition, start.tid + 1, stop, limit - len(rows)))
    return rows
