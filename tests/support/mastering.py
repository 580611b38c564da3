"""A simulated master: a MasterCore and its shell. Masters keep nothing: a crash takes all."""

from __future__ import annotations

import random

from neo_common.ids import Epoch, NodeId
from neo_common.states import Role
from neo_common.wire.schema import HelloNo
from neo_master.core.base import Change, Exit
from neo_master.core.master import MasterCore
from neo_master.core.settings import Configured, MasterSettings
from support.world import Process, World


class Mastering(Process):
    """One master process."""

    role = Role.MASTER
    core: MasterCore

    def __init__(self, world: World, name: str, node: NodeId, settings: MasterSettings) -> None:
        self.settings = settings
        self.masters: tuple[Configured, ...] = ()
        """Every master; known when all processes are made."""
        self.exit: Exit | None = None
        super().__init__(world, name, node)

    def make_core(self) -> MasterCore:
        return MasterCore(self.node, self.settings, self.masters, random.Random(self.world.rng.random()))

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

    def perform(self, effect: object) -> None:
        match effect:
            case Exit(_, reason):
                self.exit = effect
                self.crash(reason)
            case _:
                super().perform(effect)
