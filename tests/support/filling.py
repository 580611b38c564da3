"""Filling a small disk with commits, and knowing what was acknowledged and what refused."""

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transaction.interfaces import TransientError
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from support.cluster import Cluster

VALUE_BYTES = 200_000
COMMITS_MAX = 2000
HEAL_DEADLINE_S = 40.0
PROMPT_S = 10.0


@contextlib.contextmanager
def small_file_system(folder: Path, size_mb: int) -> Iterator[Path]:
    """A file system of that size, in a folder that is made. Only root may."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "neo-test", folder], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(ballast: Path) -> None:
    """Take all room that is left on the disk of *ballast*, which is to be removed again."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(2**16)):
            pass


class Committer:
    """Commits new objects, and knows which ones were acknowledged and which refused."""

    def __init__(self, cluster: Cluster) -> None:
        self.storage = cluster.open(cache_size=0, wait_timeout=20)
        self._chance = random.Random(1)
        self._next = 1
        self.acknowledged: dict[bytes, bytes] = {}
        self.refused: list[bytes] = []

    def commit(self) -> None:
        """Raises: what the storage raises; then nothing of it may ever be seen."""
        oid, value = p64(self._next), self._chance.randbytes(VALUE_BYTES)
        self._next += 1
        txn = TransactionMetaData()
        self.storage.tpc_begin(txn)
        try:
            self.storage.store(oid, z64, value, "", txn)
            self.storage.tpc_vote(txn)
        except Exception:
            self.storage.tpc_abort(txn)
            self.refused.append(oid)
            raise
        self.storage.tpc_finish(txn)
        self.acknowledged[oid] = value

    def until_refused(self) -> Exception:
        """Commit until that fails; return why."""
        for _ in range(COMMITS_MAX):
            try:
                self.commit()
            except Exception as error:  # noqa: BLE001  whatever it is, it is what the test looks at
                return error
        raise AssertionError("the disk was never full")

    def until_accepted(self) -> None:
        """Commit as an application would: again, after a while."""
        deadline = time.monotonic() + HEAL_DEADLINE_S
        while True:
            try:
                return self.commit()
            except TransientError:
                assert time.monotonic() < deadline, "there is room, and commits are still refused"
                time.sleep(0.5)

    def check(self, missing: tuple[type[Exception], ...] = (KeyError,)) -> None:
        """All that was acknowledged is there, nothing that was refused."""
        for oid, value in self.acknowledged.items():
            assert self.storage.load(oid)[0] == value
        began = time.monotonic()
        for oid in self.refused:
            with pytest.raises(missing):
                self.storage.load(oid)
        assert time.monotonic() - began < PROMPT_S


def check_restart(cluster: Cluster, committer: Committer) -> None:
    """What is on the disk is what was acknowledged."""
    cluster.kill("s1")
    cluster.start("s1")
    committer.check()
    committer.storage.close()
