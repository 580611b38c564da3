"""MariaDB or MySQL under a storage.

InnoDB keeps a table in the order of its key, as our schema wants it. With the settings that are read back, a committed
transaction is on disk when COMMIT returns: a checkpoint has nothing left to do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import MySQLdb

from neo_common.config.sections import Storage
from neo_common.errors import BackendError, BackendLost
from neo_common.wire.schema import PIECE_BYTES
from neo_storage.backends.base import Kept, PointReader, Waits
from neo_storage.backends.dialect import Statement
from neo_storage.backends.mysql.connection import HubMysqlDatabase, MysqlDatabase, driver_tls, look, make_database
from neo_storage.backends.mysql.flavour import flavour_of, unsafe
from neo_storage.backends.mysql.hub_reader import ANSWER_BYTES, MysqlHubReader
from neo_storage.backends.mysql.layout import Layout
from neo_storage.backends.mysql.managed import ManagedServer, commands_of
from neo_storage.backends.mysql.schema import DIALECT
from neo_storage.backends.server import ServerBackend, ServerDatabase
from neo_storage.backends.tls import NO_TLS, ServerTls

_PACKET_BYTES: Final = 4 * PIECE_BYTES
"""What the server must take in one statement, at least: a piece, each byte of which may become two."""


_SETTINGS: Final = (
    "innodb_flush_log_at_trx_commit",
    "log_bin",
    "sync_binlog",
    "innodb_doublewrite",
    "max_allowed_packet",
    "datadir",
    "net_buffer_length",
)
_SELECT_SETTINGS: Final = "SELECT " + ", ".join("@@" + name for name in _SETTINGS)
LOCK: Final = "concat('neo.', left(sha2(database(), 256), 60))"
"""The name of the lock that a session takes, in SQL: of 64 letters at most, the same for one database."""
_NO_SUCH_CONNECTION: Final = 1094
_MANAGED: Final = "neo"
"""The one database of a managed server."""
_LOOK_MAX_S: Final = 10.0
"""For an answer to a look at a managed server."""


class MysqlBackend(ServerBackend):
    """`backends.base.Backend` on a database of a MariaDB or MySQL server, which nobody else uses."""

    def __init__(
        self,
        *,
        database: str,
        user: str,
        password: str = "",
        socket: str = "",
        host: str = "",
        port: int = 3306,
        timeout_s: float = 120.0,
        directory: str = "",
        is_unsafe: bool = False,
        tls: ServerTls = NO_TLS,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """*socket*, or else *host*, *port* and *tls*. *timeout_s*: for one answer of the server, then it is lost.

        *directory*: where the server has its files, if that is on this machine; empty: ask it, when it has a socket.
        """
        where = socket or f"{host}:{port}"
        super().__init__(f"database {database} of the server at {where}", DIALECT, is_unsafe=is_unsafe)
        self._arguments: dict[str, Any] = {
            "database": database,
            "user": user,
            "password": password,
            "connect_timeout": 10,
            "read_timeout": max(1, round(timeout_s)),
            "write_timeout": max(1, round(timeout_s)),
            **driver_tls(tls),
            **(more or {}),
        }
        self._arguments.update({"unix_socket": socket} if socket else {"host": host, "port": port})
        self._directory = directory
        self._is_local = bool(socket)
        self._timeout_s = timeout_s
        self._tls = tls.mode
        self._answer_bytes = 0

    def database(self) -> ServerDatabase:
        """Return a connection, not yet made."""
        return MysqlDatabase(self._arguments, self.what, tls=self._tls)

    def hub_reader(self, waits: Waits) -> PointReader | None:
        """Return a reader for a greenlet of the hub, if the server is on this machine and writes answers at once."""
        if not self._is_local or self._answer_bytes < ANSWER_BYTES:
            return None
        short = HubMysqlDatabase(self._arguments, self.what, waits, self._timeout_s)
        return MysqlHubReader(short, MysqlDatabase(self._arguments, self.what), waits)

    def unsafe_settings(self, db: ServerDatabase) -> list[str]:
        """Return what could lose data. Raises: BackendError when the packet limit is too low."""
        row = db.one(Statement(_SELECT_SETTINGS))
        assert row is not None, "a SELECT of variables has one row"
        settings: dict[str, Any] = dict(zip(_SETTINGS, row, strict=True))
        # Not every version has these.
        settings.update(db.rows(Statement("SHOW GLOBAL VARIABLES LIKE %s", (0,)), ("innodb_flush_method",)))
        settings.update(db.rows(Statement("SHOW GLOBAL STATUS LIKE %s", (0,)), ("Innodb_redo_log_enabled",)))
        if settings["max_allowed_packet"] < _PACKET_BYTES:
            raise BackendError(
                f"{self.what} takes statements of at most {settings['max_allowed_packet']} bytes: set"
                f" max_allowed_packet to {_PACKET_BYTES >> 20}M or more"
            )
        self._answer_bytes = settings["net_buffer_length"]
        if self._is_local and not self._directory:
            self._directory = settings["datadir"]
        return unsafe(settings)

    session_words = "connection {} of the server (SHOW PROCESSLIST)"

    def session(self, db: ServerDatabase) -> int:
        """Return the number of the connection."""
        row = db.one(Statement("SELECT connection_id()"))
        assert row is not None, "a SELECT of a function has one row"
        return int(row[0])

    def end_session(self, db: ServerDatabase, number: int) -> None:
        """End a connection, which may have ended by itself."""
        try:
            db.execute("KILL CONNECTION %s", (number,))
        except MySQLdb.OperationalError as error:
            if error.args[0] != _NO_SUCH_CONNECTION:
                raise

    def take_lock(self, db: ServerDatabase) -> int | None:
        """Take the named lock of the database, or return which connection has it; 0 if it has let go meanwhile."""
        row = db.one(Statement(f"SELECT get_lock({LOCK}, 0), is_used_lock({LOCK})"))
        assert row is not None, "a SELECT of functions has one row"
        return None if row[0] == 1 else int(row[1] or 0)

    def tables(self, db: ServerDatabase) -> set[str]:
        """Return the names of all tables."""
        rows = db.rows(Statement("SELECT table_name FROM information_schema.tables WHERE table_schema = database()"))
        return {name for (name,) in rows}

    def version(self, db: ServerDatabase) -> str:
        """Return which server it is."""
        row = db.one(Statement("SELECT @@version"))
        text = str(row[0]) if row else "?"
        flavour = flavour_of(text)
        return text if flavour.is_mariadb else f"{flavour.name} {text}"

    def used_bytes(self, db: ServerDatabase) -> int:
        """Return what InnoDB's statistics say."""
        row = db.one(
            Statement(
                "SELECT sum(data_length + index_length) FROM information_schema.tables WHERE table_schema = database()"
            )
        )
        return int(row[0] or 0) if row else 0


