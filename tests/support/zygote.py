"""Starts daemons in milliseconds: a process that has imported them already, and forks.

A cluster per test is what ZODB's suites want, and importing gevent and a daemon takes longer than most of these
tests. The forked process runs the program's own `main`; it is killed, stopped and waited for like any other.
"""

import ctypes
import gc
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


class Zygote:
    """The parent of daemons. Use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._ask({})  # its imports are done when it answers

    def start(
        self, program: str, arguments: Sequence[str], directory: Path, log: Path, clock: Path | None = None
    ) -> "Daemon":
        """Start `neomaster` or `neostorage`. *clock*: a file with the offset of its wall clock, seconds as a double."""
        request = {"program": program, "arguments": list(arguments), "directory": str(directory), "log": str(log)}
        if clock is not None:
            request["clock"] = str(clock)
        return Daemon(self, self._ask(request)["pid"])

    def poll(self, pid: int) -> int | None:
        """Return the exit status of a daemon, None while it runs; as `Popen.poll`."""
        status: int | None = self._ask({"poll": pid})["status"]
        return status

    def close(self) -> None:
        """End. Daemons that still run are killed."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
            return answer


class Daemon:
    """What `subprocess.Popen` offers, of it what tests use."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        if self.returncode is None:
            self.returncode = self._zygote.poll(self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; return its exit status. Raises: subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout_s)
            time.sleep(0.005)
        return status


def _set_clock_by(path: Path) -> None:
    """Let the wall clock of this process, and only that, be off by what *path* says at each moment."""
    from neo_common.ids import Instant, Seconds  # noqa: PLC0415
    from neo_common.runtime.clock import Clock  # noqa: PLC0415

    def now(self: Clock) -> Instant:
        (offset,) = struct.unpack("d", path.read_bytes())
        return Instant(self.monotonic(), Seconds(time.time() + offset))

    Clock.now = now  # type: ignore[method-assign]


def _reap(waitpid: Callable[[int, int], tuple[int, int]], pid: int, living: set[int], ended: dict[int, int]) -> None:
    """Note how that child has ended, if it has."""
    found, status = waitpid(pid, os.WNOHANG)
    if found:
        living.discard(pid)
        ended[pid] = os.waitstatus_to_exitcode(status)


def _know_keys(keys_of: Callable[[type], Mapping[str, Any]], section: type) -> None:
    """Have all keys of the configuration looked up already."""
    for key in keys_of(section).values():
        if key.is_section:
            _know_keys(keys_of, key.type)


def _serve() -> None:
    # The programs patch the standard library when they are imported. What is used here must start no hub: it would not
    # survive a fork.
    import gevent.resolver.thread  # noqa: F401, PLC0415  each of them would import it
    from gevent import monkey  # noqa: PLC0415

    from neo_common.config.keys import NODE_SECTIONS, keys_of  # noqa: PLC0415
    from neo_common.config.sections import Config  # noqa: PLC0415
    from neo_master.__main__ import main as master  # noqa: PLC0415
    from neo_storage.__main__ import main as storage  # noqa: PLC0415

    for section in (Config, *NODE_SECTIONS.values()):
        _know_keys(keys_of, section)
    # To look through what is here is a third of a daemon's start, and gives it pages of its own.
    gc.collect()
    gc.freeze()
    programs = {"neomaster": master, "neostorage": storage}
    fork = monkey.get_original("os", "fork")
    waitpid = monkey.get_original("os", "waitpid")
    ended: dict[int, int] = {}
    living: set[int] = set()
    buffered = b""
    while True:
        line, newline, buffered = buffered.partition(b"\n")
        if not newline:
            more = os.read(0, 65536)
            if not more:
                break
            buffered = line + more
            continue
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "program" in request:
            pid = fork()
            if pid == 0:
                os.setsid()
                if sys.platform == "linux":  # whatever happens to the parent, its daemons do not outlive it
                    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                os.chdir(request["directory"])
                null = os.open(os.devnull, os.O_RDONLY)
                log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                for target, source in ((0, null), (1, log), (2, log)):
                    os.dup2(source, target)
                if "clock" in request:
                    _set_clock_by(Path(request["clock"]))
                status = 1
                try:
                    status = programs[request["program"]](request["arguments"])
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            for old in tuple(living):  # of most nobody asks: they were killed, and would stay zombies
                _reap(waitpid, old, living, ended)
            living.add(pid)
            ended.pop(pid, None)  # numbers come again
            answer = {"pid": pid}
        elif "poll" in request:
            pid = request["poll"]
            if pid in living:
                _reap(waitpid, pid, living, ended)
            answer = {"status": ended.get(pid)}
        os.write(1, json.dumps(answer).encode() + b"\n")
    for pid in living:
        os.kill(pid, 9)
        waitpid(pid, 0)


if __name__ == "__main__":
    _serve()
