"""A real storage process under a real primary, spoken to packet by packet."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neo_common.checksum import checksum
from neo_common.errors import HandshakeRefused
from neo_common.ids import NO_NODE, NO_TID, Oid, Partition, Tid
from neo_common.states import Role, node_id
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerLoad,
    AnswerPiece,
    AskDebug,
    AskHistory,
    AskPack,
    AskPackState,
    AskPiece,
    AskRecords,
    AskSizes,
    AskTransactions,
    AskUndo,
    Compression,
    Data,
    Error,
    ErrorCode,
    Metadata,
    RefusalCode,
    Refused,
    StorePiece,
    UndoInfo,
    Voted,
    Write,
)
from support.cluster import PROGRAMS, Cluster
from support.raw_client import Gone, RawClient, RawConnection, write

END = Tid(2**63 - 1)


class RawCluster(Cluster):
    """A cluster that is ready when a raw client can commit."""

    def wait_running(self) -> None:
        self.check_alive()
        self.client(deadline_s=20.0).close()

    def client(self, deadline_s: float = 10.0) -> RawClient:
        return RawClient(self.addresses["m1"], self.addresses["s1"], deadline_s)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RawCluster]:
    with RawCluster(tmp_path / "c") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawCluster]:
    """One for the tests that leave it alive; each has oids of its own."""
    with RawCluster(tmp_path_factory.mktemp("shared") / "c") as cluster:
        yield cluster


@pytest.fixture
def client(shared: RawCluster) -> Iterator[RawClient]:
    with shared.client() as client:
        yield client


def loaded(client: RawClient, oid: int, before: int = END) -> tuple[int, int, bytes]:
    answer = client.load(oid, before)
    assert isinstance(answer, AnswerLoad), answer
    assert checksum(answer.data.value) == answer.data.checksum
    return answer.tid, answer.end, answer.data.value


def test_commit_is_read_back_at_once(client: RawClient) -> None:
    t1 = client.commit(write(1, b"one"), write(2, b"two"))
    t2 = client.commit(write(1, b"uno", base=t1))
    assert loaded(client, 1) == (t2, 0, b"uno")
    assert loaded(client, 1, t2) == (t1, t2, b"one")
    assert loaded(client, 2) == (t1, 0, b"two")
    missing = client.load(99)
    assert isinstance(missing, Error)
    assert missing.code == ErrorCode.NOT_FOUND


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_restarted_storage_has_all_that_was_committed(cluster: RawCluster, how: signal.Signals) -> None:
    with cluster.client() as client:
        tids = [client.commit(write(oid, b"%d" % oid), write(oid + 1000, b"x" * 5000)) for oid in range(50)]
    cluster.signal("s1", how)
    status = cluster.processes.pop("s1").wait(20)
    assert status == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    cluster.start("s1")
    with cluster.client(20.0) as client:
        for oid in range(50):
            assert loaded(client, oid) == (tids[oid], 0, b"%d" % oid)
            assert loaded(client, oid + 1000) == (tids[oid], 0, b"x" * 5000)
        assert client.last >= tids[-1]
        assert client.commit(write(0, b"again", base=tids[0])) > tids[-1]


@pytest.mark.slow
def test_kill_at_random_moments_loses_nothing_acknowledged(cluster: RawCluster) -> None:
    rng = random.Random(5)
    serials: dict[int, tuple[Tid, bytes]] = {}
    total = 0
    for life in range(6):
        with cluster.client(20.0) as client:
            kill_at = time.monotonic() + rng.uniform(0.05, 0.7)
            maybe: tuple[int, bytes] | None = None
            for oid, (tid, value) in serials.items():
                assert loaded(client, oid) == (tid, 0, value)
            count = 0
            try:
                while True:
                    oid = rng.randrange(200)
                    value = b"%d.%d" % (life, count) * rng.randrange(1, 300)
                    maybe = (oid, value)
                    if time.monotonic() > kill_at and "s1" in cluster.processes:
                        cluster.kill("s1")
                    tid = client.commit(write(oid, value, serials.get(oid, (NO_TID, b""))[0]))
                    serials[oid] = (tid, value)
                    maybe = None
                    count += 1
            except Gone:
                pass
        total += count
        cluster.start("s1")
        if maybe is not None:  # in flight: it may have become permanent, whole, or not at all
            with cluster.client(20.0) as client:
                answer = client.load(maybe[0])
                if isinstance(answer, AnswerLoad) and answer.data.value == maybe[1]:
                    serials[maybe[0]] = (answer.tid, maybe[1])
    assert total > 20
    with cluster.client(20.0) as client:
        for oid, (tid, value) in serials.items():
            assert loaded(client, oid) == (tid, 0, value)


def test_long_reads_see_what_was_just_committed(client: RawClient) -> None:
    """They wait for the applier; the answer is complete without any waiting of the test."""
    meta = Metadata(b"user", b"what", b"ext")
    epoch, storage = client.epoch, client.storage
    t1 = client.commit(write(101, b"one"), write(102, b"two"), metadata=meta)
    history = storage.ask(AskHistory(epoch, Oid(101), 10))
    assert [(c.tid, c.size, c.metadata) for c in history.changes] == [(t1, 3, meta)]
    t2 = client.commit(write(101, b"uno", base=t1))
    everything = tuple(Partition(p) for p in range(12))
    found = storage.ask(AskTransactions(epoch, everything, t1, END, False, True, True, 100))
    assert [(t.tid, [(r.oid, r.data.value) for r in t.revisions]) for t in found.transactions] == [
        (t1, [(101, b"one"), (102, b"two")]),
        (t2, [(101, b"uno")]),
    ]
    assert found.next == 0
    t3 = client.commit(write(102, None, base=t1))
    records = storage.ask(AskRecords(epoch, Partition(102 % 12), Oid(102), END, 10, False))
    assert (records.revisions, records.next) == ((), None)
    undo = storage.ask(AskUndo(epoch, t2, (Oid(101),)))
    assert undo.objects == (UndoInfo(Oid(101), t2, t2, t2, t1, t1),)
    none = storage.ask(AskUndo(epoch, t3, (Oid(101),)))
    assert isinstance(none, Error)
    assert none.code == ErrorCode.NOT_FOUND
    sizes = storage.ask(AskSizes((Partition(102 % 12), Partition(101 % 12))))
    assert [(c.objects, c.revisions) for c in sizes.cells] == [(0, 2), (1, 2)]
    assert len(storage.ask(AskSizes(())).cells) == 12
    assert sizes.disk_used > 0
    assert sizes.disk_free > 0
    deleted = client.load(102)
    assert isinstance(deleted, Error)
    assert deleted.code == ErrorCode.DELETED


def test_value_in_pieces(cluster: RawCluster) -> None:
    value = random.Random(1).randbytes(2 * PIECE_BYTES + 12345)
    with cluster.client() as client:
        ttid = client.ttid()
        for offset in range(0, len(value), PIECE_BYTES):
            piece = value[offset : offset + PIECE_BYTES]
            client.storage.notify(StorePiece(ttid, client.epoch, Oid(7), offset, piece))
        data = Data(Compression.NONE, checksum(value), len(value), b"")
        vote = client.vote_packet(ttid, [Write(Oid(7), NO_TID, NO_TID, data)])
        client.storage.notify(vote)
        assert client.storage.wait_for(tuple) == Voted(ttid, 1, vote.parts)
        tid = client.finish(vote)

        def read() -> bytes:
            answer = client.load(7)
            assert isinstance(answer, AnswerLoad), answer
            assert (answer.data.size, answer.data.value) == (len(value), b"")
            pieces = [
                client.storage.ask(AskPiece(client.epoch, Oid(7), tid, offset))
                for offset in range(0, len(value), PIECE_BYTES)
            ]
            assert all(isinstance(piece, AnswerPiece) for piece in pieces)
            return b"".join(piece.value for piece in pieces)

        assert read() == value, "from the log, not applied yet perhaps"
        assert client.storage.ask(AskHistory(client.epoch, Oid(7), 1)).changes[0].tid == tid
        assert read() == value, "from the database"
    cluster.kill("s1")
    cluster.start("s1")
    with cluster.client(20.0) as client:
        assert read() == value, "after a replay"


def test_strangers_are_refused_with_the_reason(shared: RawCluster, client: RawClient) -> None:
    address = shared.addresses["s1"]
    c9 = node_id(Role.CLIENT, 9)

    def refusal(**changed: object) -> tuple[int, str]:
        with pytest.raises(Gone) as caught:
            RawConnection(address, **{"node": c9, **changed})  # type: ignore[arg-type]  # a dict of mixed types
        error = caught.value.args[0]
        assert isinstance(error, HandshakeRefused)
        return error.code, str(error)

    assert refusal(cluster="other")[0] == RefusalCode.CLUSTER
    assert "'other'" in refusal(cluster="other")[1]
    assert refusal(cluster_id=b"\x55" * 16)[0] == RefusalCode.CLUSTER
    assert refusal(node=NO_NODE)[0] == RefusalCode.IDENTITY
    assert refusal(role=Role.MASTER, node=node_id(Role.MASTER, 1))[0] == RefusalCode.ROLE
    RawConnection(address, node=c9).close()
    debug = RawConnection(address, role=Role.ADMIN)
    assert '"vote_log"' in debug.ask(AskDebug()).json
    debug.close()
    assert client.commit(write(300, b"alive")) > 0


def test_second_process_on_the_same_files_says_so(shared: RawCluster) -> None:
    command = [str(PROGRAMS / "neostorage"), "--config", str(shared.config), "--name", "s1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"is in use by process {shared.processes['s1'].pid}" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_configuration_ends_with_status_2(shared: RawCluster) -> None:
    for arguments, text in ((["--name", "s9"], "s9"), (["--name", "s1", "--set", "limits.nonsense=1"], "nonsense")):
        command = [str(PROGRAMS / "neostorage"), "--config", str(shared.config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 2
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_votes_are_refused_when_the_disk_is_nearly_full_and_reads_go_on(cluster: RawCluster) -> None:
    with cluster.client() as client:
        tid = client.commit(write(1, b"one"))
    cluster.signal("s1", signal.SIGTERM)
    cluster.processes.pop("s1").wait(20)
    text = cluster.config.read_text()
    assert "16MB" in text
    cluster.config.write_text(text.replace("disk_reserve: 16MB", "disk_reserve: 900000GB"))
    cluster.start("s1")
    with cluster.client(20.0) as client:
        assert loaded(client, 1) == (tid, 0, b"one")
        client.storage.notify(client.vote_packet(client.ttid(), [write(1, b"two", base=tid)]))
        refused = client.storage.wait_for(tuple)
        assert isinstance(refused, Refused), refused
        assert refused.code == ErrorCode.NO_SPACE
        assert loaded(client, 1) == (tid, 0, b"one")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB; only root can have it."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "neo-test", str(directory)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True, timeout=20)


def test_full_disk_refuses_votes_loses_nothing_and_starts_again(small_disk: Path) -> None:
    made = RawCluster(small_disk / "c")
    made.config.write_text(made.config.read_text().replace("disk_reserve: 16MB", "disk_reserve: 6MB"))
    with made as cluster:
        tids: dict[int, Tid] = {}
        value = random.Random(2).randbytes(200_000)
        with cluster.client(20.0) as client:
            refused: Refused | None = None
            for oid in range(400):
                vote = client.vote_packet(client.ttid(), [write(oid, value)])
                client.storage.notify(vote)
                answer = client.storage.wait_for(tuple)
                if isinstance(answer, Refused):
                    refused = answer
                    break
                assert isinstance(answer, Voted), answer
                tids[oid] = client.finish(vote)
            assert refused is not None, "80 MB were not enough to fill 64 MB"
            assert refused.code == ErrorCode.NO_SPACE
            assert len(tids) > 10
            for oid, tid in tids.items():
                assert loaded(client, oid) == (tid, 0, value)
        cluster.check_alive()
        cluster.kill("s1")
        cluster.start("s1")
        with cluster.client(20.0) as client:
            for oid, tid in tids.items():
                assert loaded(client, oid) == (tid, 0, value)


def test_log_and_database_stay_bounded_under_load(tmp_path: Path) -> None:
    """Segments are used again: 60 MB of commits leave a log of some MB."""
    with RawCluster(tmp_path / "c") as cluster, cluster.client() as client:
        serials: dict[int, Tid] = {}
        value = bytes(200_000)
        for number in range(300):
            oid = number % 7
            serials[oid] = client.commit(write(oid, value, serials.get(oid, NO_TID)))
        log = cluster.directory / "s1" / "log"
        deadline = time.monotonic() + 20
        while (size := sum(f.stat().st_size for f in log.iterdir())) > 5 * 4 * 2**20:
            assert time.monotonic() < deadline, f"the log has {size} bytes"
            client.commit(write(99, b"x", serials.get(99, NO_TID)))
            serials[99] = client.last
        sizes = client.storage.ask(AskSizes(()))
        assert sum(c.bytes for c in sizes.cells) >= 300 * 200_000


def test_pack_through_the_primary(client: RawClient) -> None:
    serial = client.commit(write(201, b"0"))
    for number in range(1, 40):
        serial = client.commit(write(201, b"%d" % number, base=serial))
    kept = client.commit(write(202, b"two"))
    deadline = time.monotonic() + 20
    packed = removed = 0
    while packed < kept:  # it is never packed to a tid that is not durable everywhere yet
        order = client.master.ask(AskPack(kept, "test"), 20.0)
        while (state := client.master.ask(AskPackState())).cells_done < state.cells_total or not state.cells_total:
            assert time.monotonic() < deadline, state
        assert (state.order, state.tid) == (order.order, order.tid)
        packed = order.tid
        removed += state.revisions_removed
    assert removed >= 39
    history = client.storage.ask(AskHistory(client.epoch, Oid(201), 100))
    assert [c.tid for c in history.changes] == [serial]
    assert loaded(client, 201) == (serial, 0, b"39")


def test_program_explains_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "neo_storage", "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "--config FILE" in done.stdout
