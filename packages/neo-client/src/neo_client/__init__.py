"""The client: a ZODB storage on a NEO cluster.

    storage = neo_client.open("neo://name@host:port")
    storage = neo_client.open("host1:port,host2:port", name="name", cache_size_bytes=200 * 2**20)

From zope.conf: `%import neo_client`, then a section `<neostorage>`. See docs/zope.md.
"""

from typing import Any

__version__ = "0.1.0"


_SHORT = {"wait_timeout": "wait_timeout_s", "cache_size": "cache_size_bytes"}


def open(masters: str, name: str = "", **options: Any) -> Any:
    """Return a `neo_client.storage.Storage`.

    `masters` is a URI, or addresses of masters with the cluster's *name*; `options` are the fields of
    `options.Options`, with units in their names or without (`wait_timeout=5`).
    """
    # ZODB is imported when a storage is opened, not when somebody looks at the version.
    from neo_client.options import Options, split_masters  # noqa: PLC0415
    from neo_client.storage import Storage  # noqa: PLC0415
    from neo_client.zodburi import parse_uri  # noqa: PLC0415

    found: dict[str, Any] = {"masters": split_masters(masters)}
    if masters.startswith("neo:"):
        found, rest = parse_uri(masters)
        if rest:
            raise TypeError(f"{masters}: unknown options {', '.join(sorted(rest))}")
    if name:
        found["name"] = name
    found.update((_SHORT.get(key, key), value) for key, value in options.items())
    return Storage(Options(**{"name": "", **found}))
