"""What does not belong on a port: garbage, other versions, other clusters, malformed packets, the wrong role.

Each is answered clearly or cut off; the process stays alive, everybody else is served, nothing is stored.
"""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from neo_common.errors import HandshakeRefused
from neo_common.ids import NO_EPOCH, NO_NODE, Epoch, Oid, Seconds, Tid
from neo_common.states import Role, node_id
from neo_common.wire import schema
from neo_common.wire.codec import frame
from neo_common.wire.session import Ended, Opened, Session
from support.cluster import Cluster

OID = p64(1)
HELLO = schema.Hello(1, 1, (), Role.CLIENT, "hostile", "test", bytes(16), NO_NODE, 99, NO_EPOCH, "")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), storages=2, replicas=1) as running:
        storage = running.open()
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        storage.store(OID, z64, b"precious", "", txn)
        storage.tpc_vote(txn)
        storage.tpc_finish(txn)
        storage.close()
        yield running


@pytest.fixture(autouse=True)
def unharmed(cluster: Cluster) -> Iterator[None]:
    """After every test: all alive, the data there, a commit possible."""
    last = cluster.open()
    tid = last.lastTransaction()
    last.close()
    yield
    cluster.check_alive()
    storage = cluster.open(cache_size=0)
    assert storage.load(OID)[0] == b"precious"
    assert storage.lastTransaction() == tid, "a hostile peer has committed something"
    storage.close()


def connect(cluster: Cluster, name: str) -> socket.socket:
    host, port = cluster.addresses[name].rsplit(":", 1)
    return socket.create_connection((host, int(port)), 10)


def until_closed(peer: socket.socket) -> bytes:
    """Return what it still says before it closes; it must close within 15 s."""
    peer.settimeout(15)
    said = b""
    try:
        while data := peer.recv(65536):
            said += data
    except ConnectionResetError:
        pass  # it closed with bytes of ours unread: closed all the same
    return said


def shake_hands(peer: socket.socket, hello: schema.Hello) -> Session:
    """Return an open session on *peer*. Raises: HandshakeRefused."""
    session = Session(hello, True, now=Seconds(0.0))
    peer.settimeout(15)
    while True:
        peer.sendall(b"".join(session.take_output()))
        for event in session.receive(peer.recv(65536), Seconds(0.0)):
            if isinstance(event, Opened):
                return session
            if isinstance(event, Ended):
                raise event.error


@pytest.mark.parametrize("name", ["m1", "s1"])
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: neo\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        bytes(1000),
        b"\xff" * 1000,
        schema.MAGIC + b"\xff" * 1000,
        schema.MAGIC + frame(schema.Ping()) * 3,
    ],
    ids=["http", "tls", "zeros", "ones", "huge frame", "ping before hello"],
)
def test_garbage_is_cut_off(cluster: Cluster, name: str, garbage: bytes) -> None:
    with connect(cluster, name) as peer:
        peer.sendall(garbage)
        until_closed(peer)


@pytest.mark.parametrize("name", ["m1", "s1"])
@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"cluster": "another"}, schema.RefusalCode.CLUSTER, "another"),
        ({"cluster_id": b"x" * 16}, schema.RefusalCode.CLUSTER, ""),
        ({"version_min": 70, "version_max": 71}, schema.RefusalCode.VERSION, "70"),
    ],
    ids=["cluster name", "cluster id", "version"],
)
def test_stranger_is_refused_with_a_reason(
    cluster: Cluster, name: str, change: dict[str, object], code: schema.RefusalCode, says: str
) -> None:
    with connect(cluster, name) as peer, pytest.raises(HandshakeRefused) as caught:
        shake_hands(peer, HELLO._replace(**change))  # type: ignore[arg-type]
    assert caught.value.code == code
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["m1", "s1"])
def test_client_may_not_speak_as_another_role(cluster: Cluster, name: str) -> None:
    """A Commit, or a Fence, from a client ends its connection, whatever it says."""
    for packet in (schema.Fence(Epoch(2**60)), schema.Resign(Epoch(1)), schema.FwdFail(schema.Version(Epoch(1), 1), 1)):  # type: ignore[arg-type]
        with connect(cluster, name) as peer:
            shake_hands(peer, HELLO._replace(node=node_id(Role.CLIENT, 999)))
            peer.sendall(frame(packet))
            until_closed(peer)


@pytest.mark.parametrize("name", ["m1", "s1"])
def test_malformed_packets_after_the_handshake(cluster: Cluster, name: str) -> None:
    """Valid frames with bytes changed: an error or the end of that connection, nothing else."""
    chance = random.Random(5)
    questions = [
        frame(schema.AskLoad(Epoch(1), Oid(1), Tid(2**62)), 1),
        frame(schema.AskOids(10), 2),
        frame(schema.AskTransactions(Epoch(1), (), Tid(0), Tid(2**62), False, True, True, 100), 3),
        frame(schema.AskSizes(()), 4),
    ]
    for number in range(40):
        data = bytearray(chance.choice(questions))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with connect(cluster, name) as peer:
            shake_hands(peer, HELLO._replace(node=node_id(Role.CLIENT, 1000 + number)))
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            until_closed(peer)


def test_record_above_the_limit_is_refused(tmp_path: Path) -> None:
    """The limit is named in the error; the same client goes on."""
    settings = {"limits": {"object": "2MB"}}
    with Cluster(tmp_path / "small", storages=1, settings=settings) as cluster:
        storage = cluster.open()
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        with pytest.raises(Exception, match="limit"):
            store_and_vote(storage, random.Random(3).randbytes(3 * 2**20), txn)
        storage.tpc_abort(txn)
        txn = TransactionMetaData()
        storage.tpc_begin(txn)
        store_and_vote(storage, b"small", txn)
        storage.tpc_finish(txn)
        assert storage.load(p64(7))[0] == b"small"
        storage.close()


def store_and_vote(storage: object, value: bytes, txn: object) -> None:
    storage.store(p64(7), z64, value, "", txn)  # type: ignore[attr-defined]
    storage.tpc_vote(txn)  # type: ignore[attr-defined]
