"""A storage whose disk is full: commits are refused clearly, reads go on, nothing is lost, and space heals it.

The disk is a tmpfs of some MB, with database and vote log on it. Mounting wants root.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from transaction.interfaces import TransientError

from neo_client.errors import NoSpaceError
from support.cluster import Cluster
from support.filling import Committer, check_restart, fill, small_file_system

DISK_MB = 64

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of DISK_MB."""
    with small_file_system(tmp_path / "disk", DISK_MB) as disk:
        yield disk


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
        fill(ballast)
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
