"""Packs in a simulated run: who orders them and when, and what is true of a history that is packed.

All of it is drawn from a stream of its own, so that a run without packs is what it would be if there were none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from neo_common.ids import NO_TID, Tid
from neo_common.wire.schema import AskPack, Error, Pack, PackProgress
from neo_storage.core.events import PackCells

if TYPE_CHECKING:
    from support.simulation import Simulation

SHARE: Final = 0.25
"""Of the runs that have packs."""
KINDS: Final = (Pack, PackProgress, PackCells)
"""Moments at which faults strike, beside those of every run."""
_AGAIN_S: Final = 0.3
_TRIES: Final = 20
_R = TypeVar("_R", bound=tuple[Tid, object])


def has_packs(seed: int) -> bool:
    """Whether somebody orders packs in the run of that seed."""
    return random.Random(f"{seed} has packs").random() < SHARE


def needed(history: Sequence[_R], tid: Tid) -> list[_R]:
    """Return what a pack to *tid* must leave of the *history* of an object: what is current at *tid*, or later.

    >>> needed([(1, "a"), (3, "b"), (5, "c")], 4)
    [(3, 'b'), (5, 'c')]
    """
    old = sum(at <= tid for at, _ in history)
    return list(history[max(0, old - 1) :])


class Packer:
    """Orders packs, one after the other, each some commits after the one before."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.rng = random.Random(f"{simulation.seed} pack")
        self._marks: list[int] = []
        self.pending = 0
        """Orders that are still to be given."""

    def begin(self, transactions: int) -> None:
        """Draw after how many of the *transactions* to come packs are ordered."""
        have = len(self._simulation.oracle.acked)
        count = self.rng.choice((1, 1, 2, 3))
        self._marks = sorted(have + self.rng.randint(1, max(1, transactions)) for _ in range(count))

    def committed(self) -> None:
        """A client was told that it has committed."""
        while self._marks and len(self._simulation.oracle.acked) >= self._marks[0]:
            self._marks.pop(0)
            self._order_in(self.rng.choice((0.0, 0.02, 0.2, 1.0)) * self.rng.random(), _TRIES)

    def _order_in(self, delay_s: float, tries: int) -> None:
        if tries:
            self.pending += 1
            self._simulation.world.schedule(delay_s, self._order, tries)

    def _order(self, tries: int) -> None:
        """Have a client or an operator ask for a pack; when there is nobody to ask, later."""
        self.pending -= 1
        simulation, rng, oracle = self._simulation, self.rng, self._simulation.oracle
        tids = sorted(oracle.view.get(oracle.running, {}).values())
        tid = rng.choice((Tid(2**62), oracle.last_published, rng.choice([NO_TID, *tids])))
        packet = AskPack(tid, "chance")
        clients = [c for c in simulation.clients if c.alive and c.client.primary in c.connections]
        primaries = simulation.primaries()
        if clients and rng.random() < 0.5:
            oracle.pack_wanted(tid)
            rng.choice(clients).ask_primary(packet)
        elif primaries:
            oracle.pack_wanted(tid)
            answer = rng.choice(primaries).order(packet, 0)
            if isinstance(answer, Error):
                self._order_in(_AGAIN_S, tries - 1)
        else:
            self._order_in(_AGAIN_S, tries - 1)
