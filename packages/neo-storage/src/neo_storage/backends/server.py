"""What MariaDB and PostgreSQL have in common as back ends: connections that may be lost, and a database that others
could reach.

One connection writes, on the applier's thread; every reader has its own. All of them make themselves anew. The writer's
also holds a lock that the server keeps for the node, and each transaction looks first whether the database still has
the mark of this process (`owner`): whoever took it over meanwhile, by whatever accident, cannot be overwritten.
"""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from neo_common.errors import BackendError, BackendLost, DataCorrupted
from neo_common.ids import Oid, Partition, Tid
from neo_storage.backends import logical
from neo_storage.backends.base import Kept, Op, PackStep, PointReader, RangeReader, Stored, Waits
from neo_storage.backends.database import Row
from neo_storage.backends.dialect import Dialect, Many, Scan, Statement
from neo_storage.backends.kept import read_kept
from neo_storage.backends.migration import migrate
from neo_storage.backends.range_reader import DatabaseReader
from neo_storage.backends.removal import erase_slice, pack_slice
from neo_storage.backends.statements import Statements
from neo_storage.backends.writer import Writer
from neo_storage.native import pause

OPEN_S: Final = 30.0
"""How long a start waits for a server that is not there yet."""
_NEWS_MAX: Final = 100
LOCK_S: Final = 10.0
"""How long it waits for the server to notice that the last owner of the database is gone."""
PAGE_ROWS: Final = 1000
"""Of a page of a scan."""


