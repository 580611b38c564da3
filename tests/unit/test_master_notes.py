"""The notes of a master: what can be read is held, whatever else the file holds is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from neo_common.errors import BackendError
from neo_common.ids import NO_VERSION
from neo_common.wire.schema import Page
from neo_master import notes
from neo_master.core.holding import Holding
from neo_master.notes import FORMAT, Notes
from support.formats import sample


def held(pages: list[Page]) -> list[Page]:
    """Return what is held after these pages."""
    holding = Holding()
    for page in pages:
        holding.take(page)
    return holding.pages()


def written(folder: Path) -> Path:
    """Write notes; return the file."""
    made = Notes(folder)
    made.write(sample.pages())
    made.close()
    return folder / "settled"


def test_an_empty_directory_holds_nothing(tmp_path: Path) -> None:
    found = Notes(tmp_path)
    assert (found.holding().pages(), found.dropped) == ([], 0)
    found.close()


def test_what_was_noted_is_held_after_a_restart(tmp_path: Path) -> None:
    written(tmp_path)
    for _ in range(2):
        found = Notes(tmp_path)
        assert found.holding().pages() == held(sample.pages())
        found.close()


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path) -> None:
    """It is not flushed: after a power cut anything may be missing, in the middle too."""
    path = written(tmp_path)
    data = path.read_bytes()
    seen = set[int]()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        if at == 7:  # the byte that says the format: a newer one
            continue
        found = Notes(tmp_path)
        kept = [n for n in range(6) if found.holding().pages() == held(sample.pages()[:n])]
        assert kept, f"damage at {at}"
        assert found.dropped > 0
        seen.update(kept)
        found.close()
    assert {0, 1, 4} <= seen


def test_a_file_that_grows_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_COMPACT_BYTES", 4000)
    made = Notes(tmp_path)
    page = sample.pages()[-1]
    for _ in range(200):
        made.write([page])
        assert (tmp_path / "settled").stat().st_size <= 4000
    made.close()
    found = Notes(tmp_path)
    assert found.holding().pages() == held([page])
    found.close()


def test_a_first_page_makes_all_before_it_forgotten(tmp_path: Path) -> None:
    made = Notes(tmp_path)
    made.write([*sample.pages(), Page(NO_VERSION, 0, True, (), (), ())])
    made.close()
    found = Notes(tmp_path)
    assert found.holding().pages() == []
    found.close()


def test_the_notes_of_a_newer_neo_are_refused_by_name_and_left_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    newer = data[:7] + bytes((FORMAT + 1,)) + data[8:]
    path.write_bytes(newer)
    with pytest.raises(BackendError, match=rf"has format {FORMAT + 1}, this program reads {FORMAT}.*move it away"):
        Notes(tmp_path)
    assert path.read_bytes() == newer
