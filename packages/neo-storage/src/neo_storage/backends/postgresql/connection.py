"""Connections to PostgreSQL, and what its errors mean to us."""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, assert_never

import psycopg2
import psycopg2.extensions

from neo_common.errors import BackendError, BackendLost, DataCorrupted, DiskFull
from neo_common.ids import Partition
from neo_storage.backends.base import Waits
from neo_storage.backends.database import Row
from neo_storage.backends.dialect import Many
from neo_storage.backends.postgresql.deadlines import Deadlines
from neo_storage.backends.postgresql.queries import PREPARE, QUERIES
from neo_storage.backends.postgresql.schema import SESSION
from neo_storage.backends.server import ServerDatabase
from neo_storage.backends.tls import ServerTls, TlsMode
from neo_storage.backends.tls import remedy as tls_remedy
from neo_storage.backends.values import runs
from neo_storage.native import wait_for

_ROWS: Final = 1000
_STATEMENT_BYTES: Final = 8 * 2**20
"""Of bytes in one statement, about: each becomes two digits, and the server's limit is 1 GB."""
_BYTEA: Final = 17
_COPIED: Final = 20
"""Values that are worth a COPY."""
COPY_VALUES: Final = """
COPY (SELECT d.id, d.value FROM unnest(%s::bigint[], %s::bigint[]) r (low, high)
        JOIN data d ON d.id BETWEEN r.low AND r.high) TO STDOUT (FORMAT binary)"""
COPY_REVISIONS: Final = """
COPY (SELECT r.*, p.n FROM unnest(%s::bigint[]) p (n), LATERAL (
      SELECT tid, oid, copied_from, coalesce(data_id, 0), compression, checksum, size FROM obj
       WHERE "partition" = p.n AND tid BETWEEN %s AND %s ORDER BY tid, oid LIMIT %s) r) TO STDOUT (FORMAT binary)"""
_COPY_HEAD: Final = struct.Struct(">11sII")
"""Magic, flags, length of more of a head: PostgreSQL sends none."""
_COPY_COLUMNS: Final = struct.Struct(">h")
_COPY_ROW: Final = struct.Struct(">hiqi")
"""Columns (below 0: the end), length of the id, the id, length of the value, which follows."""
_COPY_REVISION: Final = struct.Struct(">2x" + "4xq" * 5 + "4x16s" + "4xq" * 2)
"""Columns and lengths are those of COPY_REVISIONS: none is NULL."""
_PARTITION: Final = itemgetter(7)
_CONNECT_S: Final = 10.0
"""For each step of making a connection."""

_REFUSED: Final = ("28", "3D000", "42501", "3F000")
_REMEDIES: Final = {
    "authentication failed": "The server has no such user, or another password (database.user, password_file,"
    " password_variable): CREATE ROLE USER LOGIN PASSWORD '...'",
    "no password supplied": "It wants a password: set database.password_file or password_variable",
    "no pg_hba.conf entry": "Add a line for this database, user and host to pg_hba.conf, and reload the server",
    "does not exist": "It needs a database of its own, owned by its user: CREATE ROLE USER LOGIN PASSWORD '...';"
    " CREATE DATABASE NAME OWNER USER",
    "permission denied for database": "The user may not connect: GRANT CONNECT ON DATABASE NAME TO USER",
    "permission denied for schema": "GRANT USAGE, CREATE ON SCHEMA public TO USER; CREATE is for the first start only",
    "no schema has been selected": "GRANT USAGE, CREATE ON SCHEMA public TO USER; CREATE is for the first start only",
    "permission denied for table": "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO USER",
    "must be owner": "The tables belong to another user, OTHER: REASSIGN OWNED BY OTHER TO USER",
    "permission denied": "The user lacks a privilege: ALTER DATABASE NAME OWNER TO USER",
}
"""What the operator has to do, by what the server says: for most of it there is no code when it happens at connect."""
_CORRUPT: Final = ("XX001", "XX002")
_FULL: Final = ("53100", "53400")
_LOST: Final = ("08", "57", "40", "55P03", "53300", "25006", "25P02")
"""Connection, operator's intervention, rolled back (deadlock), lock timeout, too many connections, read only."""


