"""The nemesis's proxy cuts what it says, keeps what was sent meanwhile, and tells links apart by who dials."""

import socket
import threading
from collections.abc import Iterator

import pytest

from neo_common.ids import NO_EPOCH, NO_NODE
from neo_common.states import Role
from neo_common.wire.codec import frame
from neo_common.wire.schema import MAGIC, PROTOCOL_VERSION, Hello
from support.nemesis.proxy import CLIENT, Proxies
from support.ports import hold_ports

SOON_S = 10.0
SILENCE_S = 0.3


def hello(name: str, role: Role = Role.STORAGE) -> bytes:
    return MAGIC + frame(
        Hello(PROTOCOL_VERSION, PROTOCOL_VERSION, (), role, name, "test", bytes(16), NO_NODE, 1, NO_EPOCH, "")
    )


class Rig:
    """A node m1 that takes connections, behind a proxy."""

    def __init__(self) -> None:
        self.dialled, behind = hold_ports(2)
        self._listener = socket.create_server(("127.0.0.1", behind))
        self._listener.settimeout(SOON_S)
        self._open: list[socket.socket] = [self._listener]
        self.proxies = Proxies({"m1": (self.dialled, behind)})

    def dial(self, name: str, role: Role = Role.STORAGE) -> tuple[socket.socket, socket.socket]:
        """Connect as that node; return both ends."""
        near = socket.create_connection(("127.0.0.1", self.dialled), SOON_S)
        near.sendall(hello(name, role))
        far, _ = self._listener.accept()
        far.settimeout(SOON_S)
        self._open += [near, far]
        assert receive(far, len(hello(name, role))) == hello(name, role)
        return near, far

    def close(self) -> None:
        for each in self._open:
            each.close()
        self.proxies.close()


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, "closed"
        data += more
    return data


def is_silent(sock: socket.socket) -> bool:
    """Whether nothing comes, not even an end."""
    sock.settimeout(SILENCE_S)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(SOON_S)
    return False


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()
    assert not [t for t in threading.enumerate() if t.name == "proxies"]


def test_a_cut_link_keeps_what_was_sent_and_others_are_not_touched(rig: Rig) -> None:
    near, far = rig.dial("s1")
    other_near, other_far = rig.dial("s2")
    rig.proxies.block([("s1", "m1"), ("m1", "s1")])
    near.sendall(b"one")
    far.sendall(b"two")
    other_near.sendall(b"three")
    assert receive(other_far, 5) == b"three"
    assert is_silent(far)
    assert is_silent(near)
    near.shutdown(socket.SHUT_WR)
    assert is_silent(far), "an end does not pass a cut either"
    rig.proxies.unblock([("s1", "m1"), ("m1", "s1")])
    assert receive(far, 3) == b"one"
    assert receive(near, 3) == b"two"
    assert far.recv(1) == b""


def test_a_half_cut_link_carries_one_direction(rig: Rig) -> None:
    near, far = rig.dial("c", Role.CLIENT)
    rig.proxies.block([("m1", CLIENT)])
    near.sendall(b"one")
    assert receive(far, 3) == b"one"
    far.sendall(b"two")
    assert is_silent(near)
    rig.proxies.unblock([("m1", CLIENT)])
    assert receive(near, 3) == b"two"


def test_a_reset_breaks_both_ends(rig: Rig) -> None:
    near, far = rig.dial("s1")
    other_near, other_far = rig.dial("s2")
    rig.proxies.reset("m1", "s1")
    for sock in (near, far):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    other_near.sendall(b"three")
    assert receive(other_far, 5) == b"three"


def test_the_death_of_one_end_is_seen_at_the_other(rig: Rig) -> None:
    near, far = rig.dial("s1")
    far.close()
    assert near.recv(1) == b""


def test_whoever_dials_a_node_that_is_dead_is_told(rig: Rig) -> None:
    rig._listener.close()
    near = socket.create_connection(("127.0.0.1", rig.dialled), SOON_S)
    with near:
        near.sendall(hello("s1"))
        assert near.recv(1) == b""
