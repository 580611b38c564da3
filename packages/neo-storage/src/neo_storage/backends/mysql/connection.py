"""Connections to MariaDB or MySQL, and what its errors mean to us."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import MySQLdb

from neo_common.errors import BackendError, BackendLost, DataCorrupted, DiskFull
from neo_storage.backends.database import Row
from neo_storage.backends.dialect import Many
from neo_storage.backends.mysql.queries import QUERIES
from neo_storage.backends.mysql.schema import SESSION
from neo_storage.backends.server import ServerDatabase

_ROWS: Final = 1000
"""Rows per statement, at most: more gains nothing, and its OR-ed ranges would be too many for the optimizer."""
_NUMBER_BYTES: Final = 24

_FULL: Final = {3, 28, 1021, 1041, 1114, 1297}
"""Errors of a full disk or table space."""
_CORRUPT: Final = {126, 127, 1034, 1194, 1712, 1877, 1932}
_REFUSED: Final = {1044, 1045, 1049, 1142, 1143, 1146, 1227, 1370, 1698}
"""Who we are does not let us, or there is no such database."""
_LOST: Final = {1040, 1053, 1077, 1078, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1205, 1213, 1317, 1836, 1927}
"""The server went away or stops, or has rolled back by itself (deadlock, lock timeout, killed): connect and see."""


def translate(error: Exception, doing: str) -> BackendError:
    """Return our error for one of the driver, to be raised `from` it."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    message = error.args[1] if len(error.args) > 1 else error
    text = f"{doing}: {message} (error {code})"
    if code in _FULL:
        return DiskFull(text)
    if code in _CORRUPT:
        return DataCorrupted(text)
    if code in _REFUSED:
        return BackendError(
            f"{text}. It needs a database, and a user of it with the rights SELECT, INSERT, UPDATE, DELETE, CREATE,"
            " ALTER, INDEX, DROP (docs/operating.md, MariaDB and PostgreSQL)"
        )
    if code in _LOST or 2000 <= code < 3000 or isinstance(error, MySQLdb.InterfaceError):
        return BackendLost(text)
    return BackendError(text)


class MysqlDatabase(ServerDatabase):
    """A connection, made when it is needed."""

    statements = QUERIES
    driver_error = MySQLdb.Error
    schema = "database()"

    def __init__(self, arguments: dict[str, Any], what: str) -> None:
        """*arguments* of MySQLdb.connect."""
        super().__init__(self._new, what)
        self._arguments = arguments
        self.packet_bytes = 0
        """The largest statement that the server takes."""

    def _new(self) -> Any:
        connection = MySQLdb.connect(
            **self._arguments, charset="utf8mb4", autocommit=True, sql_mode=SESSION["sql_mode"]
        )
        cursor = connection.cursor()
        cursor.execute("SELECT @@max_allowed_packet")
        self.packet_bytes = cursor.fetchone()[0]
        return connection

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
