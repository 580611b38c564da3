"""The vote log on real files, and what it does when the disk fails."""

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from neo_common.errors import BackendError, DataCorrupted, DiskFull
from neo_common.ids import Oid, Session, Ttid
from neo_storage.core import log_format
from neo_storage.core.log_records import CODES, LogPiece
from neo_storage.log_files import OsLogFiles
from neo_storage.vote_log import LogFailed, VoteLog
from support.log_scripts import open_log, record
from support.lossy_files import LossyFiles

SEGMENT = 4096


@pytest.fixture
def files(tmp_path: Path) -> OsLogFiles:
    return OsLogFiles(tmp_path / "log")


def new_log(files: OsLogFiles | LossyFiles, segment_bytes: int = SEGMENT) -> VoteLog:
    return open_log(files, segment_bytes)[0]


def test_every_kind_of_record_comes_back(files: OsLogFiles) -> None:
    records = [record(number, 100) for number in range(3 * len(CODES))]
    assert {type(r) for r in records} == set(CODES.values())
    log = new_log(files)
    for position, each in enumerate(records):
        log.append(position, each)
    log.flush_job().run()
    assert [log.read(position) for position in range(len(records))] == records
    log.close()
    again, found, first = open_log(files, SEGMENT)
    assert (found, first) == (records, 0)
    assert again.end == len(records) - 1
    assert [again.read(position) for position in range(len(records))] == records
    again.close()


def test_record_larger_than_a_segment_has_one_of_its_own(files: OsLogFiles) -> None:
    piece = LogPiece(Ttid(Session(1), 1), Oid(1), 0, os.urandom(3 * 2**20))
    log = new_log(files)
    for position, each in enumerate((record(0), piece, record(2))):
        log.append(position, each)
    assert log.read(1) == piece
    log.close()
    assert open_log(files, SEGMENT)[1] == [record(0), piece, record(2)]


def test_segments_are_used_again_and_the_directory_stays_small(files: OsLogFiles, tmp_path: Path) -> None:
    log = new_log(files)
    for position in range(3000):
        log.append(position, record(position, 50))
        if position % 100 == 99:
            log.flush_job().run()
            log.release(position - 10)
    assert len(list((tmp_path / "log").iterdir())) <= 5
    assert log.disk_bytes() <= 5 * SEGMENT
    assert log.first <= 3000 - 11
    log.close()
    again, found, first = open_log(files, SEGMENT)
    assert first <= 2989
    assert found == [record(position, 50) for position in range(first, 3000)]
    again.close()


def test_nothing_needed_is_released(files: OsLogFiles) -> None:
    log = new_log(files)
    for position in range(300):
        log.append(position, record(position, 50))
    log.release(150)
    assert 0 < log.first <= 150
    assert log.read(150) == record(150, 50)
    with pytest.raises(DataCorrupted, match="record 0 was asked for"):
        log.read(0)
    with pytest.raises(DataCorrupted, match="record 300 was asked for"):
        log.read(300)
    log.close()


def test_spares_are_made_beforehand(files: OsLogFiles) -> None:
    log = new_log(files)
    while (job := log.spare_job()) is not None:
        assert log.spare_job() is None, "one at a time"
        job.run()
        log.add_spare(job)
    assert log.disk_bytes() == 3 * SEGMENT
    assert log.room_bytes > 2 * SEGMENT
    log.close()
    again = new_log(files)
    assert again.disk_bytes() == 3 * SEGMENT, "they are found again"
    again.close()


def test_positions_after_a_release_of_everything_go_on(files: OsLogFiles) -> None:
    log = new_log(files)
    for position in range(100):
        log.append(position, record(position, 50))
    log.release(100)
    log.close()
    for _ in range(3):  # starts without a word between
        log, _, _ = open_log(files, SEGMENT)
        assert log.end == 99
        log.release(100)
        log.close()


def test_damage_before_the_end_is_told(files: OsLogFiles, tmp_path: Path) -> None:
    log = new_log(files)
    for position in range(200):
        log.append(position, record(position, 50))
    log.close()
    middle = sorted((tmp_path / "log").iterdir())[1]
    data = bytearray(middle.read_bytes())
    data[1000] ^= 1
    middle.write_bytes(data)
    with pytest.raises(DataCorrupted, match=r"the vote log is damaged: 0+2\.votes ends before record"):
        open_log(files, SEGMENT)


def test_damage_under_a_running_log_is_told(files: OsLogFiles, tmp_path: Path) -> None:
    log = new_log(files)
    log.append(0, record(0, 50))
    (only,) = (tmp_path / "log").iterdir()
    with only.open("r+b") as file:
        file.seek(log_format.HEADER_BYTES + 20)
        file.write(b"\xff")
    with pytest.raises(DataCorrupted, match="record 0 is damaged"):
        log.read(0)
    log.close()


