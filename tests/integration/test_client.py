"""The client on a real cluster: what ZODB's suites do not ask."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError
from ZODB import DB
from ZODB.config import storageFromString
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import ConflictError, POSKeyError, ReadConflictError
from ZODB.utils import load_current, maxtid, p64, u64, z64
from zodburi import resolve_uri

import neo_client
from neo_client.core.events import VoteNow
from neo_client.errors import ClusterUnavailable, StorageClosedError
from neo_common.wire.schema import AskLast, Mode
from support.cluster import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two storages with a copy of everything each."""
    with Cluster(tmp_path_factory.mktemp("cluster"), storages=2, replicas=1) as running:
        yield running


@pytest.fixture
def storage(cluster: Cluster) -> Iterator[Any]:
    """A client."""
    client = cluster.open()
    yield client
    client.close()


def commit(storage: Any, *stores: tuple[bytes, bytes, bytes], check: tuple[bytes, bytes] | None = None) -> bytes:
    """Store (oid, serial, data)s in one transaction; return the tid."""
    meta = TransactionMetaData()
    storage.tpc_begin(meta)
    try:
        for oid, serial, data in stores:
            storage.store(oid, serial, data, "", meta)
        if check:
            storage.checkCurrentSerialInTransaction(*check, meta)
        storage.tpc_vote(meta)
    except BaseException:
        storage.tpc_abort(meta)
        raise
    tid: bytes = storage.tpc_finish(meta)
    return tid


def neo_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("neo-client")]


def sockets() -> int:
    links = (
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    )
    return sum(link.startswith(("socket:", "anon_inode:[eventpoll]")) for link in links)


def test_close_leaves_nothing_behind(cluster: Cluster) -> None:
    before = neo_threads(), sockets()
    client = cluster.open()
    load_oid = client.new_oid()
    commit(client, (load_oid, z64, b"x"))
    assert neo_threads() != before[0]
    client.close()
    client.close()
    assert (neo_threads(), sockets()) == before
    with pytest.raises(StorageClosedError):
        client.tpc_begin(TransactionMetaData())
    with pytest.raises(StorageClosedError):
        client.load(load_oid)


def test_open_fails_with_every_address_and_reason(cluster: Cluster) -> None:
    before = neo_threads(), sockets()
    with pytest.raises(ClusterUnavailable, match=r"127\.0\.0\.1:1: Connection refused") as caught:
        neo_client.open("127.0.0.1:1", name="test", wait_timeout=0.3)
    assert isinstance(caught.value, TransientError)
    with pytest.raises(ClusterUnavailable, match="cluster"):
        neo_client.open(cluster.uri, name="another", wait_timeout=0.3)
    assert (neo_threads(), sockets()) == before


def test_what_one_client_commits_the_others_see(cluster: Cluster, storage: Any) -> None:
    other = cluster.open()
    db1, db2 = DB(storage), DB(other)
    try:
        with db1.transaction() as conn:
            conn.root()["seen"] = 0
        with db2.transaction() as conn:
            for n in range(1, 30):
                with db1.transaction() as writer:
                    writer.root()["seen"] = n
                deadline = time.monotonic() + 10
                while True:
                    conn.sync()
                    if conn.root()["seen"] == n:
                        break
                    assert time.monotonic() < deadline
    finally:
        db1.close()
        db2.close()


def test_server_sync_sees_at_once_what_was_committed_before(cluster: Cluster, storage: Any) -> None:
    other = cluster.open(server_sync=True)
    oid = storage.new_oid()
    serial = z64
    for n in range(50):
        serial = commit(storage, (oid, serial, b"%d" % n))
        other.sync()
        assert other.lastTransaction() >= serial
        assert load_current(other, oid) == (b"%d" % n, serial)
    other.close()


def test_invalidation_comes_before_last_transaction_says_it(cluster: Cluster, storage: Any) -> None:
    other = cluster.open()
    told: list[bytes] = []

    class Wrapper:
        """What registerDB wants, and what it sees."""

        def transform_record_data(self, data: bytes) -> bytes:
            return data

        untransform_record_data = transform_record_data

        def invalidate(self, tid: bytes, oids: list[bytes]) -> None:
            assert other._shell.last < u64(tid)
            told.append(tid)

        def invalidateCache(self) -> None:  # noqa: N802
            raise AssertionError("nothing was missed")

    other.registerDB(Wrapper())
    tids = [commit(storage, (storage.new_oid(), z64, b"x")) for _ in range(20)]
    deadline = time.monotonic() + 10
    while other.lastTransaction() < tids[-1]:
        assert time.monotonic() < deadline
    assert told == tids
    other.close()


