"""Cells that are not as they should be: what was found, what becomes of it, how far the search is. Pure.

A cell that is wrong is put out of service, to be rebuilt, when another cell of its row is UP_TO_DATE; until then it
stays in service, and is remembered. What nobody can decide is only reported.
"""

from neo_common.ids import NO_NODE, NodeId, Seconds
from neo_common.states import CellState
from neo_common.wire.schema import (
    AnswerScrub,
    AskScrub,
    Damaged,
    Error,
    ErrorCode,
    Finding,
    Mended,
    NodeScrub,
    Scrub,
    ScrubState,
)
from neo_master.core.base import MasterBase
from neo_master.core.changes import Corrupt, Rebuild
from neo_master.core.effects import ERROR, INFO


class Scrubs(MasterBase):
    """Hear what is wrong, and have it rebuilt."""

    def on_damaged(self, storage: NodeId, packet: Damaged) -> None:
        """A cell was found wrong."""
        p, node = packet.partition, packet.node
        if not self.is_running or storage not in self.obeying or p >= self.pt.partitions:
            return
        state = self.pt.state(p, node)
        if node != NO_NODE and (state is None or not state.is_readable):
            return  # it is known
        is_rebuilt = node != NO_NODE and any(n != node and s == CellState.UP_TO_DATE for n, s in self.pt.rows[p])
        whose = (
            f"the cell of {self.text(node)} is wrong" if node != NO_NODE else "two cells differ, nobody can tell why"
        )
        then = ""
        if node != NO_NODE:
            then = "; it is rebuilt" if is_rebuilt else "; it stays in service, as there is no other good one"
        self.log(ERROR, f"partition {p}: {whose}, says {self.text(storage)}: {packet.text}{then}")
        self.findings.append(Finding(self.now.wall, p, node, storage, packet.text, is_rebuilt))
        if node != NO_NODE:
            self.damaged[p, node] = None
            self.rebuild_damaged()

    def rebuild_damaged(self) -> None:
        """Put out of service what is wrong and can be spared now."""
        for p, node in list(self.damaged):
            state = self.pt.state(p, node) if p < self.pt.partitions else None
            if state is None or not state.is_readable:
                del self.damaged[p, node]
            elif any(n != node and n in self.adopted and s == CellState.UP_TO_DATE for n, s in self.pt.rows[p]):
                self.request_change(Corrupt(p, node))

    def on_mended(self, storage: NodeId, packet: Mended) -> None:
        """What is left of a CORRUPTED cell is sound."""
        if self.is_running and packet.partition < self.pt.partitions:
            self.log(INFO, f"partition {packet.partition}: {self.text(storage)} begins to be rebuilt")
            self.request_change(Rebuild(packet.partition, storage))

    def on_scrub_state(self, storage: NodeId, packet: ScrubState) -> None:
        """How far a scrub is."""
        former = self.scrubs.get(storage)
        finished = former.finished if former is not None else Seconds(0.0)
        self.scrubs[storage] = NodeScrub(storage, packet, finished if packet.is_running else self.now.wall)

    def on_ask_scrub(self, peer: NodeId, packet: AskScrub, request: int) -> None:
        """Answer what was found; begin a scrub if that is wanted."""
        if packet.start and not self.is_running:
            self.send(peer, Error(ErrorCode.NOT_READY, self.reason or "the cluster does not run yet"), request)
            return
        if packet.start:
            for storage in sorted(self.adopted):
                self.send(storage, Scrub())
        states = tuple(self.scrubs[n] for n in sorted(self.scrubs))
        self.send(peer, AnswerScrub(states, tuple(reversed(self.findings))), request)
