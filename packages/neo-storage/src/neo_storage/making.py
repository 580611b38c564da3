"""From the configuration of a storage to its back end. The drivers of servers are imported here only when wanted."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from neo_common.config.sections import Database, Storage
from neo_common.errors import ConfigError
from neo_storage.backends.base import Backend
from neo_storage.backends.sqlite.backend import SqliteBackend
from neo_storage.backends.tls import NO_TLS, ServerTls, TlsMode

_DRIVERS = {"mysql": "mysqlclient", "postgresql": "psycopg2"}


def make_backend(storage: Storage, environ: Mapping[str, str]) -> Backend:
    """Return the back end that *storage* is configured with, not yet open.

    Raises: ConfigError when its driver is not installed, or there is no password where it should be.
    """
    database = storage.database
    if database.type == "sqlite":
        return SqliteBackend(
            Path(database.path),
            cache_bytes=database.cache_bytes,
            page_bytes=database.page_bytes,
            wal_bytes=database.checkpoint_bytes,
        )
    try:
        # Any: which class it is, the type in the file says.
        module: Any = import_module(f"neo_storage.backends.{database.type}.backend")
    except ImportError as error:
        raise ConfigError(
            f"storage {storage.name}: database.type {database.type} needs {_DRIVERS[database.type]} ({error}):"
            f" pip install 'neo-storage[{database.type}]'"
        ) from error
    made: Backend = module.make(storage, password_of(storage.name, database, environ), tls_of(storage.name, database))
    return made


def tls_of(name: str, database: Database) -> ServerTls:
    """Return how *database* of the storage *name* is reached. Raises: ConfigError when a file is not there."""
    if not database.server or (database.tls == "verify" and not database.tls_ca):
        return NO_TLS
    paths = (database.tls_ca, database.tls_certificate, database.tls_key)
    for key, path in zip(("tls_ca", "tls_certificate", "tls_key"), paths, strict=True):
        try:
            if path:
                Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"storage {name}: database.{key} cannot be read: {error}") from error
    return ServerTls(TlsMode[database.tls.upper()], *paths)


def password_of(name: str, database: Database, environ: Mapping[str, str]) -> str:
    """Return the password that *database* of the storage *name* says where to find; empty if it says nothing."""
    if database.password_variable:
        try:
            return environ[database.password_variable]
        except KeyError:
            raise ConfigError(
                f"storage {name}: the environment has no {database.password_variable} (database.password_variable)"
            ) from None
    if not database.password_file:
        return ""
    try:
        return Path(database.password_file).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"storage {name}: database.password_file cannot be read: {error}") from error
