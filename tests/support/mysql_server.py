"""A private MySQL for tests, where one is to be had: `make servers` unpacks it; else there are no tests of MySQL."""

import atexit
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

from support.servers import MariaDB, Server

UNPACKED: Final = Path(sys.prefix) / "servers/mysql/mysqld"
"""What `install_mysql.sh` makes."""
_VERSION_S: Final = 20.0


@cache
def program() -> str | None:
    """Return the MySQL that runs here, for the user who is to run it; None without one.

    On PATH `mysqld` may be another name of MariaDB's.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    for found in (shutil.which("mysqld", path=path), str(UNPACKED)):
        if found is None or not Path(found).exists():
            continue
        try:
            done = subprocess.run(
                [found, "--no-defaults", "--version"],
                capture_output=True,
                text=True,
                timeout=_VERSION_S,
                check=False,
                **user,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and re.search(r"\bVer \d", done.stdout) and "MariaDB" not in done.stdout:
            return found
    return None


class MySQL(MariaDB):
    """MySQL: spoken to as MariaDB is, but for its options. Binary log and all, as it is by default."""

    kind = "mysql"
    reload_tls = "ALTER INSTANCE RELOAD TLS"
    without_tls: ClassVar[dict[str, str]] = {"tls-version": ""}
    _shared: ClassVar[Server | None] = None

    _template: ClassVar[Path | None] = None
    """A data directory as it is made, for all of this process: a copy costs less than making another."""

    def install(self) -> None:
        """Make the data directory."""
        if MySQL._template is None:
            folder = tempfile.mkdtemp(prefix="neo-mysql-template-", dir="/tmp")
            if self._user:
                shutil.chown(folder, self._user["user"], self._user["group"])
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            options = {"datadir": f"{folder}/data", "secure-file-priv": "NULL", "mysqlx": "OFF"}
            options |= {name: value for name, value in self._options().items() if name.startswith("innodb")}
            self.run([self._program(), "--no-defaults", "--initialize-insecure", *_words(options)])
            MySQL._template = Path(folder) / "data"
        self.run(["cp", "-R", f"{MySQL._template}/.", str(self.data)])

    def command(self) -> list[str]:
        """Return what starts the server."""
        return [self._program(), "--no-defaults", *_words(self._options())]

    def _program(self) -> str:
        found = program()
        assert found is not None, "MYSQL is empty without it"
        return found

    def _options(self) -> dict[str, str]:
        return {
            "datadir": str(self.data),
            "tmpdir": str(self.data),
            "socket": self.socket,
            "pid-file": str(self.data / "pid"),
            "secure-file-priv": "NULL",
            "mysqlx": "OFF",
            "skip-networking": "1",
            "skip-name-resolve": "1",
            "innodb-buffer-pool-size": "128M",
            "innodb-redo-log-capacity": "64M",
            "innodb-file-per-table": "0",
            "max-connections": "300",
            **self.options,
        }


MYSQL: Final[tuple[type[Server], ...]] = (MySQL,) if program() is not None else ()
"""For lists of parameters."""


def _words(options: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]
