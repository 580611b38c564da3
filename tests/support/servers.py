"""Private MariaDB and PostgreSQL servers for tests: own data directory, Unix socket, durable settings, not root.

MySQL itself, where it is to be had, is in `mysql_server`.

One of each per test session, started when first asked for; a new database in it for whoever needs one. Whatever
happens to the tests, they end: atexit, and the kernel kills them when the test process dies.
"""

import atexit
import ctypes
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from neo_storage.backends.base import Backend
from neo_storage.backends.logical import CONFIG, TABLES

INSTALL = "apt-get install -y --no-install-recommends mariadb-server postgresql"
_START_S = 60.0
_PR_SET_PDEATHSIG = 1


# The drivers are imported where a server is started: `make check` needs none of them.


def _driver_errors(name: str) -> tuple[type[Exception], ...]:
    return tuple(getattr(import_module(driver), name) for driver in ("MySQLdb", "psycopg2"))


def _program(name: str, *folders: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *folders])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed. On Debian and Ubuntu: {INSTALL}")
    return found


def needs_mariadb() -> None:
    """Skip where a storage could not have a MariaDB of its own."""
    _program("mariadbd")
    _program("mariadb-install-db")


def managed_servers(directory: Path, *, with_beginning: bool = False) -> list[int]:
    """Return the process ids of all MariaDB servers with files below *directory*, started by storages (Linux).

    *with_beginning*: also what is about to become one, or makes its files.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        is_one = with_beginning or command[0].endswith(b"mariadbd")
        if is_one and any(word.startswith(os.fsencode(f"--datadir={directory}/")) for word in command):
            found.append(int(folder.name))
    return found


class Managed:
    """The servers that storages run themselves with files below a directory: they can be killed only."""

    def __init__(self, directory: Path) -> None:
        needs_mariadb()
        self._directory = directory
        self.process = self
        """Not None: it is for the storage to start them again."""

    def settings(self, database: str) -> dict[str, Any]:
        """Return the `database` section of a storage."""
        del database
        return {"type": "mysql", "managed": True, "cache": "16MB"}

    def new_database(self) -> str:
        """Return nothing: the storage makes it."""
        return ""

    def start(self) -> None:
        """The storage does it."""

    def end(self) -> None:
        """kill -9 of all, whose storages are dead; return when they are gone."""
        deadline = time.monotonic() + _START_S
        while pids := managed_servers(self._directory, with_beginning=True):
            assert time.monotonic() < deadline, f"{pids} cannot be killed"
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9 what runs now."""
        for pid in managed_servers(self._directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """A private server. `options`: more of its own options, `name=value`."""

    kind: ClassVar[str]
    begin_alone: ClassVar[str]
    """Begins a transaction that waits for all others that write."""
    reload_tls: ClassVar[str]
    """Takes new certificates for the connections to come."""
    without_tls: ClassVar[dict[str, str]] = {}
    """Options of one that has no TLS."""
    _shared: ClassVar["Server | None"] = None

    def __init__(self, options: dict[str, str] | None = None, folder: Path | None = None) -> None:
        """*options*: more of the server's; *folder*: where its data is to lie."""
        self.options = options or {}
        self.path = Path(tempfile.mkdtemp(prefix=f"neo-{self.kind}-", dir="/tmp"))
        self.path.chmod(0o755)
        self.data = (folder or self.path) / "data"
        self.data.mkdir(mode=0o700)
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.path, nobody.pw_uid, nobody.pw_gid)
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._environ = {**os.environ, "TMPDIR": str(self.path)}
        """A MariaDB that starts removes what it finds in its temporary folder, even what another one uses."""
        self.process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self._free: list[str] = []
        self._used: list[str] = []
        atexit.register(self.end)
        self.install()
        self.start()

    @classmethod
    def shared(cls) -> Self:
        """Return the one of this test session."""
        if cls._shared is None:
            cls._shared = cls()
        assert isinstance(cls._shared, cls)
        return cls._shared

    # ---- of each kind

    def install(self) -> None:
        """Make the data directory."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return what starts the server in the foreground."""
        raise NotImplementedError

    def connect(self, database: str = "") -> Any:
        """Return a connection of the administrator, in autocommit."""
        raise NotImplementedError

    def settings(self, database: str) -> dict[str, Any]:
        """Return the `database` section of a storage for it."""
        raise NotImplementedError

    def dump(self, database: str, *, is_schema_only: bool = False) -> str:
        """Return *database* as the server's own program writes it, without what depends on the server's version."""
        raise NotImplementedError

    def load(self, database: str, dump: str) -> None:
        """Put a dump into an empty database."""
        raise NotImplementedError

    # ---- life

    def run(self, command: list[str], text: str = "") -> str:
        """Run a program of the server to its end, with *text* to read; return what it has said."""
        done = subprocess.run(
            command,
            cwd=self.path,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env=self._environ,
            **self._user,
        )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said
        return said

    def start(self) -> None:
        """Start it; return when it answers."""
        with (self.path / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # after it has become the other user, which would undo it
                env=self._environ,
                **self._user,
            )
        deadline = time.monotonic() + _START_S
        while (error := self._refusal()) is not None:
            assert self.process.poll() is None, f"{self.kind} has ended: {self.log()}"
            assert time.monotonic() < deadline, f"{self.kind} does not start: {error}\n{self.log()}"
            time.sleep(0.05)

    def _refusal(self) -> Exception | None:
        try:
            self.connect().close()
        except _driver_errors("Error") as error:
            return error
        return None

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.after_kill()

    def after_kill(self) -> None:
        """Remove what keeps it from starting again."""

    def end(self) -> None:
        """Kill it, remove its files."""
        self.kill()
        shutil.rmtree(self.path, ignore_errors=True)

    def log(self) -> str:
        """Return the end of what it has said."""
        return (self.path / "server.log").read_text(errors="replace")[-3000:]

    def new_database(self) -> str:
        """Make an empty database, or take one that was used before; return its name."""
        if self._free:
            return self._free.pop()
        name = f"neo_{os.getpid()}_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def give_back(self, database: str) -> None:
        """Empty a database that nobody uses any more, for the next one who wants one."""
        if self.process is not None:
            self.empty(database)
            self._free.append(database)

    def empty(self, database: str) -> None:
        """Remove all that is in it."""
        raise NotImplementedError

    def count(self, database: str) -> None:
        """Have it count what the tables of a database take, if it does not always know."""
        del database

    def used_database(self) -> str:
        """Return a database with NEO's tables, as they are when they were just made; or an empty one."""
        return self._used.pop() if self._used else self.new_database()

    def give_back_used(self, database: str) -> None:
        """Remove the rows of a database, but not its tables: hundreds of tests would wait for those."""
        if self.process is None:
            return
        connection = self.connect(database)
        cursor = connection.cursor()
        try:
            # Whoever used it was killed a moment ago: what it has begun ends first.
            cursor.execute(self.begin_alone)
            for table in TABLES:
                if table is not CONFIG:
                    cursor.execute(f"DELETE FROM {table.name}")
            cursor.execute("DELETE FROM config WHERE name NOT IN ('format', 'minimum_reader', 'position')")
            cursor.execute("UPDATE config SET number = -1 WHERE name = 'position'")
            cursor.execute("COMMIT")
        except _driver_errors("ProgrammingError"):
            self.give_back(database)  # killed before it had made its tables
        else:
            self._used.append(database)
        finally:
            connection.close()

    def execute(self, text: str, database: str = "", arguments: tuple[object, ...] | None = None) -> list[Any]:
        """Run SQL as the administrator; return the rows."""
        connection = self.connect(database)
        try:
            cursor = connection.cursor()
            cursor.execute(text, arguments)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


