"""What every core is told, and what it orders. Pure.

A core is a plain state machine: `handle(event, now) -> list of effects`, in the order to perform them. It sees no
socket, clock, chance, file or thread; the shell of a daemon, and the simulator, perform its effects and bring events.

Rules that every shell keeps, and every core may rely on:
  * packets of one connection arrive in the order in which they were sent, none is lost before `Lost`;
  * between two `Connected` of one peer there is a `Lost`: what the older connection still held is dropped first;
  * `Send` to a peer that is not connected is dropped (its `Lost` is on the way or was handled);
  * `Durable` comes in order; it covers every `Append` up to its position.

NamedTuples rather than dataclasses: these are made for every packet, and a NamedTuple costs a third.
"""

from typing import NamedTuple

from neo_common.ids import NodeId
from neo_common.wire.schema import Hello, Packet, RefusalCode


class Connected(NamedTuple):
    """A peer has passed the handshake."""

    peer: NodeId
    hello: Hello


class Lost(NamedTuple):
    """The connection to *peer* is gone: closed by either side, cut, or silent for too long."""

    peer: NodeId
    reason: str
    is_ended: bool = False
    """Whether the peer itself has ended it: it has closed it, or its process is gone. False when nobody can know: the
    connection was reset, or silent for too long. (Only the kernel of the peer says the former.)"""


class Received(NamedTuple):
    """*peer* has sent a packet. `request` is 0 for a notification, else the id to give to the answer."""

    peer: NodeId
    packet: Packet
    request: int = 0


class Greeted(NamedTuple):
    """A peer that dialled us has said Hello and waits (masters only: they decide who gets in, under which id).

    `connection` is a handle of the shell's, to be repeated in `Accept`, `Park` or `Refuse`.
    """

    connection: int
    hello: Hello


class Left(NamedTuple):
    """Who was Greeted has hung up before it was let in or sent away (masters only)."""

    connection: int
    reason: str


class Durable(NamedTuple):
    """Every record appended up to *position* (included) survives a crash."""

    position: int


class Tick(NamedTuple):
    """Time has passed: look at deadlines. The shell sends one at least every 100 ms of idle time."""


class Send(NamedTuple):
    """Send *packet* to *peer*: a notification, or the answer to its *request*."""

    peer: NodeId
    packet: Packet
    request: int = 0


class Disconnect(NamedTuple):
    """Close the connection to *peer*, telling it why. `Lost` does not follow: the core knows."""

    peer: NodeId
    reason: str


class Accept(NamedTuple):
    """Let in who was Greeted, as *node*. `Connected(node)` follows at once."""

    connection: int
    node: NodeId


class Park(NamedTuple):
    """Let who was Greeted wait, telling it why; Accept or Refuse comes later."""

    connection: int
    reason: str


class Refuse(NamedTuple):
    """Send away who was Greeted. `primary` is the address to try, empty if unknown."""

    connection: int
    code: RefusalCode
    reason: str
    primary: str = ""


class Log(NamedTuple):
    """Say something to the operator. `level` is a `logging` level."""

    level: int
    text: str
