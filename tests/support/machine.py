"""Machines that are not well: daemons whose disk fails or is slow, whose clock steps, or that hardly get a processor.

A hook (`sitecustomize`) is put into the daemons by way of PYTHONPATH. It wraps the few calls of the operating system
that matter, and looks for orders in files: `machine.order("s1", "sync", "fail")`. No code of the daemons knows of it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

HOOK = """\
import errno, os, sys, time

_folder = os.environ["NEO_TEST_MACHINE"]
_name = sys.argv[sys.argv.index("--name") + 1] if "--name" in sys.argv else ""
_fdatasync, _time, _sleep = os.fdatasync, time.time, time.sleep

def _order(what):
    try:
        with open(f"{_folder}/{_name}.{what}") as file:
            return file.read()
    except FileNotFoundError:
        return ""

def fdatasync(descriptor):
    order = _order("sync")
    if order == "fail":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if order:
        _sleep(float(order))
    _fdatasync(descriptor)

def now():
    return _time() + float(_order("clock") or 0)

if _name:
    os.fdatasync = fdatasync
    time.time = now
"""


class Machine:
    """Orders to the daemons of one cluster; `environ` is what the cluster must be given."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HOOK)
        self._folder = folder
        self.environ = {"PYTHONPATH": str(folder), "NEO_TEST_MACHINE": str(folder)}

    def order(self, name: str, what: str, how: str) -> None:
        """Tell daemon *name*: `sync` to `fail` or to take so many seconds; `clock` to be off by so many."""
        path = self._folder / f"{name}.{what}"
        path.with_suffix(".new").write_text(how)
        path.with_suffix(".new").replace(path)

    def heal(self, name: str, what: str) -> None:
        """Take an order back."""
        (self._folder / f"{name}.{what}").unlink()


@contextmanager
def starved(process: "Popen[bytes]", share: float = 0.05, period_s: float = 0.1) -> Iterator[None]:
    """Let *process* run for that share of the time only, as a machine with too much to do would."""
    ended = threading.Event()

    def alternate() -> None:
        while not ended.wait(period_s * share):
            os.kill(process.pid, signal.SIGSTOP)
            ended.wait(period_s * (1 - share))
            os.kill(process.pid, signal.SIGCONT)

    thread = threading.Thread(target=alternate, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.kill(process.pid, signal.SIGCONT)
