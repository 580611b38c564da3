"""The life of a managed server, with programs in its place that do as they are told. The real one: test_managed.py."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from neo_common.errors import BackendError, ConfigError
from neo_storage.backends.mysql import managed
from neo_storage.backends.mysql.layout import Layout, server_options
from neo_storage.backends.mysql.managed import Commands, ManagedServer, find_program
from neo_storage.backends.mysql.vigil import Sign

DEADLINE_S = 20.0
# They answer when they have made the file `ready`; its lines are the process ids of all that ever ran.
LIVES = "echo $$ >> ready; exec sleep 1000"
DEAF = "trap '' TERM; echo $$ >> ready; while true; do sleep 0.05; done"


class Rig:
    """Servers on one folder, what they told, and the end of all of them."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory)
        self.told: list[str] = []
        self.ready = directory / "ready"
        self.made: list[ManagedServer] = []
        self.sign = Sign.ANSWER
        """What a look at a server finds."""

    def server(self, script: str = LIVES, install: str = "") -> ManagedServer:
        directory = self.layout.directory
        commands = Commands(
            ["/bin/sh", "-c", f"cd '{directory}'; {script}"],
            ["/bin/sh", "-c", f"cd '{directory}'; {install or 'true'}"],
        )
        made = ManagedServer(
            self.layout,
            commands,
            answers=lambda: bool(self.runs()),
            look=lambda: self.sign,
            silence_s=0.2,
            tell=self.told.append,
        )
        self.made.append(made)
        return made

    def runs(self) -> list[int]:
        """Return the process ids of all servers that ever ran."""
        return [int(line) for line in self.ready.read_text().split()] if self.ready.exists() else []

    def end(self) -> None:
        for server in self.made:
            server.stop()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "mariadb")
    yield rig
    rig.end()


def reach(condition: Callable[[], object]) -> None:
    deadline = monotonic() + DEADLINE_S
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_started_answers_and_is_stopped(rig: Rig) -> None:
    server = rig.server()
    server.start()
    assert [server.pid] == rig.runs()
    assert rig.layout.pid.read_text().strip() == str(server.pid)
    server.stop()
    assert server.pid == 0
    assert not is_alive(rig.runs()[0])
    rig.ready.unlink()
    server.start()
    assert [server.pid] == rig.runs()