class ManagedMysqlBackend(MysqlBackend):
    """The same on a server of its own, which is started with it and stopped with it."""

    def __init__(
        self, directory: Path, *, cache_bytes: int, readers: int, timeout_s: float = 120.0, is_unsafe: bool = False
    ) -> None:
        """*directory*: of the server. *cache_bytes*: its buffer pool. *timeout_s*: as above; then it is ended, too.

        Raises: ConfigError if there is no MariaDB.
        """
        layout = Layout(directory)
        super().__init__(
            database=_MANAGED,
            user="root",
            socket=str(layout.socket),
            timeout_s=timeout_s,
            directory=str(directory),
            is_unsafe=is_unsafe,
        )
        commands = commands_of(layout, cache_bytes=cache_bytes, readers=readers)
        look_s = min(_LOOK_MAX_S, timeout_s / 4)
        self.server = ManagedServer(
            layout,
            commands,
            answers=self._answers,
            look=lambda: look(self._arguments, look_s),
            silence_s=timeout_s,
            tell=self._news.append,
        )

    def _answers(self) -> bool:
        """Ask whether the server does, and make the database in it."""
        arguments = {**self._arguments, "database": "", "connect_timeout": 2}
        try:
            make_database(arguments, _MANAGED)
        except BackendLost:
            return False
        return True

    def open(self) -> Kept:
        """Start the server, then as on any other."""
        self.server.start()
        try:
            return super().open()
        except BaseException:
            self.server.stop()
            raise

    def close(self) -> None:
        """Disconnect, then stop the server."""
        super().close()
        self.server.stop()


def make(storage: Storage, password: str, tls: ServerTls) -> MysqlBackend:
    """Return the back end that *storage* is configured with. Raises: ConfigError."""
    d = storage.database
    if d.managed:
        return ManagedMysqlBackend(
            Path(d.server_directory),
            cache_bytes=d.cache_bytes,
            readers=d.readers,
            timeout_s=d.timeout_s,
            is_unsafe=d.unsafe,
        )
    return MysqlBackend(
        database=d.name,
        user=d.user,
        password=password,
        socket=d.socket,
        host=d.server,
        port=d.port or 3306,
        timeout_s=d.timeout_s,
        directory=d.server_directory,
        is_unsafe=d.unsafe,
        tls=tls,
    )
