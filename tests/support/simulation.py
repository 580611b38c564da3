"""A run of a whole simulated cluster: a shape, scripts, faults, and what must hold at every moment and at the end.

    Simulation(seed, SCENARIOS["pair_1rep"]).go(faults=2)

The phases: everything starts; one client creates all objects; the scripts run while faults happen; faults stop and
everything that is down starts again; within `REST_S` virtual seconds all must be well.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from neo_client.core.client import ClientSettings
from neo_client.core.events import (
    AbortDone,
    CacheCut,
    CommittedByRecovery,
    Failed,
    FinishDone,
    Invalidated,
    Reset,
)
from neo_common.checksum import checksum
from neo_common.core import Disconnect, Send
from neo_common.ids import MAX_TID, NO_NODE, NO_TID, Epoch, NodeId, Oid, Partition, Tid, Ttid
from neo_common.model.partition_table import PartitionTable
from neo_common.states import CellState, ClusterState, Role, node_id
from neo_common.wire.schema import (
    PIECE_BYTES,
    Adopt,
    AnswerChange,
    AnswerDrop,
    AnswerOids,
    AnswerPack,
    ChangeKind,
    Cluster,
    Commit,
    Damaged,
    ErrorCode,
    Finished,
    Invalidate,
    Mode,
    Pack,
    Start,
    Vote,
    Welcome,
)
from neo_master.core.effects import Note
from neo_master.core.settings import Configured, MasterSettings
from neo_storage.backends.base import Stored
from neo_storage.core.events import Exit
from neo_storage.core.settings import StorageSettings
from support import faults
from support.application import Application, Spec, Step, writer_of
from support.checkers import Committed, Oracle, check
from support.importer import Importer
from support.mastering import Mastering
from support.moving import MoveWatch, check_goal
from support.mutations import Mutation, plant
from support.packing import Packer, has_packs, needed
from support.pieces import edition_of, has_pieces, stores_small
from support.storing import Storing
from support.world import CLUSTER, Process, Temper, World, draw_temper

START_S = 60.0
REST_S = 240.0
AGES_S = (3600.0, 30.0)
"""After which a storage forgets what nobody votes: so late that all else must have ended it before, or not."""
NEVER_S = 1e9
_UP = CellState.UP_TO_DATE


class Scenario(NamedTuple):
    """The shape of a small cluster, and what its clients do."""

    partitions: int
    storages: int
    replicas: int
    clients: tuple[tuple[Spec, ...], ...]
    oids: int
    masters: int = 2
    spares: int = 0
    """Storages beyond those of the first table. With some, an operator changes the cluster while it runs."""
    domains: tuple[str, ...] = ()
    """What each storage, in order, fails together with."""
    copy: tuple[tuple[int, ...], ...] = ()
    """What each transaction writes that one more client copies from elsewhere, with their tids."""


def quiet(temper: Temper) -> Temper:
    """Return *temper* without what is a fault: nothing much slower than the rest, no stalls."""
    return temper._replace(slow=(), net_tail=0.0, disk_tail=0.0, think_tail=0.0)


def whole(storage: Storing, partition: Partition, oid: Oid, stored: Stored) -> bytes:
    """Return a value that a storage would answer, put together from its pieces."""
    value, size, ground = stored.data.value, stored.data.size, storage.core.ground
    if size and not value:
        parts = []
        for offset in range(0, size, PIECE_BYTES):
            part = ground.overlay.piece(oid, stored.tid, offset)
            if part is None:
                part = storage.disk.backend.piece(partition, oid, stored.tid, offset)
            check(part is not None, 19, f"{storage.name}: {oid}@{stored.tid:x} has no piece {offset}")
            parts.append(part or b"")
        value = b"".join(parts)
    check(checksum(value) == stored.data.checksum, 19, f"{storage.name}: {oid}@{stored.tid:x} is not what it was")
    return value


class Simulation:
    """One run."""

    def __init__(
        self,
        seed: int,
        scenario: Scenario,
        *,
        mutation: Mutation | None = None,
        calm: bool = False,
        slow: Sequence[str] = (),
        codec_share: float = 0.1,
        reads_at_once: bool = True,
        packs: bool | None = None,
        pieces: bool | None = None,
        early: bool | None = None,
    ) -> None:
        """`calm`: everything takes about its mean time, so that a story reads well. `mutation`: a bug to plant. `slow`:
        kinds of links, as `M>S`, of which half are very slow. `packs`: whether somebody
        orders packs; None: the seed says it. `pieces`, `early`: the same for values in pieces, and for small
        ones that are stored one by one before a vote."""
        self.seed, self.scenario = seed, scenario
        names = [f"M{i + 1}" for i in range(scenario.masters)]
        names += [f"S{i + 1}" for i in range(scenario.storages + scenario.spares)]
        names += [f"C{i + 1}" for i in range(len(scenario.clients) + bool(scenario.copy))]
        temper = Temper() if calm else draw_temper(random.Random(seed), names)
        luck = random.Random(seed + 2)
        links = [f"{a}>{b}" for a in names for b in names if f"{a[0]}>{b[0]}" in slow]
        temper = temper._replace(slow=(*temper.slow, *((link, 100.0) for link in links if luck.random() < 0.5)))
        # Slow disks and links are faults too: they come when the scripts begin, and end when faults stop.
        self._temper = temper
        self.world = World(
            seed, codec_share=codec_share, temper=temper._replace(slow=(), net_tail=0.0, disk_tail=0.0, think_tail=0.0)
        )
        self.world.reads_at_once = reads_at_once
        self.oracle = Oracle()
        self.orders: list[ChangeKind | None] = []
        """What an operator has ordered; None is to drop a storage."""
        self.ordered = False
        """Whether the last order about cells was one that ends in an even table."""
        self.near: tuple[str, ...] = ()
        """Processes between whom something just happened: the next fault rather strikes them."""
        self._has_faults = True
        self._started: dict[Epoch, tuple[tuple[int, ...], dict[Ttid, tuple[int, Tid]]]] = {}
        """By reign: its line of history, and the decisions that it began with."""
        masters = tuple(
            Configured(f"M{i + 1}", node_id(Role.MASTER, i + 1), f"M{i + 1}:1") for i in range(scenario.masters)
        )
        chance = random.Random(seed + 1)
        are_named = calm or chance.random() < 0.7  # else the primary gives them their ids
        numbers = range(1, scenario.storages + scenario.spares + 1)
        domains = scenario.domains or ("",) * len(numbers)
        every = tuple(
            Configured(
                f"S{i}", node_id(Role.STORAGE, i) if are_named or i > scenario.storages else NO_NODE, f"S{i}:1", domain
            )
            for i, domain in zip(numbers, domains, strict=True)
        )
        storages = every[: scenario.storages]
        # Shorter times than real ones in some runs: the same story in fewer virtual seconds, and other races.
        lease_s = 3.0 if calm else chance.choice((0.4, 1.0, 3.0))
        self.grace_s = 3.0 if calm else chance.choice((0.05, 0.5, 3.0))
        settings = MasterSettings(
            cluster=CLUSTER,
            partitions=scenario.partitions,
            replicas=scenario.replicas,
            storages=storages,
            lease_s=lease_s,
            grace_s=self.grace_s,
            told_s=2.0,
        )
        self.with_pieces = has_pieces(seed) and not calm if pieces is None else pieces
        # Timeouts hide deadlocks: most runs have none.
        lock_s = chance.choice((10.0, NEVER_S, NEVER_S))
        stores = StorageSettings(
            lease_s=lease_s,
            lease_margin_s=lease_s / 6,
            lock_s=lock_s,
            copy_range=(3, 10, 2000)[seed % 3],
            copy_parallel=(1, 4)[seed % 2],
            scrub_every_s=(NEVER_S, 3.0)[seed % 2],  # no number is drawn for it: seeds keep their meaning
            scrub_rate=2**30,
            scrub_confirm_s=2.0,
            transaction_age_s=AGES_S[seed // 6 % 2 if self.with_pieces else 0],
        )
        wait_timeout_s = chance.choice((20.0, NEVER_S, NEVER_S))
        self._rounds = 1 if calm else chance.choice((1, 2, 4))
        self.masters = [Mastering(self.world, c.name, c.node, settings) for c in masters]
        for master in self.masters:
            master.masters = masters
        self.storages = [
            Storing(self.world, c.name, c.node, dataclasses.replace(stores, domain=c.domain)) for c in every
        ]
        self.moves = MoveWatch()
        if scenario.spares:
            self.world.observers.append(self.moves)
        self.clients = [
            Application(self.world, f"C{i + 1}", self.oracle, ClientSettings(wait_timeout_s=wait_timeout_s))
            for i in range(len(scenario.clients))
        ]
        self.packer: Packer | None = None
        if has_packs(seed) and not calm if packs is None else packs:
            self.packer = Packer(self)
        if self.with_pieces or (stores_small(seed) and not calm if early is None else early):
            for client in self.clients:
                client.early = random.Random(f"{seed} {client.name} pieces")
                client.in_pieces = self.with_pieces
        self.importer: Importer | None = None
        if scenario.copy:
            settings_of_copy = ClientSettings(wait_timeout_s=wait_timeout_s)
            self.importer = Importer(self.world, f"C{len(self.clients) + 1}", self.oracle, settings_of_copy)
            self.clients.append(self.importer)
        self.world.observers.append(self._observe)
        if mutation is not None:
            self.world.plants.append(lambda process: plant(mutation, process.core, process.role))

    # ---- phases

    def go(self, fault_count: int = 0, kinds: Sequence[str] = (), plan: faults.Plan = ()) -> None:
        """Run all phases. Raises Violation."""
        self._has_faults = bool(fault_count or plan)
        self.start()
        self.begin_scripts()
        faults.happen(self, fault_count, kinds, plan)
        self.rest()

    def start(self) -> None:
        """Start everything, and create all objects."""
        rng = self.world.rng
        for process in (*self.masters, *self.storages, *self.clients):
            self.world.schedule(rng.random() * 0.2, process.start)
        first = self.clients[0]
        create = Spec(writes=tuple(range(self.scenario.oids)), creating=True)
        while not self.oracle.acked:
            first.run_script([create])
            done = self.world.run(START_S, lambda: first.step is Step.DONE)
            check(done, 9, "the cluster does not start, or does not commit its first transaction")
        whole = self.world.run(START_S, lambda: all(s is _UP for row in self.primary_table().rows for _, s in row))
        if self.scenario.spares:
            self.world.run(START_S, lambda: all(s.alive for s in self.storages))
        check(whole, 9, f"the cells are not all up to date before anything went wrong: {self.primary_table().rows}")

    def begin_scripts(self) -> None:
        """Let every client go through its script."""
        self.world.set_temper(self._temper)
        # In some runs all first votes come at the same moment: chance alone seldom makes them meet.
        herd = self.world.now + 0.3 * self.world.rng.random() if self.world.rng.random() < 0.4 else 0.0
        if self.importer is not None:
            self.importer.begin(self.scenario.copy * self._rounds)
        if self.packer is not None:
            self.packer.begin(sum(map(len, self.scenario.clients)) * self._rounds)
        for client, script in zip(self.clients, self.scenario.clients, strict=False):
            client.vote_not_before = herd
            client.run_script(script * self._rounds)

    def rest(self) -> None:
        """Stop faults; all must become well, and then hold."""
        self.world.note("-", "faults stop")
        self.world.unblock_all()
        self.world.set_temper(quiet(self._temper))
        for process in (*self.masters, *self.storages):
            process.crash_countdown = None
            process.clock_offset = max(process.clock_offset, 0.0)
            if not process.alive:
                process.start()
            process.resume(process.incarnation)
        for client in self.clients:
            client.crash_countdown = None
            client.resume(client.incarnation)
        self.world.run(REST_S, self._polled(self.is_at_rest))
        self.check_rest()

    def _polled(self, predicate: Callable[[], bool]) -> Callable[[], bool]:
        """Ask *predicate* ten times per virtual second only; it must hold for one second."""
        state = {"next": 0.0, "since": -1.0}

        def ask() -> bool:
            if self.world.now < state["next"]:
                return False
            state["next"] = self.world.now + 0.1
            if not predicate():
                state["since"] = -1.0
                return False
            if state["since"] < 0:
                state["since"] = self.world.now
            return self.world.now - state["since"] >= 1.0

        return ask

    # ---- what everybody does

    def _observe(self, process: Process, effect: object) -> None:
        if isinstance(process, Mastering):
            if isinstance(effect, Send):
                self._master_sends(process, effect)
            elif isinstance(effect, Note):
                for decision in (*effect.page.newest, *effect.page.unheard):
                    self.oracle.held(process.name, decision.ttid, decision.tid)
        elif isinstance(process, Application):
            self._client_does(process, effect)
        elif isinstance(effect, Disconnect):
            is_gap = "went ahead" in effect.reason
            check(not is_gap or self._has_faults, 19, f"{process.name} cuts {effect.peer:x}: {effect.reason}")
        elif isinstance(effect, Exit):
            check(effect.status == 0, 7, f"{process.name} stops: {effect.reason}")
        elif isinstance(effect, Send) and isinstance(effect.packet, Damaged):
            check(False, 7, f"{process.name} finds damage where none was done: {effect.packet}")

    def _master_sends(self, master: Mastering, effect: Send) -> None:
        epoch = master.core.epoch
        match effect.packet:
            case Start(epoch=number, table=table, decisions=decisions):
                # Who goes on with what few have may give a number that others, given up, have given before.
                told = {d.ttid: (d.attempt, d.tid) for d in decisions}
                line, old = self._started.get(number, (table.orders.line, told))
                if line != table.orders.line:
                    old = told
                self._started[number] = (table.orders.line, told)
                check(old == told, 12, f"two storages are started with other decisions: {old}, {told}")
            case Cluster(state=ClusterState.RUNNING) | Welcome():
                self._ensure_reign(epoch)
            case Commit(ttid, attempt, tid, _, tail, _):
                self.oracle.publish(epoch, ttid, attempt, tid)
                for decision in tail:
                    self.oracle.publish(epoch, decision.ttid, decision.attempt, decision.tid)
            case Finished(ttid, attempt, tid):
                self.oracle.publish(epoch, ttid, attempt, tid)
            case Invalidate(tid, ttid, attempt, _, _):
                self.oracle.publish(epoch, ttid, attempt, tid)
            case AnswerChange() | AnswerDrop() if effect.request == len(self.orders):
                self.ordered = self.orders[-1] is not ChangeKind.PAUSE and master.core.pt.orders.is_balancing
            case AnswerOids(first, number):
                self.oracle.oids(first, number)
            case Pack(_, tid):
                self.oracle.packs(tid)
            case Adopt(packed=tid) if tid:
                self.oracle.packs(tid)
            case AnswerPack(_, tid):
                self.oracle.pack_promises(tid)

    def _ensure_reign(self, epoch: Epoch) -> None:
        if epoch in self.oracle.view:
            return
        _, decisions = self._started.get(epoch, ((), {}))
        old = self.oracle.view.get(self.oracle.running, {})
        cells = {s.node: s.committed() for s in self.storages}
        kept = {t: tid for t, tid in old.items() if t not in decisions and self._is_kept(t, tid, cells)}
        self.world.note("-", "reign", epoch)
        self.oracle.reign(epoch, decisions, kept)

    def _is_kept(self, ttid: Ttid, tid: Tid, cells: Mapping[NodeId, Committed]) -> bool:
        """Whether every readable cell that the transaction touches has it, at that tid."""
        table = self.primary_table()
        for partition in {table.partition(oid) for oid in self.oracle.committed[ttid].writes}:
            for node in table.readable(partition):
                found = cells[node].tids.get((partition, ttid))
                is_gone = found is None and self.oracle.is_packed_away(table.partition, partition, ttid)
                if found != tid and not is_gone:
                    return False
        return True

    def _client_does(self, client: Application, effect: object) -> None:
        name = client.name
        client.note_name()
        match effect:
            case Send(_, Vote() as vote):
                writes = [(w.oid, w.base) for work in vote.work for w in work.writes]
                for work in vote.work:
                    ahead = client.ahead.get(work.partition, ())
                    writes += [(w.oid, w.base) for w in ahead[: work.tentative]]
                reads = [(r.oid, r.serial) for work in vote.work for r in work.reads]
                if client.storing is not None:
                    for oid, edition in client.storing.editions.items():
                        self.oracle.editions[vote.ttid, vote.attempt, oid] = edition
                self.oracle.voting(name, vote.ttid, vote.attempt, vote.parts, writes, reads, vote.mode)
            case FinishDone(handle, tid, _):
                self.oracle.finished(name, client.name_of(handle), tid)
                if self.packer is not None:
                    self.packer.committed()
            case Failed(handle, code, text):
                check(code is not ErrorCode.CORRUPTED, 19, f"{name} is told that its value is not whole: {text}")
                self.oracle.gave_up(name, client.name_of(handle), f"failed: {text}")
            case AbortDone(handle):
                self.oracle.gave_up(name, client.name_of(handle), "aborted")
            case CommittedByRecovery(handle):
                mode = client.script[0].mode if client.script else Mode.C
                self.oracle.committed_by_recovery(name, client.name_of(handle), mode)
            case Invalidated(tid, _):
                self.oracle.invalidated(name, tid)
            case Reset():
                self.oracle.forgot(name)
            case CacheCut(_, now):
                self.oracle.caught_up(name, now)

    # ---- at rest

    def primaries(self) -> list[Mastering]:
        """Return the masters that are RUNNING."""
        return [m for m in self.masters if m.alive and m.core.is_primary and m.core.state is ClusterState.RUNNING]

    def primary_table(self) -> PartitionTable:
        """Return the newest table that a master has."""
        return max((m.core.pt for m in self.masters if m.alive), key=lambda t: t.version)

    def is_at_rest(self) -> bool:
        """Whether nothing is under way any more, as far as can be asked cheaply."""
        if any(c.alive and c.step is not Step.DONE for c in self.clients):
            return False
        running = self.primaries()
        if len(running) != 1:
            return False
        core = running[0].core
        table = core.pt
        if table.orders.is_balancing or any(s.alive and s.core.image.doomed for s in self.storages):
            return False
        if core.is_changing or core.changes or core.aborting or core.sealing or core.going or core.undurable:
            return False
        if any(c.alive and (c.client.last != self.oracle.last_published or c.client.dead) for c in self.clients):
            return False
        for row in table.rows:
            if any(state is not CellState.UP_TO_DATE for _, state in row):
                return False
        if self.packer is not None and (self.packer.pending or any(s.is_packing for s in self.storages)):
            return False
        if core.pack is not None and not core.is_pack_over(core.pack):
            return False
        if any(s.core.image.tentative.ttids() for s in self.storages if s.alive):
            return False
        return all(
            s.alive and s.core.image.table.version == table.version and not s.core.image.voted for s in self.storages
        )

    def check_rest(self) -> None:
        """Raise Violation for what is not well at rest."""
        running = self.primaries()
        check(len(running) == 1, 9, f"primaries at rest: {running}")
        core = running[0].core
        for client in self.clients:
            if client.alive:
                check(client.step is Step.DONE, 9, f"{client.name} is stuck: {client.step.value} {client.ttid or ''}")
                check(not client.client.dead, 9, f"{client.name} still withdraws {client.client.dead}")
                check(
                    client.client.last == self.oracle.last_published,
                    14,
                    f"{client.name} has heard of {client.client.last:x}, {self.oracle.last_published:x} is published",
                )
        for what in ("aborting", "sealing", "going", "undurable", "changes"):
            check(not getattr(core, what), 9, f"{running[0].name} keeps {what}: {getattr(core, what)}")
        for row in core.pt.rows:
            for node, state in row:
                check(state is CellState.UP_TO_DATE, 9, f"a cell of {node:x} is {state.name} at rest")
        self._check_cells(core.pt)
        if self.importer is not None:
            self._check_copy(self.importer)
        if self.scenario.spares and self.ordered:
            check_goal(core.pt, self.scenario.domains, [s.node for s in self.storages])

    def _check_copy(self, importer: Importer) -> None:
        """What was copied is there from its beginning on, up to anywhere, with the tids that were given."""
        there = {self.oracle.first_name(t): tid for t, tid in self.oracle.view[self.oracle.running].items()}
        flights = [*importer.ever, *importer.flights]
        found = [there.get(f.names[0]) for f in flights]
        length = next((i for i, tid in enumerate(found) if tid is None), len(found))
        check(not any(found[length:]), 15, f"of a copy there is {found}")
        for flight, tid in zip(flights[:length], found, strict=False):
            check(tid == flight.tid, 15, f"{flight.names[0]} was given {flight.tid:x}, and has {tid:x}")

    def _check_cells(self, table: PartitionTable) -> None:
        oids = sorted({oid for w in self.oracle.committed.values() for oid in w.writes})
        for storage in self.storages:
            image = storage.core.image
            check(image.table.version == table.version, 9, f"{storage.name} has table {image.table.version}")
            check(not image.voted, 10, f"{storage.name} keeps {image.voted}")
            said = storage.committed()
            for oid in oids:
                partition = table.partition(oid)
                if table.state(partition, storage.node) is None:
                    left = storage.disk.backend.current(partition, oid)
                    check(left == NO_TID, 7, f"{storage.name} keeps {oid} of a cell that was dropped")
                    continue
                truth = self.oracle.history(oid)
                logged = sorted(
                    (tid, self.oracle.first_name(t))
                    for tid, t in said.history.get((partition, oid), {}).items()
                    if (partition, tid) not in said.perhaps or (tid, self.oracle.first_name(t)) in truth
                )
                must = needed(truth, self.oracle.pack_ordered)
                if partition not in said.left:
                    is_right = set(must) <= set(logged) <= set(truth)
                    check(is_right, 1, f"{storage.name} has in its log {oid}: {logged}, committed are {truth}")
                read = self.read_all(storage, partition, oid)
                self.oracle.serves(storage.name, oid, read)
            self._check_idle(storage)
        if self.packer is not None:
            self._check_copies(table)

    def _check_copies(self, table: PartitionTable) -> None:
        """All cells of a partition have the same, to the last transaction."""
        by_node = {s.node: s for s in self.storages}
        for number, row in enumerate(table.rows):
            partition = Partition(number)
            digests = {
                node: by_node[node].disk.backend.range_reader().digest(partition, NO_TID, MAX_TID) for node, _ in row
            }
            check(len(set(digests.values())) == 1, 18, f"the cells of {number} differ: {digests}")

    def read_all(self, storage: Storing, partition: Partition, oid: Oid) -> list[tuple[Tid, Ttid]]:
        """Return every revision that a storage would answer, oldest first, with who wrote it by its value."""
        found: list[tuple[Tid, Ttid]] = []
        before = Tid(2**63 - 1)
        expected_end = NO_TID
        while True:
            stored = storage.core.ground.load(oid, before)
            if stored is None:
                return found[::-1]
            check(stored.end == expected_end, 7, f"{storage.name}: {oid}@{stored.tid:x} ends {stored.end:x}")
            value = whole(storage, partition, oid, stored)
            writer, of = writer_of(value)
            assert of == oid
            ttid = self.oracle.by_tid.get(stored.tid)
            if ttid is not None:
                self.oracle.is_edition(ttid, oid, edition_of(value))
            found.append((stored.tid, writer))
            before = expected_end = stored.tid

    def _check_idle(self, storage: Storing) -> None:
        """Nothing is left of what was sent ahead of votes."""
        core, name = storage.core, storage.name
        left = core.image.tentative.ttids()
        check(not left, 19, f"{name} keeps what went ahead of votes of {left}")
        check(not core.ahead.known(), 19, f"{name} remembers what went ahead of votes of {core.ahead.known()}")
        check(core.image.undecided_bytes == 0, 19, f"{name} counts {core.image.undecided_bytes} undecided bytes")
        for copy in core.copies.copies.values():
            check(not copy.chains, 19, f"{name} keeps pieces of a copy: {sorted(copy.chains)}")

    # ---- stories

    def story(self, last: int = 120) -> str:
        """Return the end of the history, for people."""
        return "\n".join(repr(e) for e in self.world.history[-last:])
