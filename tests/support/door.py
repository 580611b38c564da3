"""A server that listens at a port of this machine, for one storage."""

from typing import Any

import pytest

from neo_common.errors import BackendError
from neo_storage.backends.mysql.backend import MysqlBackend
from neo_storage.backends.postgresql.backend import PostgresqlBackend
from neo_storage.backends.server import ServerBackend
from neo_storage.backends.tls import NO_TLS, ServerTls
from support.ports import hold_ports
from support.servers import MariaDB, Server

USER = "storage"
PASSWORD = "hush-7f3a"
DATABASE = "cells"
HOST = "127.0.0.1"


class Door:
    """A server that listens at a port and wants a password there; its database for one storage."""

    def __init__(self, kind: type[Server], options: dict[str, str] | None = None) -> None:
        """*options*: more of the server's."""
        (self.port,) = hold_ports(1)
        self.is_mysql = issubclass(kind, MariaDB)
        if self.is_mysql:
            own = {"skip-networking": "0", "bind-address": HOST, "port": str(self.port)}
        else:
            own = {"listen_addresses": HOST, "port": str(self.port), "password_encryption": "scram-sha-256"}
        self.server = kind({**own, **(options or {})})
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

    def backend(
        self, password: str = PASSWORD, database: str = DATABASE, user: str = USER, tls: ServerTls = NO_TLS
    ) -> ServerBackend:
        """Return the back end that a storage would have, not yet open."""
        make: Any = MysqlBackend if self.is_mysql else PostgresqlBackend
        made = make(database=database, user=user, password=password, host=HOST, port=self.port, tls=tls)
        assert isinstance(made, ServerBackend)
        return made

    def open_once(self, **options: Any) -> None:
        """See that it can be opened."""
        backend = self.backend(**options)
        backend.open()
        backend.close()

    def refusal(self, **options: Any) -> str:
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
