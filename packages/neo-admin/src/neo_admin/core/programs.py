"""The configuration of supervisord for one host, from that of the cluster. Pure.

A program per node, named as the node. Masters start first and stop last, so that a cluster that stops can settle what
is under way. A node that ends with status 0 was told to stop and stays down; any other end starts it again, after a
delay that supervisord lets grow.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from neo_common.config.sections import Config, Node, Supervisor
from neo_common.errors import ConfigError
from neo_common.states import Role

PROGRAMS: Final[Mapping[Role, tuple[str, ...]]] = {
    Role.MASTER: ("neomaster",),
    Role.STORAGE: ("neostorage",),
    Role.ADMIN: ("neoadmin", "serve"),
}
"""What runs a node of each kind: a program beside this one, and its first words."""
_PRIORITY: Final = {Role.MASTER: 10, Role.STORAGE: 20, Role.ADMIN: 30}
START_RETRIES: Final = 1000
"""Attempts to start a node that dies at once; supervisord waits one second longer before each."""


class Paths(NamedTuple):
    """Where supervisord keeps its things on this host, all absolute."""

    directory: str
    socket: str

    @property
    def configuration(self) -> str:
        """The file that `supervisord -c` takes."""
        return f"{self.directory}/supervisord.conf"

    @property
    def pid(self) -> str:
        """The file with supervisord's process number."""
        return f"{self.directory}/supervisord.pid"

    def log(self, name: str) -> str:
        """The file with what node *name*, or `supervisord` itself, says."""
        return f"{self.directory}/{name}.log"


def nodes_of_host(config: Config, host: str) -> tuple[Node, ...]:
    """Return the nodes with the label *host*; all nodes when it is empty.

    Raises: ConfigError when there is none, with the labels that there are.
    """
    nodes = tuple(n for n in config.nodes if not host or n.host == host)
    if not nodes:
        labels = sorted({n.host for n in config.nodes if n.host})
        known = f"the labels are {', '.join(labels)}" if labels else "no node has a `host:`"
        raise ConfigError(f"{config.path}: no node is on host {host!r}; {known}")
    return nodes


def supervisord_conf(config: Config, nodes: Sequence[Node], paths: Paths, programs: str) -> str:
    """Return the text of supervisord.conf that runs *nodes*; *programs* is the folder of neomaster and the others.

    Raises: ConfigError for a path that supervisord's syntax cannot hold.
    """
    lines = [
        f"; Written by `neoadmin supervisor` from {config.path}: change that file, and write this one again.",
        "",
        "[unix_http_server]",
        f"file={_value(paths.socket)}",
        "chmod=0700",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        "",
        "[supervisord]",
        f"identifier={_value(config.cluster.name)}",
        f"directory={_value(paths.directory)}",
        f"pidfile={_value(paths.pid)}",
        f"logfile={_value(paths.log('supervisord'))}",
        *_rotation("logfile", config.supervisor),
        "; a storage has a file per segment of its log and a socket per client",
        "minfds=4096",
        "",
        "[supervisorctl]",
        f"serverurl=unix://{_value(paths.socket)}",
    ]
    for node in nodes:
        program, *words = PROGRAMS[node.role]
        command = shlex.join([f"{programs}/{program}", *words, "--config", config.path, "--name", node.name])
        lines += [
            "",
            f"[program:{node.name}]",
            f"command={_value(command)}",
            f"priority={_PRIORITY[node.role]}",
            "autorestart=unexpected",
            "exitcodes=0",
            f"startsecs={round(config.supervisor.start_s)}",
            f"startretries={START_RETRIES}",
            "stopsignal=TERM",
            f"stopwaitsecs={round(config.supervisor.stop_s)}",
            "redirect_stderr=true",
            f"stdout_logfile={_value(paths.log(node.name))}",
            *_rotation("stdout_logfile", config.supervisor),
        ]
    return "\n".join(lines) + "\n"


def _rotation(key: str, settings: Supervisor) -> list[str]:
    return [f"{key}_maxbytes={settings.log_bytes}", f"{key}_backups={settings.log_backups}"]


def _value(text: str) -> str:
    """Return *text* if supervisord reads it back as it is.

    A percent sign would have to be doubled in some of its keys, and doubled twice in others.
    """
    if "\n" in text or " ;" in text or "%" in text:
        raise ConfigError(f"supervisord cannot take {text!r}: it has a percent sign, a line break, or a space and a ;")
    return text