class MariaDB(Server):
    """MariaDB."""

    kind = "mariadb"
    begin_alone = "START TRANSACTION"  # each DELETE waits for rows that are locked
    reload_tls = "FLUSH SSL"

    def install(self) -> None:
        """Make the data directory."""
        _program("mariadbd")
        self.run(
            [
                _program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self.data}",
                f"--tmpdir={self.data}",  # at its start a server removes what others have in a common one
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ]
        )

    def command(self) -> list[str]:
        """Return what starts the server."""
        options = {
            "datadir": str(self.data),
            "tmpdir": str(self.data),
            "socket": self.socket,
            "pid-file": str(self.path / "pid"),
            "skip-networking": "1",
            "skip-name-resolve": "1",
            "innodb-buffer-pool-size": "128M",
            "innodb-log-file-size": "64M",
            "innodb-file-per-table": "0",
            "max-connections": "300",
            **self.options,
        }
        return [_program("mariadbd"), "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]

    @property
    def socket(self) -> str:
        """Where it listens."""
        return str(self.path / "socket")

    def connect(self, database: str = "") -> Any:
        """Return a connection of the administrator."""
        MySQLdb = import_module("MySQLdb")  # noqa: N806  its name
        options = {"user": "root", "database": database, "autocommit": True, "connect_timeout": int(_START_S)}
        return MySQLdb.connect(unix_socket=self.socket, **options)

    def dump(self, database: str, *, is_schema_only: bool = False) -> str:
        """Return what mariadb-dump says; its conditional comments are about character sets and other servers."""
        options = ["--skip-comments", "--hex-blob", "--skip-lock-tables", "--skip-add-locks", "--skip-disable-keys"]
        options += ["--no-data"] if is_schema_only else ["--skip-extended-insert", "--order-by-primary"]
        said = self.run(
            [_program("mariadb-dump"), "--no-defaults", f"--socket={self.socket}", "--user=root", *options, database]
        )
        said = re.sub(r"0x([0-9A-F]{2})\1{999,}", lambda m: f"repeat(0x{m[1]}, {len(m[0]) // 2 - 1})", said)
        lines = said.splitlines()
        return "".join(f"{line}\n" for line in lines if line and not line.startswith(("/*", "DROP TABLE")))

    def load(self, database: str, dump: str) -> None:
        """Have the client run it."""
        self.run([_program("mariadb"), "--no-defaults", f"--socket={self.socket}", "--user=root", database], dump)

    def settings(self, database: str) -> dict[str, Any]:
        """Return the `database` section of a storage."""
        return {"type": "mysql", "socket": self.socket, "user": "root", "name": database}

    def empty(self, database: str) -> None:
        """Remove all that is in it."""
        self.execute(f"DROP DATABASE {database}")
        self.execute(f"CREATE DATABASE {database}")

    def count(self, database: str) -> None:
        """It has counted within a minute or two by itself."""
        self.execute(f"ANALYZE TABLE {', '.join(table.name for table in TABLES)}", database)


class PostgreSQL(Server):
    """PostgreSQL."""

    kind = "postgresql"
    begin_alone = f"BEGIN; LOCK TABLE {', '.join(table.name for table in TABLES)} IN ACCESS EXCLUSIVE MODE"
    reload_tls = "SELECT pg_reload_conf()"
    _FOLDERS = tuple(sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True))

    def install(self) -> None:
        """Make the data directory."""
        self.run(
            [
                _program("initdb", *self._FOLDERS),
                f"--pgdata={self.data}",
                "--auth=trust",
                "--username=neo",
                "--encoding=UTF8",
                "--locale=C",
            ]
        )

    def command(self) -> list[str]:
        """Return what starts the server."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.path),
            "max_connections": "300",
            "shared_buffers": "128MB",
            **self.options,
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [_program("postgres", *self._FOLDERS), "-D", str(self.data), *arguments]

    def after_kill(self) -> None:
        """Its children, orphaned, keep the shared memory for a moment: wait for them as its own start would."""

    def connect(self, database: str = "") -> Any:
        """Return a connection of the administrator."""
        connection = import_module("psycopg2").connect(
            host=str(self.path), port=self.options.get("port", "5432"), user="neo", dbname=database or "postgres"
        )
        connection.autocommit = True
        return connection

    def settings(self, database: str) -> dict[str, Any]:
        """Return the `database` section of a storage."""
        return {"type": "postgresql", "socket": str(self.path), "user": "neo", "name": database}

    def dump(self, database: str, *, is_schema_only: bool = False) -> str:
        """Return what pg_dump says, without the settings of its session."""
        options = ["--no-owner", "--no-privileges", "--no-comments", "--schema-only" if is_schema_only else "--inserts"]
        said = self.run(
            [_program("pg_dump", *self._FOLDERS), f"--host={self.path}", "--username=neo", *options, database]
        )
        said = re.sub(
            r"'\\x([0-9a-f]{2})\1{999,}'",
            lambda m: f"decode(repeat('{m[1]}', {len(m[0]) // 2 - 2}), 'hex')",
            said,
        )
        lines = (line for line in said.splitlines() if line and not line.startswith(("--", "SET ", "SELECT ", "\\")))
        return "".join(f"{line}\n" for line in lines)

    def load(self, database: str, dump: str) -> None:
        """Have psql run it."""
        command = [_program("psql", *self._FOLDERS), f"--host={self.path}", "--username=neo", "--quiet"]
        self.run([*command, "--set=ON_ERROR_STOP=1", f"--dbname={database}"], dump)

    def empty(self, database: str) -> None:
        """Remove all that is in it."""
        self.execute("DROP SCHEMA public CASCADE", database)
        self.execute("CREATE SCHEMA public", database)


def backend_on(server: Server, database: str, **options: Any) -> Backend:
    """Return the back end for a database of *server*, not yet open."""
    if isinstance(server, MariaDB):
        from neo_storage.backends.mysql.backend import MysqlBackend  # noqa: PLC0415

        return MysqlBackend(database=database, user="root", socket=server.socket, **options)
    from neo_storage.backends.postgresql.backend import PostgresqlBackend  # noqa: PLC0415

    return PostgresqlBackend(database=database, user="neo", socket=str(server.path), **options)
