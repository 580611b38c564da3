"""What a client can be told, with defaults and units: by ZConfig, by URI, by Python, always the same names."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from neo_common.credentials import Credentials, read_secret
from neo_common.errors import ConfigError
from neo_common.tls import Tls, TlsFiles
from neo_common.wire.guard import Secret
from neo_common.wire.schema import Compression

_SIZES: Final = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
_TRUE: Final = frozenset(("1", "true", "yes", "on", "t", "y"))
_FALSE: Final = frozenset(("0", "false", "no", "off", "f", "n"))
COMPRESSIONS: Final = {"none": Compression.NONE, "zlib": Compression.ZLIB, "zstd": Compression.ZSTD}
_YES_NO_COMPRESSIONS: Final = {**{word: "zstd" for word in _TRUE}, **{word: "none" for word in _FALSE}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client finds its cluster, and how it behaves."""

    masters: tuple[str, ...]
    """Addresses of the masters, any order: `host:port`, `[v6]:port`, `unix:/path`."""
    name: str
    """The cluster's name: another one is refused."""
    cache_size_bytes: int = 64 * 2**20
    """Memory for the values of recently used objects, shared by all connections of the process; 0: none."""
    read_only: bool = False
    wait_timeout_s: float = 30.0
    """How long anything waits for a cluster that does not serve, before an error that a retry may cure."""
    server_sync: bool = False
    """Ask the primary at each transaction boundary: what was committed before is then seen."""
    compress: str = "zstd"
    """How values are stored where that makes them smaller: `none`, `zlib` or `zstd`."""
    two_phase: bool | None = None
    """Commit so that another database of the same transaction can still refuse: one round trip more. None: whenever
    somebody votes after us (`neo_client.others`)."""
    pack_gc: bool = True
    """Whether packing removes objects that nobody can reach, unless pack() is told."""
    wait: bool = True
    """Wait for the cluster when opening; else open at once, and wait when something is needed."""
    client_label: str = ""
    """What the cluster calls this client in its logs; default: program and process id."""
    secret_file: str = ""
    """File with the cluster's shared secret, readable by its owner only."""
    secret: str = field(default="", repr=False)
    """The secret itself, from wherever the program keeps it, instead of a file."""
    tls_ca: str = ""
    """The cluster's certificate authority (PEM). With it every connection is TLS 1.3."""
    tls_certificate: str = ""
    """Our certificate (PEM), for the role client; its key is `tls_key`."""
    tls_key: str = ""
    blob_dir: str | None = None
    """Not there yet."""

    def __post_init__(self) -> None:
        """Check what can be checked without a cluster.

        Raises: ConfigError that names the option and the remedy.
        """
        if not self.masters:
            raise ConfigError("master: no address of a master was given; give at least one as host:port")
        for address in self.masters:
            split_address(address)
        if not self.name:
            raise ConfigError("name: the cluster has a name; give the one in its configuration (cluster: name)")
        if self.compress not in COMPRESSIONS:
            raise ConfigError(f"compress: {self.compress!r} is not one of {', '.join(COMPRESSIONS)}")
        if self.wait_timeout_s <= 0:
            raise ConfigError(f"wait-timeout: {self.wait_timeout_s:g} s is not above 0")
        if self.secret and self.secret_file:
            raise ConfigError("secret-file: the secret was given too; remove one of them")
        tls = {"tls-ca": self.tls_ca, "tls-certificate": self.tls_certificate, "tls-key": self.tls_key}
        missing = [key for key, path in tls.items() if not path]
        if missing and len(missing) < len(tls):
            raise ConfigError(f"{missing[0]}: is missing; TLS needs tls-ca, tls-certificate and tls-key")
        if self.cache_size_bytes < 0:
            raise ConfigError(f"cache-size: {self.cache_size_bytes} is below 0")
        if self.blob_dir:
            raise ConfigError(
                "blob-dir: this version of neo-client stores no blobs yet; leave blob-dir out, "
                "and keep large files as ordinary objects (of up to 2 GB) or outside of the database"
            )

    def credentials(self) -> Credentials:
        """Read what we show to the cluster, and demand of it.

        Raises: ConfigError that names the file and the remedy.
        """
        secret = Secret(self.secret) if self.secret else None
        if self.secret_file:
            secret = read_secret(self.secret_file)
        tls = Tls(TlsFiles(self.tls_ca, self.tls_certificate, self.tls_key)) if self.tls_ca else None
        return Credentials(secret, tls)

    @property
    def label(self) -> str:
        """What the cluster calls this client."""
        return self.client_label or f"pid-{os.getpid()}"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of *address*; for `unix:/path` the path and -1.

    >>> split_address("[::1]:2051")
    ('::1', 2051)

    Raises: ConfigError that shows what is expected.
    """
    if address.startswith("unix:"):
        return address[5:], -1
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"master: {address!r} is no address; expected host:port, [v6]:port or unix:/path")
    return host.removeprefix("[").removesuffix("]"), int(port)


def split_masters(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return addresses written with commas or blanks between them, or as a sequence of such.

    >>> split_masters("a:1, b:2 c:3")
    ('a:1', 'b:2', 'c:3')
    """
    parts = [text] if isinstance(text, str) else text
    return tuple(word for part in parts for word in re.split(r"[,\s]+", part) if word)


def parse_size(text: str) -> int:
    """Return a number of bytes.

    >>> parse_size("20MB")
    20971520
    """
    match = re.fullmatch(r"(\d+)\s*([KMG]?B?)", text.strip().upper())
    unit = match.group(2) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text!r} is no size; expected a number with KB, MB or GB")
    return int(match.group(1)) * _SIZES[unit if unit.endswith("B") or not unit else unit + "B"]


def parse_seconds(text: str) -> float:
    """Return a duration in seconds.

    >>> parse_seconds("2m")
    120.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?", text.strip().lower())
    if match is None:
        raise ConfigError(f"{text!r} is no duration; expected seconds, or a number with ms, s, m or h")
    return float(match.group(1)) * {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match.group(2)]


def parse_bool(text: str) -> bool:
    """Return a truth value.

    >>> parse_bool("Yes")
    True
    """
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ConfigError(f"{text!r} is neither true nor false")
    return word in _TRUE


def parse_two_phase(text: str) -> bool | None:
    """Return a truth value, or None for `auto`.

    >>> parse_two_phase("auto"), parse_two_phase("no")
    (None, False)
    """
    return None if text.strip().lower() == "auto" else parse_bool(text)


def parse_compress(text: str) -> str:
    """Return a way of compression; `true` and `false` will do.

    >>> parse_compress("on"), parse_compress("zlib")
    ('zstd', 'zlib')
    """
    word = text.strip().lower()
    return _YES_NO_COMPRESSIONS.get(word, word)
