"""Every statement of the back ends, once, for any dialect. Parameters are always bound. Pure."""

from typing import Final

from neo_common.wire.schema import PIECE_BYTES, Compression
from neo_storage.backends import logical
from neo_storage.backends.dialect import Dialect, Many, Scan, Statement

ABSENT: Final = int(Compression.ABSENT)


class Statements:
    """The statements of one dialect."""

    def __init__(self, d: Dialect) -> None:
        self.dialect = d
        s = d.statement

        def scan(text: str, *, is_up: bool = True) -> Scan:
            limit = 1 + text.count("?")
            return Scan(s(text), s(f"{text} LIMIT ?{limit}"), is_up)

        o, by_tid = d.table("obj", "o", "PRIMARY"), d.table("obj", "o", "obj_tid")
        n = d.table("obj", "n", "PRIMARY")
        t, t_by_tid = d.table("trans", "t", "PRIMARY"), d.table("trans", "t", "trans_tid")

        # ---- reads of one revision

        self.current = s(f'SELECT max(tid) FROM {o} WHERE "partition" = ?1 AND oid = ?2')
        one = s(f'SELECT ?1, max(tid) FROM {o} WHERE "partition" = ?2 AND oid = ?3').text
        self.currents = Many("", one, "", " UNION ALL ")
        """Rows of (oid, partition, oid)."""
        load = """
SELECT o.tid, (SELECT min(n.tid) FROM {n} WHERE n."partition" = ?1 AND n.oid = ?2 AND n.tid >= ?3),
       o.compression, o.checksum, o.size, d.value
  FROM {o} LEFT JOIN data d ON d.id = o.data_id AND o.size <= {size}
 WHERE o."partition" = ?1 AND o.oid = ?2 AND o.tid < ?3
 ORDER BY o.tid DESC LIMIT 1"""
        self.load = s(load.format(n=n, o=o, size=PIECE_BYTES))
        """Revision, data and next tid at once: a second statement would cost more than all three.

        What comes next is the first at or above ?3. That does not depend on what was found: MariaDB looks once (12 us).
        """
        self.load_short = s(load.format(n=n, o=o, size="?4"))
        """The same, with values of ?4 bytes at most."""
        self.piece = s(f"""
SELECT d.value FROM {o} JOIN data d ON d.id = o.data_id + ?4
 WHERE o."partition" = ?1 AND o.oid = ?2 AND o.tid = ?3 AND (?5 < o.size OR ?5 = 0)""")
        """?4: the number of the piece, ?5: its offset."""

        # ---- writes

        self.set_config = d.replace(logical.CONFIG)
        self.add_trans = d.insert(logical.TRANS)
        self.add_obj = d.insert(logical.OBJ)
        self.add_data = d.add(logical.DATA)
        self.add_decisions = d.replace(logical.DECISIONS)
        self.add_tombstones = d.replace(logical.TOMBSTONES, largest="attempt")
        self.set_pack = d.replace(logical.PACK)
        self.obj_data_id = s(f'SELECT data_id FROM {o} WHERE "partition" = ?1 AND oid = ?2 AND tid = ?3')
        self.forget_decisions = s("DELETE FROM decisions WHERE tid <= ?1")
        self.drop_decisions_above = s("DELETE FROM decisions WHERE tid > ?1")
        self.drop_tombstones = s("DELETE FROM tombstones")

        # ---- removals

        self.clear_list = s(f"""
SELECT data_id, size FROM {by_tid} WHERE "partition" = ?1 AND tid > ?2 AND data_id IS NOT NULL""")
        self.clear_obj = s(f'{d.removal("obj", "obj_tid")} WHERE "partition" = ?1 AND tid > ?2')
        self.clear_trans = s(f'{d.removal("trans", "PRIMARY")} WHERE "partition" = ?1 AND tid > ?2')
        self.trans_tids = s(f"""
SELECT tid FROM {t} WHERE "partition" = ?1 AND tid BETWEEN ?2 AND ?3 ORDER BY tid LIMIT ?4""")
        self.drop_data = d.delete(logical.DATA, ("id",))
        self.drop_obj = d.delete(logical.OBJ, ("partition", "oid", "tid"))
        self.drop_empty_trans = d.delete(
            logical.TRANS,
            ("partition", "tid"),
            'EXISTS (SELECT 1 FROM obj o WHERE o."partition" = trans."partition" AND o.tid = trans.tid)',
        )
        self.obj_revisions = s(f"""
SELECT tid, data_id, size FROM {o} WHERE "partition" = ?1 AND oid = ?2 ORDER BY tid""")
        self.unpack = s('DELETE FROM pack WHERE "partition" = ?1 AND tid >= ?2')
        self.pack_cursor = s('SELECT tid, next_oid FROM pack WHERE "partition" = ?1')
        self.pack_scan = scan(f"""
SELECT oid, tid, compression, data_id, size FROM {o}
 WHERE oid BETWEEN ?1 AND ?2 AND "partition" = ?3 ORDER BY oid, tid""")

        # ---- what is kept

        self.config = s("SELECT * FROM config")
        self.decisions = s("SELECT session, counter, attempt, tid, parts FROM decisions ORDER BY tid, session, counter")
        self.tombstones = s("SELECT session, counter, attempt FROM tombstones ORDER BY session, counter")
        self.last_tid = s(f"SELECT max(tid) FROM {t_by_tid}")
        self.last_data = s("SELECT max(id) FROM data")

        # ---- long reads

        self.history = s(f"""
SELECT o.tid, o.size, t."user", t.description, t.extension
  FROM {o} LEFT JOIN {t} ON t."partition" = o."partition" AND t.tid = o.tid
 WHERE o."partition" = ?1 AND o.oid = ?2 ORDER BY o.tid DESC LIMIT ?3""")
        columns = 'tid, "partition"'
        up = f"SELECT {columns} FROM {t_by_tid} WHERE tid BETWEEN ?1 AND ?2 ORDER BY tid"
        self.trans_up = scan(f'{up}, "partition"')
        self.trans_down = scan(f'{up} DESC, "partition" DESC', is_up=False)
        one = f'SELECT {columns} FROM {t} WHERE tid BETWEEN ?1 AND ?2 AND "partition" = ?3 ORDER BY tid'
        self.trans_one_up = scan(one)
        self.trans_one_down = scan(f"{one} DESC", is_up=False)
        self.heads_up: Statement | None = None
        self.heads_down: Statement | None = None
        """Where the database can give one row for each transaction: tid and head of those from ?1 to ?2 that touch any
        partition of the array ?3, at most ?4.
        """
        self.trans = s(f"""
SELECT session, counter, "user", description, extension, parts FROM {t} WHERE "partition" = ?1 AND tid = ?2""")
        self.revisions = s(f"""
SELECT oid, copied_from, data_id, compression, checksum, size FROM {by_tid}
 WHERE "partition" = ?1 AND tid = ?2 ORDER BY oid""")
        self.values = s(f"SELECT id, value FROM {d.table('data', 'd', 'PRIMARY')} WHERE id BETWEEN ?1 AND ?2")
        self.records = scan(f"""
SELECT oid, tid, copied_from, data_id, compression, checksum, size FROM {o}
 WHERE oid BETWEEN ?1 AND ?2 AND "partition" = ?3 ORDER BY oid, tid""")
        self.undo_revisions = s(f"""
SELECT tid, copied_from FROM {o} WHERE "partition" = ?1 AND oid = ?2 ORDER BY tid""")
        self.sizes = s(f"""
SELECT count(*), coalesce(sum(size), 0),
       (SELECT count(*) FROM {o} WHERE o."partition" = ?1 AND o.compression <> {ABSENT}
           AND NOT EXISTS (SELECT 1 FROM {n}
                            WHERE n."partition" = o."partition" AND n.oid = o.oid AND n.tid > o.tid))
  FROM {o} WHERE "partition" = ?1""")
        """Revisions, their bytes, objects that are not deleted."""
        self.count_trans = s(f'SELECT count(*) FROM {t} WHERE "partition" = ?1')

        # ---- copying

        where = 'WHERE "partition" = ?1 AND tid BETWEEN ?2 AND ?3'
        keys = "tid, oid, copied_from, data_id, compression, checksum, size"
        self.copy_rest = s(f"""
SELECT {keys} FROM {by_tid} WHERE "partition" = ?1 AND tid = ?2 AND oid >= ?3 ORDER BY oid LIMIT ?4""")
        self.copy = s(f"SELECT {keys} FROM {by_tid} {where} ORDER BY tid, oid LIMIT ?4")
        heads = 'tid, session, counter, "user", description, extension, parts'
        self.copy_trans = s(f"SELECT {heads} FROM {t} {where} ORDER BY tid LIMIT ?4")
        self.count_range = s(f"SELECT count(*) FROM {by_tid} {where}")
        self.nth = (
            s(f"SELECT tid FROM {by_tid} {where} ORDER BY tid LIMIT 1 OFFSET ?4"),
            s(f"SELECT tid FROM {t} {where} ORDER BY tid LIMIT 1 OFFSET ?4"),
        )
        """The tid of the revision, of the transaction, that has so many before it."""
        self.last_in = (s(f"SELECT max(tid) FROM {by_tid} {where}"), s(f"SELECT max(tid) FROM {t} {where}"))
        self.digest_trans = s(f"""
SELECT tid, session, counter, "user", description, extension FROM {t} {where} ORDER BY tid""")
        self.digest_obj = s(f"""
SELECT tid, oid, copied_from, compression, size, checksum FROM {by_tid} {where} ORDER BY tid, oid""")
        self.digest_texts: tuple[Statement, Statement] | None = None
        """Where the database can write what is digested (transactions, revisions): (count, text), each in one row."""
        self.find_obj = s(f'SELECT data_id, size FROM {o} WHERE "partition" = ?1 AND oid = ?2 AND tid = ?3')
        self.drop_trans = d.delete(logical.TRANS, ("partition", "tid"))
