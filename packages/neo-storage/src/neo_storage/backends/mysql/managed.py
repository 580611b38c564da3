"""A private MariaDB: made, started, watched and stopped by the storage whose cells it keeps.

One native thread starts it and waits for its end; it starts it again, ever more slowly, until `stop`. There is never a
second server on the same files: a lock on a file is taken here and inherited by the server, so it is free only when
both are gone. A server that a dead storage has left is stopped first. A second thread looks whether it answers, and
ends one that hangs (`vigil`). To the rest of the storage a server that died is as one that is away.
"""

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple

from gevent.monkey import get_original

from neo_common.errors import BackendError, ConfigError
from neo_storage.backends.mysql import launcher
from neo_storage.backends.mysql.layout import Layout, install_options, server_options
from neo_storage.backends.mysql.vigil import Sign, Vigil
from neo_storage.native import Bell, new_lock, pause, start

STOP_S: Final = 20.0
"""How long a server may take to stop; then it is killed, and its next start repairs what that leaves."""
_READY_S: Final = 600.0
"""How long it may take to start: after a crash it reads its log first. And to stop, when it hung and then heard us."""
_LOOK_S: Final = 0.05
_VIGIL_S: Final = 5.0
"""Between two looks whether it answers, at most."""
_RETRY_MIN_S: Final = 0.2
_RETRY_MAX_S: Final = 30.0
_STEADY_S: Final = 60.0
"""A server that has lived so long did not die of how it was started."""
_KILLED: Final = f"was killed by signal {signal.SIGKILL.value}"
"""By the kernel that was short of memory, or by a person."""
_LOG_BYTES: Final = 10 * 2**20
"""A larger log is put aside at the next start of the server; one is kept."""
_TOLD_BYTES: Final = 2000
_USUAL_PLACES: Final = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/usr/local/mysql/bin:/opt/homebrew/bin"
_PACKAGE: Final = "on Debian and Ubuntu: apt-get install mariadb-server"

# Any: gevent hands out originals without types. Its own would have the hub watch the child.
_posix_spawn: Final[Any] = get_original("os", "posix_spawn")
_waitid: Final[Any] = get_original("os", "waitid")
_waitpid: Final[Any] = get_original("os", "waitpid")


def find_program(name: str) -> str:
    """Return the path of a program, on PATH or where it usually is. Raises: ConfigError that says what to install."""
    found = shutil.which(name) or shutil.which(name, path=_USUAL_PLACES)
    if found is None:
        raise ConfigError(
            f"database.managed: true needs {name}, which is neither on PATH nor in {_USUAL_PLACES}. Install MariaDB"
            f" ({_PACKAGE}; its own service need not run)"
        )
    return found


class Commands(NamedTuple):
    """What runs the server in the foreground, and what makes its data directory; programs with their arguments."""

    server: Sequence[str]
    installer: Sequence[str]


def commands_of(layout: Layout, *, cache_bytes: int, readers: int) -> Commands:
    """Return MariaDB's. Raises: ConfigError when it is not installed."""
    return Commands(
        [find_program("mariadbd"), *server_options(layout, cache_bytes=cache_bytes, readers=readers)],
        [find_program("mariadb-install-db"), *install_options(layout.unfinished)],
    )


