"""The golden files: where they are, how they are made and read. One folder for each format that ever was."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from neo_common.wire.schema import Page
from neo_master import journal, notes
from neo_master.core.holding import Holding
from neo_master.journal import Journal
from neo_master.notes import Notes
from neo_storage.backends import logical
from neo_storage.backends.sqlite.backend import SqliteBackend
from neo_storage.core import log_format
from neo_storage.core.log_records import LogRecord
from neo_storage.log_files import OsLogFiles
from neo_storage.vote_log import VoteLog
from support.formats import sample
from support.formats.describe import contents, journal_record, log_records, notes_record, plain, schema
from support.log_scripts import record
from support.memory_backend import MemoryBackend

FOLDER: Final = Path(__file__).parents[2] / "golden"
LOG_RECORDS: Final = 40
"""Two of each kind."""
_LOG_BYTES: Final = 8192


def database_folder(number: int = logical.FORMAT) -> Path:
    """Return the folder of that format of databases."""
    return FOLDER / f"database-{number}"


def log_folder(number: int = log_format.FORMAT) -> Path:
    """Return the folder of that format of vote logs."""
    return FOLDER / f"log-{number}"


def journal_folder(number: int = journal.FORMAT) -> Path:
    """Return the folder of that format of masters' journals."""
    return FOLDER / f"journal-{number}"


def notes_folder(number: int = notes.FORMAT) -> Path:
    """Return the folder of that format of masters' notes."""
    return FOLDER / f"notes-{number}"


def make_database(folder: Path) -> None:
    """Write a SQLite database, what is in it, and what the format is. `servers` adds the dumps of servers."""
    folder.mkdir(parents=True)
    (folder / "schema.txt").write_text(schema())
    twin = MemoryBackend()
    twin.open()
    sample.fill(twin)
    # What is expected comes from the slow, obvious twin, not from what is tested.
    (folder / "contents.txt").write_text(contents(twin.open(), twin))
    with TemporaryDirectory() as name:
        path = Path(name) / "database.sqlite"
        sqlite = SqliteBackend(path, wal_bytes=0, page_bytes=1024)
        sqlite.open()
        sample.fill(sqlite)
        sqlite.close()
        (folder / "database.sqlite.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def sqlite_database(number: int, path: Path) -> None:
    """Put the golden SQLite database of that format at *path*."""
    path.write_bytes(gzip.decompress((database_folder(number) / "database.sqlite.gz").read_bytes()))


def make_log(folder: Path) -> None:
    """Write a vote log with records of every kind."""
    folder.mkdir(parents=True)
    (folder / "records.txt").write_text(log_records())
    records = [record(number, 20) for number in range(LOG_RECORDS)]
    (folder / "contents.txt").write_text(log_contents(records))
    log = VoteLog(OsLogFiles(folder), segment_bytes=_LOG_BYTES, spare_segments=0, new_salt=lambda: 0x0123456789ABCDEF)
    assert not list(log.recover())
    log.begin(0)
    log.extend(0, records)
    log.flush_job().run()
    log.close()


def make_journal(folder: Path) -> None:
    """Write the journal of a master, its last record torn."""
    folder.mkdir(parents=True)
    (folder / "records.txt").write_text(journal_record())
    records = sample.journal_records()
    (folder / "contents.txt").write_text("".join(f"{plain(kept)}\n" for kept in records[:-1]))
    made = Journal(folder)
    for kept in records:
        made.write(kept)
    made.close()
    (folder / "lock").unlink()
    data = (folder / "journal").read_bytes()
    (folder / "journal").write_bytes(data[:-10])


def make_notes(folder: Path) -> None:
    """Write the notes of a master, the last page torn."""
    folder.mkdir(parents=True)
    (folder / "records.txt").write_text(notes_record())
    pages = sample.pages()
    (folder / "contents.txt").write_text(notes_contents(pages[:-1]))
    made = Notes(folder)
    for page in pages:
        made.write([page])
    made.close()
    data = (folder / "settled").read_bytes()
    (folder / "settled").write_bytes(data[:-10])


def notes_contents(pages: Iterable[Page]) -> str:
    """Return what is held after these pages."""
    holding = Holding()
    for page in pages:
        holding.take(page)
    return "".join(f"{plain(page)}\n" for page in holding.pages())


def log_contents(records: list[LogRecord]) -> str:
    """Return what records of a log say."""
    return "".join(f"{type(found).__name__} {plain(found)}\n" for found in records)
