"""Removals in slices: killed before any statement, they end as if never killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from neo_storage.backends import removal
from support.formats import removals
from support.formats.describe import contents
from support.formats.sample import POSITION
from support.formats.victims import KINDS, Old, killer, victim

STATEMENTS_MIN = {"truncate": 45, "clear": 25, "collect": 25}


@pytest.fixture(params=KINDS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    with victim(request.param, tmp_path) as old:
        yield old


@pytest.mark.timeout(600)
@pytest.mark.parametrize("deed", removals.OPS)
def test_removal_killed_before_any_statement_is_done_by_a_replay(
    old: Old, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database says of itself is as before until all is done: so the log is replayed from there."""
    old.reset()
    backend = old.new()
    backend.open()
    removals.prepare(backend)
    backend.close()
    before = backend.open()
    removals.remove(backend, deed)  # by one transaction: the database is small
    backend.close()
    expected = contents(backend.open(), backend)
    backend.close()
    monkeypatch.setattr(removal, "SLICE_ROWS", removals.SLICE_ROWS)
    statements, halves = 1, set[str]()
    # Each time a server is given its database anew: there, any step that meets all parts of a transaction must do.
    stride = 1 if old.kind == "sqlite" else 5
    with killer(old, deed) as until:
        old.reset()
        while until(statements) == "killed":
            backend = old.new()
            kept = backend.open()
            assert kept == before
            halves.add(contents(kept, backend))
            removals.remove(backend, deed)
            backend.close()
            assert contents(backend.open(), backend) == expected, f"killed before statement {statements}"
            backend.close()
            old.reset()
            statements += stride
    assert statements > STATEMENTS_MIN[deed]
    assert len(halves) > 2, "it was in slices"
    backend = old.new()
    kept = backend.open()
    assert kept.position == POSITION + 1
    assert contents(kept, backend) == expected
    backend.close()
