"""What SQLite in particular must do: settings, files, errors, crashes."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neo_common.errors import BackendError, DataCorrupted, DiskFull
from neo_common.ids import Oid
from neo_common.wire.schema import PIECE_BYTES, Compression, Data
from neo_storage.backends import removal
from neo_storage.backends.base import ApplyClear, ApplyCollect, ApplyTable, ApplyTruncate, Op
from neo_storage.backends.sqlite import connection, schema
from neo_storage.backends.sqlite.backend import SqliteBackend
from neo_storage.backends.sqlite.queries import QUERIES
from support.backend_contract import END, P0, T1, T2, TABLE, commit, data, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "S1" / "data.sqlite"


@pytest.fixture
def backend(path: Path) -> Iterator[SqliteBackend]:
    backend = SqliteBackend(path, wal_bytes=0)
    backend.open()
    yield backend
    backend.close()


def execute(path: Path, *statements: str) -> list[object]:
    """Run SQL as another program would; return the last statement's rows."""
    with sqlite3.connect(path, isolation_level=None) as db:
        rows = [db.execute(statement).fetchall() for statement in statements][-1]
    db.close()
    return rows


def test_every_setting_reads_back(backend: SqliteBackend) -> None:
    for db in (backend._connection, backend._reader):
        for name, value in schema.COMMON_SETTINGS.items():
            connection.check_setting(db, name, value)
        connection.check_setting(db, "journal_mode", "wal")


def test_setting_not_in_effect_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schema.COMMON_SETTINGS, "mmap_size", -7)  # SQLite makes 0 of it, or its maximum
    with pytest.raises(BackendError, match="mmap_size"):
        SqliteBackend(path, wal_bytes=0).open()


def test_reads_of_the_hub_cannot_write(backend: SqliteBackend) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        backend._reader.execute(QUERIES.set_config.single, ("x", 1))


def test_second_process_is_refused(backend: SqliteBackend, path: Path) -> None:
    script = f"""
        from pathlib import Path
        from neo_common.errors import BackendError
        from neo_storage.backends.sqlite.backend import SqliteBackend
        try:
            SqliteBackend(Path({str(path)!r}), wal_bytes=0).open()
        except BackendError as error:
            print(error)
    """
    environ = {**os.environ, "NEO_PURE_PYTHON": "1"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=True)
    assert f"in use by process {os.getpid()}" in done.stdout


def test_second_opening_in_this_process_is_refused_and_harms_nothing(backend: SqliteBackend, path: Path) -> None:
    with pytest.raises(BackendError, match="in use"):
        SqliteBackend(path, wal_bytes=0).open()
    backend.apply([commit(T1, write(0, b"a"))], 0)
    assert backend.current(P0, Oid(0)) == T1


@pytest.mark.skipif(sys.platform != "linux", reason="such locks are Linux's; a hard link is refused everywhere")
def test_file_that_is_open_is_refused_by_another_name_of_it(backend: SqliteBackend, path: Path) -> None:
    """In another folder neither its lock file nor its log is the same. A mount of a file is noticed like a link."""
    link = path.parent.parent / "link.sqlite"
    link.hardlink_to(path)
    with pytest.raises(BackendError, match=r"link.sqlite is in use by another storage, by another name"):
        SqliteBackend(link, wal_bytes=0).open()
    link.unlink()
    backend.apply([commit(T1, write(0, b"a"))], 0)
    backend.close()
    assert backend.open().position == 0


def test_file_with_several_names_is_refused_by_each(backend: SqliteBackend, path: Path) -> None:
    backend.close()
    link = path.parent.parent / "link.sqlite"
    link.hardlink_to(path)
    for name in (path, link):
        with pytest.raises(BackendError, match=r"has 2 names .*remove the others"):
            SqliteBackend(name, wal_bytes=0).open()
    link.unlink()
    backend.open()


def test_foreign_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    execute(path, "CREATE TABLE mine (x)")
    with pytest.raises(DataCorrupted, match="not one of NEO"):
        SqliteBackend(path, wal_bytes=0).open()


def test_garbage_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, " * 1000)
    with pytest.raises(DataCorrupted, match="not a database"):
        SqliteBackend(path, wal_bytes=0).open()


def test_newer_format_is_refused(backend: SqliteBackend, path: Path) -> None:
    backend.close()
    execute(path, "UPDATE config SET value = 2 WHERE name = 'format'")
    again = SqliteBackend(path, wal_bytes=0)
    again.open()  # newer, but for us to read
    again.close()
    execute(path, "UPDATE config SET value = 2 WHERE name = 'minimum_reader'")
    with pytest.raises(BackendError, match="install a newer NEO"):
        SqliteBackend(path, wal_bytes=0).open()


def test_log_is_made_large_at_opening_and_leaves_nothing_in_the_database(path: Path) -> None:
    backend = SqliteBackend(path, wal_bytes=2 * 2**20)
    backend.open()
    wal = Path(f"{path}-wal")
    assert wal.stat().st_size >= 2 * 2**20
    size = wal.stat().st_size
    for number in range(20):
        backend.apply([commit(T1, write(number, bytes(10_000)))], number)
        backend.checkpoint()
    assert wal.stat().st_size == size, "it neither shrinks nor grows: it is used from its beginning again"
    assert path.stat().st_size < 2**20
    backend.close()


def test_checkpoint_survives_a_reader_that_holds_the_log(backend: SqliteBackend) -> None:
    reader = backend._reader
    reader.execute("BEGIN")
    assert backend.current(P0, Oid(0)) == 0
    backend.apply([commit(T1, write(0, b"a"))], 5)
    assert backend.checkpoint() == 5
    assert backend.current(P0, Oid(0)) == 0, "its snapshot is older"
    reader.execute("ROLLBACK")
    assert backend.current(P0, Oid(0)) == T1


