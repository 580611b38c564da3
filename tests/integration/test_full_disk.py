"""A storage whose disk is full: commits are refused clearly, reads go on, nothing is lost, and space heals it.

The disk is a tmpfs of some MB, with database and vote log on it. Mounting wants root.
"""

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from transaction.interfaces import TransientError
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from neo_client.errors import NoSpaceError
from support.cluster import Cluster

DISK_MB = 64
VALUE_BYTES = 200_000
HEAL_DEADLINE_S = 40.0
PROMPT_S = 10.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of DISK_MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "neo-test", disk], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@contextlib.contextmanager
def cluster_on(disk: Path, directory: Path, reserve: str, what: str = "both") -> Iterator[Cluster]:
    """A cluster of one storage with its database, its log, or both on *disk*."""
    cluster = Cluster(directory)
    config = yaml.safe_load(cluster.config.read_text())
    s1 = config["storages"]["s1"]
    s1.update(directory=str((directory if what == "log" else disk) / "s1"), disk_reserve=reserve)
    s1["log"] = {"segment": "1MB", "path": str((directory if what == "database" else disk) / "log")}
    cluster.config.write_text(yaml.safe_dump(config))
    with cluster:
        yield cluster


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
        for _ in range(4 * DISK_MB * 2**20 // VALUE_BYTES):
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


@pytest.mark.timeout(300)
def test_reserve_refuses_commits_before_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    """Below `disk-reserve` votes are refused; the reserve is room for what was voted before."""
    with cluster_on(small_disk, tmp_path / "cluster", "16MB") as cluster:
        committer = Committer(cluster)
        ballast = small_disk / "ballast"
        # What is acknowledged is in the log, and still has to get into the database, by way of SQLite's own log: what
        # the ballast gives back must be more than that.
        ballast.write_bytes(bytes(30 * 2**20))
        error = committer.until_refused()
        assert isinstance(error, NoSpaceError), error
        assert isinstance(error, TransientError), "the same may work later"
        assert "full" in str(error)
        committer.check()
        cluster.check_alive()
        ballast.unlink()
        committer.until_accepted()
        committer.check()
        check_restart(cluster, committer)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["both", "log", "database"])
def test_disk_that_others_fill_at_once(small_disk: Path, tmp_path: Path, what: str) -> None:
    """No reserve helps when somebody else takes all there is: writes to log and database fail, and nothing is lost."""
    with cluster_on(small_disk, tmp_path / "cluster", "0", what) as cluster:
        committer = Committer(cluster)
        for _ in range(20):
            committer.commit()
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**16)):
                pass
        error = committer.until_refused()
        assert isinstance(error, TransientError), repr(error)
        assert "disk" in str(error) or "space" in str(error), error
        # While commits cannot reach the database, it is not known there what never existed; that too is said at once.
        committer.check(missing=(KeyError, NoSpaceError))
        cluster.check_alive()
        ballast.unlink()
        committer.until_accepted()
        committer.check()
        check_restart(cluster, committer)
