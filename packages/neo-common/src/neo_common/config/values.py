"""How values are written in the configuration: durations, sizes, addresses. Pure.

Each `parse_*` takes the text and raises ValueError whose message ends "..., write for instance ...": what is wrong and
what would be right. Each `format_*` gives the shortest text that `parse_*` reads back as the same value.
"""

import re
from enum import Enum
from typing import Annotated, Final


class Written(Enum):
    """How a key is written, beyond what its type says."""

    SECONDS = "duration"
    BYTES = "size"
    ADDRESS = "address"
    PATH = "path"


Duration = Annotated[float, Written.SECONDS]
"""Seconds; written with its unit."""
ByteCount = Annotated[int, Written.BYTES]
"""Bytes; written with its unit."""
Address = Annotated[str, Written.ADDRESS]
"""`host:port`, `[v6]:port` or `unix:/path`. Names are resolved at each connection attempt, never here."""
FilePath = Annotated[str, Written.PATH]
"""A path. In the file it may be relative to the folder of the file, or of what contains it; loaded, it is absolute."""

_NUMBER = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_SECONDS: Final = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "": 1.0}
_BYTES: Final = {"tb": 2**40, "gb": 2**30, "mb": 2**20, "kb": 2**10, "b": 1, "": 1}
_WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/]+)):([0-9]+)")


def parse_seconds(text: str) -> float:
    """Read a duration; a bare number is seconds.

    >>> parse_seconds("100ms"), parse_seconds("1.5 min"), parse_seconds("3")
    (0.1, 90.0, 3.0)
    >>> parse_seconds("3 parsecs")
    Traceback (most recent call last):
    ...
    ValueError: is not a duration, write for instance 3s, 500ms, 2min or 1h
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2].lower() not in _SECONDS:
        raise ValueError("is not a duration, write for instance 3s, 500ms, 2min or 1h")
    return float(match[1].replace("_", "")) * _SECONDS[match[2].lower()]


def format_seconds(value: float) -> str:
    """Return the shortest exact text.

    >>> format_seconds(90.0), format_seconds(3600.0), format_seconds(0.01), format_seconds(0.0)
    ('90s', '1h', '10ms', '0s')
    """
    for unit in ("d", "h", "min"):
        if value >= _SECONDS[unit] and value % _SECONDS[unit] == 0:
            return f"{value / _SECONDS[unit]:.0f}{unit}"
    if 0 < value < 1 and round(value * 1000, 6) == int(round(value * 1000, 6)):
        return f"{value * 1000:.0f}ms"
    return f"{value:g}s" if float(f"{value:g}") == value else f"{value!r}s"


def parse_bytes(text: str) -> int:
    """Read a size. Units are powers of 1024, as everywhere in ZODB; a bare number is bytes.

    >>> parse_bytes("20MB"), parse_bytes("1.5 KiB"), parse_bytes("512")
    (20971520, 1536, 512)
    >>> parse_bytes("much")
    Traceback (most recent call last):
    ...
    ValueError: is not a size, write for instance 20MB, 64kB or 4096
    """
    match = _NUMBER.fullmatch(text.strip())
    unit = match[2].lower().replace("ib", "b") if match else ""
    if unit in ("k", "m", "g", "t"):
        unit += "b"
    if match is None or unit not in _BYTES:
        raise ValueError("is not a size, write for instance 20MB, 64kB or 4096")
    return int(float(match[1].replace("_", "")) * _BYTES[unit])


def format_bytes(value: int) -> str:
    """Return the shortest exact text.

    >>> format_bytes(20 * 2**20), format_bytes(4096), format_bytes(1000), format_bytes(0)
    ('20MB', '4kB', '1000', '0')
    """
    for unit, text in ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{text}"
    return str(value)


def parse_bool(text: str) -> bool:
    """Read a yes or no.

    >>> parse_bool("yes"), parse_bool("False")
    (True, False)
    """
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError("is neither true nor false, write true or false") from None


def parse_int(text: str) -> int:
    """Read a whole number; underscores may group its digits.

    >>> parse_int("1_000")
    1000
    """
    try:
        return int(text.strip())
    except ValueError:
        raise ValueError("is not a whole number, write for instance 12") from None


def parse_address(text: str) -> str:
    """Read an address: its shape is checked, nothing is resolved.

    >>> parse_address("db1.example.org:10010"), parse_address("[::1]:10010"), parse_address("unix:/run/neo/m1")
    ('db1.example.org:10010', '[::1]:10010', 'unix:/run/neo/m1')
    >>> parse_address("db1")
    Traceback (most recent call last):
    ...
    ValueError: is not an address, write host:port, [v6 address]:port or unix:/path
    """
    text = text.strip()
    match = _HOST_PORT.fullmatch(text)
    if text.startswith("unix:/") and len(text) > len("unix:/"):
        return text
    if match is None:
        raise ValueError("is not an address, write host:port, [v6 address]:port or unix:/path")
    if not 0 < int(match[3]) < 65536:
        raise ValueError(f"has port {match[3]}, write one from 1 to 65535")
    return text
