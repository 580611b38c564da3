"""PostgreSQL under a storage.

With the settings that are read back, a committed transaction is on disk when COMMIT returns: a checkpoint has nothing
left to do. Connections must be direct: a pooler between would lose the lock and the prepared statements.
"""

from typing import Any, Final

from neo_common.config.sections import Storage
from neo_common.errors import BackendError
from neo_storage.backends.base import PointReader, Waits
from neo_storage.backends.dialect import Statement
from neo_storage.backends.postgresql.connection import HubPostgresqlDatabase, PostgresqlDatabase, driver_tls
from neo_storage.backends.postgresql.deadlines import Deadlines
from neo_storage.backends.postgresql.schema import DIALECT, SESSION
from neo_storage.backends.range_reader import DatabaseReader
from neo_storage.backends.server import ServerBackend, ServerDatabase
from neo_storage.backends.tls import NO_TLS, ServerTls

_LOCK: Final = 0x4E454F53
"""`NEOS`: the advisory lock; they are counted per database."""


class PostgresqlBackend(ServerBackend):
    """`backends.base.Backend` on a database of a PostgreSQL server, which nobody else uses."""

    def __init__(
        self,
        *,
        database: str,
        user: str,
        password: str = "",
        socket: str = "",
        host: str = "",
        port: int = 5432,
        timeout_s: float = 120.0,
        directory: str = "",
        is_unsafe: bool = False,
        tls: ServerTls = NO_TLS,
    ) -> None:
        """*socket* (the folder that it is in), or else *host* and *tls*; and *port*. *timeout_s*: of its silence.

        *directory*: where the server has its files, if that is on this machine; empty: its disk is not looked at.
        """
        where = socket or host
        super().__init__(f"database {database} of PostgreSQL at {where}:{port}", DIALECT, is_unsafe=is_unsafe)
        self._arguments: dict[str, Any] = {
            "dbname": database,
            "user": user,
            "host": where,
            "port": port,
            "connect_timeout": 10,
            "application_name": "neo",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": round(1000 * timeout_s),
            **driver_tls(tls),
        }
        if password:
            self._arguments["password"] = password
        self._directory = directory
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(timeout_s)

    def database(self) -> ServerDatabase:
        """Return a connection, not yet made."""
        return PostgresqlDatabase(self._arguments, self.what, self._deadlines)

    def hub_reader(self, waits: Waits) -> PointReader | None:
        """Return a reader for a greenlet of the hub."""
        return DatabaseReader(
            HubPostgresqlDatabase(self._arguments, self.what, self._deadlines, waits, self._timeout_s)
        )

    def close(self) -> None:
        """Release everything."""
        super().close()
        self._deadlines.close()

    def unsafe_settings(self, db: ServerDatabase) -> list[str]:
        """Return what could lose data. Raises: BackendError when the server does not take our settings."""
        names = (*SESSION, "fsync", "full_page_writes")
        rows = db.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(names),)).fetchall()
        settings: dict[str, str] = dict(rows)
        for name, wanted in SESSION.items():
            if settings.get(name, wanted) != wanted:
                raise BackendError(f"{self.what} has {name} = {settings[name]}, not {wanted}, for this connection")
        return [f"{n} is {settings[n]}, must be on" for n in ("fsync", "full_page_writes") if settings[n] != "on"]

    session_words = "server process {} (pg_stat_activity)"

    def session(self, db: ServerDatabase) -> int:
        """Return the process of the server."""
        row = db.one(Statement("SELECT pg_backend_pid()"))
        assert row is not None, "a SELECT of a function has one row"
        return int(row[0])

    def end_session(self, db: ServerDatabase, number: int) -> None:
        """End a process of the server."""
        db.execute("SELECT pg_terminate_backend(%s)", (number,))

    def take_lock(self, db: ServerDatabase) -> int | None:
        """Take the advisory lock of the database, or return which process has it; 0 if it has let go meanwhile."""
        row = db.one(Statement(f"SELECT pg_try_advisory_lock({_LOCK})"))
        if row is not None and row[0]:
            return None
        row = db.one(
            Statement(
                f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = {_LOCK}"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
        return int(row[0]) if row else 0

    def tables(self, db: ServerDatabase) -> set[str]:
        """Return the names of all tables of the schema that we would write to."""
        rows = db.rows(Statement("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"))
        return {name for (name,) in rows}

    def version(self, db: ServerDatabase) -> str:
        """Return which server it is."""
        row = db.one(Statement("SHOW server_version"))
        return f"PostgreSQL {row[0] if row else '?'}"

    def used_bytes(self, db: ServerDatabase) -> int:
        """Return the size of the database."""
        row = db.one(Statement("SELECT pg_database_size(current_database())"))
        return int(row[0]) if row else 0


def make(storage: Storage, password: str, tls: ServerTls) -> PostgresqlBackend:
    """Return the back end that *storage* is configured with."""
    d = storage.database
    return PostgresqlBackend(
        database=d.name,
        user=d.user,
        password=password,
        socket=d.socket,
        host=d.server,
        port=d.port or 5432,
        timeout_s=d.timeout_s,
        directory=d.server_directory,
        is_unsafe=d.unsafe,
        tls=tls,
    )
