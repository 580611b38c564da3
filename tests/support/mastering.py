"""A simulated master: a MasterCore, its shell, and a disk that loses what was not synced."""

from __future__ import annotations

import random
from typing import Final

from neo_common.core import Send
from neo_common.ids import Epoch, NodeId
from neo_common.states import Role, node_id
from neo_common.wire.schema import HelloNo, Packet, Page
from neo_master.core.changes import Change
from neo_master.core.effects import Exit, Kept, Note, Store, Stored
from neo_master.core.holding import Holding
from neo_master.core.master import MasterCore
from neo_master.core.settings import Configured, MasterSettings
from support.world import Process, World

OPERATOR: Final = node_id(Role.ADMIN, 99)
"""Who gives orders: nobody that is simulated."""


class Mastering(Process):
    """One master process."""

    role = Role.MASTER
    core: MasterCore

    def __init__(self, world: World, name: str, node: NodeId, settings: MasterSettings) -> None:
        self.settings = settings
        self.masters: tuple[Configured, ...] = ()
        """Every master; known when all processes are made."""
        self.exit: Exit | None = None
        self.disk: Kept | None = None
        """What survives a crash."""
        self.noted: list[Page] = []
        """Its notes: a crash may take any number of the last ones."""
        self._writing: list[Store] = []
        super().__init__(world, name, node)

    def make_core(self) -> MasterCore:
        holding = Holding()
        for page in self.noted:
            holding.take(page)
        rng = random.Random(self.world.rng.random())
        return MasterCore(self.node, self.settings, self.masters, rng, self.disk, holding)

    def core_died(self) -> None:
        # What was being written may be there or not, the earlier before the later.
        for effect in self._writing[: self.world.rng.randint(0, len(self._writing))]:
            self.disk = effect.kept
        self._writing.clear()
        # None of the world's numbers, so that seeds keep their meaning.
        luck = random.Random(self.world.seed * 1_000_003 + len(self.noted))
        if luck.random() < 0.3:
            del self.noted[luck.randint(0, len(self.noted)) :]

    def lose_disk(self) -> None:
        """The disk is replaced by an empty one."""
        self.crash("its disk is lost")
        self.disk = None
        self.noted.clear()

    def _store(self, effect: Store) -> None:
        self._writing.append(effect)
        temper = self.world.temper
        delay = self.world.delay(temper.disk_s, temper.disk_tail, self.name)
        self.world.schedule(delay, self._stored, effect, self.incarnation)

    def _stored(self, effect: Store, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation or effect not in self._writing:
            return
        done = self._writing.index(effect) + 1
        del self._writing[:done]
        self.disk = effect.kept
        self.feed(Stored(effect.number))

    def epoch(self) -> Epoch:
        return self.core.seen_epoch

    def cluster_id(self) -> bytes:
        return self.core.cluster_id

    def after_events(self) -> None:
        for configured in self.core.wanted_masters():
            target = self.world.processes[configured.name]
            if not self.is_dialling(target):
                self.dial(target)

    def dial_failed(self, target: Process, refusal: HelloNo | None) -> None:
        pass  # dialled again after the next event

    def request(self, change: Change) -> None:
        """Have the partition table changed, as an operator's order would."""
        core = self.core
        core.now = self.instant()
        core.effects = []
        core.request_change(change)
        effects, core.effects = core.effects, []
        for effect in effects:
            for observe in self.world.observers:
                observe(self, effect)
            self._perform(effect)

    def order(self, packet: Packet, request: int) -> object:
        """Have an operator's question handled; return the answer if it comes at once. Observers see it in any case."""
        core = self.core
        core.now = self.instant()
        core.effects = []
        core.asked[type(packet)](OPERATOR, packet, request)
        core.tell_node_changes()
        effects, core.effects = core.effects, []
        answer: object = None
        for effect in effects:
            for observe in self.world.observers:
                observe(self, effect)
            if isinstance(effect, Send) and effect.peer == OPERATOR:
                answer = effect.packet
            else:
                self._perform(effect)
        return answer

    def send(self, peer: NodeId, packet: Packet, request: int = 0) -> None:
        """Send; what the operator is told arrives nowhere."""
        if peer != OPERATOR:
            super().send(peer, packet, request)

    def perform(self, effect: object) -> None:
        match effect:
            case Store():
                self._store(effect)
            case Note(page):
                self.noted.append(page)
            case Exit(_, reason):
                self.exit = effect
                self.crash(reason)
            case _:
                super().perform(effect)
