"""SQLite under a storage: the embedded default.

Two connections besides those of range readers: one reads in the hub (10 us a load, where any hand-off to a thread costs
30 to 130), one writes on the applier's thread. Write-ahead log, synchronous=NORMAL: a batch survives the death of the
process at once, and a power cut once its log is flushed, which `checkpoint` does. Its log never shrinks and is made
large when the database is opened, because overwriting is flushed twice as fast as growing.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from neo_common.errors import BackendError, DataCorrupted, DiskFull
from neo_common.ids import MAX_OID, MAX_TID, NO_TID, Oid, Partition, Tid
from neo_common.runtime.exclusive import ExclusiveLock
from neo_common.wire.schema import PIECE_BYTES
from neo_storage.backends import logical
from neo_storage.backends.base import Kept, Op, PackStep, RangeReader, Stored, Waits
from neo_storage.backends.kept import read_kept
from neo_storage.backends.migration import migrate
from neo_storage.backends.range_reader import DatabaseReader, stored
from neo_storage.backends.removal import erase_slice, pack_slice
from neo_storage.backends.sqlite import schema
from neo_storage.backends.sqlite.connection import SqliteDatabase, check_setting, connect, translate, translated
from neo_storage.backends.sqlite.one_file import OneFile
from neo_storage.backends.sqlite.queries import QUERIES
from neo_storage.backends.writer import Writer

_RANGE_CACHE_BYTES: Final = 4 * 2**20
"""A scan visits each page once."""
_CURRENT: Final = QUERIES.current.text
_LOAD: Final = QUERIES.load.text


class SqliteBackend:
    """`backends.base.Backend` on a SQLite database file. No other process may have it open, and not this one twice."""

    at_once = True

    def __init__(
        self,
        path: Path,
        *,
        cache_bytes: int = 64 * 2**20,
        page_bytes: int = 4096,
        wal_bytes: int = 16 * 2**20,
    ) -> None:
        """`wal_bytes`: the write-ahead log is made at least this large when the database is opened.

        `page_bytes` counts when the file is made (4, 8 and 16 kB were measured within noise of each other).
        """
        self._path = path.resolve()  # two names of one file must be one lock, and one write-ahead log
        self._cache_bytes = cache_bytes
        self._page_bytes = page_bytes
        self._wal_bytes = wal_bytes
        self._lock: ExclusiveLock | None = None
        self._file: OneFile | None = None
        self._position = -1
        self._is_full = False
        self._reader: sqlite3.Connection
        self._connection: sqlite3.Connection
        self._db: SqliteDatabase
        self._writer: Writer

    def open(self) -> Kept:
        """Create or open the database, check its settings, and return what it knows.

        Raises: BackendError when it is open elsewhere, by any name, or was written by a newer NEO; DataCorrupted when
        it is no database of ours.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = ExclusiveLock(Path(f"{self._path}.lock"), f"database {self._path}")
        except OSError as error:
            raise BackendError(f"cannot open {self._path}: {error}") from error
        try:
            with translated(f"cannot open {self._path}"):
                return self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Kept:
        self._file = OneFile(self._path)
        self._connection = connect(self._path, cache_bytes=self._cache_bytes, read_only=False)
        self._db = SqliteDatabase(self._connection, self._path)
        self._prepare()
        self._grow_log()
        self._reader = connect(self._path, cache_bytes=self._cache_bytes, read_only=True)
        kept = read_kept(self._db)
        self._writer = Writer.of(self._db, kept)
        self._position = kept.position
        # The names of the database and its log must survive a power cut before we rely on either.
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self.checkpoint()
        return kept

    def claim(self) -> None:
        """Nothing is needed: who has the file has it alone from `open` on."""

    def _prepare(self) -> None:
        """Make the tables of a new database; check who wrote an older one."""
        db = self._connection
        (objects,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        if application not in (0, schema.APPLICATION_ID) or (application == 0 and objects):
            raise DataCorrupted(f"{self._path} is a SQLite database, but not one of NEO")
        if not objects:
            db.execute(f"PRAGMA page_size = {self._page_bytes:d}")
        db.execute("PRAGMA journal_mode = WAL")
        check_setting(db, "journal_mode", "wal")
        if not objects:
            check_setting(db, "page_size", self._page_bytes)
            db.execute("BEGIN IMMEDIATE")
            for statement in schema.CREATE:
                db.execute(statement)
            self._db.set_config({"format": logical.FORMAT, "minimum_reader": logical.MINIMUM_READER, "position": -1})
            db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            db.execute("COMMIT")
        migrate(self._db, str(self._path))

    def _grow_log(self) -> None:
        """Write to the log, by a transaction that is rolled back, as much as is wanted of it."""
        if self._wal().stat().st_size >= self._wal_bytes:
            return
        db = self._connection
        (cache,) = db.execute("PRAGMA cache_size").fetchone()
        db.execute("PRAGMA cache_size = -256")  # so that the pages spill into the log
        db.execute("BEGIN IMMEDIATE")
        (last,) = db.execute(QUERIES.last_data.text).fetchone()
        try:
            for number in range(1 + self._wal_bytes // PIECE_BYTES):
                db.execute(QUERIES.add_data.single, ((last or 0) + 1 + number, bytes(PIECE_BYTES)))
        except sqlite3.OperationalError as error:
            # A nearly full disk: slower flushes are no reason to refuse service.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
                raise
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute(f"PRAGMA cache_size = {cache:d}")
        check_setting(db, "cache_size", cache)

    def _wal(self) -> Path:
        return Path(f"{self._path}-wal")

    # -------------------------------------------------------------------------------------------- reads, in the hub

    def current(self, partition: Partition, oid: Oid) -> Tid:
        """Return the serial of the last revision (a deletion counts), 0 if there is none."""
        if oid > MAX_OID:
            return NO_TID
        try:
            return Tid(self._reader.execute(_CURRENT, (partition, oid)).fetchone()[0] or 0)
        except sqlite3.Error as error:
            raise translate(error, f"current serial of {oid:#x}") from error

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """Return the last revision below *before*; its data is in pieces above PIECE_BYTES. None if there is none."""
        if oid > MAX_OID:
            return None
        try:
            row = self._reader.execute(_LOAD, (partition, oid, min(before, MAX_TID))).fetchone()
        except sqlite3.Error as error:
            raise translate(error, f"load of {oid:#x}") from error
        return None if row is None else stored(oid, row)

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return at most PIECE_BYTES of a value, from *offset*, a multiple of that; None if there is nothing there.

        Values that are not in pieces have one, at 0.
        """
        if oid > MAX_OID or tid > MAX_TID or offset > MAX_TID or offset % PIECE_BYTES:
            return None
        try:
            row = self._reader.execute(
                QUERIES.piece.text, (partition, oid, tid, offset // PIECE_BYTES, offset)
            ).fetchone()
        except sqlite3.Error as error:
            raise translate(error, f"piece of {oid:#x}") from error
        if row is None:
            return None
        value: bytes = row[0]
        return value

    # -------------------------------------------------------------------------------------------- the applier's thread

    def apply(self, ops: Sequence[Op], position: int) -> None:
        """Write *ops* and the mark *position* in one SQL transaction, removals that come first in slices before it.

        After an error nothing of it is there, but some of those.
        """
        ops = self._writer.remove(ops)
        with self._db.transaction("apply"):
            self._writer.write(ops, position)
        self._position = position

    def reconnect(self) -> None:
        """Never asked: a file is not lost. Raises: BackendError."""
        raise BackendError(f"{self._path} is a file: there is no connection to lose")

    def pack_step(self, partition: Partition, tid: Tid, limit: int) -> PackStep:
        """Pack one slice of a cell: about *limit* revisions looked at. On the applier's thread; resumable."""
        with self._db.transaction("pack"):
            return pack_slice(self._db, partition, tid, limit)

    def erase_step(self, partition: Partition, limit: int) -> bool:
        """Erase one slice of a doomed cell; return whether nothing is left to do. On the applier's thread."""
        with self._db.transaction("erase"):
            return erase_slice(self._db, partition, limit)

    def checkpoint(self) -> int:
        """Make what was applied durable; return the log position up to which it is. On the applier's thread.

        The flush of SQLite's log makes it durable; moving it into the database then only keeps the log short, as far
        as readers and the room on the disk allow: `disk` tells of no room.
        """
        position = self._position
        try:
            descriptor = os.open(self._wal(), os.O_RDONLY)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BackendError(f"flush of {self._wal()}: {error}") from error
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._is_full = False
        except sqlite3.Error as error:
            translated_error = translate(error, "checkpoint")
            if not isinstance(translated_error, DiskFull):
                raise translated_error from error
            self._is_full = True
        return position

    # -------------------------------------------------------------------------------------------- the rest

    def hub_reader(self, waits: Waits) -> None:
        """None is needed: it is asked at once."""
        del waits

    def range_reader(self) -> RangeReader:
        """Return a reader with a connection of its own."""
        with translated(f"cannot open {self._path}"):
            return DatabaseReader(
                SqliteDatabase(connect(self._path, cache_bytes=_RANGE_CACHE_BYTES, read_only=True), self._path)
            )

    def disk(self) -> tuple[int, int]:
        """Return (bytes used by the database, bytes free on its disk; 0 while the last checkpoint found no room)."""
        used = sum(p.stat().st_size for p in (self._path, self._wal()) if p.exists())
        status = os.statvfs(self._path.parent)
        return used, 0 if self._is_full else status.f_bavail * status.f_frsize

    def news(self) -> Sequence[str]:
        """Return nothing: a file has no life of its own."""
        return ()

    def close(self) -> None:
        """Release everything; harmless when done already, or never opened."""
        for name in ("_reader", "_connection"):
            connection: sqlite3.Connection | None = self.__dict__.pop(name, None)
            if connection is not None:
                with translated(f"close of {self._path}"):
                    connection.close()
        if self._file is not None:
            self._file.release()
            self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
