"""The simulated network: connections that are FIFO, slow, and break in every way that TCP can.

A connection has two ends, each noticing by itself, at its own time, that it is gone. What is in flight when it breaks
still arrives, up to some packet, or is lost; never the later without the earlier. A blocked direction keeps what is
sent until it heals (as TCP repeats it) or the connection breaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from neo_common.wire import codec
from neo_common.wire.schema import Packet

if TYPE_CHECKING:
    from support.world import Process, World


class Eof(NamedTuple):
    """End of a connection, seen after what still arrived. `is_ended`: the other side has closed it, or died."""

    reason: str
    is_ended: bool = False


class End:
    """One side of a connection: what it has sent that is on the way."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.incarnation = process.incarnation
        self.is_open = True
        self.flight: list[tuple[int, Packet | Eof, int]] = []
        """(number, packet, request) sent by this side, not delivered yet, in order."""
        self.sent_count = 0
        self.last_arrival = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the process that opened it still runs."""
        return self.process.alive and self.process.incarnation == self.incarnation


class Connection:
    """A connection between two processes, from the dial on: the handshake travels in it like all else."""

    def __init__(self, world: World, number: int, dialler: Process, listener: Process) -> None:
        self._world = world
        self.number = number
        self.ends = (End(dialler), End(listener))
        self.broken = False

    def __repr__(self) -> str:
        return f"<Connection {self.number} {self.ends[0].process.name}-{self.ends[1].process.name}>"

    def side(self, process: Process) -> int:
        """Return 0 if *process* has dialled, 1 if it was dialled."""
        return 0 if self.ends[0].process is process else 1

    def other(self, process: Process) -> Process:
        """Return the process at the other end."""
        return self.ends[1 - self.side(process)].process

    def is_open(self, process: Process) -> bool:
        """Whether *process* believes that the connection lives."""
        return self.ends[self.side(process)].is_open

    def send(self, process: Process, packet: Packet | Eof, request: int = 0) -> None:
        """Put *packet* on its way; nothing happens when the connection is gone."""
        mine = self.ends[self.side(process)]
        if self.broken or not mine.is_open:
            return
        self._launch(mine, packet, request)

    def _launch(self, mine: End, packet: Packet | Eof, request: int, *, delay_s: float | None = None) -> None:
        world = self._world
        mine.sent_count += 1
        mine.flight.append((mine.sent_count, packet, request))
        peer = self.ends[1 - self.ends.index(mine)]
        if delay_s is None:
            delay_s = world.packet_delay(mine.process.name, peer.process.name)
        mine.last_arrival = max(mine.last_arrival, world.now + delay_s)
        world.schedule_at(mine.last_arrival, self._arrive, mine, mine.sent_count)

    def _arrive(self, sender: End, number: int) -> None:
        receiver = self.ends[1 - self.ends.index(sender)]
        if not sender.flight or sender.flight[0][0] > number:
            return  # lost with the connection
        if not isinstance(sender.flight[0][1], Eof) and self._world.is_blocked(
            sender.process.name, receiver.process.name
        ):
            self._world.schedule(0.05, self._arrive, sender, number)  # TCP sends it again
            return
        while sender.flight and sender.flight[0][0] <= number:
            _, packet, request = sender.flight.pop(0)
            if not (receiver.is_open and receiver.is_alive):
                continue
            if isinstance(packet, Eof):
                receiver.is_open = False
                receiver.process.connection_ended(self, packet.reason, is_ended=packet.is_ended)
            else:
                receiver.process.packet_arrived(self, self._world.through_the_wire(packet, request), request)

    def close(self, process: Process, reason: str) -> None:
        """Close it from one side: what that side has sent arrives, then the end; what it was sent is dropped."""
        mine = self.ends[self.side(process)]
        peer = self.ends[1 - self.side(process)]
        if not mine.is_open:
            return
        mine.is_open = False
        peer.flight.clear()
        if not self.broken:
            self.broken = True
            self._launch(mine, Eof(reason, is_ended=True), 0)

    def cut(self, reason: str, keep: tuple[float, float], notice_s: tuple[float, float]) -> None:
        """Break it. `keep`: share of what each side has in flight that arrives; `notice_s`: when each side sees it."""
        if self.broken:
            return
        self.broken = True
        for i, mine in enumerate(self.ends):
            del mine.flight[round(len(mine.flight) * keep[i]) :]
            # The end that is noticed by the peer of *mine* comes after all that still arrives there.
            self._launch(mine, Eof(reason), 0, delay_s=notice_s[1 - i])

    def process_died(self, process: Process, keep: float, notice_s: float) -> None:
        """The process at one end is gone: the other reads what still arrives, then sees the end."""
        mine = self.ends[self.side(process)]
        peer = self.ends[1 - self.side(process)]
        mine.is_open = False
        peer.flight = [x for x in peer.flight if isinstance(x[1], Eof)]
        if not self.broken:
            self.broken = True
            del mine.flight[round(len(mine.flight) * keep) :]
            self._launch(mine, Eof("the process died", is_ended=True), 0, delay_s=notice_s)


def through_codec(packet: Packet, request: int) -> Packet:
    """Return *packet* as a receiver reads it, after a frame was made of it and cut into slices."""
    data = codec.frame(packet, request)
    reader = codec.FrameReader()
    frames = []
    for start in range(0, len(data), 61):
        frames += reader.feed(data[start : start + 61])
    assert len(frames) == 1, frames
    assert frames[0][0] == request
    assert frames[0][1] == packet, f"{packet} became {frames[0][1]}"
    return frames[0][1]
