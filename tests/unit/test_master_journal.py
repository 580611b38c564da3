"""The journal of a master: what was durable is there, a torn end is dropped, damage is not taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from neo_common.errors import BackendError, DataCorrupted
from neo_common.ids import Epoch, NodeId, Ptid, Version, make_epoch
from neo_common.model.balance import first_table
from neo_common.model.partition_table import whole
from neo_common.states import Role, node_id
from neo_master.core.effects import NOTHING_HELD, Kept
from neo_master.journal import FORMAT, HISTORY_MAX, Journal

MEMORY = bytes(range(16))
M1 = node_id(Role.MASTER, 1)


def kept(number: int) -> Kept:
    epoch = make_epoch(number, M1)
    table = first_table([NodeId(0x01000001)], 12, 0, Version(epoch, Ptid(1)))
    return Kept(MEMORY, epoch, NOTHING_HELD._replace(epoch=epoch, table=whole(table)))


def test_an_empty_directory_has_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "m1")
    assert journal.kept is None
    journal.close()


def test_the_last_record_counts_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(1, 4):
        journal.write(kept(number))
    journal.close()
    again = Journal(tmp_path)
    assert again.kept == kept(3)
    assert again.history == (kept(1), kept(2), kept(3))
    again.close()


def test_of_a_table_only_the_last_state_is_history(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(kept(1))
    newer = kept(1)._replace(promised=Epoch(make_epoch(9, M1)))
    journal.write(newer)
    assert journal.history == (newer,)
    journal.close()


@pytest.mark.parametrize("cut", [1, 5, 19, 30])
def test_a_record_that_was_being_written_is_dropped(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.write(kept(1))
    size = (tmp_path / "journal").stat().st_size
    journal.write(kept(2))
    journal.close()
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data[: size + cut])
    again = Journal(tmp_path)
    assert again.kept == kept(1)
    again.write(kept(3))
    again.close()
    third = Journal(tmp_path)
    assert third.kept == kept(3)
    third.close()


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(kept(1))
    journal.close()
    newer = bytearray((tmp_path / "journal").read_bytes())
    newer[7] = FORMAT + 1
    (tmp_path / "journal").write_bytes(newer)
    with pytest.raises(BackendError, match=f"has format {FORMAT + 1}, this program reads {FORMAT}: install"):
        Journal(tmp_path)
    assert (tmp_path / "journal").read_bytes() == newer


@pytest.mark.parametrize("offset", [0, 9, 20, 60])
def test_damage_before_the_end_is_an_error_that_says_what_to_do(tmp_path: Path, offset: int) -> None:
    journal = Journal(tmp_path)
    journal.write(kept(1))
    journal.write(kept(2))
    journal.close()
    data = bytearray((tmp_path / "journal").read_bytes())
    data[offset] ^= 0x10 if offset != 9 else 0x01
    (tmp_path / "journal").write_bytes(bytes(data))
    with pytest.raises(DataCorrupted, match="Move it away"):
        Journal(tmp_path)


def test_two_masters_do_not_share_a_directory(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(BackendError, match="in use by process"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_it_is_written_anew_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo_master.journal._COMPACT_BYTES", 2000)
    journal = Journal(tmp_path)
    for number in range(1, 200):
        journal.write(kept(number))
    journal.close()
    again = Journal(tmp_path)
    assert again.kept == kept(199)
    assert len(again.history) == HISTORY_MAX
    assert (tmp_path / "journal").stat().st_size < 20_000
    again.close()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendError, match="cannot make"):
        Journal(tmp_path / "file" / "m1")
