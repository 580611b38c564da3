"""The tables of a storage in SQLite, and the settings that must hold. Pure.

    config     one row per name: identity, epoch, table, ceilings, the mark, high-water marks, format
    trans      a transaction, once per partition that it touches, with its metadata
    obj        a revision; small rows, clustered by (partition, oid, tid)
    data       values, apart, so that scans of obj stay small; ids ascend in the order of writing
    decisions  commits above the durable mark, by ttid
    tombstones aborts of this reign, by ttid
    pack       how far the pack to a tid is, by partition

A value above PIECE_BYTES is a run of rows of `data`, from `obj.data_id` on, one per piece: sequential ids cost nothing,
and a load of the revision never touches them. Ids above 2**63 - 1 have no place in SQLite, nor in ZODB.
"""

from typing import Final

FORMAT: Final = 1
"""Version of what is described here."""
MINIMUM_READER: Final = 1
"""The lowest FORMAT of a program that may open a database written by this one."""
APPLICATION_ID: Final = 0x4E454F53
"""`NEOS`, in the header of the file, so that `file` and we can tell it from other SQLite databases."""

TABLES: Final = (
    "CREATE TABLE config (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE trans (partition INTEGER NOT NULL, tid INTEGER NOT NULL, session INTEGER NOT NULL,"
    " counter INTEGER NOT NULL, user BLOB NOT NULL, description BLOB NOT NULL, extension BLOB NOT NULL,"
    " parts BLOB NOT NULL, PRIMARY KEY (partition, tid)) WITHOUT ROWID",
    # Iteration over many partitions is one walk of this index, in the order of tids.
    "CREATE INDEX trans_tid ON trans (tid, partition)",
    "CREATE TABLE obj (partition INTEGER NOT NULL, oid INTEGER NOT NULL, tid INTEGER NOT NULL, data_id INTEGER,"
    " compression INTEGER NOT NULL, checksum BLOB NOT NULL, size INTEGER NOT NULL, copied_from INTEGER NOT NULL,"
    " PRIMARY KEY (partition, oid, tid)) WITHOUT ROWID",
    # The revisions of a transaction; of a WITHOUT ROWID table, an index ends with the rest of the key: here the oid.
    "CREATE INDEX obj_tid ON obj (partition, tid)",
    "CREATE TABLE data (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE decisions (session INTEGER NOT NULL, counter INTEGER NOT NULL, attempt INTEGER NOT NULL,"
    " tid INTEGER NOT NULL, parts BLOB NOT NULL, PRIMARY KEY (session, counter)) WITHOUT ROWID",
    "CREATE TABLE tombstones (session INTEGER NOT NULL, counter INTEGER NOT NULL, attempt INTEGER NOT NULL,"
    " PRIMARY KEY (session, counter)) WITHOUT ROWID",
    # next_oid: the first oid not looked at; NULL when the cell is finished.
    "CREATE TABLE pack (partition INTEGER PRIMARY KEY, tid INTEGER NOT NULL, next_oid INTEGER)",
)

COMMON_SETTINGS: Final = {
    "wal_autocheckpoint": 0,  # the applier decides when
    "journal_size_limit": -1,  # the log keeps its size: overwriting is twice as fast as growing
    "temp_store": 2,  # in memory
    "mmap_size": 0,  # measured slower than the page cache of SQLite
    "busy_timeout": 10000,  # ms; only a start after a crash makes anybody wait
    "synchronous": 1,  # NORMAL: durable at checkpoints, and by our own fdatasync of the log
}
"""Read back after they are set: a build of SQLite that ignores one would not keep our promises."""