def translate(error: Exception, doing: str) -> BackendError:
    """Return our error for one of the driver, to be raised `from` it."""
    code = getattr(error, "pgcode", None) or ""
    text = f"{doing}: {' '.join(str(error).split()) or type(error).__name__} ({code or 'no code'})"
    if code.startswith(_FULL):
        return DiskFull(text)
    if code.startswith(_CORRUPT):
        return DataCorrupted(text)
    if not code and (what := tls_remedy(text)):
        return BackendError(f"{text}. {what} (docs/operating.md, MariaDB and PostgreSQL)")
    if code.startswith(_REFUSED) or not code:
        for sign, remedy in _REMEDIES.items():
            if sign in text:
                return BackendError(f"{text}. {remedy} (docs/operating.md, MariaDB and PostgreSQL)")
    if not code or code.startswith(_LOST):  # without a code it was the connection, not the server, that spoke
        return BackendLost(text)
    return BackendError(text)


def driver_tls(tls: ServerTls) -> dict[str, Any]:
    """Return the arguments of psycopg2.connect for *tls*."""
    files = {"sslrootcert": tls.ca, "sslcert": tls.certificate, "sslkey": tls.key}
    # Else a ticket of Kerberos would be tried first: that is no certificate.
    given = {"gssencmode": "disable", **{name: path for name, path in files.items() if path}}
    match tls.mode:
        case TlsMode.USUAL:
            return {}
        case TlsMode.OFF:
            return {"sslmode": "disable"}
        case TlsMode.UNVERIFIED:
            return {"sslmode": "require", **given}
        case TlsMode.VERIFY:
            return {"sslmode": "verify-full", **given}
        case _:
            assert_never(tls.mode)


def _array(numbers: Iterable[int]) -> str:
    """Return an array as one text: the driver takes ten times as long to write it number by number."""
    return f"{{{','.join(map(str, numbers))}}}"


def _as_bytes(value: Any, cursor: Any) -> bytes | None:
    found = psycopg2.BINARY(value, cursor)
    return None if found is None else bytes(found)


_OPTIONS: Final = " ".join(f"-c {n}={v}" for n, v in SESSION.items())
_BYTES: Final = psycopg2.extensions.new_type((_BYTEA,), "NEO_BYTES", _as_bytes)


