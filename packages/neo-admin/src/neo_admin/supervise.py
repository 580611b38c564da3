"""supervisord on this host: its files, starting it, and talking to it over its Unix socket."""

import os
import select
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple

from gevent.event import Event
from supervisor.xmlrpc import Faults, SupervisorTransport

from neo_admin.core.programs import Paths, supervisord_conf
from neo_common.config.sections import Config, Node
from neo_common.errors import NeoError

_SOCKET_PATH_MAX: Final = 90
"""Linux takes 107 bytes; supervisord binds to a name with its pid behind, and renames."""
_LOOK_S: Final = 0.1
"""Between two looks at a node that is being started."""
PROGRAMS: Final = Path(sys.executable).parent
"""Where pip has put the programs of this environment. (Not resolved: a virtual environment's python is a link.)"""


class SupervisorError(NeoError):
    """supervisord does not run, or does not do what was asked; the text says what to do."""


class SupervisorGone(SupervisorError):
    """supervisord does not answer."""


class Process(NamedTuple):
    """A node, as supervisord sees it."""

    name: str
    state: str
    """STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN: supervisord's words."""
    pid: int
    """0 when it does not run."""
    since: float
    """When it was started or has ended, Unix time; 0 if never."""
    exit_status: int
    description: str


def paths_of(config: Config) -> Paths:
    """Return where supervisord keeps its things for *config* on this host.

    The socket is moved to a private folder of the user when its path would be longer than the system takes.
    """
    directory = config.supervisor.directory
    path = f"{directory}/supervisord.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        digest = sha256(os.fsencode(directory)).hexdigest()[:16]
        path = f"{tempfile.gettempdir()}/neo-{os.getuid()}/{digest}.sock"
    return Paths(directory, path)


def write(config: Config, nodes: Sequence[Node], programs: Path = PROGRAMS) -> Paths:
    """Write supervisord.conf for *nodes*, and make the folders that it names."""
    paths = paths_of(config)
    text = supervisord_conf(config, nodes, paths, str(programs))
    Path(paths.directory).mkdir(parents=True, exist_ok=True)
    private = Path(paths.socket).parent
    if private != Path(paths.directory):
        private.mkdir(mode=0o700, exist_ok=True)
        if private.stat().st_uid != os.getuid():
            raise SupervisorError(f"{private} belongs to somebody else; choose a shorter supervisor.directory")
    Path(paths.configuration).write_text(text)
    return paths


class Supervisord:
    """supervisord of this host, over its Unix socket."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._transport = SupervisorTransport(None, None, f"unix://{paths.socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=self._transport)
        self._rpc: Any = proxy.supervisor  # a proxy has whatever method is asked of it

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def start(self) -> None:
        """Start supervisord in the background; it starts every node.

        Raises: SupervisorError with what it says.
        """
        command = [str(PROGRAMS / "supervisord"), "-c", self.paths.configuration]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SupervisorError(f"supervisord does not start: {(done.stderr or done.stdout).strip()}")

    @property
    def is_running(self) -> bool:
        """Whether it answers."""
        try:
            self._call("getState")
        except SupervisorGone:
            return False
        except SupervisorError:
            return True  # it is shutting down
        return True

    def processes(self) -> list[Process]:
        """Return every node of this host, by name."""
        return [_process(info) for info in self._call("getAllProcessInfo")]

    def start_node(self, name: str) -> None:
        """Start a node and wait until it has lived for `supervisor.start`; one that runs is left alone."""
        self._call("startProcess", name, ignore=Faults.ALREADY_STARTED)
        # Who was being started already is not waited for by supervisord, and it tells of no change: look again.
        never = Event()
        while (state := self._call("getProcessInfo", name)["statename"]) in ("STARTING", "BACKOFF"):
            if state == "BACKOFF":
                raise SupervisorError(_ended_at_once(name, self.paths))
            never.wait(_LOOK_S)

    def stop_node(self, name: str) -> None:
        """Stop a node cleanly and wait until it has ended; one that does not run is left alone."""
        self._call("stopProcess", name, ignore=Faults.NOT_RUNNING)

    def shutdown(self, timeout_s: float) -> None:
        """Stop every node, then supervisord, and wait until it has gone.

        Raises: SupervisorError when it is still there after *timeout_s*.
        """
        try:
            pid = int(Path(self.paths.pid).read_text())
        except FileNotFoundError:
            raise SupervisorGone(f"supervisord does not run: there is no {self.paths.pid}") from None
        ended = _Ending(pid)
        try:
            self._call("shutdown", ignore=Faults.SHUTDOWN_STATE)
            if not ended.wait(timeout_s):
                raise SupervisorError(
                    f"supervisord (process {pid}) has not ended after {timeout_s:.0f} s; it waits for its nodes"
                )
        finally:
            ended.close()
            self.close()

    def _call(self, method: str, *arguments: object, ignore: int | None = None) -> Any:
        """Call supervisord. (Any: XML-RPC has no types.)"""
        try:
            return getattr(self._rpc, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == ignore:
                return None
            raise SupervisorError(_fault(method, arguments, fault, self.paths)) from None
        except (OSError, HTTPException, xmlrpc.client.ProtocolError) as error:
            self._transport.close()  # it would keep the socket of the failed attempt beside the next one
            raise SupervisorGone(
                f"supervisord does not answer at {self.paths.socket} ({error}); "
                f"start it: supervisord -c {self.paths.configuration}"
            ) from None


class _Ending:
    """Waits for the end of a process that is not our child."""

    def __init__(self, pid: int) -> None:
        self._pidfd: int | None = None
        with suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def wait(self, timeout_s: float) -> bool:
        """Return whether it has ended within *timeout_s*."""
        if self._pidfd is None:
            return True
        # Not select.poll: under gevent's patches that one waits in slices.
        return bool(select.select([self._pidfd], [], [], timeout_s)[0])

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)


def _process(info: dict[str, Any]) -> Process:
    """Read what supervisord says of a process. (Any: XML-RPC has no types.)"""
    started, stopped = float(info["start"]), float(info["stop"])
    running = int(info["pid"]) != 0
    text = info["spawnerr"] or info["description"]
    return Process(
        info["name"],
        info["statename"],
        int(info["pid"]),
        started if running else max(started, stopped),
        int(info["exitstatus"]),
        text,
    )


def _fault(method: str, arguments: Sequence[object], fault: xmlrpc.client.Fault, paths: Paths) -> str:
    name = str(arguments[0]) if arguments else ""
    match fault.faultCode:
        case Faults.BAD_NAME:
            return f"supervisord of this host has no node {name!r}; write its configuration again: neoadmin supervisor"
        case Faults.SPAWN_ERROR | Faults.ABNORMAL_TERMINATION:
            return _ended_at_once(name, paths)
        case Faults.NO_FILE | Faults.NOT_EXECUTABLE:
            return f"{name} cannot be started: {fault.faultString}; is that package installed beside neoadmin?"
        case Faults.SHUTDOWN_STATE:
            return "supervisord is shutting down"
    return f"supervisord: {method} {name}: {fault.faultString}"


def _ended_at_once(name: str, paths: Paths) -> str:
    return f"{name} ended as soon as it was started; it says why in {paths.log(name)}"


def tail(path: str, lines: int = 15) -> str:
    """Return the last *lines* of a log, empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
            text = file.read().decode("utf-8", "backslashreplace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
