"""A server that has no room: commits are refused, reads go on, nothing is lost, and room heals it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transaction.interfaces import TransientError

from neo_client.errors import NoSpaceError
from support.cluster import Cluster
from support.filling import Committer, check_restart, fill, small_file_system
from support.server_kinds import EVERY
from support.servers import MariaDB, PostgreSQL, Server

DISK_MB = {"mariadb": 256, "postgresql": 256, "mysql": 512}
KINDS = pytest.mark.parametrize("kind", EVERY)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def small_disk(kind: type[Server]) -> Iterator[Path]:
    """A directory on a file system of DISK_MB, where other users than root get to."""
    folder = Path(tempfile.mkdtemp(prefix="neo-small-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with small_file_system(folder / "disk", DISK_MB[kind.kind]) as disk:
            yield disk
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def cluster_on(server: Server, directory: Path, reserve: str, **options: Any) -> Iterator[Cluster]:
    """A cluster of one storage with its log on a disk that has room."""
    database = {**server.settings(server.new_database()), **options}
    cluster = Cluster(directory, databases=[database], settings={"limits": {"overlay": "16MB"}})
    text = cluster.config.read_text()
    cluster.config.write_text(text.replace("disk_reserve: 16MB", f"disk_reserve: {reserve}"))
    try:
        with cluster:
            yield cluster
    finally:
        server.end()


@as_root
@KINDS
def test_disk_of_the_server_is_watched_where_it_can_be_seen(
    kind: type[Server], small_disk: Path, tmp_path: Path
) -> None:
    """Below `disk_reserve` votes are refused, as on a disk of our own. MariaDB says where it is, or we are told."""
    server = kind({"max_wal_size": "32MB"} if kind is PostgreSQL else {"innodb-autoextend-increment": "4"}, small_disk)
    options = {"server_directory": str(server.data)} if kind is PostgreSQL else {}
    with cluster_on(server, tmp_path / "c", "64MB", **options) as cluster:
        committer = Committer(cluster)
        committer.commit()
        status = os.statvfs(small_disk)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - 80 * 2**20))
        error = committer.until_refused()
        assert isinstance(error, NoSpaceError), error
        assert "full" in str(error)
        committer.check()
        ballast.unlink()
        committer.until_accepted()
        check_restart(cluster, committer)


@as_root
@pytest.mark.parametrize("kind", [MariaDB, PostgreSQL])  # MySQL looks for room once a minute: docs/operating.md
def test_server_on_a_disk_that_others_fill_at_once(kind: type[Server], small_disk: Path, tmp_path: Path) -> None:
    """It has no room for what it is given, and says so, or stops. Nothing is lost, and room heals it."""
    server = kind({"max_wal_size": "32MB"} if kind is PostgreSQL else {}, small_disk)
    with cluster_on(server, tmp_path / "c", "0") as cluster:
        committer = Committer(cluster)
        for _ in range(20):
            committer.commit()
        ballast = small_disk / "ballast"
        fill(ballast)
        error = committer.until_refused()
        assert isinstance(error, TransientError), repr(error)
        cluster.check_alive()
        ballast.unlink()
        assert server.process is not None
        if server.process.poll() is not None:
            server.start()
        committer.until_accepted()
        committer.check()
        check_restart(cluster, committer)


def test_table_space_that_may_not_grow(tmp_path: Path) -> None:
    """A limit that the server has set: it refuses, or stops, and we refuse or wait, until it is raised."""
    limit = "innodb-data-file-path"
    server = MariaDB({limit: "ibdata1:12M:autoextend:max:32M"})
    with cluster_on(server, tmp_path / "c", "0") as cluster:
        committer = Committer(cluster)
        error = committer.until_refused()
        assert isinstance(error, TransientError), repr(error)
        cluster.check_alive()
        server.kill()
        server.options[limit] = "ibdata1:12M:autoextend"
        server.start()
        committer.until_accepted()
        committer.check()
        check_restart(cluster, committer)
