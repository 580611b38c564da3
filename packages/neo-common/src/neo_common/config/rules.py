"""What must hold between keys, beyond what each says by itself. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from neo_common.config.sections import Config, Database
from neo_common.config.values import format_seconds, parse_address

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TLS: Final = ("tls_ca", "tls_certificate", "tls_key")
NODE_NAME_RULE: Final = "letters, digits, - and _, a letter first"


class Broken(NamedTuple):
    """A rule that does not hold: `key` is dotted, as `--set` takes it; `what` includes the remedy."""

    key: str
    what: str


def is_node_name(name: str) -> bool:
    """Whether *name* can be a node's: it becomes part of file names, variables and program names."""
    return _NAME.fullmatch(name) is not None


def broken_rules(config: Config) -> Iterator[Broken]:
    """Yield every rule that *config* breaks, in the order of the file's sections."""
    if not config.cluster.name.strip():
        yield Broken("cluster.name", "is empty: any word will do, but each cluster has its own")
    if not config.masters:
        yield Broken("masters", "names no master, add one: `m1: {address: host:port}`")
    if not config.storages:
        yield Broken("storages", "names no storage, add one: `s1: {address: host:port}`")
    elif config.cluster.replicas >= len(config.storages):
        copies = config.cluster.replicas + 1
        yield Broken(
            "cluster.replicas",
            f"{config.cluster.replicas} means {copies} copies of everything, but there are {len(config.storages)} "
            f"storages: name {copies} of them or lower it to {len(config.storages) - 1}",
        )
    yield from _distinct(config)
    yield from _security(config)
    yield from _listening(config)
    yield from _databases(config)
    yield from _times(config)
    if config.limits.transaction_bytes < config.limits.object_bytes:
        yield Broken("limits.transaction", "is below limits.object: raise it, a transaction must take one object")


def _security(config: Config) -> Iterator[Broken]:
    """Whether strangers are kept out, and by what."""
    security = config.security
    tls = {"tls_ca": security.tls_ca, "tls_certificate": security.tls_certificate, "tls_key": security.tls_key}
    missing = [key for key, path in tls.items() if not path]
    if missing and len(missing) < len(tls):
        yield Broken(f"security.{missing[0]}", "is missing: TLS needs tls_ca, tls_certificate and tls_key")
    if security.secret_file and security.secret_env:
        yield Broken("security.secret_env", "is given with security.secret_file: remove one of them")
    if security.insecure and security.is_protected:
        yield Broken("security.insecure", "is true, but there is a secret or TLS: remove one of them")
    if security.insecure or security.is_protected:
        return
    keys = {
        f"{section}.{name}.{key}": address
        for section in ("masters", "storages", "admins")
        for name, node in getattr(config, section).items()
        for key, address in (("address", node.address), ("listen", node.listen))
        if address and not is_of_this_machine(address)
    }
    for key, address in list(keys.items())[:1]:
        others = f", as {len(keys) - 1} more are" if len(keys) > 1 else ""
        yield Broken(
            key,
            f"{address} is open to other machines{others}, and nothing keeps strangers out: set security.tls_ca, "
            "tls_certificate and tls_key, or security.secret_file (docs/security.md); or, in a network where everybody "
            "may read and change everything, security.insecure: true",
        )


def is_of_this_machine(address: str) -> bool:
    """Whether only processes of the same machine reach *address*, a text that is one.

    >>> [is_of_this_machine(a) for a in ("127.1.2.3:1", "[::1]:1", "localhost:1", "unix:/run/neo")]
    [True, True, True, True]
    >>> [is_of_this_machine(a) for a in ("db1:1", "0.0.0.0:1", "[::]:1")]
    [False, False, False]
    """
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _distinct(config: Config) -> Iterator[Broken]:
    """Names, numbers, addresses and folders that two nodes must not share."""
    names, addresses, numbers, folders = (defaultdict[object, list[str]](list) for _ in range(4))
    for section in ("masters", "storages", "admins"):
        for name, node in getattr(config, section).items():
            key = f"{section}.{name}"
            names[name.upper().replace("-", "_")].append(key)
            addresses[node.address].append(key)
            numbers[node.role, node.number].append(key)
    for name, storage in config.storages.items():
        managed = {storage.database.server_directory} if storage.database.managed else set()
        for path in sorted({storage.database.path, storage.log.path, *managed}):
            folders[path].append(f"storages.{name}")
    for name, master in config.masters.items():
        folders[master.directory].append(f"masters.{name}")
    for shared, of, remedy in (
        (names, "name", "rename one: names are told apart without case, and - is as _"),
        (addresses, "address", "give each its own port"),
        (numbers, "number", "give one another `number:`, or another name"),
        (folders, "path", "give each its own directory"),
    ):
        for value, keys in shared.items():
            for key in keys[1:]:
                said = value[1] if isinstance(value, tuple) else value
                yield Broken(key, f"has the same {of} as {keys[0]} ({said}): {remedy}")


