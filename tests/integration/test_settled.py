"""What masters hold of the past, with real daemons: the true answer after a pack; a disk that is an old copy."""

import json
import shutil
import time
from pathlib import Path

import pytest
from ZODB.utils import u64

from integration.test_recovery import DEADLINE_S, commit, neoadmin, root_of, wait_for
from neo_common.ids import NO_TID, Tid
from neo_common.wire.schema import (
    AnswerLoad,
    CHello,
    Fate,
    FateKind,
    Finish,
    Mode,
    Progress,
    Underway,
    Vote,
    Voted,
    Welcome,
)
from support.cluster import Cluster
from support.raw_client import Gone, RawClient, RawConnection, write


def commit_and_vanish(cluster: Cluster, client: RawClient, base: Tid) -> tuple[Vote, Tid]:
    """Finish a transaction, and be gone before the answer; return it, and its tid."""
    vote = client.vote_packet(client.ttid(), [write(1, b"unheard", base)])
    client.storage.notify(vote)
    client.storage.wait_for(Voted)
    client.master.notify(Finish(vote.ttid, 1, client.epoch, vote.parts, (vote.work[0].writes[0].oid,), Mode.C, NO_TID))
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = client.load(1)
        assert isinstance(found, AnswerLoad), found
        if found.tid > base:
            return vote, found.tid
        assert time.monotonic() < deadline, cluster.logs()


def wait_held(cluster: Cluster, master: str, tid: int) -> None:
    """Wait until a master has noted that commit."""
    deadline = time.monotonic() + DEADLINE_S
    while tid.to_bytes(8, "big") not in (cluster.directory / master / "settled").read_bytes():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.05)


def tids_of(cluster: Cluster) -> set[int]:
    """Return what history knows."""
    storage = cluster.open()
    try:
        return {u64(t.tid) for t in storage.iterator()}
    finally:
        storage.close()


def fate_of(cluster: Cluster, master: str, client: RawClient, vote: Vote) -> tuple[Fate, ...]:
    """Come back under the old session to another primary; return what is told."""
    underway = Underway(vote.ttid, 1, Progress.FINISHING, vote.parts)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            connection = RawConnection(cluster.addresses[master])
            try:
                hello = CHello(client.welcome.session, client.epoch, client.epoch, (underway,), (), NO_TID, False)
                connection.notify(hello)
                return connection.wait_for(Welcome).fates
            finally:
                connection.close()
        except Gone:
            if time.monotonic() > deadline:
                raise


@pytest.mark.timeout(600)
def test_a_client_that_was_away_is_told_of_a_commit_that_a_pack_has_removed(tmp_path: Path) -> None:
    """Storages and the former primary have forgotten it, history does not know it: the other master does."""
    with Cluster(tmp_path, masters=2, storages=1, partitions=1, settings={"timeouts": {"grace": "200ms"}}) as cluster:
        addresses = cluster.addresses["m1"], cluster.addresses["s1"]
        with RawClient(*addresses) as client, RawClient(*addresses) as other:
            base = client.commit(write(1, b"before"))
            vote, tid = commit_and_vanish(cluster, client, base)
            client.close()
            other.last = tid
            other.commit(write(1, b"after", tid))
        deadline = time.monotonic() + DEADLINE_S
        while tid in tids_of(cluster):  # a pack goes no further than what is settled
            assert neoadmin(cluster, "pack").returncode == 0, cluster.logs()
            assert time.monotonic() < deadline, cluster.logs()
        wait_held(cluster, "m2", tid)
        cluster.kill("m1")
        assert fate_of(cluster, "m2", client, vote) == (Fate(vote.ttid, 1, FateKind.COMMITTED, tid),)


def directory_of(cluster: Cluster, name: str) -> Path:
    """Return where a storage has its disk."""
    return next(d for d in (cluster.directory / "data" / name, cluster.directory / name) if d.exists())


def go_back(cluster: Cluster, name: str, before: dict[str, int], after: dict[str, int]) -> tuple[int, int]:
    """Commit, copy the disk of a storage, commit more, stop, put the copy back, start; return both last tids."""
    kept = commit(cluster, **before)
    cluster.stop()
    folder = directory_of(cluster, name)
    shutil.copytree(folder, cluster.directory / "copy")
    for daemon in cluster.names:
        cluster.start(daemon)
    cluster.wait_running()
    lost = commit(cluster, **after)
    wait_held(cluster, "m1", lost)
    cluster.stop()
    shutil.rmtree(folder)
    (cluster.directory / "copy").rename(folder)
    for daemon in cluster.names:
        cluster.start(daemon)
    return kept, lost


@pytest.mark.timeout(600)
def test_recovery_does_not_go_on_with_a_disk_that_is_an_old_copy(tmp_path: Path) -> None:
    """s2 has everything: with it nothing is lost, and s1 becomes a copy as the others are."""
    with Cluster(tmp_path, masters=1, storages=2, replicas=1, partitions=4) as cluster:
        go_back(cluster, "s1", {"number": 1}, {"number": 2})
        found = wait_for(cluster, "both are there", "recovery", state="RECOVERING", storages=["S1", "S2"])
        assert "older than masters know" in found["reason"]
        assert "older than masters know" in cluster.log("m1")
        (one,) = [t for t in found["tables"] if t["newest"]]
        assert (one["older_disks"], one["missing"], one["there"]) == (["S1"], ["S1"], ["S2"])
        assert (one["stale_partitions"], one["lost_partitions"], one["lost_commits"]) == ([], [], [])
        done = neoadmin(cluster, "recovery", "choose", one["table"], "--yes", "--json", "--reason", "s1 was restored")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{cluster.logs()}"
        assert root_of(cluster) == {"number": 2}
        assert neoadmin(cluster, "recovery", "readmit", "s1").returncode == 0
        assert neoadmin(cluster, "status", "--wait", "90s").returncode == 0, cluster.logs()
        cluster.kill("s2")
        assert root_of(cluster) == {"number": 2}


@pytest.mark.timeout(600)
def test_what_an_old_copy_lacks_is_named_and_an_operator_goes_on_with_it(tmp_path: Path) -> None:
    with Cluster(tmp_path, masters=1, storages=1, partitions=4) as cluster:
        kept, lost = go_back(cluster, "s1", {"number": 1}, {"number": 2})
        found = wait_for(cluster, "s1 is there", "recovery", state="RECOVERING", storages=["S1"])
        (one,) = [t for t in found["tables"] if t["newest"]]
        assert one["older_disks"] == ["S1"]
        assert [int(c["tid"], 16) for c in one["lost_commits"]] == [lost]
        assert (int(one["last_tid"], 16), int(one["known_tid"], 16)) == (kept, lost)
        text = neoadmin(cluster, "recovery").stdout
        assert f"lost      tid {lost:016x}" in text
        assert "older     S1 (s1)" in text
        refused = neoadmin(cluster, "recovery", "choose", one["table"], "--yes")
        assert refused.returncode == 1
        assert "--stale" in refused.stderr
        done = neoadmin(cluster, "recovery", "choose", one["table"], "--stale", "--yes", "--json")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{cluster.logs()}"
        assert json.loads(done.stdout)["chosen"] is True
        assert root_of(cluster) == {"number": 1}
        assert commit(cluster, number=3) > lost
