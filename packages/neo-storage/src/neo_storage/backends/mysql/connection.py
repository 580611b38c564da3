"""Connections to MariaDB or MySQL, and what its errors mean to us."""

import re
from collections.abc import Callable, Iterator, Sequence
from errno import EAGAIN, EINPROGRESS
from socket import AF_UNIX
from typing import Any, Final, assert_never

import MySQLdb
import MySQLdb.connections
from gevent.monkey import get_original

from neo_common.errors import BackendError, BackendLost, DataCorrupted, DiskFull
from neo_storage.backends.base import Waits
from neo_storage.backends.database import Row
from neo_storage.backends.dialect import Many, Statement
from neo_storage.backends.mysql import greeting
from neo_storage.backends.mysql.flavour import MARIADB, flavour_of
from neo_storage.backends.mysql.queries import EXECUTE, PREPARE, QUERIES
from neo_storage.backends.mysql.schema import SESSION
from neo_storage.backends.mysql.vigil import Sign
from neo_storage.backends.server import ServerDatabase
from neo_storage.backends.tls import ServerTls, TlsMode
from neo_storage.backends.tls import remedy as tls_remedy

_ROWS: Final = 1000
"""Rows per statement, at most: more gains nothing, and its OR-ed ranges would be too many for the optimizer."""
_NUMBER_BYTES: Final = 24

_FULL: Final = {3, 28, 1021, 1041, 1114, 1297, 3019}
"""Errors of a full disk or table space."""
_CORRUPT: Final = {126, 127, 1034, 1194, 1712, 1877, 1932}
_STRANGER: Final = {1045, 1698}
"""The user, from this host, with that password, is nobody."""
_NO_DATABASE: Final = {1049}
_REFUSED: Final = {1044, 1142, 1143, 1227, 1370}
"""The user may not do that, or may not even see the database."""
_ACCOUNT: Final = re.compile(r"'[^']*'@'[^']*'")
_LOST: Final = {
    *(1040, 1053, 1077, 1078, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1317, 1927, 3168, 3169, 4031),
    *(1020, 1205, 1213, 3100, 3101),
    *(1290, 1792, 1836),
}
"""The server went away or stops; it has rolled back by itself (deadlock, lock timeout, another of a group); or it is
read-only, as after a fail-over: connect and see."""
_WAY_IN: Final = {2059, 2061}
"""The driver has not the authentication plugin of the user, or it wants TLS."""


_NO_CONNECTION: Final = 2003
_TLS_ERROR: Final = 2026
_TLS_ONLY: Final = 3159
_CLIENT_ERRORS: Final = 2000
"""The first of those that the driver has itself; those below come from the server."""
_socket: Final[Any] = get_original("socket", "socket")  # Any: gevent hands out originals without types


