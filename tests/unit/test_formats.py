"""Every format that ever was is read by today's code, and none changes without a number of its own.

The databases of servers: `tests/integration/test_server_formats.py`. Files are made by `python -m support.formats`.
"""

import sqlite3
from pathlib import Path
from shutil import copytree

import pytest

from neo_common.errors import BackendError
from neo_master import journal, notes
from neo_master.journal import Journal
from neo_master.notes import Notes
from neo_storage.backends import logical
from neo_storage.backends.migration import MIGRATIONS
from neo_storage.backends.sqlite.backend import SqliteBackend
from neo_storage.core import log_format
from neo_storage.log_files import OsLogFiles
from neo_storage.vote_log import VoteLog
from support.formats import golden, sample
from support.formats.describe import contents, journal_record, log_records, notes_record, plain, schema
from support.memory_backend import MemoryBackend

DATABASES = range(1, logical.FORMAT + 1)
LOGS = range(1, log_format.FORMAT + 1)
JOURNALS = range(1, journal.FORMAT + 1)
NOTES = range(1, notes.FORMAT + 1)
CHANGED = (
    "This is another format than the golden files have. Give it a number of its own (FORMAT) and a way to read the"
    " older ones, and run `python -m support.formats` in tests/; see docs/backends.md, Formats"
)


def test_schema_has_not_changed_without_a_new_format() -> None:
    assert schema() == (golden.database_folder() / "schema.txt").read_text(), CHANGED


def test_records_of_the_vote_log_have_not_changed_without_a_new_format() -> None:
    assert log_records() == (golden.log_folder() / "records.txt").read_text(), CHANGED


def test_record_of_a_journal_has_not_changed_without_a_new_format() -> None:
    assert journal_record() == (golden.journal_folder() / "records.txt").read_text(), CHANGED


def test_record_of_notes_has_not_changed_without_a_new_format() -> None:
    assert notes_record() == (golden.notes_folder() / "records.txt").read_text(), CHANGED


def test_every_older_format_has_a_migration() -> None:
    assert sorted(MIGRATIONS) == list(range(1, logical.FORMAT))


@pytest.mark.parametrize("number", DATABASES)
def test_golden_sqlite_database_is_read_and_written(number: int, tmp_path: Path) -> None:
    path = tmp_path / "neo.sqlite"
    golden.sqlite_database(number, path)
    expected = (golden.database_folder(number) / "contents.txt").read_text()
    backend = SqliteBackend(path, wal_bytes=0)
    assert contents(backend.open(), backend) == expected
    sample.go_on(backend)
    twin = MemoryBackend()
    twin.open()
    sample.fill(twin)
    sample.go_on(twin)
    again = contents(twin.open(), twin)
    assert again != expected
    backend.close()
    backend = SqliteBackend(path, wal_bytes=0)
    assert contents(backend.open(), backend) == again
    backend.close()


@pytest.mark.parametrize("number", DATABASES)
def test_golden_sqlite_database_has_the_tables_of_a_new_one(number: int, tmp_path: Path) -> None:
    golden.sqlite_database(number, tmp_path / "old.sqlite")
    found = []
    for name in ("old.sqlite", "new.sqlite"):
        backend = SqliteBackend(tmp_path / name, wal_bytes=0)
        backend.open()
        backend.close()
        with sqlite3.connect(tmp_path / name) as db:
            found.append(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name").fetchall())
        db.close()
    assert found[0] == found[1]


@pytest.mark.parametrize("number", LOGS)
def test_golden_vote_log_is_read_and_written(number: int, tmp_path: Path) -> None:
    copytree(golden.log_folder(number), tmp_path / "log")
    for _ in range(2):
        log = VoteLog(OsLogFiles(tmp_path / "log"), segment_bytes=8192, spare_segments=0, new_salt=lambda: 5)
        found = [record for _, record in log.recover()]
        assert golden.log_contents(found) == (golden.log_folder(number) / "contents.txt").read_text()
        log.flush_recovered()
        log.begin(log.end + 1)
        log.close()


@pytest.mark.parametrize("number", JOURNALS)
def test_golden_journal_is_read_and_written(number: int, tmp_path: Path) -> None:
    copytree(golden.journal_folder(number), tmp_path / "m1")
    expected = (golden.journal_folder(number) / "contents.txt").read_text()
    found = Journal(tmp_path / "m1")
    assert "".join(f"{plain(kept)}\n" for kept in found.history) == expected
    (*_, last) = sample.journal_records()
    found.write(last)
    found.close()
    found = Journal(tmp_path / "m1")
    assert found.kept == last
    found.close()


@pytest.mark.parametrize("number", NOTES)
def test_golden_notes_are_read_and_written(number: int, tmp_path: Path) -> None:
    copytree(golden.notes_folder(number), tmp_path / "m1")
    found = Notes(tmp_path / "m1")
    assert found.dropped > 0
    assert golden.notes_contents(found.holding().pages()) == (golden.notes_folder(number) / "contents.txt").read_text()
    (*_, last) = sample.pages()
    found.write([last])
    found.close()
    found = Notes(tmp_path / "m1")
    assert golden.notes_contents(found.holding().pages()) == golden.notes_contents(sample.pages())
    found.close()


def test_database_of_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "neo.sqlite"
    golden.sqlite_database(logical.FORMAT, path)
    newer = logical.FORMAT + 1
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("UPDATE config SET value = ? WHERE name IN ('format', 'minimum_reader')", (newer,))
        before = list(db.iterdump())
    db.close()
    with pytest.raises(BackendError, match=rf"has format {newer}, for programs that read {newer} or above.*newer NEO"):
        SqliteBackend(path, wal_bytes=0).open()
    with sqlite3.connect(path) as db:
        assert list(db.iterdump()) == before
    db.close()


def test_database_of_a_newer_format_that_older_programs_may_read_is_opened_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "neo.sqlite"
    golden.sqlite_database(logical.FORMAT, path)
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("UPDATE config SET value = ? WHERE name = 'format'", (logical.FORMAT + 1,))
    db.close()
    backend = SqliteBackend(path, wal_bytes=0)
    assert contents(backend.open(), backend) == (golden.database_folder() / "contents.txt").read_text()
    assert backend._db.config()["format"] == logical.FORMAT + 1
    backend.close()


def test_database_that_no_migration_begins_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "neo.sqlite"
    golden.sqlite_database(logical.FORMAT, path)
    monkeypatch.setattr(logical, "FORMAT", logical.FORMAT + 1)
    backend = SqliteBackend(path, wal_bytes=0)
    with pytest.raises(BackendError, match=r"too old for this program.*an older NEO first"):
        backend.open()


def test_segment_of_a_newer_vote_log_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    copytree(golden.log_folder(), tmp_path / "log")
    file = tmp_path / "log" / "00000001.votes"
    data = bytearray(file.read_bytes())
    data[7] = log_format.FORMAT + 1
    file.write_bytes(data)
    log = VoteLog(OsLogFiles(tmp_path / "log"), segment_bytes=8192, spare_segments=0, new_salt=lambda: 5)
    with pytest.raises(BackendError, match=rf"has format {data[7]}, this program reads {log_format.FORMAT}: install"):
        list(log.recover())
    log.close()
    assert file.read_bytes() == data