def _listening(config: Config) -> Iterator[Broken]:
    """Where a node listens is an address, or left out."""
    for section in ("masters", "storages", "admins"):
        for name, node in getattr(config, section).items():
            if node.listen:
                try:
                    parse_address(node.listen)
                except ValueError as error:
                    yield Broken(f"{section}.{name}.listen", f"{node.listen!r} {error}, or leave it out")


def _databases(config: Config) -> Iterator[Broken]:
    """What each kind of database needs; two storages must not share one."""
    owners: dict[object, str] = {}
    for name, storage in config.storages.items():
        key, d = f"storages.{name}.database", storage.database
        if d.managed:
            if d.type != "mysql":
                yield Broken(f"{key}.managed", f"is for type: mysql, not {d.type}: change one of them")
            for what in ("name", "user", "password_file", "password_variable", "socket", "server", "port", *_TLS):
                if getattr(d, what):
                    yield Broken(f"{key}.{what}", "is chosen by a managed server itself: remove it, or `managed`")
            continue
        if d.type == "sqlite":
            continue
        for what, value in (("name", d.name), ("user", d.user)):
            if not value:
                yield Broken(f"{key}.{what}", f"is missing: a {d.type} server wants to know it")
        if bool(d.socket) == bool(d.server):
            yield Broken(f"{key}.socket", "or else `server`, one of them, says where the database is")
        if d.password_file and d.password_variable:
            yield Broken(f"{key}.password_file", "and password_variable are both given: remove one")
        yield from _database_tls(key, d)
        owner = owners.setdefault((d.type, d.socket, d.server, d.port, d.name), name)
        if owner != name:
            yield Broken(f"{key}.name", f"is the database of storages.{owner}: give each its own")


def _database_tls(key: str, d: Database) -> Iterator[Broken]:
    """Whether the way to a server is protected as its section says, or needs no protection."""
    given = [what for what in _TLS if getattr(d, what)]
    if d.socket:
        for what in given:
            yield Broken(f"{key}.{what}", "is for `server`: a Unix socket does not leave this host; remove it")
        return
    if d.type == "mysql" and d.server == "localhost":
        yield Broken(f"{key}.server", "localhost is a Unix socket to MariaDB's driver: 127.0.0.1, or else `socket`")
    if bool(d.tls_certificate) != bool(d.tls_key):
        missing = "tls_key" if d.tls_certificate else "tls_certificate"
        yield Broken(f"{key}.{missing}", "is missing: a certificate and its key belong together")
    if d.tls == "off" and given:
        yield Broken(f"{key}.{given[0]}", "is given, and tls: off: remove one of them")
    elif d.tls == "unverified" and d.tls_ca:
        yield Broken(f"{key}.tls_ca", "is given, and tls: unverified: remove one of them")
    elif d.tls == "verify" and not d.tls_ca and (given or not is_of_this_machine(f"{d.server or 'localhost'}:1")):
        yield Broken(
            f"{key}.tls_ca",
            f"is missing: what goes to {d.server or 'a server'} could be read and changed on the way. Name the "
            "authority that has signed its certificate; or, in a network where nobody would, tls: off "
            "(docs/operating.md)",
        )


def _times(config: Config) -> Iterator[Broken]:
    """Durations that make sense only in a certain order."""
    t = config.timeouts
    for low, low_s, high, high_s in (
        ("heartbeat", t.heartbeat_s, "silence", t.silence_s),
        ("lock", t.lock_s, "overdue", t.overdue_s),
    ):
        if low_s > high_s:
            yield Broken(
                f"timeouts.{low}",
                f"{format_seconds(low_s)} is above timeouts.{high} ({format_seconds(high_s)}): it must not be",
            )
    if config.supervisor.stop_s < t.stop_s:
        yield Broken(
            "supervisor.stop",
            f"{format_seconds(config.supervisor.stop_s)} is below timeouts.stop ({format_seconds(t.stop_s)}): "
            "supervisord would kill a node that is stopping cleanly",
        )