def translate(error: Exception, doing: str) -> BackendError:
    """Return our error for one of the driver, to be raised `from` it."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    message = error.args[1] if len(error.args) > 1 else error
    text = f"{doing}: {message} (error {code})"
    if code in _FULL:
        return DiskFull(text)
    if code in _CORRUPT:
        return DataCorrupted(text)
    if code in (_TLS_ERROR, _TLS_ONLY) and (what := tls_remedy(text)):
        return BackendError(f"{text}. {what} (docs/operating.md, MariaDB and PostgreSQL)")
    if code in _STRANGER | _NO_DATABASE | _REFUSED | _WAY_IN:
        return BackendError(f"{text}. {_remedy(code, str(message))} (docs/operating.md, MariaDB and PostgreSQL)")
    if code in _LOST or 2000 <= code < 3000 or isinstance(error, MySQLdb.InterfaceError):
        return BackendLost(text)
    return BackendError(text)


def _remedy(code: int, message: str) -> str:
    """Return what the operator has to do, as SQL where it is."""
    found = _ACCOUNT.search(message)
    account = found.group() if found else "'USER'@'HOST'"
    grant = f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP ON NAME.* TO {account}"
    if code in _STRANGER:
        return (
            "The server has no such user, or another password (database.user, password_file, password_variable):"
            f" CREATE USER {account} IDENTIFIED BY '...'; {grant}. Or it demands TLS of that user (REQUIRE SSL, X509):"
            " database.tls_ca, tls_certificate, tls_key"
        )
    if code in _WAY_IN:
        return (
            "The driver cannot authenticate as the user demands: over a network caching_sha2_password wants TLS"
            " (database.tls_ca); its plugin comes with the driver's library (libmariadb3 or libmysqlclient); else ALTER"
            " USER ... IDENTIFIED WITH one that there is"
        )
    if code in _NO_DATABASE:
        return f"There is no such database (database.name): CREATE DATABASE NAME; {grant}"
    return f"The user lacks a privilege: {grant}, NAME being database.name"


def driver_tls(tls: ServerTls) -> dict[str, Any]:
    """Return the arguments of MySQLdb.connect for *tls*."""
    files = {name: path for name, path in (("ca", tls.ca), ("cert", tls.certificate), ("key", tls.key)) if path}
    match tls.mode:
        case TlsMode.USUAL:
            return {}
        case TlsMode.OFF:
            return {"ssl_mode": "DISABLED"}
        case TlsMode.UNVERIFIED:
            return {"ssl_mode": "REQUIRED", "ssl": files}
        case TlsMode.VERIFY:
            return {"ssl_mode": "VERIFY_IDENTITY", "ssl": files}
        case _:
            assert_never(tls.mode)


def make_database(arguments: dict[str, Any], name: str) -> None:
    """Make the database *name*, unless it is there. *arguments* of MySQLdb.connect, without one.

    Raises: BackendLost when the server does not answer, BackendError when it refuses.
    """
    try:
        connection = MySQLdb.connect(**arguments)
        try:
            connection.cursor().execute(f"CREATE DATABASE IF NOT EXISTS {name}")
        finally:
            connection.close()
    except MySQLdb.Error as error:
        raise translate(error, f"making the database {name}") from error


def look(arguments: dict[str, Any], timeout_s: float) -> Sign:
    """Ask a server on a Unix socket whether it answers. *arguments* of MySQLdb.connect. Blocks, so long at most."""
    waits = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), max(1, round(timeout_s)))
    try:
        connection = MySQLdb.connect(**{**arguments, "database": "", **waits})
        try:
            connection.cursor().execute("SELECT 1")
        finally:
            connection.close()
    except MySQLdb.Error as error:
        if error.args and isinstance(error.args[0], int) and 0 < error.args[0] < _CLIENT_ERRORS:
            return Sign.ANSWER
        return Sign.SILENCE if _is_listening(arguments["unix_socket"]) else Sign.ABSENT
    return Sign.ANSWER


def _is_listening(path: str) -> bool:
    """Whether a process takes connections at that Unix socket, be it that too many wait already."""
    sock = _socket(AF_UNIX)
    try:
        sock.setblocking(False)
        return sock.connect_ex(path) in (0, EAGAIN, EINPROGRESS)
    finally:
        sock.close()


class MysqlDatabase(ServerDatabase):
    """A connection, made when it is needed."""

    statements = QUERIES
    driver_error = MySQLdb.Error
    schema = "database()"

    def __init__(self, arguments: dict[str, Any], what: str, *, tls: TlsMode = TlsMode.USUAL) -> None:
        """*arguments* of MySQLdb.connect, those for *tls* among them."""
        super().__init__(self._new, what)
        self._arguments = arguments
        self._tls = tls
        self.packet_bytes = 0
        """The largest statement that the server takes."""
        self._flavour = MARIADB
        self._has_prepared = False

    def _new(self) -> Any:
        return self._make(MySQLdb.connections.Connection)

    def _make(self, kind: type[Any]) -> Any:
        arguments = self._arguments if self._tls is not TlsMode.UNVERIFIED else self._with_tls()
        connection = kind(**arguments, charset="utf8mb4", autocommit=True, sql_mode=SESSION["sql_mode"])
        cursor = connection.cursor()
        if self._tls.is_wanted:
            cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            row = cursor.fetchone()
            if row is None or not row[1]:  # whatever the driver has made of what it was told
                connection.close()
                raise MySQLdb.OperationalError(_TLS_ERROR, "the connection is not encrypted")
        cursor.execute("SELECT @@max_allowed_packet, @@version")
        self.packet_bytes, version = cursor.fetchone()
        self._flavour = flavour_of(version)
        for text in self._flavour.session:
            cursor.execute(text)
        self._has_prepared = False
        if self.is_prepared:
            self._prepare(connection)
        return connection

    def _with_tls(self) -> dict[str, Any]:
        """Return the arguments for a server that has TLS; nothing is said to another."""
        host, port = self._arguments["host"], self._arguments["port"]
        try:
            address, has_tls = greeting.look(host, port, self._arguments["connect_timeout"])
        except (OSError, ValueError) as error:
            raise MySQLdb.OperationalError(_NO_CONNECTION, f"cannot connect to {host}:{port}: {error}") from error
        if not has_tls:
            raise MySQLdb.OperationalError(_TLS_ERROR, "the server does not support TLS")
        return {**self._arguments, "host": address}  # the very one that was asked

    def _prepare(self, connection: Any) -> None:
        if self._flavour.can_prepare:
            for text in PREPARE:
                connection.cursor().execute(text)
            self._has_prepared = True

    def prepare(self) -> None:
        """Prepare statements, for this connection and those that will take its place."""
        self._prepare(self._connection)
        self.is_prepared = True

    def _run(self, statement: Statement, arguments: Sequence[object]) -> Any:
        text = EXECUTE.get(statement.text) if self._has_prepared else None
        return super()._run(statement if text is None else Statement(text, statement.order), arguments)

    def run_many(self, many: Many, rows: Sequence[Row]) -> int:
        """Run it for all *rows*, in the form that this server wants."""
        return super().run_many(self._flavour.form(many), rows)

    def translate(self, error: Exception, doing: str) -> BackendError:
        """Return our error for one of the driver."""
        return translate(error, doing)

    def begin_snapshot(self) -> str:
        """Return the statement that begins a transaction that reads one moment."""
        return "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"

    def parts(self, many: Many, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Yield *rows* in portions below the packet limit; a byte may become two in a statement."""
        room = self.packet_bytes // 2 - 4096
        begin, used = 0, 0
        for at, row in enumerate(rows):
            size = sum(len(value) if isinstance(value, bytes) else _NUMBER_BYTES for value in row)
            if at > begin and (used + size > room or at - begin >= _ROWS):
                yield rows[begin:at]
                begin, used = at, 0
            used += size
        yield rows[begin:]


