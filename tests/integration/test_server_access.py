"""Who may use a server: by TCP and password, with no more privileges than needed; and what is said to who may not."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ZODB.DB import DB

from neo_admin.ports import free_ports
from neo_common.errors import BackendError
from neo_common.ids import Oid
from neo_common.states import Role
from neo_common.wire.schema import AskDebug
from neo_storage.backends import logical
from neo_storage.backends.mysql.backend import MysqlBackend
from neo_storage.backends.postgresql.backend import PostgresqlBackend
from neo_storage.backends.server import ServerBackend
from support.backend_contract import P0, T1, T2, commit, write
from support.cluster import Cluster
from support.raw_client import RawConnection
from support.servers import MariaDB, PostgreSQL, Server

USER = "storage"
PASSWORD = "hush-7f3a"
DATABASE = "cells"
HOST = "127.0.0.1"
DEADLINE_S = 30.0
TABLES = ", ".join(table.name for table in logical.TABLES)


class Door:
    """A server that listens at a port and wants a password there; its database for one storage."""

    def __init__(self, kind: type[Server]) -> None:
        (self.port,) = free_ports(1)
        self.is_mysql = kind is MariaDB
        if self.is_mysql:
            options = {"skip-networking": "0", "bind-address": HOST, "port": str(self.port)}
        else:
            options = {"listen_addresses": HOST, "port": str(self.port), "password_encryption": "scram-sha-256"}
        self.server = kind(options)
        if self.is_mysql:
            self.admin(f"CREATE DATABASE {DATABASE}")
            self.admin(f"CREATE USER {USER}@'{HOST}' IDENTIFIED BY '{PASSWORD}'")
        else:
            rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            (self.server.data / "pg_hba.conf").write_text(rules)
            self.admin("SELECT pg_reload_conf()")
            self.admin(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
            self.admin(f"CREATE DATABASE {DATABASE}")
            self.admin(f"REVOKE ALL ON DATABASE {DATABASE} FROM public")

    def admin(self, text: str) -> None:
        """Run a statement of the administrator, in the database if there is one."""
        there = self.server.execute(
            f"SELECT 1 FROM information_schema.schemata WHERE schema_name = '{DATABASE}'"
            if self.is_mysql
            else f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"
        )
        self.server.execute(text, DATABASE if there else "")

    def allow(self, mysql: str, *postgresql: str) -> None:
        """Give privileges."""
        if self.is_mysql:
            self.admin(f"GRANT {mysql} ON {DATABASE}.* TO {USER}@'{HOST}'")
        else:
            for text in postgresql:
                self.admin(f"GRANT {text} TO {USER}")

    def backend(self, password: str = PASSWORD, database: str = DATABASE) -> ServerBackend:
        """Return the back end that a storage would have, not yet open."""
        make: Any = MysqlBackend if self.is_mysql else PostgresqlBackend
        made = make(database=database, user=USER, password=password, host=HOST, port=self.port)
        assert isinstance(made, ServerBackend)
        return made

    def open_once(self) -> None:
        """See that it can be opened."""
        backend = self.backend()
        backend.open()
        backend.close()

    def refusal(self, **options: str) -> str:
        """Return what is said when it does not open: without the password, and at once."""
        backend = self.backend(**options)
        with pytest.raises(BackendError) as raised:
            backend.open()
        backend.close()
        text = str(raised.value)
        assert PASSWORD not in text + repr(backend) + repr(vars(backend).get("what"))
        assert "docs/operating.md" in text
        return text

    def settings(self) -> dict[str, Any]:
        """Return the `database` section, without a password."""
        kind = "mysql" if self.is_mysql else "postgresql"
        return {"type": kind, "server": HOST, "port": self.port, "name": DATABASE, "user": USER}

    def allow_creation(self) -> None:
        """Give what the first start needs."""
        self.allow(
            "SELECT, INSERT, UPDATE, DELETE, CREATE", f"CONNECT ON DATABASE {DATABASE}", "CREATE ON SCHEMA public"
        )


@pytest.fixture(params=[MariaDB, PostgreSQL])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    door = Door(request.param)
    yield door
    door.server.end()


def test_first_start_needs_create_and_running_does_not(door: Door) -> None:
    door.allow_creation()
    backend = door.backend()
    backend.open()
    backend.apply([commit(T1, write(0, b"a"))], 0)
    backend.close()
    if door.is_mysql:
        door.admin(f"REVOKE CREATE ON {DATABASE}.* FROM {USER}@'{HOST}'")
    else:
        door.admin(f"REVOKE CREATE ON SCHEMA public FROM {USER}")
    backend = door.backend()
    backend.open()
    backend.apply([commit(T2, write(0, b"b", T1))], 1)
    assert backend.checkpoint() == 1
    assert backend.current(P0, Oid(0)) == T2
    backend.reconnect()
    backend.close()


def test_missing_privileges_are_told_with_the_grant_to_issue(door: Door) -> None:
    account = f"'{USER}'@'{HOST}'"
    if door.is_mysql:
        assert f"TO {account}" in door.refusal()  # it may not even see the database
        door.allow("SELECT, INSERT, UPDATE, DELETE")
        assert re.search(rf"CREATE command denied.*GRANT SELECT.*CREATE.* TO {account}", door.refusal())
        door.allow("CREATE")
        door.open_once()
    else:
        assert "GRANT CONNECT ON DATABASE" in door.refusal()
        door.allow("", f"CONNECT ON DATABASE {DATABASE}")
        assert "GRANT USAGE, CREATE ON SCHEMA public" in door.refusal()
        door.allow("", "CREATE ON SCHEMA public")
        door.open_once()


def test_each_privilege_that_running_needs_is_looked_for_at_the_start(door: Door) -> None:
    door.allow_creation()
    door.open_once()
    if not door.is_mysql:  # the tables may belong to somebody else
        door.admin(f"REASSIGN OWNED BY {USER} TO neo")
        door.allow("", f"SELECT, INSERT, UPDATE, DELETE ON {TABLES}")
        door.open_once()
    for missing in ("SELECT", "INSERT", "UPDATE", "DELETE"):
        if door.is_mysql:
            door.admin(f"REVOKE {missing} ON {DATABASE}.* FROM {USER}@'{HOST}'")
        else:
            door.admin(f"REVOKE {missing} ON {TABLES} FROM {USER}")
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in door.refusal(), missing
        door.allow(missing, f"{missing} ON {TABLES}")
    door.open_once()


def test_strangers_are_told_what_is_wrong(door: Door) -> None:
    wrong = door.refusal(password="guessed")
    assert "no such user, or another password" in wrong
    assert "guessed" not in wrong
    door.allow("SELECT, INSERT, UPDATE, DELETE, CREATE", f"CONNECT ON DATABASE {DATABASE}")
    if not door.is_mysql:  # MariaDB does not say what databases there are
        assert "CREATE DATABASE NAME OWNER USER" in door.refusal(database="nowhere")


@pytest.mark.parametrize("source", ["password_file", "password_variable"])
def test_password_is_in_no_command_line_log_or_answer(door: Door, source: str, tmp_path: Path) -> None:
    door.allow_creation()
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    value = str(secret) if source == "password_file" else "S1_PASSWORD"
    with Cluster(
        tmp_path / "c",
        databases=[{**door.settings(), source: value}],
        environ={"S1_PASSWORD": PASSWORD} if source == "password_variable" else {},
        settings={"logging": {"level": "DEBUG"}},
    ) as cluster:
        db = DB(cluster.open())
        with db.transaction() as connection:
            connection.root()["x"] = 1
        said = [Path(f"/proc/{p.pid}/cmdline").read_bytes().decode() for p in cluster.processes.values()]
        with closing(RawConnection(cluster.addresses["s1"], role=Role.ADMIN)) as storage:
            said.append(repr(storage.ask(AskDebug())))
        door.server.kill()  # errors are said too
        with db.transaction() as connection:
            connection.root()["x"] = 2
        db.close()
        deadline = time.monotonic() + DEADLINE_S
        while "the database is away" not in (cluster.directory / "s1.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        door.server.start()
    said += [(cluster.directory / f"{name}.log").read_text() for name in cluster.names]
    assert all(said)
    assert not [text for text in said if PASSWORD in text]
