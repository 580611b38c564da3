"""From the files of a storage to its state: what the database lacks of the log is applied, in batches."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from neo_common.errors import DataCorrupted
from neo_common.ids import Epoch, Oid
from neo_common.model.partition_table import whole
from neo_storage.backends.base import Op
from neo_storage.core.log_records import LogClear, LogCollect, LogEpoch, LogRecord, LogTable
from neo_storage.log_files import OsLogFiles
from neo_storage.opening import open_storage
from neo_storage.vote_log import VoteLog
from support.backend_contract import P0, T1, T2, TABLE
from support.memory_backend import MemoryBackend


class Noting(MemoryBackend):
    """Notes each batch: its position, and how many operations it has; and what came first."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, int]] = []
        self.claims = 0

    def claim(self) -> None:
        assert not self.batches
        self.claims += 1

    def apply(self, ops: Sequence[Op], position: int) -> None:
        super().apply(ops, position)
        self.batches.append((position, len(ops)))


def vote_log(path: Path) -> VoteLog:
    return VoteLog(OsLogFiles(path), segment_bytes=8192, spare_segments=0, new_salt=lambda: 7)


def test_replay_begins_a_batch_with_each_removal(tmp_path: Path) -> None:
    records: list[LogRecord] = [
        LogTable(whole(TABLE)),
        LogEpoch(Epoch(3)),
        LogClear(P0, T1),
        LogEpoch(Epoch(4)),
        LogCollect(T2, (Oid(0),)),
        LogCollect(T2, (Oid(2),)),
    ]
    log = vote_log(tmp_path)
    assert not list(log.recover())
    log.begin(0)
    log.extend(0, records)
    log.close()
    backend, log = Noting(), vote_log(tmp_path)
    image = open_storage(backend, log)
    log.close()
    assert image.position == 5
    assert image.epoch == 4
    assert [position for position, _ in backend.batches] == [1, 3, 4, 5]
    assert backend.batches[1:] == [(3, 2), (4, 1), (5, 1)]
    assert backend.claims == 1


def test_database_that_is_not_of_the_log_is_not_claimed(tmp_path: Path) -> None:
    backend, log = Noting(), vote_log(tmp_path)
    MemoryBackend.apply(backend, [], 7)
    with pytest.raises(DataCorrupted, match="not of this database"):
        open_storage(backend, log)
    log.close()
    assert (backend.claims, backend.batches) == (0, [])