class _HubConnection(MySQLdb.connections.Connection):  # type: ignore[misc]  # the driver has no types
    """One that waits between a question and its answer, once `wait` is set."""

    wait: Callable[[], None] | None = None

    def query(self, query: bytes | bytearray) -> None:
        """Send *query*; return when its answer is there."""
        if self.wait is None:
            super().query(query)
            return
        self.send_query(bytes(query))
        self.wait()
        self.read_query_result()


class HubMysqlDatabase(MysqlDatabase):
    """A connection for single statements in the hub, with short answers.

    The driver waits for the rest of an answer whose beginning is there. Answers below the server's net_buffer_length
    are written at once, and on a Unix socket arrive so: `backend` sees to it that there are no others.
    """

    def __init__(self, arguments: dict[str, Any], what: str, waits: Waits, timeout_s: float) -> None:
        """*timeout_s*: for an answer of the server, then it counts as lost."""
        super().__init__(arguments, what)
        self._connect = self._new_in_hub
        self._waits = waits
        self._timeout_s = timeout_s
        self._fd = -1

    def _new_in_hub(self) -> Any:
        connection = self._waits.apart(lambda: self._make(_HubConnection))
        self._fd = connection.fileno()
        connection.wait = self._wait
        return connection

    def close(self) -> None:
        """Release the connection; the next use makes another."""
        if self._connection is not None:
            self._waits.forget(self._fd)
        super().close()

    def _wait(self) -> None:
        if not self._waits.ready(self._fd, is_writing=False, timeout_s=self._timeout_s):
            raise MySQLdb.OperationalError(2013, f"the server has not answered for {self._timeout_s:g} s")
