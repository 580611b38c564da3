"""An operator who chooses a partition table in a simulated cluster, and what remains of it."""

from __future__ import annotations

from neo_common.ids import NodeId, Ttid
from neo_common.states import ClusterState, node_text
from neo_common.wire.schema import (
    AnswerChoose,
    AnswerReadmit,
    AnswerRecovery,
    AskChoose,
    AskReadmit,
    AskRecovery,
    FoundTable,
)
from support.mastering import Mastering
from support.simulation import Simulation
from support.storing import Storing


class Operator:
    """Asks again and again until the cluster runs, as a person does whose first try came to nothing."""

    def __init__(self, simulation: Simulation, survivor: Storing, *, stale: bool = False, empty: bool = False) -> None:
        self._simulation = simulation
        self._survivor = survivor
        self._stale, self._empty = stale, empty
        self._requests = 0
        self.chosen: list[int] = []
        """The ids of the choices that were begun."""
        self.told: FoundTable | None = None
        """What the last choice would lose, as it was shown."""

    def primary(self) -> Mastering | None:
        """Return the master that is in charge, running or not."""
        return next((m for m in self._simulation.masters if m.alive and m.core.is_primary), None)

    def ask(self, packet: AskRecovery | AskChoose | AskReadmit) -> object:
        """Ask the primary; None if there is none."""
        primary = self.primary()
        self._requests += 1
        return None if primary is None else primary.order(packet, 1_000_000 + self._requests)

    def choose(self) -> bool:
        """Choose the table that the survivor has, if there is one to be chosen; return whether the cluster runs."""
        primary = self.primary()
        if primary is None:
            return False
        if primary.core.state is ClusterState.RUNNING:
            return True
        told = self.ask(AskRecovery(False))
        alive = sum(m.alive for m in self._simulation.masters)
        if isinstance(told, AnswerRecovery) and told.may_choose and len(told.masters) == alive:
            mine = [t for t in told.tables if self._survivor.node in t.storages]
            if mine:
                order = AskChoose(mine[0].version, told.storages, self._stale, self._empty, "simulated")
                answer = self.ask(order)
                if isinstance(answer, AnswerChoose):
                    self._simulation.world.note("operator", "chooses", f"table {mine[0].version}")
                    self.chosen.append(answer.choice)
                    self.told = mine[0]
        return False

    def have_masters_heard(self) -> bool:
        """Return whether every master has a choice on its disk: who has not would go on with what was given up."""
        masters = self._simulation.masters
        return all(m.alive and m.disk is not None and m.disk.register.table.orders.choices for m in masters)

    def begin(self) -> bool:
        """Let a cluster recover that runs without some partitions; return whether it does."""
        return isinstance(self.ask(AskRecovery(True)), AnswerRecovery)

    def run(self, seconds: float) -> bool:
        """Choose until the cluster runs."""
        return self._again(seconds, self.choose)

    def readmit(self, node: NodeId, seconds: float) -> bool:
        """Let a storage in again, until that is answered."""

        def order() -> bool:
            primary = self.primary()
            if primary is not None and node in primary.core.pt.orders.readmitted:
                return True
            answer = self.ask(AskReadmit((node,), "simulated"))
            self._simulation.world.note("operator", "readmits", node_text(node))
            return isinstance(answer, AnswerReadmit)

        return self._again(seconds, order)

    def _again(self, seconds: float, act: object) -> bool:
        world = self._simulation.world
        end = world.now + seconds
        while world.now < end:
            if act():  # type: ignore[operator]  # a function
                return True
            world.run(0.3)
        return False


def kept_by(simulation: Simulation, survivor: Storing) -> set[Ttid]:
    """Return the commits of which the survivor has every part, durably."""
    oracle, has = simulation.oracle, survivor.committed().tids
    table = survivor.core.image.table
    return {
        ttid
        for ttid in oracle.view[oracle.running]
        if all((table.partition(oid), ttid) in has for oid in oracle.committed[ttid].writes)
    }