class PostgresqlDatabase(ServerDatabase):
    """A connection, made when it is needed."""

    statements = QUERIES
    driver_error = psycopg2.Error
    schema = "current_schema()"

    def __init__(self, arguments: dict[str, Any], what: str, deadlines: Deadlines) -> None:
        """*arguments* of psycopg2.connect."""
        super().__init__(self._new, what)
        self._arguments = arguments
        self._deadlines = deadlines

    def _new(self) -> Any:
        connection = psycopg2.connect(**self._arguments, options=_OPTIONS)
        connection.autocommit = True
        psycopg2.extensions.register_type(_BYTES, connection)
        if self.is_prepared:
            self._prepare(connection)
        return connection

    def execute(self, text: str, arguments: Sequence[object] | None = None) -> Any:
        """Run one statement; return its cursor."""
        with self._deadlines.of(self._connection.fileno()):
            return super().execute(text, arguments)

    def _prepare(self, connection: Any) -> None:
        with self._deadlines.of(connection.fileno()):
            for text in PREPARE:
                connection.cursor().execute(text)

    def prepare(self) -> None:
        """Prepare statements, for this connection and those that will take its place."""
        self._prepare(self._connection)
        self.is_prepared = True

    def translate(self, error: Exception, doing: str) -> BackendError:
        """Return our error for one of the driver."""
        return translate(error, doing)

    def begin_snapshot(self) -> str:
        """Return the statement that begins a transaction that reads one moment."""
        return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

    def parts(self, many: Many, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Yield *rows* in portions."""
        begin, used = 0, 0
        for at, row in enumerate(rows):
            size = sum(len(value) for value in row if isinstance(value, bytes))
            if at > begin and (used + size > _STATEMENT_BYTES or at - begin >= _ROWS):
                yield rows[begin:at]
                begin, used = at, 0
            used += size
        yield rows[begin:]

    def run_many(self, many: Many, rows: Sequence[Row]) -> int:
        """Run it for all *rows*; values go by COPY, which needs no digits for bytes."""
        if many is QUERIES.add_data and rows:
            self._copy_data(rows)
            return len(rows)
        return super().run_many(many, rows)

    def values(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the rows of `data` with these ids. Many come by COPY, which spares the digits here too."""
        if len(ids) < _COPIED:
            return super().values(ids)
        lows, highs = zip(*runs(ids), strict=True)
        data = self._copied(COPY_VALUES, (_array(lows), _array(highs)))
        found: dict[int, bytes] = {}
        at, end = _COPY_HEAD.size, len(data) - _COPY_COLUMNS.size
        unpack, size_of_row = _COPY_ROW.unpack_from, _COPY_ROW.size
        while at < end:
            _, _, number, size = unpack(data, at)
            at += size_of_row
            found[number] = data[at : at + size]
            at += size
        return found

    def revisions(
        self, partitions: Sequence[Partition], low: int, high: int, limit: int
    ) -> Iterable[tuple[Partition, list[Row]]]:
        """Return revisions by partition: all rows have the same size, so that one call in C takes a COPY to pieces."""
        data = self._copied(COPY_REVISIONS, (_array(partitions), low, high, limit))
        rows = memoryview(data)[_COPY_HEAD.size : -_COPY_COLUMNS.size]
        found: dict[Partition, list[Row]] = {}
        for partition, same in groupby(_COPY_REVISION.iter_unpack(rows), _PARTITION):
            found[partition] = [row if row[3] else (*row[:3], None, *row[4:]) for row in same]
        return [(partition, found[partition]) for partition in partitions if partition in found]

    def _copied(self, text: str, arguments: Sequence[object]) -> bytes:
        """Return what a COPY gives. psycopg2 binds on this side of the connection, in COPY as anywhere."""
        out = BytesIO()
        with self._deadlines.of(self._connection.fileno()):
            cursor = self._connection.cursor()
            cursor.copy_expert(cursor.mogrify(text, arguments).decode(), out)
        return out.getvalue()

    def _copy_data(self, rows: Sequence[Row]) -> None:
        out = BytesIO()
        out.write(_COPY_HEAD.pack(b"PGCOPY\n\xff\r\n\0", 0, 0))
        for number, value in rows:
            out.write(_COPY_ROW.pack(2, 8, number, len(value)))
            out.write(value)
        out.write(_COPY_COLUMNS.pack(-1))
        out.seek(0)
        with self._deadlines.of(self._connection.fileno()):
            self._connection.cursor().copy_expert("COPY data (id, value) FROM STDIN (FORMAT binary)", out)


class HubPostgresqlDatabase(PostgresqlDatabase):
    """A connection for single statements in the hub, asynchronous as psycopg2 calls it: nothing in it blocks.

    (Its other way, a callback that waits, is one for the whole process, and takes COPY from the applier.) It is made on
    a native thread, as names of hosts are looked up; each statement is a transaction.
    """

    def __init__(
        self, arguments: dict[str, Any], what: str, deadlines: Deadlines, waits: Waits, timeout_s: float
    ) -> None:
        """*timeout_s*: of silence of the server, then it counts as lost."""
        super().__init__(arguments, what, deadlines)
        self._connect = lambda: waits.apart(self._new_asynchronous)
        self._waits = waits
        self._timeout_s = timeout_s
        self._fd = -1

    def _new_asynchronous(self) -> Any:
        connection = psycopg2.connect(**self._arguments, options=_OPTIONS, async_=True)
        self._finish(connection, wait_for, _CONNECT_S)
        psycopg2.extensions.register_type(_BYTES, connection)
        cursor = connection.cursor()
        for text in PREPARE:
            cursor.execute(text)
            self._finish(connection, wait_for, _CONNECT_S)
        self._fd = connection.fileno()
        return connection

    def execute(self, text: str, arguments: Sequence[object] | None = None) -> Any:
        """Run one statement while other greenlets go on; return its cursor."""
        cursor = self._connection.cursor()
        cursor.execute(text, arguments)
        self._finish(self._connection, self._waits.ready, self._timeout_s)
        return cursor

    def close(self) -> None:
        """Release the connection; the next use makes another."""
        if self._connection is not None:
            self._waits.forget(self._fd)
        super().close()

    def _finish(self, connection: Any, ready: Callable[..., bool], timeout_s: float) -> None:
        """Wait until what is under way is done, or has failed."""
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            is_writing = state == psycopg2.extensions.POLL_WRITE
            if not ready(connection.fileno(), is_writing=is_writing, timeout_s=timeout_s):
                raise psycopg2.OperationalError(f"the server has not answered for {timeout_s:g} s")