class ManagedServer:
    """A private MariaDB in *layout*. `start` and `stop` are the main thread's, and block."""

    def __init__(
        self,
        layout: Layout,
        commands: Commands,
        *,
        answers: Callable[[], bool],
        look: Callable[[], Sign],
        silence_s: float,
        tell: Callable[[str], None],
    ) -> None:
        """*answers* asks whether the server does, when it starts; *tell*, from any thread, takes what is news.

        *look* asks again and again, in a fraction of *silence_s*: a server that says nothing for so long is ended.
        """
        self.layout = layout
        self._commands = commands
        self._answers = answers
        self._look = look
        self._silence_s = silence_s
        self._tell = tell
        self._guard = new_lock()
        """For `_pid` and `_is_stopping`: nobody is signalled who has been reaped."""
        self._pid = 0
        self._is_stopping = False
        self._failure: Exception | None = None
        """Why it has not become ready."""
        self._is_ready = False
        self._bell = Bell()
        self._vigil_bell = Bell()
        self._lock = -1
        self._wait: Callable[[float], bool] | None = None
        self._wait_for_vigil: Callable[[float], bool] | None = None

    @property
    def pid(self) -> int:
        """The process id of the server; 0 while there is none."""
        return self._pid

    def start(self) -> None:
        """Start it and wait until it answers; on the first start its files are made.

        Raises: BackendError with what it has said, when it does not start.
        """
        if self._wait is not None:
            return
        self._make_folders()
        self._is_stopping = self._is_ready = False
        self._failure = None
        self._wait = start(self._run)
        try:
            self._wait_until_it_answers()
        except Exception as error:
            self.stop()
            raise BackendError(f"the managed MariaDB in {self.layout.directory}: {error}") from error
        self._is_ready = True
        self._wait_for_vigil = start(self._keep_vigil)

    def _wait_until_it_answers(self) -> None:
        deadline = monotonic() + _READY_S
        while not (self._pid and self._answers()):
            if self._failure is not None:
                raise self._failure
            if monotonic() > deadline:
                raise BackendError(f"it does not answer after {_READY_S:.0f} s{self._said()}")
            pause(_LOOK_S)

    def stop(self) -> None:
        """Stop it, cleanly if it can be done in STOP_S; harmless when it does not run."""
        if self._wait is None:
            return
        with self._guard:
            self._is_stopping = True
        self._bell.ring()
        self._vigil_bell.ring()
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            if self._wait(STOP_S):
                break
        else:
            raise BackendError(f"the managed MariaDB in {self.layout.directory} (process {self._pid}) does not end")
        if self._wait_for_vigil is not None:
            self._wait_for_vigil(STOP_S)  # its last look ends by itself
            self._wait_for_vigil = None
        self._wait = None

    def _signal(self, number: signal.Signals, pid: int = 0) -> bool:
        """Send it to the server, if it is still process *pid* (0: any); return whether it was."""
        with self._guard:
            if not self._pid or pid not in (0, self._pid):
                return False
            os.kill(self._pid, number)
        return True

    # ------------------------------------------------------------------------------------------ the thread that looks

    def _keep_vigil(self) -> None:
        """Look at each server that runs, until `stop`; end one that hangs."""
        try:
            while not self._is_stopping:
                if pid := self._pid:
                    self._watch_over(pid)
                self._vigil_bell.wait(_LOOK_S)
        except Exception as error:  # noqa: BLE001  the root of this thread
            self._tell(f"the managed MariaDB would not be missed any more: {type(error).__name__}: {error}")

    def _watch_over(self, pid: int) -> None:
        """Look at process *pid*, again and again, to its end."""
        vigil = Vigil(monotonic(), silence_s=self._silence_s, stop_s=STOP_S, patience_s=_READY_S)
        while self._pid == pid and not self._is_stopping:
            sign = self._look()
            number = vigil.saw(sign, monotonic())
            if number is not None and self._signal(number, pid):
                silent_s = monotonic() - vigil.silent_since
                self._tell(
                    f"the managed MariaDB (process {pid}) hangs, it has said nothing for {silent_s:.0f} s: it gets"
                    f" {number.name}{f', and after {STOP_S:g} s SIGKILL' if number == signal.SIGTERM else ''}"
                )
            self._vigil_bell.wait(min(_VIGIL_S, self._silence_s / 4))

    # ------------------------------------------------------------------------------------------ its thread

    def _run(self) -> None:
        try:
            self._claim()
            if not self.layout.data.exists():
                self._install()
            self._watch()
        except Exception as error:  # noqa: BLE001  the root of this thread; `start` raises it, later the operator hears
            self._failure = error
            if self._is_ready:
                self._tell(f"the managed MariaDB is not watched any more: {type(error).__name__}: {error}")
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _watch(self) -> None:
        delay_s = _RETRY_MIN_S
        while not self._is_stopping:
            began = monotonic()
            try:
                how = self._run_program(self._commands.server)
            except OSError as error:  # as while its package is upgraded
                how = f"cannot be started: {error}"
            if self._is_stopping:
                return
            if not self._is_ready and how != _KILLED:  # who is killed has not failed by itself, and is tried again
                raise BackendError(f"it {how}{self._said()}")
            if monotonic() - began > _STEADY_S:
                delay_s = _RETRY_MIN_S
            self._tell(f"the managed MariaDB {how}; it is started again in {delay_s:g} s ({self.layout.log})")
            self._bell.wait(delay_s)
            delay_s = min(_RETRY_MAX_S, 2 * delay_s)

    def _run_program(self, command: Sequence[str]) -> str:
        """Run *command* to its end; return how it ended, in words. Raises: OSError."""
        self._put_log_aside()
        with self._guard:
            if self._is_stopping:
                return "was not started"
            self._pid = pid = self._spawn(command)
        _waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with self._guard:
            self._pid = 0
            status = os.waitstatus_to_exitcode(_waitpid(pid, 0)[1])
        return f"was killed by signal {-status}" if status < 0 else f"has ended with status {status}"

    def _spawn(self, command: Sequence[str]) -> int:
        """Start *command* in the folder of the server, with the lock and its log, and nothing else of ours."""
        os.truncate(self.layout.pid, 0)
        program = str(Path(launcher.__file__).resolve())
        pid: int = _posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", program, str(self.layout.pid), str(os.getpid()), *command],
            {
                "PATH": f"{Path(command[0]).parent}:{_USUAL_PLACES}:/bin:/sbin",
                "LC_ALL": "C",
                # A MariaDB that starts removes what others have left in its temporary folder, and what they use there.
                "TMPDIR": str(self.layout.temporary),
            },
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.layout.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, self._lock, 3),
            ],
            setpgroup=0,  # an interrupt from a terminal is for the storage, which then stops it
            setsigmask=[],
        )
        return pid

    # ---- files

    def _make_folders(self) -> None:
        layout = self.layout
        try:
            for folder in (layout.directory, layout.temporary):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            private = layout.socket.parent
            private.mkdir(mode=0o700, exist_ok=True)
            if private.stat().st_uid != os.geteuid() or private.stat().st_mode & 0o077:
                raise BackendError(
                    f"{private} is open to others, or theirs; choose a shorter database.server_directory"
                )
            layout.pid.touch(mode=0o600)
        except OSError as error:
            raise BackendError(f"cannot make the folders of a managed MariaDB: {error}") from error

    def _put_log_aside(self) -> None:
        log = self.layout.log
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))

    def _install(self) -> None:
        """Make the data directory. It has its name only when it is whole, on disk: a death on the way begins anew."""
        new = self.layout.unfinished
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        how = self._run_program(self._commands.installer)
        if how != "has ended with status 0":
            raise BackendError(f"{Path(self._commands.installer[0]).name} {how}{self._said()}")
        for folder, _, files in os.walk(new):
            for name in (".", *files):
                _sync(Path(folder) / name)
        new.rename(self.layout.data)
        _sync(self.layout.directory)

    def _said(self) -> str:
        """Return the end of the server's log."""
        try:
            text = self.layout.log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        lines = [line for line in text.splitlines() if line.strip()][-8:]
        return f" ({self.layout.log} ends: {' | '.join(lines)})"

    # ---- the server of a storage that has died

    def _claim(self) -> None:
        """Take the lock; stop the server that still has it. Raises: BackendError when that does not end."""
        self._lock = os.open(self.layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begun, told, number = monotonic(), 0, signal.SIGTERM
        while not _is_locked_now(self._lock):
            if self._is_stopping:
                raise BackendError("it was stopped before it began")
            pid = self._left_over()
            waited_s = monotonic() - begun
            if pid and waited_s > STOP_S and number == signal.SIGTERM:
                number, told = signal.SIGKILL, 0
            if pid and pid != told:
                self._tell(f"the MariaDB that an earlier run has left (process {pid}) gets {number.name}")
                told = pid
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    told = 0
                except PermissionError as error:
                    raise BackendError(f"process {pid} of another user has its files: {error}") from error
            if waited_s > 2 * STOP_S:
                raise BackendError(
                    f"{self.layout.lock} is locked by process {pid or 'unknown'}, which does not end: stop it"
                )
            pause(_LOOK_S)

    def _left_over(self) -> int:
        """Return the process that has our files, as it has written down itself; 0 if it has not, or is another."""
        text = self.layout.pid.read_text().strip()
        if not text:
            return 0
        commands = Path(f"/proc/{text}/cmdline")
        if Path("/proc/self/cmdline").exists():
            try:
                if os.fsencode(self.layout.directory) not in commands.read_bytes():
                    return 0  # another container's number, or it is gone
            except OSError:
                return 0
        return int(text)


def _is_locked_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
