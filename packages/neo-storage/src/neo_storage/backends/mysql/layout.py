"""Where a managed MariaDB has its files, and the options that it runs with."""

import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

_SOCKET_PATH_MAX: Final = 100
"""Linux takes 107 bytes, other systems 103."""
_CACHE_MIN: Final = 16 * 2**20
_MORE_CONNECTIONS: Final = 40
"""Beside those for loads: the applier's, those of long reads, the operator's."""


class Layout(NamedTuple):
    """The files of one managed server, all below `directory`; perhaps not the socket."""

    directory: Path

    @property
    def data(self) -> Path:
        """The data directory; there when it is complete."""
        return self.directory / "data"

    @property
    def unfinished(self) -> Path:
        """The data directory while it is made."""
        return self.directory / "data.new"

    @property
    def lock(self) -> Path:
        """Locked by the storage and inherited by the server: free when neither is there any more."""
        return self.directory / "lock"

    @property
    def pid(self) -> Path:
        """The process id of the server, written before it begins."""
        return self.directory / "pid"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.directory / "server.log"

    @property
    def temporary(self) -> Path:
        """For temporary files of this server and no other; the disk of the data is watched, /tmp is not."""
        return self.directory / "tmp"

    @property
    def socket(self) -> Path:
        """Where it listens: in a private folder of the user when the path would be longer than the system takes."""
        path = self.directory / "socket"
        if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
            return path
        digest = sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"neo-{os.getuid()}" / f"{digest}.mariadb"


def as_root() -> list[str]:
    """Return the option without which a server refuses to run as root."""
    return ["--user=root"] if os.geteuid() == 0 else []


def install_options(data: Path) -> list[str]:
    """Return the arguments of mariadb-install-db.

    Its root has no password: the folder, and so the socket in it, is closed to all other users of the machine.
    """
    return [
        "--no-defaults",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
        *as_root(),
    ]


def server_options(layout: Layout, *, cache_bytes: int, readers: int) -> list[str]:
    """Return the arguments of mariadbd: no file of the machine's changes them, and no network reaches it."""
    options: dict[str, object] = {
        "datadir": layout.data,
        "socket": layout.socket,
        "tmpdir": layout.temporary,
        "pid-file": layout.directory / "mariadbd.pid",
        "skip-networking": 1,
        "skip-name-resolve": 1,
        "local-infile": 0,
        # What is committed is on disk. `unsafe_settings` reads these back.
        "innodb-flush-log-at-trx-commit": 1,
        "innodb-doublewrite": 1,
        "skip-log-bin": 1,
        "innodb-file-per-table": 1,
        "innodb-buffer-pool-size": max(_CACHE_MIN, cache_bytes),
        "innodb-log-file-size": 64 * 2**20,
        "max-allowed-packet": 64 * 2**20,
        "max-connections": readers + _MORE_CONNECTIONS,
        "wait-timeout": 365 * 86400,
        "character-set-server": "utf8mb4",
        # Nothing of ours is in tables of these engines.
        "aria-pagecache-buffer-size": 8 * 2**20,
        "key-buffer-size": 2**20,
    }
    return ["--no-defaults", *(f"--{name}={value}" for name, value in options.items()), *as_root()]
