"""Which servers the tests of every server run on."""

from typing import Final

from support.mysql_server import MYSQL
from support.servers import MariaDB, PostgreSQL, Server

KINDS: Final[dict[str, type[Server]]] = {kind.kind: kind for kind in (MariaDB, PostgreSQL, *MYSQL)}
"""By name; MySQL is there only where it is to be had."""
EVERY: Final = tuple(KINDS.values())
