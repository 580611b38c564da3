"""The SQL of the SQLite back end, parameters always bound. Pure.

One text per statement, so that `sqlite3` finds each prepared in its cache, by the text.
"""

from typing import Final

from neo_common.wire.schema import PIECE_BYTES, Compression

ABSENT: Final = int(Compression.ABSENT)

# ------------------------------------------------------------------------------------------------ reads of the core

CURRENT: Final = "SELECT max(tid) FROM obj WHERE partition = ? AND oid = ?"

LOAD: Final = f"""
SELECT o.tid, (SELECT min(n.tid) FROM obj n WHERE n.partition = ?1 AND n.oid = ?2 AND n.tid > o.tid),
       o.compression, o.checksum, o.size, d.value
  FROM obj o LEFT JOIN data d ON d.id = o.data_id AND o.size <= {PIECE_BYTES}
 WHERE o.partition = ?1 AND o.oid = ?2 AND o.tid < ?3
 ORDER BY o.tid DESC LIMIT 1"""
"""Revision, data and next tid at once: 1-2 us more than the revision alone; a second statement would cost 5."""

PIECE: Final = f"""
SELECT d.value FROM obj o JOIN data d ON d.id = o.data_id + ?4 / {PIECE_BYTES}
 WHERE o.partition = ?1 AND o.oid = ?2 AND o.tid = ?3 AND ?4 < max(o.size, 1) AND ?4 % {PIECE_BYTES} = 0"""

# ------------------------------------------------------------------------------------------------ writes

SET_CONFIG: Final = "INSERT INTO config VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
ADD_TRANS: Final = "INSERT INTO trans VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
ADD_OBJ: Final = "INSERT INTO obj VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
OBJ_DATA_ID: Final = "SELECT data_id FROM obj WHERE partition = ? AND oid = ? AND tid = ?"
ADD_DATA: Final = "INSERT INTO data VALUES (?, ?)"
ADD_DECISION: Final = "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?)"
FORGET_DECISIONS: Final = "DELETE FROM decisions WHERE tid <= ?"
ADD_TOMBSTONE: Final = """
INSERT INTO tombstones VALUES (?, ?, ?)
ON CONFLICT (session, counter) DO UPDATE SET attempt = max(attempt, excluded.attempt)"""
DROP_TOMBSTONES: Final = "DELETE FROM tombstones"

CLEAR_LIST: Final = "SELECT data_id, size FROM obj WHERE partition = ? AND tid > ? AND data_id IS NOT NULL"
CLEAR_OBJ: Final = "DELETE FROM obj WHERE partition = ? AND tid > ?"
CLEAR_TRANS: Final = "DELETE FROM trans WHERE partition = ? AND tid > ?"
DROP_DATA: Final = "DELETE FROM data WHERE id BETWEEN ? AND ?"
DROP_OBJ: Final = "DELETE FROM obj WHERE partition = ? AND oid = ? AND tid = ?"
DROP_EMPTY_TRANS: Final = """
DELETE FROM trans WHERE partition = ?1 AND tid = ?2
   AND NOT EXISTS (SELECT 1 FROM obj WHERE partition = ?1 AND tid = ?2)"""

OBJ_REVISIONS: Final = "SELECT tid, data_id, size FROM obj WHERE partition = ? AND oid = ? ORDER BY tid"
PACK_CURSOR: Final = "SELECT tid, next_oid FROM pack WHERE partition = ?"
PACK_SCAN: Final = """
SELECT oid, tid, compression, data_id, size FROM obj WHERE partition = ? AND oid >= ? ORDER BY oid, tid"""
SET_PACK: Final = """
INSERT INTO pack VALUES (?, ?, ?)
ON CONFLICT (partition) DO UPDATE SET tid = excluded.tid, next_oid = excluded.next_oid"""

# ------------------------------------------------------------------------------------------------ what is kept

CONFIG: Final = "SELECT name, value FROM config"
DECISIONS: Final = "SELECT session, counter, attempt, tid, parts FROM decisions ORDER BY tid, session, counter"
TOMBSTONES: Final = "SELECT session, counter, attempt FROM tombstones ORDER BY session, counter"
LAST_TID: Final = "SELECT max(tid) FROM trans"
LAST_DATA: Final = "SELECT max(id) FROM data"

# ------------------------------------------------------------------------------------------------ long reads

HISTORY: Final = """
SELECT o.tid, o.size, t.user, t.description, t.extension
  FROM obj o LEFT JOIN trans t ON t.partition = o.partition AND t.tid = o.tid
 WHERE o.partition = ? AND o.oid = ? ORDER BY o.tid DESC LIMIT ?"""

TRANS_UP: Final = "SELECT tid, partition FROM trans WHERE tid BETWEEN ? AND ? ORDER BY tid, partition"
TRANS_DOWN: Final = "SELECT tid, partition FROM trans WHERE tid BETWEEN ? AND ? ORDER BY tid DESC, partition DESC"
TRANS_ONE_UP: Final = "SELECT tid, partition FROM trans WHERE tid BETWEEN ? AND ? AND partition = ? ORDER BY tid"
TRANS_ONE_DOWN: Final = "SELECT tid, partition FROM trans WHERE tid BETWEEN ? AND ? AND partition = ? ORDER BY tid DESC"
TRANS: Final = """
SELECT session, counter, user, description, extension, parts FROM trans WHERE partition = ? AND tid = ?"""

REVISIONS: Final = """
SELECT oid, copied_from, data_id, compression, checksum, size FROM obj INDEXED BY obj_tid
 WHERE partition = ? AND tid = ? ORDER BY oid"""
VALUE: Final = "SELECT value FROM data WHERE id = ?"
RECORDS: Final = """
SELECT oid, tid, copied_from, data_id, compression, checksum, size FROM obj
 WHERE partition = ? AND oid >= ? ORDER BY oid, tid"""

UNDO_REVISIONS: Final = "SELECT tid, copied_from FROM obj WHERE partition = ? AND oid = ? ORDER BY tid"

SIZES: Final = f"""
SELECT count(*), coalesce(sum(n), 0), coalesce(sum(b), 0), coalesce(sum(c != {ABSENT}), 0)
  FROM (SELECT count(*) AS n, sum(size) AS b, max(tid), compression AS c FROM obj WHERE partition = ? GROUP BY oid)"""
"""`c` is the compression of the row with the greatest tid: so SQLite defines a bare column beside max()."""
COUNT_TRANS: Final = "SELECT count(*) FROM trans WHERE partition = ?"
