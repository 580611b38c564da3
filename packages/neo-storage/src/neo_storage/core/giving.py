"""Giving history to cells that copy themselves, and to the primary: only what is readable here, and from the back end.

Pure.
"""

from neo_common.ids import NO_TID, NodeId, Tid
from neo_common.wire.schema import AskFate, Compare, Pull, PullData, PullNo
from neo_storage.core.events import ReadRange
from neo_storage.core.ground import Ground

FIRST_TID = Tid(1)


class Giving:
    """Answers cells of other storages, and the primary."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def on_pull(self, peer: NodeId, m: Pull) -> None:
        """Give history: the decisions at once, if they are asked for; transactions from the back end."""
        ground, image = self._ground, self._ground.image
        if m.start == NO_TID:
            decisions = tuple(d for _, d in sorted(image.decisions.items()) if d.tid <= m.stop)
            ground.send(peer, PullData(image.epoch, m.version, m.partition, m.stop, (), decisions, FIRST_TID))
        elif self.is_good(peer, m):
            ground.order(ReadRange(peer, 0, m, ground.last_op))

    def on_compare(self, peer: NodeId, m: Compare) -> None:
        """Count or compare what is here, no further than it is committed here."""
        ground = self._ground
        if self.is_good(peer, m):
            stop = min(m.stop, ground.image.last_tid)
            ground.order(ReadRange(peer, 0, m._replace(stop=stop), ground.last_op))

    def on_ask_fate(self, master: NodeId, m: AskFate) -> None:
        """Look for a transaction by its ttid. The primary asks readable cells only."""
        self._ground.order(ReadRange(master, 0, m, self._ground.last_op))

    def may_say(self, read: ReadRange) -> bool:
        """Return whether what was read for others may be said. To be asked when it is there.

        A cell that left the table while it was read may be half erased: what was not found would be taken for equal.
        Who has asked hears of that table too, and asks another.
        """
        return not isinstance(read.packet, Pull | Compare) or self._ground.is_readable(read.packet.partition)

    def is_good(self, peer: NodeId, m: Pull | Compare) -> bool:
        """Return whether this cell may be copied; tell *peer* if not."""
        ground = self._ground
        if ground.is_readable(m.partition):
            return True
        text = f"its cell is {getattr(ground.mine(m.partition), 'name', 'not there')}"
        ground.send(peer, PullNo(m.partition, m.number, text))
        return False
