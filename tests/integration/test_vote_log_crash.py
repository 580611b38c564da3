"""A storage may die at any write, at any byte of it, with or without the power.

Nothing acknowledged is lost, nothing invented. Acknowledged is what a flush that returned has covered. What was not
acknowledged may survive, but only as a beginning of it: the one order in which it was appended.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from neo_storage.core.log_records import LogRecord
from neo_storage.log_files import OsLogFiles
from support.log_scripts import open_log, record
from support.lossy_files import Cut, LossyFiles

SEGMENT = 1200
RECORDS = 48
FLUSH_AT = (0, 1, 2, 7, 15, 16, 30, 41)
RELEASE_AT = {20: 9, 36: 30}
SCRIPT = [record(number, 30 + 41 * (number % 7)) for number in range(RECORDS)]


class Run:
    """One process: appends SCRIPT from where the log ends, flushes and releases now and then, until it is cut."""

    def __init__(self, files: LossyFiles, seed: int = 0) -> None:
        self.files = files
        self.acknowledged = -1
        """The last position that is promised to survive a power cut."""
        self.appended = -1
        """The last position that is promised to survive a kill."""
        self.released = 0
        try:
            log, _, _ = open_log(files, SEGMENT, seed)
            self.acknowledged = self.appended = log.end
            for position in range(log.end + 1, RECORDS):
                log.append(position, SCRIPT[position])
                self.appended = position
                if position in FLUSH_AT:
                    log.flush_job().run()
                    self.acknowledged = position
                if position in RELEASE_AT:
                    self.released = RELEASE_AT[position]
                    log.release(self.released)
        except Cut:
            pass


def check(files: LossyFiles, least: int, most: int, released: int, seed: int = 99) -> int:
    """Recover; what is there must be the script from a place that was not released to one from *least* to *most*."""
    log, found, first = open_log(files, SEGMENT, seed)
    if found:
        assert first <= released
        assert found == SCRIPT[first : first + len(found)]
    assert least <= log.end <= most, f"{least} <= {log.end} <= {most}"
    end = log.end
    log.close()
    return end


@pytest.fixture(scope="module")
def operations() -> list[int]:
    """The operations of an undisturbed run; for each the bytes that it writes."""
    files = LossyFiles()
    run = Run(files)
    assert run.appended == RECORDS - 1
    assert len(files.files) >= 3, "the script fills several segments"
    assert sum(1 for length in files.writes if length == 64) >= 6, "segments are begun and released"
    return files.writes


def test_kill_at_every_byte_of_every_write(operations: list[int]) -> None:
    """What the kernel has is kept: only the write under way may be torn."""
    cases = 0
    for operation, length in enumerate(operations):
        for cut_bytes in range(length + 1):
            files = LossyFiles()
            files.cut_at, files.cut_bytes = operation, cut_bytes
            run = Run(files)
            least = run.appended
            # A record whose last bytes are zeros is whole before they are written.
            check(files.killed(), least, least + bool(length), run.released)
            cases += 1
    assert cases == sum(length + 1 for length in operations)


@pytest.mark.parametrize("seed", range(12))
def test_power_cut_at_every_write(operations: list[int], seed: int) -> None:
    """What was not flushed is lost by sectors, as chance has it; seed 0 loses all."""
    rng = random.Random(seed) if seed else None
    for operation, length in enumerate(operations):
        files = LossyFiles()
        files.cut_at, files.cut_bytes = operation, length // 2
        run = Run(files)
        check(files.power_cut(rng), run.acknowledged, run.appended, run.released)


@pytest.mark.parametrize("seed", range(40))
def test_many_lives(operations: list[int], seed: int) -> None:
    """Each life begins with what the last one left, and ends by a kill or a power cut somewhere."""
    rng = random.Random(seed)
    files = LossyFiles()
    survives = -1
    released = 0
    for life in range(12):
        files.cut_at = rng.randrange(2, len(operations) // 2)
        files.cut_bytes = rng.randrange(80)
        run = Run(files, seed=seed * 100 + life)
        released = max(released, run.released)
        if run.appended == -1:
            run.appended = run.acknowledged = survives  # it died while it recovered
        assert run.appended >= survives
        if rng.random() < 0.5:
            files = files.killed()
            least = max(survives, run.appended)
        else:
            files = files.power_cut(rng if rng.random() < 0.7 else None)
            least = max(survives, run.acknowledged)
        # One more may be there: its write was cut behind its end, or the process died before it said so.
        survives = check(files, least, min(run.appended + 1, RECORDS - 1), released, seed=seed * 100 + life + 50)


def test_death_while_recovering(operations: list[int]) -> None:
    """Recovery writes too: it may die at any of its own operations, and be done again."""
    first_life = LossyFiles()
    first_life.cut_at, first_life.cut_bytes = 40, 20
    run = Run(first_life)
    for operation in range(20):
        for power in (False, True):
            files = first_life.killed()
            files.cut_at, files.cut_bytes = operation, 31
            with contextlib.suppress(Cut):
                open_log(files, SEGMENT, seed=5)
            after = files.power_cut(None) if power else files.killed()
            check(after, run.acknowledged if power else run.appended, run.appended, run.released)


def test_recovered_but_unflushed_records_are_flushed_before_they_count(operations: list[int]) -> None:
    """Killed, recovered (from the kernel's memory), then a power cut: what was recovered is still there."""
    for operation, length in enumerate(operations):
        files = LossyFiles()
        files.cut_at, files.cut_bytes = operation, length // 2
        run = Run(files)
        second = files.killed()
        end = check(second, run.appended, run.appended, run.released)
        check(second.power_cut(None), end, end, run.released)


CHILD = """
import os, sys
from pathlib import Path
from neo_storage.log_files import OsLogFiles
from support.log_scripts import open_log, record
log, found, first = open_log(OsLogFiles(Path(sys.argv[1])), 1 << 16, seed=int(sys.argv[2]))
position = log.end
acknowledged = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT, 0o644)
print("ready", flush=True)
while True:
    for _ in range(7):
        position += 1
        log.append(position, record(position, position * 37 % 3000))
    job = log.flush_job()
    job.run()
    os.pwrite(acknowledged, b"%020d" % job.position, 0)
    if position % 5 == 0:
        log.release(position - 200)
"""


def test_killed_process_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A real process on a real file system, killed at random moments under load, ten times over one log."""
    rng = random.Random(3)
    acknowledged = tmp_path / "acknowledged"
    tests = str(Path(__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": tests}
    survives = -1
    for life in range(10):
        command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "log"), str(life), str(acknowledged)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.005, 0.08))  # the moment of the kill is what the test varies
            child.send_signal(signal.SIGKILL)
            child.wait(timeout=30)
        assert child.returncode == -signal.SIGKILL
        promised = int(acknowledged.read_text() or -1) if acknowledged.exists() else -1
        log, found, first = open_log(OsLogFiles(tmp_path / "log"), 1 << 16, seed=1000 + life)
        expected: list[LogRecord] = [record(p, p * 37 % 3000) for p in range(first, log.end + 1)]
        assert found == expected
        assert log.end >= max(promised, survives)
        survives = log.end
        log.close()
    assert survives > 100
