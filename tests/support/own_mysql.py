"""An operator's own server, MySQL or MariaDB, for the contract suite: NEO_TEST_MYSQL says where it is.

    NEO_TEST_MYSQL='mysql://USER:PASSWORD@HOST:PORT/?tls_ca=/path/ca.pem' pytest tests/integration/test_own_mysql.py
    NEO_TEST_MYSQL='mysql://USER:PASSWORD@/?socket=/run/mysqld/mysqld.sock' ...

The user may make and drop databases whose names begin with `neo_contract_`, and no others are touched:
GRANT ALL ON `neo\\_contract\\_%`.* TO USER.
"""

import itertools
import os
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from neo_storage.backends.tls import NO_TLS, ServerTls, TlsMode

VARIABLE = "NEO_TEST_MYSQL"


class OwnMysql:
    """Makes databases on the server, and drops them."""

    def __init__(self, url: str) -> None:
        """*url* as above."""
        split = urlsplit(url)
        assert split.scheme == "mysql", f"{VARIABLE} is not mysql://..."
        options = {name: values[0] for name, values in parse_qs(split.query, strict_parsing=bool(split.query)).items()}
        self._arguments: dict[str, Any] = {
            "user": unquote(split.username or ""),
            "password": unquote(split.password or ""),
        }
        if socket := options.pop("socket", ""):
            self._arguments["socket"] = socket
        else:
            self._arguments |= {"host": split.hostname, "port": split.port or 3306}
        ca = options.pop("tls_ca", "")
        self._tls = ServerTls(TlsMode.VERIFY, ca) if ca else NO_TLS
        assert not options, f"{VARIABLE}: unknown {sorted(options)}"
        self._names = itertools.count(1)

    def backend(self, database: str) -> Any:
        """Return the back end for *database*, not yet open."""
        make = import_module("neo_storage.backends.mysql.backend").MysqlBackend
        return make(database=database, tls=self._tls, **self._arguments)

    def new_database(self) -> str:
        """Make an empty one; return its name."""
        name = f"neo_contract_{os.getpid()}_{next(self._names)}"
        self._execute(f"CREATE DATABASE {name}")
        return name

    def drop(self, database: str) -> None:
        """Remove it."""
        self._execute(f"DROP DATABASE {database}")

    def _execute(self, text: str) -> None:
        driver = import_module("neo_storage.backends.mysql.connection").driver_tls
        places = {"socket": "unix_socket"}
        arguments = {places.get(name, name): value for name, value in self._arguments.items()}
        connection = import_module("MySQLdb").connect(**arguments, **driver(self._tls))
        try:
            connection.cursor().execute(text)
        finally:
            connection.close()