def test_it_shares_no_temporary_folder_and_none_of_our_environment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MariaDB that starts removes what it finds there, even what another one uses."""
    monkeypatch.setenv("S1_PASSWORD", "hush")
    rig.server("env > env; " + LIVES, install="env > env.installer").start()
    for name in ("env", "env.installer"):
        text = (rig.layout.directory / name).read_text()
        assert f"TMPDIR={rig.layout.temporary}\n" in text
        assert "hush" not in text


def test_folder_is_closed_to_others(rig: Rig) -> None:
    """Its root has no password: who cannot enter the folder cannot reach the socket."""
    rig.layout.directory.mkdir(mode=0o777)
    rig.server().start()
    assert rig.layout.directory.stat().st_mode & 0o077 == 0
    assert rig.layout.socket.parent.stat().st_mode & 0o077 == 0


def test_one_that_dies_is_started_again_ever_more_slowly(rig: Rig) -> None:
    server = rig.server()
    server.start()
    for count in (2, 3):
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        reach(lambda count=count: len(rig.runs()) == count)
        assert not is_alive(pid)
    reach(lambda: len(rig.told) == 2)
    first, second = rig.told
    assert "was killed by signal 9; it is started again in 0.2 s" in first
    assert "it is started again in 0.4 s" in second


@pytest.mark.parametrize(("script", "signals"), [(LIVES, ["SIGTERM"]), (DEAF, ["SIGTERM", "SIGKILL"])])
def test_one_that_hangs_is_ended_and_started_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, script: str, signals: list[str]
) -> None:
    """One that is stopped by SIGSTOP, or loops, hears SIGKILL only."""
    monkeypatch.setattr(managed, "STOP_S", 0.3)
    server = rig.server(script)
    server.start()
    pid = server.pid
    rig.sign = Sign.SILENCE
    reach(lambda: not is_alive(pid))
    rig.sign = Sign.ANSWER
    reach(lambda: server.pid not in (0, pid) and len(rig.runs()) == 2)
    hangs = [text for text in rig.told if f"(process {pid}) hangs" in text]
    assert [text.partition("it gets ")[2].partition(",")[0] for text in hangs] == signals
    server.stop()  # before STOP_S is what it was


def test_one_that_repairs_what_a_crash_has_left_is_not_ended(rig: Rig) -> None:
    server = rig.server()
    server.start()
    looks: list[Sign] = []
    rig.sign = Sign.ABSENT
    server._look = lambda: (looks.append(rig.sign), rig.sign)[1]
    reach(lambda: len(looks) > 10)  # many times `silence_s`
    assert [server.pid] == rig.runs()
    assert rig.told == []


def test_one_that_cannot_be_started_says_why(rig: Rig) -> None:
    with pytest.raises(BackendError, match=r"has ended with status 3.*server.log ends: no such table space"):
        rig.server("echo no such table space; exit 3").start()


def test_one_that_is_killed_before_it_answers_is_started_again(rig: Rig) -> None:
    """Found by nemesis: the storage ended, although nothing was wrong with its server."""
    server = rig.server(f"if [ ! -e killed ]; then touch killed; kill -9 $$; fi; {LIVES}")
    server.start()
    assert [server.pid] == rig.runs()
    assert "was killed by signal 9; it is started again in 0.2 s" in rig.told[0]


def test_one_that_is_always_killed_is_not_waited_for_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed, "_READY_S", 1.0)
    with pytest.raises(BackendError, match="does not answer after 1 s"):
        rig.server("kill -9 $$").start()


def test_stop_ends_one_that_does_not_listen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed, "STOP_S", 0.3)
    server = rig.server(DEAF)
    server.start()
    server.stop()
    assert not is_alive(rig.runs()[0])


def test_data_directory_is_made_once_and_has_its_name_when_it_is_whole(rig: Rig) -> None:
    install = "echo x >> installed; echo whole > data.new/ibdata"
    with pytest.raises(BackendError, match="sh has ended with status 1"):
        rig.server(install="echo half > data.new/ibdata; exit 1").start()
    assert not rig.layout.data.exists()
    for _ in range(2):
        server = rig.server(install=install)
        server.start()
        server.stop()
    assert (rig.layout.data / "ibdata").read_text() == "whole\n"
    assert (rig.layout.directory / "installed").read_text() == "x\n"


def orphan(rig: Rig, script: str) -> "subprocess.Popen[bytes]":
    """Return a server that a storage has left which was killed: it has the lock, and its process id is written down."""
    rig.layout.directory.mkdir(parents=True, exist_ok=True)
    with rig.layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left = subprocess.Popen(["/bin/sh", "-c", f"cd '{rig.layout.directory}'; {script}"], pass_fds=(lock.fileno(),))
    rig.layout.pid.write_text(f"{left.pid}\n")
    reach(lambda: rig.runs() == [left.pid])
    return left


@pytest.mark.parametrize(
    ("script", "status"),
    [("echo $$ >> ready; while true; do sleep 0.05; done", -signal.SIGTERM), (DEAF, -signal.SIGKILL)],
)
def test_server_that_a_dead_storage_has_left_is_stopped_before_another_begins(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, script: str, status: int
) -> None:
    monkeypatch.setattr(managed, "STOP_S", 0.5)
    left = orphan(rig, script)
    server = rig.server()
    seen: list[int | None] = []
    really = server._spawn
    monkeypatch.setattr(server, "_spawn", lambda command: (seen.append(left.poll()), really(command))[1])
    rig.ready.rename(rig.layout.directory / "before")
    server.start()
    assert seen == [status, status], "the installer, then the server, and the old one had ended"
    assert rig.runs() == [server.pid]
    assert f"process {left.pid}) gets SIGTERM" in rig.told[0]


def test_files_of_somebody_unknown_are_left_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process id of another container means another process here: it is not touched."""
    monkeypatch.setattr(managed, "STOP_S", 0.2)
    rig.layout.directory.mkdir()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    try:
        with rig.layout.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rig.layout.pid.write_text(f"{stranger.pid}\n")
            with pytest.raises(BackendError, match="is locked by process unknown, which does not end"):
                rig.server().start()
        assert stranger.poll() is None
        assert rig.runs() == []
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start of the storage stops it")
def test_server_ends_with_the_process_that_watches_it(rig: Rig) -> None:
    """kill -9 of the storage: the kernel tells its server."""
    program = f"""
import os, signal, sys
from pathlib import Path
from neo_storage.backends.mysql.layout import Layout
from neo_storage.backends.mysql.managed import Commands, ManagedServer
from neo_storage.backends.mysql.vigil import Sign
directory = Path({str(rig.layout.directory)!r})
command = ["/bin/sh", "-c", "cd '" + str(directory) + "'; {LIVES}"]
commands = Commands(command, ["/bin/true"])
waits = dict(look=lambda: Sign.ANSWER, silence_s=100.0)
ManagedServer(Layout(directory), commands, answers=(directory / "ready").exists, **waits, tell=print).start()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    (pid,) = rig.runs()
    reach(lambda: not is_alive(pid))


def test_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    assert Layout(Path("/srv/neo/s1/mariadb")).socket == Path("/srv/neo/s1/mariadb/socket")
    far = Layout(tmp_path / ("x" * 120)).socket
    assert len(os.fsencode(far)) <= 103
    assert far.parent.name == f"neo-{os.getuid()}"
    assert far != Layout(tmp_path / ("y" * 120)).socket


def test_no_file_of_the_machine_and_no_network_reaches_it() -> None:
    options = server_options(Layout(Path("/d")), cache_bytes=1, readers=4)
    assert options[0] == "--no-defaults"
    assert "--skip-networking=1" in options
    assert "--innodb-flush-log-at-trx-commit=1" in options


def test_missing_program_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(managed, "_USUAL_PLACES", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs mariadbd, .*apt-get install mariadb-server"):
        find_program("mariadbd")
    (tmp_path / "mariadbd").write_text("#!/bin/sh\n")
    (tmp_path / "mariadbd").chmod(0o755)
    assert find_program("mariadbd") == str(tmp_path / "mariadbd")