def test_transaction_larger_than_memory_limits_goes_ahead_and_arrives(
    storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo_client.commit.AHEAD_BYTES", 100_000)
    monkeypatch.setattr("neo_client.spool.MEMORY_BYTES", 200_000)
    stores = [(storage.new_oid(), z64, os.urandom(20_000)) for _ in range(60)]
    stores += [(storage.new_oid(), z64, os.urandom(3 * 2**20 + 17))]
    again = stores[3][0], z64, os.urandom(5_000)
    tid = commit(storage, *stores, again)
    storage._shell.cache.clear()
    for oid, _, data in (*stores[:3], again, *stores[4:]):
        assert storage.loadBefore(oid, maxtid) == (data, tid, None)
    (last,) = storage.iterator(tid)
    assert sorted(r.data for r in last) == sorted(d for _, _, d in (*stores[:3], again, *stores[4:]))


def test_conflict_on_what_went_ahead_is_found(cluster: Cluster, storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo_client.commit.AHEAD_BYTES", 10_000)
    oid = storage.new_oid()
    serial = commit(storage, (oid, z64, b"first"))
    commit(storage, (oid, serial, b"second"))
    with pytest.raises(ConflictError):
        commit(storage, (oid, serial, b"third " + os.urandom(30_000)))  # ZODB looks for a class in what begins with c
    assert storage.load(oid)[0] == b"second"


def test_read_current_holds_until_the_end(storage: Any) -> None:
    read, written = storage.new_oid(), storage.new_oid()
    serial = commit(storage, (read, z64, b"r"))
    tid = commit(storage, (written, z64, b"w"), check=(read, serial))
    commit(storage, (read, serial, b"changed"))
    with pytest.raises(ReadConflictError):
        commit(storage, (written, tid, b"w2"), check=(read, serial))


def test_two_phase_commits_like_any_other(cluster: Cluster) -> None:
    client = cluster.open(two_phase=True)
    oid = client.new_oid()
    tid = commit(client, (oid, z64, b"sealed"))
    assert client.load(oid) == (b"sealed", tid)
    meta = TransactionMetaData()
    client.tpc_begin(meta)
    client.store(oid, tid, b"never", "", meta)
    client.tpc_vote(meta)
    client.tpc_abort(meta)
    assert client.load(oid) == (b"sealed", tid)
    client.close()


def test_a_database_that_votes_later_makes_a_commit_two_phase(cluster: Cluster) -> None:
    client = cluster.open()
    modes: list[Mode] = []
    step = client._shell.step
    client._shell.step = lambda tx, event: (
        modes.append(event.job.mode) if isinstance(event, VoteNow) else None,
        step(tx, event),
    )
    databases: dict[str, DB] = {}
    db = DB(client, databases=databases, database_name="main")
    other = DB(MappingStorage("zz"), databases=databases, database_name="other")
    modes.clear()
    with db.transaction() as conn:  # a manager of its own, which nobody but the option can see
        conn.root()["x"] = 1
    conn = db.open()
    conn.root()["x"] = 2
    transaction.commit()
    conn.root()["x"] = 3
    conn.get_connection("other").root()["x"] = 3
    transaction.commit()
    assert modes == [Mode.C, Mode.C, Mode.A]
    assert client.load(z64)
    conn.close()
    db.close()
    other.close()


def test_prefetch_fills_the_cache_with_one_question_per_storage(cluster: Cluster, storage: Any) -> None:
    oids = [storage.new_oid() for _ in range(50)]
    tid = commit(storage, *((oid, z64, b"value") for oid in oids))
    other = cluster.open()
    other.load(oids[0])
    asked: list[object] = []
    call = other._shell.call
    other._shell.call = lambda node, packet, deadline: asked.append(packet) or call(node, packet, deadline)
    other.prefetch(iter(oids), p64(u64(tid) + 1))
    assert 1 <= len(asked) <= 2
    asked.clear()
    for oid in oids:
        assert other.loadBefore(oid, p64(u64(tid) + 1)) == (b"value", tid, None)
    assert not asked
    other.close()


def test_forked_child_has_a_session_of_its_own(storage: Any) -> None:
    oid = storage.new_oid()
    serial = commit(storage, (oid, z64, b"parent"))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            data, tid = storage.load(oid)
            done = commit(storage, (oid, tid, data + b" and child"))
            os.write(write, done)
            storage.close()
        finally:
            os._exit(0)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    done = os.read(read, 8)
    os.close(read)
    assert status == 0
    assert len(done) == 8
    commit(storage, (storage.new_oid(), z64, b"parent goes on"))
    storage._shell.ask_primary(AskLast())  # what the child has committed was told before the answer
    assert storage.load(oid) == (b"parent and child", done)
    assert storage.loadSerial(oid, serial) == b"parent"


def test_zconfig_section_opens_with_hyphenated_keys(cluster: Cluster) -> None:
    text = "%import neo_client\n" + cluster.zconfig_section(
        cache_size="20MB", wait_timeout="5s", server_sync="true", compress="zlib", read_only="true", client_label="me"
    )
    client = storageFromString(text)
    assert client.options.cache_size_bytes == 20 * 2**20
    assert client.options.wait_timeout_s == 5.0
    assert client.isReadOnly()
    assert (client.sortKey(), client.getName()) == ("test", "test")
    client.close()
    with pytest.raises(ValueError, match=r"blob-dir: .* stores no blobs yet"):
        storageFromString("%import neo_client\n" + cluster.zconfig_section(blob_dir="/tmp"))


def test_uri_opens_with_database_keywords(cluster: Cluster) -> None:
    factory, keywords = resolve_uri(cluster.uri + "?cache_size=1MB&connection_pool_size=3&database_name=x")
    assert (keywords["pool_size"], keywords["database_name"]) == (3, "x")
    client = factory()
    assert client.options.cache_size_bytes == 2**20
    client.close()


def test_missing_and_unborn_objects_differ(storage: Any) -> None:
    oid = storage.new_oid()
    tid = commit(storage, (oid, z64, b"born"))
    assert storage.loadBefore(oid, tid) is None
    with pytest.raises(POSKeyError):
        storage.loadBefore(p64(2**60), maxtid)
    with pytest.raises(POSKeyError):
        storage.loadSerial(oid, p64(u64(tid) - 1))


def test_import_keeps_every_record_and_tid(cluster: Cluster, tmp_path: Path) -> None:
    source = FileStorage(str(tmp_path / "Data.fs"))
    db = DB(source)
    with db.transaction() as conn:
        for n in range(20):
            conn.root()[n] = PersistentMapping(number=n)
    for n in range(10):
        with db.transaction() as conn:
            conn.root()[n]["again"] = "x" * n * 1000
            conn.transaction_manager.get().note(f"change {n}")
    db.undo(db.undoInfo()[0]["id"])
    transaction.commit()
    with Cluster(tmp_path / "fresh", storages=1) as fresh, fresh.open() as target:
        target.copyTransactionsFrom(source)
        theirs, ours = everything(source), everything(target)
        assert theirs == ours
        assert u64(target.new_oid()) > max(u64(oid) for _, _, _, _, records in theirs for oid, *_ in records)
        assert commit(target, (target.new_oid(), z64, b"after")) > theirs[-1][0]
    db.close()


def everything(storage: Any) -> list[tuple[Any, ...]]:
    """Every transaction, with its records by oid."""
    return [
        (t.tid, t.user, t.description, t.extension, sorted((r.oid, r.tid, r.data, r.data_txn) for r in t))
        for t in storage.iterator()
    ]


def test_records_come_by_oid_whatever_the_partition(storage: Any) -> None:
    stored = {storage.new_oid(): b"record %d" % n for n in range(300)}
    commit(storage, *((oid, z64, data) for oid, data in stored.items()))
    found, place = [], None
    while True:
        oid, _, data, place = storage.record_iternext(place)
        found.append(oid)
        if oid in stored:
            assert stored.pop(oid) == data
        if place is None:
            break
    assert found == sorted(found)
    assert not stored


def test_many_threads_commit_and_load_at_once(storage: Any) -> None:
    oids = [storage.new_oid() for _ in range(8)]
    serials = dict.fromkeys(oids, commit(storage, *((oid, z64, b"0") for oid in oids)))
    errors: list[BaseException] = []

    def work(oid: bytes) -> None:
        try:
            for n in range(1, 30):
                serials[oid] = commit(storage, (oid, serials[oid], b"%d" % n))
                assert storage.load(oid) == (b"%d" % n, serials[oid])
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(oid,)) for oid in oids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
