"""MariaDB or MySQL: which server it is, and what we do otherwise for it. Pure.

Which versions were tried: docs/backends.md, MySQL.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from neo_storage.backends.dialect import Many

_YEAR_S: Final = 31_536_000
_ROW_ALIAS: Final = (8, 0, 19)
"""The first MySQL that knows `VALUES (...) AS new`; it says since that VALUES(column) will go."""
_STATISTICS: Final = (8, 0)
"""The first that keeps the figures of information_schema for a day, unless told not to."""
_NEW_VALUE: Final = re.compile(r"VALUES\((\"\w+\")\)")
_UPDATE: Final = " ON DUPLICATE KEY UPDATE "
_NO_SYNC: Final = ("nosync", "littlesync")
_NO_COPIES: Final = ("0", "OFF", "DETECT_ONLY")


class Flavour(NamedTuple):
    """A kind of server, and its version as far as it counts."""

    is_mariadb: bool
    version: tuple[int, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        return "MariaDB" if self.is_mariadb else "MySQL"

    @property
    def can_prepare(self) -> bool:
        """Whether EXECUTE takes values; MySQL's takes variables only."""
        return self.is_mariadb

    @property
    def session(self) -> tuple[str, ...]:
        """The statements that each connection begins with, whatever the operator has set for all.

        A snapshot is one moment only with this isolation; no statement of ours is ended for its length, and no
        connection, with the lock that it has, because nobody writes at night.
        """
        own = {"wait_timeout": _YEAR_S, "max_statement_time" if self.is_mariadb else "max_execution_time": 0}
        if not self.is_mariadb and self.version >= _STATISTICS:
            own["information_schema_stats_expiry"] = 0
        settings = ", ".join(f"SESSION {name} = {value}" for name, value in own.items())
        return ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET " + settings)

    def form(self, many: Many) -> Many:
        """Return *many* as this server wants it."""
        return many if self.is_mariadb or self.version < _ROW_ALIAS else _with_row_alias(many)


MARIADB: Final = Flavour(True, ())


def flavour_of(version: str) -> Flavour:
    """Return what `@@version` says.

    >>> flavour_of("10.11.6-MariaDB-0+deb12u1"), flavour_of("8.4.3-commercial").version
    (Flavour(is_mariadb=True, version=(10, 11, 6)), (8, 4, 3))
    """
    return Flavour("mariadb" in version.lower(), tuple(map(int, re.findall(r"\d+", version.partition("-")[0]))))


@cache
def _with_row_alias(many: Many) -> Many:
    head, found, changes = many.tail.partition(_UPDATE)
    if not found or not _NEW_VALUE.search(changes):
        return many
    return many._replace(tail=head + " AS new" + _UPDATE + _NEW_VALUE.sub(r"new.\1", changes))


def unsafe(settings: Mapping[str, object]) -> list[str]:
    """Return what of a server's *settings*, as it says them, could lose what it has called durable.

    Keys: its variables, and `Innodb_redo_log_enabled`, of its status, where it has that.
    """
    said = {name: str(value) for name, value in settings.items()}
    found = []
    if (flush := said["innodb_flush_log_at_trx_commit"]) != "1":
        found.append(f"innodb_flush_log_at_trx_commit is {flush}, must be 1")
    if said["log_bin"] in ("1", "ON") and said["sync_binlog"] != "1":
        found.append(f"sync_binlog is {said['sync_binlog']}, must be 1 with a binary log")
    if (copies := said["innodb_doublewrite"].upper()) in _NO_COPIES:
        found.append("innodb_doublewrite is " + ("off" if copies != "DETECT_ONLY" else copies) + ", must be on")
    if (method := said.get("innodb_flush_method", "")).lower() in _NO_SYNC:
        found.append(f"innodb_flush_method is {method}, which flushes nothing")
    if said.get("Innodb_redo_log_enabled", "").upper() == "OFF":
        found.append("its redo log is off: ALTER INSTANCE ENABLE INNODB REDO_LOG")
    return found
