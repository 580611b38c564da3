"""What a node keeps of who has not shown who it is: so many connections, so many bytes.

So many seconds: test_session.py.
"""

import socket
from collections.abc import Iterator

import pytest

from neo_common.ids import NO_EPOCH, NO_NODE
from neo_common.states import Role
from neo_common.wire import schema
from neo_common.wire.codec import frame
from support.cluster import Cluster

STRANGERS = 20
HELLO_BYTES = 4096
PORTS = ["m1", "s1", "a1"]


@pytest.fixture(scope="module", params=["", "secret", "tls"])
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    settings = {"limits": {"strangers": STRANGERS, "hello": HELLO_BYTES}, "timeouts": {"handshake": "30s"}}
    directory = tmp_path_factory.mktemp("cluster")
    with Cluster(directory, storages=1, admins=1, protection=request.param, settings=settings) as running:
        running.wait_listening("a1")
        yield running


def dial(cluster: Cluster, name: str) -> socket.socket:
    host, port = cluster.addresses[name].rsplit(":", 1)
    peer = socket.create_connection((host, int(port)), 10)
    peer.settimeout(60)
    return peer


def is_closed(peer: socket.socket) -> bool:
    """Wait until it says something: nothing, that is the end, or a word."""
    try:
        return peer.recv(4096) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("name", PORTS)
def test_one_more_stranger_cuts_off_the_oldest(cluster: Cluster, name: str) -> None:
    """And who knows how to behave gets in at once although all places are taken."""
    peers = [dial(cluster, name) for _ in range(STRANGERS + 5)]
    try:
        for peer in peers[:5]:
            assert is_closed(peer)
        cluster.open(wait_timeout=30).close()
        assert cluster.log(name).count("too slow to show who it is") >= 5, "not because their time was over"
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("name", PORTS)
def test_what_is_kept_of_a_stranger_is_bounded(cluster: Cluster, name: str) -> None:
    """A Hello above the limit, one that never ends, and megabytes of nothing in particular."""
    name_of_it = "x" * 2 * HELLO_BYTES
    long = frame(schema.Hello(1, 1, (), Role.CLIENT, name_of_it, "test", bytes(16), NO_NODE, 1, NO_EPOCH, ""))
    before = cluster.memory_kb(name)
    peers = [dial(cluster, name) for _ in range(STRANGERS)]
    try:
        for number, peer in enumerate(peers):
            peer.setblocking(False)
            chunk = (schema.MAGIC + long, b"\x16\x03\x01\x40\x00" + bytes(2**14), bytes(2**20))[number % 3]
            for _ in range(8):
                try:
                    peer.send(chunk)
                except (BlockingIOError, ConnectionError):
                    break
            peer.settimeout(60)
        for peer in peers:
            while not is_closed(peer):
                pass  # what it says before it closes
        assert cluster.memory_kb(name) - before < 64 * 1024
    finally:
        for peer in peers:
            peer.close()
    cluster.open().close()
    cluster.check_alive()
