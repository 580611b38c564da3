"""Modules of back ends whose driver is not installed have no doctests to collect: `make check` needs no driver."""

from importlib.util import find_spec

_FOLDERS = {"MySQLdb": "mysql", "psycopg2": "postgresql"}
collect_ignore_glob = [
    f"src/neo_storage/backends/{folder}/*" for driver, folder in _FOLDERS.items() if find_spec(driver) is None
]