class ServerDatabase(ABC):
    """`backends.database.Database` on a DB-API connection. `connect` is called whenever there is none."""

    statements: Statements

    def __init__(self, connect: Callable[[], Any], what: str) -> None:
        """*connect* returns a connection in autocommit, or raises the driver's errors. *what*: the database, in words.

        Any: neither driver has types.
        """
        self._connect = connect
        self.what = what
        self._connection: Any = None
        self.is_prepared = True
        """Whether a new connection may prepare statements of the present format."""
        self.owner: bytes | None = None
        """What `config` must have as its owner when this connection writes; None: not asked."""

    # ---- for the dialects

    driver_error: ClassVar[type[Exception]]
    schema: ClassVar[str]
    """SQL for the schema that our tables are in."""

    @abstractmethod
    def translate(self, error: Exception, doing: str) -> BackendError:
        """Return our error for one of the driver."""

    @abstractmethod
    def begin_snapshot(self) -> str:
        """Return the statement that begins a transaction that reads one moment."""

    @abstractmethod
    def parts(self, many: Many, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Yield *rows* in portions that the server takes in one statement."""

    # ---- the connection

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Raise our errors for the driver's; after one that leaves the connection in doubt it is dropped."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            yield
        except self.driver_error as error:
            ours = self.translate(error, f"{doing} in {self.what}")
            if isinstance(ours, BackendLost):
                self.close()
            raise ours from error

    def close(self) -> None:
        """Release the connection; the next use makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except self.driver_error:
                return  # it is gone, which was what was wanted

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    # ---- transactions

    @contextmanager
    def transaction(self, doing: str) -> Iterator[None]:
        """A transaction that writes. After an error at COMMIT it is unknown whether it was: BackendLost."""
        with self.errors(doing):
            self.execute("BEGIN")
            try:
                if self.owner is not None:
                    self._check_owner()
                yield
            except BaseException:
                self._roll_back()
                raise
        with self.errors(f"COMMIT of {doing}"):
            try:
                self.execute("COMMIT")
            except self.driver_error as error:
                self.close()
                raise BackendLost(f"COMMIT of {doing} in {self.what}: {error}") from error

    @contextmanager
    def snapshot(self, doing: str, *, is_single: bool = False) -> Iterator[None]:
        """A transaction that reads; one statement is a snapshot by itself."""
        with self.errors(doing):
            if is_single:
                yield
                return
            self.execute(self.begin_snapshot())
            try:
                yield
            finally:
                self._roll_back()

    def _roll_back(self) -> None:
        if self._connection is not None:
            try:
                self.execute("ROLLBACK")
            except self.driver_error:
                self.close()  # the server rolls back what has lost its connection

    def _check_owner(self) -> None:
        row = self.one(Statement("SELECT value FROM config WHERE name = 'owner' FOR UPDATE"))
        if row is None or row[0] != self.owner:
            raise BackendError(
                f"{self.what} was taken over by another process while this one was running: stop one of them,"
                " each storage needs a database of its own"
            )

    # ---- statements

    def execute(self, text: str, arguments: Sequence[object] | None = None) -> Any:
        """Run one statement; return its cursor."""
        cursor = self._connection.cursor()
        cursor.execute(text, arguments)
        return cursor

    def one(self, statement: Statement, arguments: Sequence[object] = ()) -> Row | None:
        """Return the first row, None if there is none."""
        row: Row | None = self._run(statement, arguments).fetchone()
        return row

    def rows(self, statement: Statement, arguments: Sequence[object] = ()) -> list[Row]:
        """Return all rows."""
        return list(self._run(statement, arguments).fetchall())

    def run(self, statement: Statement, arguments: Sequence[object] = ()) -> None:
        """Run what gives no rows."""
        self._run(statement, arguments)

    def _run(self, statement: Statement, arguments: Sequence[object]) -> Any:
        if not statement.order:
            return self.execute(statement.text)
        return self.execute(statement.text, tuple(arguments[at] for at in statement.order))

    def scan(self, scan: Scan, low: int, high: int, *also: object) -> Iterator[Row]:
        """Yield the rows of a walk, in pages: a driver fetches whole answers."""
        while True:
            rows = self.rows(scan.page, (low, high, *also, PAGE_ROWS))
            if len(rows) < PAGE_ROWS:
                yield from rows
                return
            # The rows of the last key may not be all of them: the next page begins with it, unless it fills one alone.
            last: int = rows[-1][0]
            if rows[0][0] == last:
                yield from self.rows(scan.rows, (last, last, *also))
                last += 1 if scan.is_up else -1
            else:
                yield from (row for row in rows if row[0] != last)
            if scan.is_up:
                low = last
            else:
                high = last

    def run_many(self, many: Many, rows: Sequence[Row]) -> int:
        """Run it for all *rows*, in as few statements as the server takes. Return how many rows it has changed."""
        changed = 0
        for portion in self.parts(many, rows) if rows else ():
            text = many.head + many.between.join([many.row] * len(portion)) + many.tail
            changed += self.execute(text, [value for row in portion for value in row]).rowcount
        return changed

    def rows_of_many(self, many: Many, rows: Sequence[Row]) -> list[Row]:
        """Run it for all *rows* in one statement."""
        if not rows:
            return []
        text = many.head + many.between.join([many.row] * len(rows)) + many.tail
        return list(self.execute(text, [value for row in rows for value in row]).fetchall())

    def revisions(
        self, partitions: Sequence[Partition], low: int, high: int, limit: int
    ) -> Iterable[tuple[Partition, list[Row]]]:
        """Return revisions by partition, a statement for each."""
        return ((p, self.rows(self.statements.copy, (p, low, high, limit))) for p in partitions)

    def values(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the rows of `data` with these ids."""
        if not ids:
            return {}
        if max(ids) - min(ids) == len(ids) - 1:  # written together, as those of a transaction are
            return dict(self.rows(self.statements.values, (min(ids), max(ids))))
        marks = ", ".join(["%s"] * len(ids))
        return dict(self.execute(f"SELECT id, value FROM data WHERE id IN ({marks})", list(ids)).fetchall())

    def config(self) -> dict[str, int | bytes]:
        """Return `config`."""
        rows = self.rows(self.statements.config)
        return {name: value if number is None else number for name, number, value in rows}

    def set_config(self, values: dict[str, int | bytes]) -> None:
        """Write into `config`."""
        rows = [(n, v, None) if isinstance(v, int) else (n, None, v) for n, v in values.items()]
        self.run_many(self.statements.set_config, rows)

    def columns(self, table: str) -> set[str]:
        """Return the names of the columns of *table*; none when there is no such table."""
        text = f"""
SELECT column_name FROM information_schema.columns WHERE table_schema = {self.schema} AND table_name = %s"""
        return {name for (name,) in self.execute(text, (table,)).fetchall()}

    def prepare(self) -> None:
        """Prepare statements, if any, for this connection and those that will take its place.

        The tables have the present format now.
        """
        self.is_prepared = True


class ServerBackend(ABC):
    """`backends.base.Backend` on a server."""

    at_once = False

    def __init__(self, what: str, dialect: Dialect, *, is_unsafe: bool) -> None:
        """*what*: the database, in words, without secrets. `is_unsafe`: settings that lose data are accepted."""
        self.what = what
        self._dialect = dialect
        self._is_unsafe = is_unsafe
        self._directory = ""
        """Where the server has its files, if that is on this machine."""
        self._position = -1
        self._tried = -1
        self._used = 0
        self._version = ""
        self._session: int | None = None
        """The session that writes, or did before it was lost."""
        self._news: deque[str] = deque(maxlen=_NEWS_MAX)
        self._writing: ServerDatabase | None = None
        self._reading: DatabaseReader | None = None
        self._writer: Writer

    # ---- for the back ends

    @abstractmethod
    def database(self) -> ServerDatabase:
        """Return a connection, not yet made, for one thread."""

    @abstractmethod
    def unsafe_settings(self, db: ServerDatabase) -> list[str]:
        """Return what of the server's settings could lose what it has called durable, each with its remedy.

        Raises: BackendError for what no storage can work with.
        """

    session_words: ClassVar[str]
    """What a session of the server is called, and where one looks for it; `{}` is its number."""

    @abstractmethod
    def session(self, db: ServerDatabase) -> int:
        """Return the number of the session that *db* is for the server."""

    @abstractmethod
    def end_session(self, db: ServerDatabase, number: int) -> None:
        """Have the server end a session of ours: it rolls back, then lets go of the lock."""

    @abstractmethod
    def take_lock(self, db: ServerDatabase) -> int | None:
        """Take the lock that the server keeps for who has the database: None. Else return the session that has it."""

    @abstractmethod
    def tables(self, db: ServerDatabase) -> set[str]:
        """Return the names of all tables in the database."""

    @abstractmethod
    def version(self, db: ServerDatabase) -> str:
        """Return which server it is, with its version."""

    @abstractmethod
    def used_bytes(self, db: ServerDatabase) -> int:
        """Return how much the database takes on the server's disk."""

    # ---- life

    def open(self) -> Kept:
        """Create the tables or check them, check the server's settings, take the lock; return what is known.

        Raises: BackendLost when the server is not to be reached, BackendError when it is not fit or does not let us.
        """
        delay_s, waited_s = 0.1, 0.0
        while True:
            try:
                return self._open()
            except BackendLost:
                self._disconnect()
                if waited_s >= OPEN_S:
                    raise
                pause(delay_s)
                waited_s += delay_s
                delay_s = min(2.0, 2 * delay_s)
            except BaseException:
                self._disconnect()
                raise

    def _open(self) -> Kept:
        db = self._writing = self.database()
        db.is_prepared = False  # its tables may have an older format, or be none yet
        with db.errors("opening"):
            self._take(db)
            self._make_tables(db)
            migrate(db, self.what)
            db.prepare()
            self._check_privileges(db)
        with db.snapshot("opening"):
            owner = db.config().get("owner")
            kept = read_kept(db)
            self._writer = Writer.of(db, kept)
        db.owner = owner if isinstance(owner, bytes) else None  # until `claim` nobody else may have come either
        self._position = self._tried = kept.position
        self._look_at_size(db)
        return kept

    def claim(self) -> None:
        """Leave the mark of this process: whoever had the database before can write to it no more.

        Raises: BackendLost; BackendError when another process has come since `open`.
        """
        db = self._open_database()
        owner = os.urandom(16)
        with db.transaction("claiming"):
            db.set_config({"owner": owner})
        db.owner = owner

    def _take(self, db: ServerDatabase) -> None:
        """Check the settings of a server that we have just connected to, and take the lock.

        It may be another server than last time: upgraded, failed over, with other settings.
        """
        version = self.version(db)
        if self._version not in ("", version):
            self._news.append(f"{self.what} is kept by {version} now, was by {self._version}")
        self._version = version
        unsafe = self.unsafe_settings(db)
        if unsafe and not self._is_unsafe:
            raise BackendError(
                f"{self.what} would lose what it has called durable, when its machine fails: {'; '.join(unsafe)}."
                " Mend the server's settings, or accept it with `unsafe: true`"
            )
        self._take_lock(db)
        self._session = self.session(db)

    def _take_lock(self, db: ServerDatabase) -> None:
        """Take the lock. With it, a transaction of a connection that we gave up cannot be committed any more."""
        waited_s = 0.0
        while (holder := self.take_lock(db)) is not None:
            words = self.session_words.format(holder)
            is_ours = holder == self._session
            if is_ours:
                self.end_session(db, holder)  # the server has not noticed that we are gone, as it waits itself
            if waited_s >= LOCK_S:
                if is_ours:
                    raise BackendLost(f"{self.what}: {words}, which we have given up, does not end")
                raise BackendError(
                    f"{self.what} is in use by {words}: each storage needs a database of its own, to itself"
                )
            pause(0.2)
            waited_s += 0.2

    def _make_tables(self, db: ServerDatabase) -> None:
        """Make the tables, unless they are there. A process killed within it goes on at the next start."""
        ours = {table.name for table in logical.TABLES}
        there = self.tables(db)
        if "config" in there and "format" in db.config():
            return
        foreign = sorted(there - ours)
        if foreign:
            raise BackendError(
                f"{self.what} has tables that are not NEO's ({', '.join(foreign[:5])}): give it a database of its own"
            )
        for name in sorted(there):
            if db.one(Statement(f"SELECT 1 FROM {name} LIMIT 1")) is not None:
                raise DataCorrupted(f"{self.what} has rows in {name}, but no format: it is damaged, or not NEO's")
        for name in sorted(there):
            db.execute(f"DROP TABLE {name}")  # whoever was killed within this may have been of an older format
        for table in logical.TABLES:
            for text in self._dialect.create(table):
                db.execute(text)
        with db.transaction("making the tables"):
            db.set_config({"format": logical.FORMAT, "minimum_reader": logical.MINIMUM_READER, "position": -1})

    def _check_privileges(self, db: ServerDatabase) -> None:
        """Do once what needs each privilege, changing nothing, so that a missing one is told now."""
        for table in logical.TABLES:
            key = f'"{table.key[0]}"'
            db.execute(f"SELECT {key} FROM {table.name} LIMIT 1").fetchall()
            db.execute(f"UPDATE {table.name} SET {key} = {key} WHERE 1 = 0")
            db.execute(f"DELETE FROM {table.name} WHERE 1 = 0")
            db.execute(f"INSERT INTO {table.name} SELECT * FROM {table.name} WHERE 1 = 0")

    def reconnect(self) -> None:
        """Connect anew after BackendLost, and read back up to where the database is complete: it is not guessed.

        On the applier's thread. Raises: BackendLost, it may be tried again; BackendError when the server has lost what
        it called durable, is not safe any more, or has given the database to somebody else.
        """
        db = self._writing
        assert db is not None, "it was open"
        db.close()
        with db.errors("reconnecting"):
            self._take(db)
            config = db.config()
        position = config.get("position")
        if config.get("owner") != db.owner:
            raise BackendError(f"{self.what} was taken over by another process meanwhile: stop one of them")
        if position not in (self._position, self._tried):
            raise BackendError(
                f"{self.what} is complete up to record {position!r} of the log now, and was up to {self._position}: it"
                " was restored, or has lost what it had called durable"
            )
        self._position = self._tried = position
        with db.snapshot("reconnecting"):
            self._writer = Writer.of(db, read_kept(db))

    def close(self) -> None:
        """Release everything; harmless when done already, or never opened."""
        self._disconnect()
        self._session = None

    def _disconnect(self) -> None:
        writing, self._writing = self._writing, None
        reading, self._reading = self._reading, None
        if writing is not None:
            writing.close()
        if reading is not None:
            reading.close()

    # ---- the applier's thread

    def apply(self, ops: Sequence[Op], position: int) -> None:
        """Write *ops* and the mark *position* in one SQL transaction, removals that come first in slices before it.

        After an error nothing of it is there, but some of those; after BackendLost that is unknown, and `reconnect`
        says it.
        """
        db = self._open_database()
        ops = self._writer.remove(ops)
        self._tried = position
        with db.transaction("apply"):
            self._writer.write(ops, position)
        self._position = position

    def pack_step(self, partition: Partition, tid: Tid, limit: int) -> PackStep:
        """Pack one slice of a cell: about *limit* revisions looked at. Resumable."""
        db = self._open_database()
        with db.transaction("pack"):
            return pack_slice(db, partition, tid, limit)

    def erase_step(self, partition: Partition, limit: int) -> bool:
        """Erase one slice of a doomed cell; return whether nothing is left to do."""
        db = self._open_database()
        with db.transaction("erase"):
            return erase_slice(db, partition, limit)

    def checkpoint(self) -> int:
        """Return the position up to which the server vouches for what it has: what it has committed is durable."""
        db = self._open_database()
        try:
            self._look_at_size(db)
        except BackendLost:
            return self._position  # that was durable before; the next batch finds the connection gone
        return self._position

    def _open_database(self) -> ServerDatabase:
        db = self._writing
        if db is None or not db.is_connected:
            raise BackendLost(f"{self.what} is not connected")
        return db

    def _look_at_size(self, db: ServerDatabase) -> None:
        with db.errors("its size"):
            self._used = self.used_bytes(db)

    # ---- reads

    def range_reader(self) -> RangeReader:
        """Return a reader with a connection of its own, which it makes when it needs it, and again."""
        return DatabaseReader(self.database())

    def hub_reader(self, waits: Waits) -> PointReader | None:
        """Return a reader for a greenlet of the hub. None: the driver can only block."""
        del waits
        return None

    def _reader(self) -> DatabaseReader:
        if self._reading is None:
            self._reading = DatabaseReader(self.database())
        return self._reading

    def current(self, partition: Partition, oid: Oid) -> Tid:
        """Return the serial of the last revision (a deletion counts), 0 if there is none. Blocks."""
        return self._reader().current(partition, oid)

    def load(self, partition: Partition, oid: Oid, before: Tid) -> Stored | None:
        """Return the last revision below *before*; None if there is none. Blocks."""
        return self._reader().load(partition, oid, before)

    def piece(self, partition: Partition, oid: Oid, tid: Tid, offset: int) -> bytes | None:
        """Return a piece of a value. Blocks."""
        return self._reader().piece(partition, oid, tid, offset)

    def news(self) -> Sequence[str]:
        """Return what has happened to the server."""
        found = []
        while self._news:
            found.append(self._news.popleft())
        return found

    def disk(self) -> tuple[int, int | None]:
        """Return (bytes used by the database when last looked at, bytes free on its disk, if that is on this machine).

        No server tells: a full disk of another machine is noticed when it refuses.
        """
        try:
            status = os.statvfs(self._directory) if self._directory else None
        except OSError:  # the path is of another machine, or container
            status = None
        return self._used, None if status is None else status.f_bavail * status.f_frsize
