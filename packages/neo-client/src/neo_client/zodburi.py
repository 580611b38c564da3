"""`neo://name@host:port,host2:port?options`: for Pyramid and everything else that knows zodburi.

A Unix socket is written with `%2F` for each slash: `neo://name@unix:%2Frun%2Fneo.sock`.
Storage options have the names of the ZConfig section with underscores; `database_name` and `connection_*` are the
database's, as with zodburi's own schemes; anything else is handed on to the database. There is no way to write the
secret itself: a URI ends in logs and process lists.
"""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from neo_client.options import (
    Options,
    parse_bool,
    parse_compress,
    parse_seconds,
    parse_size,
    parse_two_phase,
    split_masters,
)
from neo_client.storage import Storage
from neo_common.errors import ConfigError

_OPTIONS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "cache_size": ("cache_size_bytes", parse_size),
    "read_only": ("read_only", parse_bool),
    "wait_timeout": ("wait_timeout_s", parse_seconds),
    "wait": ("wait", parse_bool),
    "server_sync": ("server_sync", parse_bool),
    "compress": ("compress", parse_compress),
    "two_phase": ("two_phase", parse_two_phase),
    "pack_gc": ("pack_gc", parse_bool),
    "client_label": ("client_label", str),
    "secret_file": ("secret_file", str),
    "tls_ca": ("tls_ca", str),
    "tls_certificate": ("tls_certificate", str),
    "tls_key": ("tls_key", str),
    "blob_dir": ("blob_dir", str),
}


def parse_uri(uri: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the storage's options, and what is left for the database.

    >>> parse_uri("neo://shop@db1:2051,db2:2051?cache_size=20MB&connection_pool_size=5")[1]
    {'connection_pool_size': '5'}

    Raises: ConfigError that names the option.
    """
    parts = urlsplit(uri)
    name, at, masters = parts.netloc.rpartition("@")
    if parts.scheme != "neo" or not at or not name or not masters:
        raise ConfigError(f"{uri!r} is no address of a cluster; expected neo://name@host:port,host2:port?options")
    found: dict[str, Any] = {"name": unquote(name), "masters": tuple(map(unquote, split_masters(masters)))}
    rest: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in _OPTIONS:
            rest[key] = value
            continue
        field, convert = _OPTIONS[key]
        try:
            found[field] = convert(value)
        except ConfigError as error:
            raise ConfigError(f"{uri}: {key}: {error}") from error
    return found, rest


def resolve_uri(uri: str) -> tuple[Callable[[], Storage], dict[str, str]]:
    """Return a factory of storages, and the database's options as they stand in *uri*: zodburi's entry point."""
    found, rest = parse_uri(uri)
    options = Options(**found)
    return (lambda: Storage(options)), rest