def test_failed_batch_leaves_nothing(backend: SqliteBackend) -> None:
    big = Data(Compression.NONE, bytes(16), PIECE_BYTES + 5, b"")
    short = commit(T2, write(2, b"x"), write(4, b"y")._replace(data=big), pieces=lambda oid: iter([b"too short"]))
    backend.apply([commit(T1, write(0, b"a"))], 0)
    with pytest.raises(DataCorrupted, match="0x4 has 9 bytes"):
        backend.apply([commit(T2, write(0, b"b")), short], 1)
    assert backend.current(P0, Oid(0)) == T1
    assert backend.load(P0, Oid(2), T2) is None
    backend.apply([commit(T2, write(0, b"c"))], 1)
    assert backend.load(P0, Oid(0), END) == (T2, 0, data(b"c"))
    (orphans,) = backend._connection.execute(
        "SELECT count(*) FROM data WHERE id NOT IN (SELECT data_id FROM obj)"
    ).fetchone()
    assert orphans == 0


def test_full_disk_is_told_and_nothing_lost(backend: SqliteBackend) -> None:
    (pages,) = backend._connection.execute("PRAGMA page_count").fetchone()
    backend._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(DiskFull, match="full"):
        backend.apply([commit(T1, write(0, bytes(100_000)))], 0)
    assert backend.load(P0, Oid(0), T2) is None
    backend._connection.execute("PRAGMA max_page_count = 1000000")
    backend.apply([commit(T1, write(0, bytes(100_000)))], 0)
    assert backend.current(P0, Oid(0)) == T1


def test_damaged_page_is_data_corrupted(backend: SqliteBackend, path: Path) -> None:
    backend.apply([commit(T1, *(write(2 * n, bytes(100)) for n in range(1000)))], 0)
    backend.close()
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in range(1, pages):
            if page > 12:  # the roots of the tables stay
                file.seek(page * 4096)
                file.write(b"\xa5" * 200)
    again = SqliteBackend(path, wal_bytes=0)

    def read_all() -> None:
        again.open()
        for n in range(1000):
            again.load(P0, Oid(2 * n), T2)

    with pytest.raises(DataCorrupted):
        read_all()
    again.close()


def test_missing_value_is_data_corrupted(backend: SqliteBackend) -> None:
    backend.apply([commit(T1, write(0, b"a"))], 0)
    backend._connection.execute("DELETE FROM data")
    with pytest.raises(DataCorrupted, match="no data"):
        backend.load(P0, Oid(0), T2)


def test_removal_leaves_no_value_behind(backend: SqliteBackend) -> None:
    def pieces(oid: Oid) -> Iterator[bytes]:
        return iter([b"a" * PIECE_BYTES, b"b"])

    big = write(4, b"")._replace(data=Data(Compression.NONE, bytes(16), PIECE_BYTES + 1, b""))
    backend.apply([ApplyTable(TABLE), commit(T1, write(0, b"a"), big, pieces=pieces)], 0)
    backend.apply([commit(T2, write(0, None), big, pieces=pieces)], 1)
    assert backend.pack_step(P0, T2, 100).revisions_removed == 3
    (values,) = backend._connection.execute("SELECT count(*) FROM data").fetchone()
    assert values == 2
    (transactions,) = backend._connection.execute("SELECT count(*) FROM trans").fetchone()
    assert transactions == 1


def test_point_reads_are_covered_by_the_key(backend: SqliteBackend) -> None:
    """A plan that scans would turn 10 us into seconds; a sort would need memory."""
    for sql, arguments in (
        (QUERIES.load.text, (0, 0, 1)),
        (QUERIES.current.text, (0, 0)),
        (QUERIES.piece.text, (0, 0, 0, 0, 0)),
    ):
        plan = " ".join(row[3] for row in backend._reader.execute(f"EXPLAIN QUERY PLAN {sql}", arguments))
        assert "SCAN" not in plan
        assert "TEMP B-TREE" not in plan
    for sql, arguments in (
        (QUERIES.trans_up.rows.text, (0, 1)),
        (QUERIES.trans_one_up.rows.text, (0, 1, 0)),
        (QUERIES.revisions.text, (0, 0)),
        (QUERIES.records.rows.text, (0, 1, 0)),
    ):
        plan = " ".join(row[3] for row in backend._reader.execute(f"EXPLAIN QUERY PLAN {sql}", arguments))
        assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("op", [ApplyTruncate(T1), ApplyClear(P0, T1), ApplyCollect(T2, tuple(map(Oid, range(900))))])
def test_large_removals_are_transactions_of_bounded_size(
    backend: SqliteBackend, op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.apply([ApplyTable(TABLE), commit(T1, write(0, b"kept"))], 0)
    backend.apply([commit(T2, *(write(n, b"x") for n in range(0, 900, 2)))], 1)
    monkeypatch.setattr(removal, "SLICE_ROWS", 20)
    sizes = list[int]()

    class Noting(connection.SqliteDatabase):
        @contextmanager
        def transaction(self, doing: str) -> Iterator[None]:
            before = self._connection.total_changes
            with super().transaction(doing):
                yield
            sizes.append(self._connection.total_changes - before)

    monkeypatch.setattr(backend._db, "__class__", Noting)
    backend.apply([op], 2)
    assert len(sizes) > 450 // 20
    assert max(sizes) <= 2 * 20 + 10  # rows of obj and of data, and a few
    assert backend.current(P0, Oid(2)) == 0
