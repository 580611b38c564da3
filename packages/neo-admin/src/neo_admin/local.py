"""A cluster on this machine, in a directory of its own: the same files, and the same supervisord, as anywhere else."""

import shutil
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import yaml

from neo_admin import supervise
from neo_admin.core.programs import nodes_of_host
from neo_admin.ports import HOST, free_ports
from neo_admin.supervise import Supervisord, SupervisorError
from neo_common.config.loader import load
from neo_common.config.sections import Config
from neo_common.errors import ConfigError

FILE: Final = "cluster.yaml"
_SIGNS: Final = (" ERROR ", " CRITICAL ", "Traceback")
"""What a log says of a node that does not work."""


class Shape(NamedTuple):
    """What a local cluster is made of."""

    name: str
    masters: int
    storages: int
    admins: int
    partitions: int
    replicas: int


def make(directory: Path, shape: Shape) -> Config:
    """Return the configuration of the cluster in *directory*, written first if there is none; ports are free ones.

    Raises: ConfigError if there is one of another shape.
    """
    file = directory / FILE
    if file.exists():
        config = load(file)
        if (found := shape_of(config)) != shape:
            raise ConfigError(f"{file} is a cluster of {_said(found)}; remove it first: neoadmin down --erase")
        return config
    nodes = {
        "masters": [f"m{n + 1}" for n in range(shape.masters)],
        "storages": [f"s{n + 1}" for n in range(shape.storages)],
        "admins": [f"a{n + 1}" for n in range(shape.admins)],
    }
    ports = iter(free_ports(sum(map(len, nodes.values()))))
    tree: dict[str, Any] = {  # what YAML can hold
        "cluster": {"name": shape.name, "partitions": shape.partitions, "replicas": shape.replicas}
    }
    for section, names in nodes.items():
        tree[section] = {name: {"address": f"{HOST}:{next(ports)}"} for name in names}
    directory.mkdir(parents=True, exist_ok=True)
    head = "# Made by `neoadmin up`. Every key that may be added: neoadmin config sample\n"
    file.write_text(head + yaml.safe_dump(tree, sort_keys=False))
    try:
        return load(file)
    except ConfigError:
        file.unlink()  # a shape that cannot be leaves nothing behind
        raise


def shape_of(config: Config) -> Shape:
    """Return the shape of a cluster."""
    cluster = config.cluster
    counts = len(config.masters), len(config.storages), len(config.admins)
    return Shape(cluster.name, *counts, cluster.partitions, cluster.replicas)


def start(config: Config) -> Supervisord:
    """Have supervisord run every node of *config* on this machine; return the connection to it."""
    supervisord = Supervisord(supervise.write(config, nodes_of_host(config, "")))
    if supervisord.is_running:
        for node in config.nodes:
            supervisord.start_node(node.name)
    else:
        supervisord.start()
    return supervisord


def stop(config: Config, timeout_s: float) -> bool:
    """Stop every node and supervisord; return False if it did not run."""
    supervisord = Supervisord(supervise.paths_of(config))
    try:
        if not supervisord.is_running:
            return False
        supervisord.shutdown(timeout_s)
    finally:
        supervisord.close()
    return True


def erase(directory: Path) -> None:
    """Remove the directory of a local cluster, with everything in it.

    Raises: ConfigError if `up` has not made it.
    """
    file = directory / FILE
    if not file.exists() or "neoadmin up" not in file.read_text().partition("\n")[0]:
        raise ConfigError(f"{directory} was not made by `neoadmin up`: remove it yourself")
    shutil.rmtree(directory)


def excuses(config: Config, supervisord: Supervisord) -> str:
    """Return what the nodes that do not run, or complain, say in their logs, for a start that failed."""
    told = []
    try:
        processes = supervisord.processes()
    except SupervisorError as error:
        return str(error)
    for process in processes:
        log = supervisord.paths.log(process.name)
        last = supervise.tail(log)
        # One that dies again and again is RUNNING each time that it has lived for a second.
        if process.state not in ("RUNNING", "STARTING") or any(word in last for word in _SIGNS):
            told.append(f"{process.name} is {process.state}: {process.description}; {log} ends:\n{last}")
    return "\n".join(told) or f"every node runs; their logs are in {config.supervisor.directory}"


def uri(config: Config) -> str:
    """Return how zodburi and `neo_client.open` name the cluster."""
    masters = ",".join(quote(address, safe=":[]") for address in config.master_addresses)  # the / of a Unix socket
    return f"neo://{quote(config.cluster.name, safe='')}@{masters}"


def zconfig(config: Config) -> str:
    """Return the section of zope.conf that opens the cluster."""
    masters = "\n".join(f"    master {address}" for address in config.master_addresses)
    return (
        "%import neo_client\n"
        "<zodb_db main>\n"
        "  mount-point /\n"
        "  <neostorage>\n"
        f"    name {config.cluster.name}\n"
        f"{masters}\n"
        "  </neostorage>\n"
        "</zodb_db>\n"
    )


def python(config: Config) -> str:
    """Return the line of Python that opens the cluster."""
    return f"import neo_client, ZODB; db = ZODB.DB(neo_client.open({uri(config)!r}))"


def _said(shape: Shape) -> str:
    return ", ".join(f"{field} {value}" for field, value in shape._asdict().items())