def test_segment_of_another_version_is_refused(
    files: OsLogFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(log_format, "MAGIC", b"NEOLOG\x00\x09")
        new_log(files).close()
    with pytest.raises(BackendError, match="has format 9, this program reads 1: install"):
        open_log(files, SEGMENT)


def test_stranger_in_the_directory_is_left_alone(files: OsLogFiles, tmp_path: Path) -> None:
    new_log(files).close()
    stranger = tmp_path / "log" / "README"
    stranger.write_text("hello")
    new_log(files).close()
    assert stranger.read_text() == "hello"


@pytest.mark.parametrize("operation", ["write", "sync", "read"])
def test_failed_disk_is_never_tried_again(operation: str) -> None:
    files = LossyFiles()
    log = new_log(files)
    log.append(0, record(0))
    files.failing.add(operation)

    def act() -> None:
        log.append(log.end + 1, record(1))
        log.read(0)
        log.flush_job().run()

    with pytest.raises(LogFailed, match=f"injected failure of {operation}"):
        act()
    files.failing.clear()
    for attempt in (lambda: log.append(log.end + 1, record(1)), lambda: log.flush_job().run(), lambda: log.read(0)):
        with pytest.raises(LogFailed, match=f"injected failure of {operation}"):
            attempt()
    assert log.spare_job() is None


def test_failed_flush_at_the_change_of_segments_is_fatal() -> None:
    files = LossyFiles()
    log = new_log(files)
    log.append(0, record(0, 2000))
    files.failing.add("sync")
    with pytest.raises(LogFailed):
        log.append(1, record(2, 3000))


def test_full_disk_is_told_by_the_spare_long_before_it_matters() -> None:
    files = LossyFiles()
    log = new_log(files)
    first = log.spare_job()
    assert first is not None
    first.run()
    log.add_spare(first)
    files.room = SEGMENT // 2
    job = log.spare_job()
    assert job is not None
    with pytest.raises(DiskFull, match="No space left"):
        job.run()
    log.add_spare(job)
    position = 0
    while log.room_bytes > 1000:  # there is still room for what was begun
        log.append(position, record(position, 50))
        position += 1
    assert position > 30
    files.room = 2**30
    job = log.spare_job()
    assert job is not None
    job.run()
    log.add_spare(job)
    assert log.room_bytes > SEGMENT


def test_log_without_room_stops_the_node_and_loses_nothing() -> None:
    files = LossyFiles()
    log = new_log(files)
    files.room = 0

    def append_for_ever() -> None:
        while True:
            log.append(log.end + 1, record(log.end + 1, 50))

    with pytest.raises(LogFailed, match="No space left"):
        append_for_ever()
    assert log.end > 20
    after = files.killed()
    assert open_log(after, SEGMENT)[1] == [record(number, 50) for number in range(log.end + 1)]


def test_real_limit_of_file_size_is_a_full_disk(files: OsLogFiles, tmp_path: Path) -> None:
    """In a child: the limit of a process cannot be lifted again."""
    script = f"""
        import resource, signal
        from pathlib import Path
        from neo_common.errors import DiskFull
        from neo_storage.log_files import OsLogFiles
        from support.log_scripts import open_log
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log, _, _ = open_log(OsLogFiles(Path({str(tmp_path / "log")!r})), {SEGMENT})
        resource.setrlimit(resource.RLIMIT_FSIZE, ({SEGMENT // 2}, {SEGMENT // 2}))
        job = log.spare_job()
        try:
            job.run()
        except DiskFull as error:
            print("full", error)
        print(sorted(p.name for p in Path({str(tmp_path / "log")!r}).iterdir()))
    """
    tests = str(Path(__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": tests}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=True)
    assert done.stdout.startswith("full no file of 4096 bytes for the vote log: [Errno 27]")
    assert done.stdout.endswith("['00000001.votes']\n"), "half a file is not left behind"


def test_flush_of_an_error_in_another_thread_reaches_the_appender() -> None:
    files = LossyFiles()
    log = new_log(files)
    log.append(0, record(0))
    job = log.flush_job()
    files.failing.add("sync")
    with pytest.raises(BackendError):
        job.run()
    files.failing.clear()
    with pytest.raises(LogFailed):
        log.append(1, record(1))


def test_flush_covers_what_was_appended_before_it_only() -> None:
    files = LossyFiles()
    log = new_log(files)
    log.append(0, record(0))
    job = log.flush_job()
    log.append(1, record(1))
    job.run()
    assert job.position == 0
    assert log.flush_job().position == 1


def test_same_salt_twice_would_be_seen() -> None:
    """The test of the tests: with one salt for all, a stale record behind a torn tail does come back."""
    rng = random.Random(1)
    header = log_format.Header(1, 0, rng.getrandbits(64))
    other = log_format.Header(2, 0, rng.getrandbits(64))
    torn = log_format.encode_header(other) + log_format.encode_record(0, record(0), other.salt)
    stale = log_format.encode_record(1, record(1), header.salt)
    assert [f.position for f in log_format.scan(torn + stale, other)] == [0]
    same = log_format.encode_record(1, record(1), other.salt)
    assert [f.position for f in log_format.scan(torn + same, other)] == [0, 1]
