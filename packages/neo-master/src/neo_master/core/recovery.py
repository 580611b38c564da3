"""From nothing to RUNNING: what the storages have, what is decided about it; and storages that come later. Pure.

Recovery takes the newest partition table, waits for *every* node readable in it, decides about what was voted and not
decided, has all of that made durable, and serves. With a majority of the masters it can do without some of them, where
every row keeps a readable cell (docs/masters.md); or an operator chooses (`choices`).
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from neo_common.ids import NO_NODE, NO_TID, NodeId, Oid, Partition, Ptid, Seconds, Tid, Ttid, Version, tid_from_time
from neo_common.model.balance import first_table
from neo_common.model.partition_table import EMPTY, Cell, PartitionTable, whole
from neo_common.states import CellState, ClusterState, NodeState, Role, check_cell
from neo_common.wire.schema import (
    Adopt,
    CHello,
    Decision,
    Fence,
    Fenced,
    Mode,
    Progress,
    RecordHead,
    SHello,
    Start,
    StartOk,
    Tombstone,
)
from neo_master.core.base import MasterBase
from neo_master.core.changes import Demote
from neo_master.core.choices import hello_of
from neo_master.core.effects import ERROR, INFO, NO_ID, WARNING


class Doubt(NamedTuple):
    """A transaction that recovery commits without knowing whether a former primary has. Ordered by floor."""

    floor: Tid
    ttid: Ttid
    attempt: int
    parts: tuple[Partition, ...]
    given_tid: Tid


class Verdict(NamedTuple):
    """What recovery decides about what was voted and not decided."""

    doubts: list[Doubt]
    """To be committed, in this order, with new tids."""
    aborts: list[Tombstone]
    pending: set[tuple[Ttid, int]]
    """Left to the client, which is there."""
    is_complete: bool
    """False as long as a client may still come and say what it wants."""


class Recovery(MasterBase):
    """Collect, decide, start; adopt."""

    # ------------------------------------------------------------------------------------------ collecting

    def begin_reign(self) -> None:
        """Look at who is there. Peers that connected before are none: a master lets them in as primary only."""
        self.explain()

    def on_storage_hello(self, storage: NodeId, hello: SHello) -> None:
        """A storage is there: fence it, or adopt it when the cluster runs already."""
        if self.state is ClusterState.STOPPING:
            return
        self.said_hello.add(storage)
        self.seen_epoch = max(self.seen_epoch, hello.epoch)
        if self.is_running:
            if not self.is_of_line(storage, hello):
                self.turn_away(storage)
            elif hello.epoch > self.epoch:
                self.step_down(f"{self.text(storage)} obeys epoch {hello.epoch >> 24}")
            elif storage in self.pt.readable_nodes() and self.is_older(hello.position, self.positions.get(storage, 0)):
                self.turn_away_older(storage)
            else:
                self.adopt(storage, hello)
        elif self.starts:
            self.restart_recovery(f"{self.text(storage)} is there before it began without it")
        elif self.start_need is not None:
            if hello.epoch > self.epoch:
                self.restart_recovery(f"{self.text(storage)} obeys epoch {hello.epoch >> 24}")
            else:
                self.late[storage] = hello
        else:
            if self.is_from_another_reign(storage, hello):
                self.raise_epoch()
                self.tell_masters()
            self.fence_all()
            self.explain()

    def is_from_another_reign(self, storage: NodeId, hello: SHello) -> bool:
        """Whether the storage has obeyed an epoch that is not surely below ours.

        A former life of this very master may have reigned under the same epoch: it counts as another.
        """
        if hello.epoch == self.epoch:
            return self.was_fenced.get(storage) != self.epoch
        return hello.epoch >> 24 >= self.epoch >> 24

    def fence_all(self) -> None:
        """Let every storage that is there obey this epoch only, and tell all it has."""
        for storage in self.peers(Role.STORAGE):
            if self.fence_sent.get(storage) != self.epoch and storage in self.said_hello:
                self.fence_sent[storage] = self.was_fenced[storage] = self.epoch
                self.replies.pop(storage, None)
                self.send(storage, Fence(self.epoch))

    def on_fenced(self, storage: NodeId, packet: Fenced) -> None:
        """A storage has told all it has."""
        if packet.epoch != self.epoch:
            return  # the answer to an earlier Fence: the one to the latest will come
        known = self.known_cluster_id()
        if packet.cluster_id not in (NO_ID, known) and known != NO_ID:
            self.send_away(storage, f"it belongs to another cluster ({packet.cluster_id.hex()}, not {known.hex()})")
        elif not self.is_running and self.start_need is None:
            self.replies[storage] = packet
            self.try_start()
        else:
            self.on_storage_hello(storage, hello_of(packet))

    def known_cluster_id(self) -> bytes:
        """Return the id of the cluster: decided, or what the connected storages say; zeros if nobody knows."""
        if self.cluster_id != NO_ID:
            return self.cluster_id
        for node in sorted(self.replies):
            if self.replies[node].cluster_id != NO_ID:
                return self.replies[node].cluster_id
        for node in self.peers(Role.STORAGE):
            if self.connected[node].cluster_id != NO_ID:
                return self.connected[node].cluster_id
        return NO_ID

    def newest_table(self) -> PartitionTable:
        """Return the table with the highest version that was found; EMPTY if none.

        What masters hold counts only with a majority of them: a lone one may hold what was never begun. But the choice
        of an operator counts from the first master on: nobody shall go on with what was given up.
        """
        best = EMPTY
        register = self.newest_register()
        if register.table.partitions and self.is_heard_by_majority():
            best = register.table.apply(EMPTY)
        for _, reply in sorted(self.all_replies().items()):
            update = reply.table
            if update.partitions and update.version > best.version:
                best = update.apply(EMPTY)
        if register.table.version > best.version and len(register.table.orders.choices) > len(best.orders.choices):
            best = register.table.apply(EMPTY)
        return best

    def is_heard_by_majority(self) -> bool:
        """Whether a majority of the voters of the newest register that they tell has promised to hear this epoch."""
        if not self.is_quorum:
            return False
        voters = {v.node: v.memory for v in self.newest_register().voters}
        count = sum(1 for m, p in self.promises.items() if voters.get(m) == p.memory)
        return bool(voters) and 2 * count > len(voters)

    def can_do_without(self, table: PartitionTable) -> bool:
        """Whether every row has a cell on a storage that is there, and nobody can have gone on without those.

        A promotion that no majority holds may be known to that storage alone: a cell counts if it was readable before.
        """
        if not self.is_heard_by_majority():
            return False
        there = self.whole_disks(table)
        register = self.newest_register()
        before = register.table.apply(EMPTY) if register.table.partitions else EMPTY
        return before.partitions == table.partitions and all(
            any(n in there and n in before.readable(p) for n in table.readable(p))
            for p in map(Partition, range(table.partitions))
        )

    def is_patient(self, table: PartitionTable) -> bool:
        """Whether recovery still waits for storages that it could do without: leaving one out means a copy later."""
        if not self.can_do_without(table):
            self.patience_until = None
            return True
        settings = self.settings
        if self.patience_until is None:
            patience = settings.takeover_s if self.is_failover else settings.power_on_s
            self.patience_until = Seconds(self.now.monotonic + patience)
        return self.now.monotonic < self.patience_until

    def missing(self, table: PartitionTable) -> list[NodeId]:
        """Return the nodes that recovery must wait for: *every* node readable in the newest table.

        One that is not there may hold the only copy of an acknowledged commit, or know a newer table.
        """
        return sorted(table.readable_nodes() - self.whole_disks(table))

    def whole_disks(self, table: PartitionTable) -> set[NodeId]:
        """Return the storages there that have their disks still.

        Who is readable has a table, but for the very first one; and has lost nothing of what masters know that it had.
        """
        vain = self.is_founded_in_vain(table)
        return {n for n, r in self.replies.items() if vain or r.table.partitions > 0} - self.older_disks(table)

    def turn_away_older(self, storage: NodeId) -> None:
        """It has lost what nobody else has: the operator must choose what to do without it."""
        text = f"{self.older_text([storage])}: put its disk back, or choose: `neoadmin recovery begin`"
        self.send_away(storage, text)
        self.change_node(storage, NodeState(self.nodes[storage].state), text)

    def is_founded_in_vain(self, table: PartitionTable) -> bool:
        """Whether *table* is the first of all, and nothing was ever stored under it: who lacks it has lost nothing."""
        return table.version.ptid == 1 and all(r.last == NO_TID and not r.voted for r in self.replies.values())

    def explain(self) -> None:
        """Say what recovery waits for."""
        if self.is_running or self.state is ClusterState.STOPPING:
            return
        if self.start_need is not None:
            reason = f"waits for storages {self.texts(self.start_need)}: to confirm Start"
            self.set_state(ClusterState.VERIFYING, reason)
            return
        table = self.newest_table()
        if not table.partitions:
            self.explain_founding()
            return
        self.warn_of_older(table)
        torn = self.why_torn(table)
        if torn and self.chosen is None:
            self.set_state(ClusterState.RECOVERING, f"{torn}: `neoadmin recovery` shows both, choose one")
            return
        missing = self.missing(table) if self.chosen is None else []
        if missing and self.can_do_without(table) and self.patience_until is not None:
            text = f"waits for storages {self.texts(missing)}, for a while: it can do without"
            self.set_state(ClusterState.RECOVERING, text)
        elif missing:
            older = self.older_disks(table).intersection(missing)
            why = f"; {self.older_text(older)}: `neoadmin recovery` says what is missing" if older else ""
            self.set_state(
                ClusterState.RECOVERING,
                f"waits for storages {self.texts(missing)}: readable in table {table.version}{why}",
            )
        elif self.state is ClusterState.VERIFYING:
            reason = f"waits for clients, {self.settings.grace_s:g} s at most: transactions of theirs are in doubt"
            self.set_state(ClusterState.VERIFYING, reason)

    def warn_of_older(self, table: PartitionTable) -> None:
        """Say loudly, and once, whose disks are older than they were."""
        older = self.older_disks(table) & table.readable_nodes()
        if older - self.older_told:
            self.log(ERROR, f"{self.older_text(older)}. They count as lost")
        self.older_told |= older

    def texts(self, nodes: Iterable[NodeId]) -> str:
        """Return the names of nodes, for people."""
        return ", ".join(self.text(n) for n in sorted(nodes))

    # ------------------------------------------------------------------------------------------ the first table

    def explain_founding(self) -> None:
        """Say what the first partition table waits for."""
        unheard = [n for n in self.peers(Role.STORAGE) if n not in self.replies]
        if unheard:
            reason = f"waits for storages {self.texts(unheard)}: to tell what they have"
        elif self.founding is not None:
            absent = sorted(self.founding - self.replied_names())
            reason = f"waits for storages {', '.join(absent)}: they get the first table"
        elif self.settings.auto_start:
            absent = [s.name for s in self.settings.storages if s.name not in self.names_there()]
            names = f"storages {', '.join(absent)}" if absent else "storages"
            reason = f"no partition table yet; waits for {names}, or for `neoadmin start`"
        else:
            reason = "no partition table yet; waits for `neoadmin start`"
        self.set_state(ClusterState.RECOVERING, reason)

    def names_there(self) -> set[str]:
        """Return the names of the storages that are connected or parked."""
        names = {self.connected[n].name for n in self.peers(Role.STORAGE)}
        return names | {hello.name for hello, _ in self.parked.values() if hello.role == Role.STORAGE}

    def replied_names(self) -> set[str]:
        """Return the names of the storages that have told what they have."""
        return {self.connected[n].name for n in self.replies}

    def check_founding(self) -> None:
        """Make the first partition table when everybody who shall be in it has told that it has none."""
        if self.is_running or self.start_need is not None or self.newest_table().partitions:
            return
        if self.founding is None and self.settings.auto_start:
            wanted = frozenset(s.name for s in self.settings.storages)
            if wanted and wanted <= self.names_there():
                self.begin_founding(wanted)
        unheard = [n for n in self.peers(Role.STORAGE) if n not in self.replies]
        if self.founding is not None and self.founding <= self.replied_names() and not unheard:
            self.found()

    def begin_founding(self, names: frozenset[str]) -> None:
        """Let in the storages for which the first table is made; those without id get one, in the order of names."""
        self.founding = names
        self.admit_parked()

    def found(self) -> None:
        """Make the first partition table, and the cluster's id."""
        assert self.founding is not None
        nodes = sorted(n for n in self.replies if self.connected[n].name in self.founding)
        version = Version(self.epoch, Ptid(1))
        table = first_table(nodes, self.settings.partitions, self.settings.replicas, version)
        self.cluster_id = self.rng.getrandbits(128).to_bytes(16, "big")
        self.log(INFO, f"first table: {table.partitions} partitions, {table.replicas} replicas, on {self.texts(nodes)}")
        self.set_state(ClusterState.VERIFYING, "begins")
        self.next_oid = Oid(1)
        self.start(table, [])

    # ------------------------------------------------------------------------------------------ deciding

    def try_start(self) -> None:
        """Go on with recovery, if nothing is missing."""
        if not self.is_primary or self.is_running or self.start_need is not None or self.state is ClusterState.STOPPING:
            return
        self.replies.update(self.behind)
        self.behind.clear()
        self.check_chosen()
        chosen = self.chosen
        table = self.newest_table() if chosen is None else chosen.table
        if not table.partitions:
            self.check_founding()
            self.explain()
            return
        torn = chosen is None and self.why_torn(table)
        self.leave_behind(table)
        self.older = self.older_disks(table)
        missing = self.missing(table) if chosen is None else []
        if torn or (missing and self.is_patient(table)):
            self.grace_until = None
            self.explain()
            return
        if self.grace_until is None:
            self.grace_until = Seconds(self.now.monotonic + self.settings.grace_s)
            self.set_state(ClusterState.VERIFYING, "decides about unfinished transactions")
        self.trim_replies(table)
        tids = self.found_decisions(table)
        verdict = self.judge(table, tids)
        if not verdict.is_complete:
            self.explain()
            return
        self.before = table.version.epoch
        self.decide(tids, verdict)
        self.lift_last()
        self.pending = verdict.pending
        self.aborted = {t.ttid: t.attempt for t in verdict.aborts}
        self.warn_of_older(table)
        if missing:
            self.log(WARNING, f"goes on without storages {self.texts(missing)}: their cells are out of date")
        left_out = set(self.replies) - set(self.who_counts(table)) - self.new_storages()
        if chosen is not None:
            self.start(self.chosen_table(chosen), verdict.aborts, left_out=left_out)
        else:
            self.start(self.cleaned(table, missing), verdict.aborts, table, left_out)

    def new_storages(self) -> set[NodeId]:
        """Return the storages that have no table yet."""
        return {n for n, reply in self.replies.items() if not reply.table.partitions}

    def cleaned(self, table: PartitionTable, missing: Sequence[NodeId] = ()) -> PartitionTable:
        """Return the table of the new reign: joins that were under way begin again; who is left out is out of date.

        A FEEDING cell leads where all UP_TO_DATE ones are left out.
        """
        rows = []
        for row in table.rows:
            there: list[Cell] = []
            left_out: list[Cell] = []
            for n, s in row:
                is_late = s == CellState.JOINING or (n in missing and s.is_readable)
                state = CellState.OUT_OF_DATE if is_late else s
                check_cell(s, state)
                (left_out if n in missing and s.is_readable else there).append(Cell(n, state))
            rows.append((*with_lead(there), *left_out))
        version = Version(self.epoch, Ptid(table.version.ptid + 1))
        return PartitionTable(version, table.replicas, rows, self.orders_of(table.orders, version))

    def found_decisions(self, table: PartitionTable) -> dict[Ttid, Decision]:
        """Return what is decided already: as readable nodes say, else other nodes, else clients, else this process.

        What clients know counts only for a transaction that still has votes: of others, it is either durable in the
        databases, or was given another tid by a recovery that the client has not seen (`welcome` finds that out).
        The same goes for what this process has decided itself, in the last reign that there was.
        """
        readable = table.readable_nodes()
        found: dict[Ttid, Decision] = {}
        for storage in sorted(self.who_counts(table), key=lambda n: (n not in readable, n)):
            for decision in self.replies[storage].decisions:
                known = found.get(decision.ttid)
                if known is None:
                    found[decision.ttid] = decision
                elif known.tid != decision.tid and storage in readable:
                    two = f"{known.tid:#x}, and {decision.tid:#x} on {self.text(storage)}"
                    self.log(ERROR, f"{decision.ttid} has two tids: {two}")
                elif not known.parts and decision.parts:
                    found[decision.ttid] = known._replace(parts=decision.parts)
        voted = {r.ttid for reply in self.replies.values() for r in reply.voted}
        for client in sorted(self.hellos):
            for decision in self.hellos[client].known:
                if decision.ttid in voted:
                    found.setdefault(decision.ttid, decision)
        epoch, decisions = self.own_past
        for decision in decisions if epoch == table.version.epoch else ():
            if decision.ttid in voted:
                found.setdefault(decision.ttid, decision)
        return found

    def who_counts(self, table: PartitionTable) -> list[NodeId]:
        """Return the storages whose decisions and tombstones count: readable ones, and those of the same reign.

        Who was left out of that reign knows nothing that matters, and may have what no reign has ever confirmed. So has
        an old disk, unless an operator goes on with it.
        """
        readable, epoch, line = table.readable_nodes(), table.version.epoch, table.orders.line
        found = []
        for n, reply in sorted(self.replies.items()):
            is_same_reign = reply.table.version.epoch == epoch and reply.table.orders.line == line
            if (n in readable or is_same_reign) and (n not in self.older or self.is_heir(n, table)):
                found.append(n)
        return found

    def is_heir(self, storage: NodeId, table: PartitionTable) -> bool:
        """Whether a partition goes on with what that storage has, although its disk is old."""
        return any(storage in self.there(table, p) for p in table.partitions_of(storage))

    def there(self, table: PartitionTable, partition: Partition) -> list[NodeId]:
        """Return the readable cells of a partition that have told what they have; old disks if there are no others."""
        nodes = [n for n in table.readable(partition) if n in self.replies]
        return [n for n in nodes if n not in self.older] or nodes

    def votes_by_transaction(self) -> dict[Ttid, list[tuple[NodeId, RecordHead]]]:
        """Return every voted record with the storage that has it, by transaction, in a defined order."""
        votes: dict[Ttid, list[tuple[NodeId, RecordHead]]] = {}
        for storage in sorted(self.replies):
            for record in self.replies[storage].voted:
                votes.setdefault(record.ttid, []).append((storage, record))
        return votes

    def is_voted_fully(self, table: PartitionTable, votes: list[tuple[NodeId, RecordHead]], attempt: int) -> bool:
        """Whether every readable cell of every partition that it touches has its record, of that attempt.

        Where an operator goes on without any cell of a partition nobody can know: nothing is kept by halves.
        """
        have = {(n, r.partition) for n, r in votes if r.attempt == attempt}
        parts = next((r.parts for _, r in votes if r.attempt == attempt), ())
        there = [(p, self.there(table, p)) for p in parts]
        return bool(parts) and all(nodes and all((n, p) in have for n in nodes) for p, nodes in there)

    def has_tombstone(self, table: PartitionTable, ttid: Ttid, attempt: int) -> bool:
        """Whether anybody whose word counts has made an abort of that attempt durable."""
        replies = (self.replies[n] for n in self.who_counts(table))
        return any(t.ttid == ttid and t.attempt >= attempt for reply in replies for t in reply.tombstones)

    def is_grace_over(self) -> bool:
        """Whether clients have had time enough to come back."""
        return self.grace_until is not None and self.now.monotonic >= self.grace_until

    def judge(self, table: PartitionTable, decided: dict[Ttid, Decision]) -> Verdict:
        """Decide about what was voted and is not decided.

        A record counts on a readable cell only. In this order: not fully voted, aborted by its client, or a tombstone:
        aborted. Its client is there and votes or has voted: left to it. The client is there and knows nothing of that
        attempt: aborted. The client is not there: wait for the grace. Mode A and not sealed: left to a client that
        finishes, else aborted. Otherwise it may have been acknowledged: committed.
        """
        verdict = Verdict([], [], set(), True)
        hellos = {h.session: h for _, h in sorted(self.hellos.items()) if h.session}
        votes = self.votes_by_transaction()
        waits = False
        for ttid in sorted(votes):
            if ttid in decided:
                continue
            counting = [(n, r) for n, r in votes[ttid] if n in self.there(table, r.partition)]
            attempt = max((r.attempt for _, r in counting), default=0)
            mine = [r for _, r in counting if r.attempt == attempt]
            hello = hellos.get(ttid.session)
            progress = progress_of(hello, ttid, attempt)
            is_mode_a = any(r.mode == Mode.A for _, r in votes[ttid])
            is_sealed = any(r.mode == Mode.C and r.partition == min(r.parts) for r in mine)
            if (
                not self.is_voted_fully(table, counting, attempt)
                or progress == Progress.ABORTING
                or self.has_tombstone(table, ttid, attempt)
            ):
                verdict.aborts.append(Tombstone(ttid, max(r.attempt for _, r in votes[ttid])))
            elif progress in (Progress.VOTING, Progress.VOTED) or (
                is_mode_a and not is_sealed and progress == Progress.FINISHING
            ):
                verdict.pending.add((ttid, attempt))
            elif progress is None and hello is not None:
                verdict.aborts.append(Tombstone(ttid, attempt))  # the client has withdrawn this attempt
            elif progress is None and not self.is_grace_over():
                waits = True
            elif is_mode_a and not is_sealed:
                verdict.aborts.append(Tombstone(ttid, attempt))
            else:
                floor, given = max(r.floor for r in mine), max(r.given_tid for r in mine)
                verdict.doubts.append(Doubt(floor, ttid, attempt, mine[0].parts, given))
        return verdict._replace(doubts=self.ordered(verdict.doubts), is_complete=not waits)

    def ordered(self, doubts: list[Doubt]) -> list[Doubt]:
        """Return them in the order of their floors: so none gets a tid below that of one that it could have seen.

        First those that bring their tids: while there is one, nothing else was committed (`settle_import`).
        """
        return sorted(doubts, key=lambda doubt: (not doubt.given_tid, doubt))

    def decide(self, decided: dict[Ttid, Decision], verdict: Verdict) -> None:
        """Give tids to what was in doubt; begin above all that a former primary may have given."""
        replies = self.all_replies().values()
        self.last = max([NO_TID, *(r.last for r in replies), *(d.tid for d in decided.values())])
        self.tid_floor = self.former_ceiling()
        register = self.newest_register()
        last_oids = (r.last_oid + 1 for r in replies)
        self.next_oid = Oid(max([1, register.ceilings.oid, *(r.ceilings.oid for r in replies), *last_oids]))
        self.packed = max([NO_TID, register.packed, *(r.packed for r in replies)])
        decisions = sorted(decided.values(), key=lambda d: d.tid)
        parts_of = {ttid: records[0][1].parts for ttid, records in self.votes_by_transaction().items()}
        decisions = [d if d.parts else d._replace(parts=parts_of.get(d.ttid, ())) for d in decisions]
        for doubt in verdict.doubts:
            if doubt.given_tid and doubt.given_tid <= self.last:
                self.log(WARNING, f"{doubt.ttid} wanted tid {doubt.given_tid:#x}, not above {self.last:#x}: aborted")
                verdict.aborts.append(Tombstone(doubt.ttid, doubt.attempt))
                continue
            if not self.rests_on_commits(doubt):
                self.log(
                    WARNING, f"{doubt.ttid} of an import rests on tid {doubt.floor:#x}, which is not there: aborted"
                )
                verdict.aborts.append(Tombstone(doubt.ttid, doubt.attempt))
                continue
            self.last = doubt.given_tid or Tid(max(self.last, self.tid_floor) + 1)
            decisions.append(Decision(doubt.ttid, doubt.attempt, self.last, doubt.parts))
        self.decided = {d.ttid: d for d in decisions}

    def rests_on_commits(self, doubt: Doubt) -> bool:
        """Whether what went before it is committed. An import votes a transaction while the one before it, whose tid is
        its floor, is still being finished: what is there must be a beginning of what was copied."""
        return not doubt.given_tid or doubt.floor <= self.last

    def former_ceiling(self) -> Tid:
        """Return the highest tid that a former primary may have given: those above what is durable are not reused."""
        held = self.newest_register().ceilings.tid
        return Tid(max([1, held, *(r.ceilings.tid for r in self.all_replies().values())]) - 1)

    # ------------------------------------------------------------------------------------------ starting

    def start(
        self,
        table: PartitionTable,
        aborts: list[Tombstone],
        former: PartitionTable = EMPTY,
        left_out: Collection[NodeId] = (),
    ) -> None:
        """Have all of it made durable on everybody who is there.

        If it takes readable cells away from *former*, a majority of the masters has it first; if an operator has chosen
        it, every master that is there. Who was *left_out* of the reign before is adopted later: so it forgets what it
        took for decided.
        """
        if self.cluster_id == NO_ID:
            self.cluster_id = self.known_cluster_id()
        self.pt = table
        self.set_stable()
        if former.partitions:
            self.stable_pt = former  # until the cluster runs: who comes to power meanwhile may begin with that one
        self.index_table()
        self.name_table_nodes()
        self.voters = self.first_voters()
        self.ceilings = self.first_ceilings()
        self.begin_holding(table, former)
        decisions = tuple(self.decided.values())
        for storage in sorted(left_out):
            self.late[storage] = hello_of(self.replies.pop(storage))
        self.start_need = set(self.replies)
        self.turn_away_behind()
        start = Start(self.epoch, self.cluster_id, whole(table), self.ceilings, decisions, tuple(aborts))
        self.starts = {storage: start for storage in sorted(self.replies)}
        if self.chosen is None and self.may_start_at_once(table, former):
            self.send_starts()
        else:
            self.put_forward(table)
        self.explain()

    def may_start_at_once(self, table: PartitionTable, former: PartitionTable) -> bool:
        """Whether storages may hear of the table before the masters: nobody is left out."""
        return former.readable_nodes() <= table.readable_nodes()

    def send_starts(self) -> None:
        """Begin the reign at the storages."""
        starts, self.starts = self.starts, {}
        for storage in sorted(starts):
            self.tell_nodes(storage)
            self.obeying.add(storage)
            self.told_tid[storage] = self.last
            self.start_sent[storage] = self.now.monotonic
            self.sent_pt[storage] = self.pt
            self.send(storage, starts[storage])

    def on_start_ok(self, storage: NodeId, packet: StartOk) -> None:
        """Start, or Adopt, is durable there."""
        if packet.epoch != self.epoch or storage not in self.obeying:
            return
        self.lease_given(storage, self.start_sent[storage])
        self.adopted.add(storage)
        if self.is_running:
            self.serves(storage)
            self.acked(storage, self.adopted_with.get(storage, NO_TID))
            self.pump()
        elif self.start_need is not None:
            self.start_need.discard(storage)
            self.pt_have.add(storage)
            if not self.start_need and self.proposed is None:
                self.put_forward(self.pt)
            self.try_run()

    def serves(self, storage: NodeId) -> None:
        """Tell everybody that *storage* is ready, if it has cells."""
        if storage in self.pt.nodes():
            self.change_node(storage, NodeState.RUNNING)
            self.mark_leaving(storage)
        self.readiness.node_changed(storage, True)

    def try_run(self) -> None:
        """Serve, when all that recovery has decided is durable everywhere."""
        if self.start_need != set() or self.is_running or self.state is ClusterState.STOPPING:
            self.explain()
            return
        if not self.is_covered():
            self.set_state(ClusterState.VERIFYING, "waits for masters: a majority must hold the partition table")
            return
        self.is_running = self.is_failover = True
        self.set_stable()
        self.cut_to = None
        self.chosen = None
        self.lease_seen = self.now.monotonic
        self.undurable.extend(self.decided.values())
        self.unacked = {ttid: set() for ttid in self.decided}
        if self.undurable:
            self.durable = Tid(self.undurable[0].tid - 1)
        for decision in self.undurable:
            self.must_be_told(decision)
        self.set_state(ClusterState.RUNNING)
        self.log(INFO, f"RUNNING: table {self.pt.version}, last tid {self.last:#x}, {len(self.decided)} decisions")
        for storage in sorted(self.adopted):
            self.serves(storage)
        self.advance_durable()
        self.repeat_pack()
        hellos, self.hellos = self.hellos, {}
        for client in sorted(hellos):
            self.welcome(client, hellos[client])
        late, self.late = self.late, {}
        for storage in sorted(late):
            if storage in self.connected:
                self.on_storage_hello(storage, late[storage])
        for storage in sorted(self.pt.readable_nodes() - set(self.connected)):
            self.request_change(Demote(storage))
        for ttid, _ in sorted(self.pending):
            if ttid.session not in self.client_of:
                self.lose_session(ttid.session)
        self.admit_parked()
        self.pump()

    def restart_recovery(self, reason: str) -> None:
        """Begin recovery again, under a higher epoch: somebody who was counted is lost.

        Clients stay: what they have said in CHello is still true, as they are silent until Welcome.
        """
        self.log(WARNING, f"recovery begins again: {reason}")
        hellos, nodes, founding, count = self.hellos, self.nodes, self.founding, self.client_count
        state, told, cut_to = self.state, self.told_state, self.cut_to
        self.seen_epoch = max(self.seen_epoch, self.epoch)
        self.forget_reign()
        self.hellos, self.nodes, self.founding, self.client_count = hellos, nodes, founding, count
        self.state, self.told_state, self.cut_to = state, told, cut_to
        self.raise_epoch()
        self.tell_masters()
        self.set_state(ClusterState.RECOVERING, reason)
        self.fence_all()
        self.explain()

    def recovery_storage_lost(self, storage: NodeId) -> None:
        """A storage is lost before the cluster runs."""
        self.late.pop(storage, None)
        self.behind.pop(storage, None)
        self.fence_sent.pop(storage, None)
        counted = self.replies.pop(storage, None) is not None
        if self.start_need is not None and counted:
            self.restart_recovery(f"{self.text(storage)} is lost before the cluster was RUNNING")
        elif self.start_need is None:
            if self.state is ClusterState.VERIFYING:
                self.set_state(ClusterState.RECOVERING, f"{self.text(storage)} is lost")
            self.try_start()

    # ------------------------------------------------------------------------------------------ adopting

    def adopt(self, storage: NodeId, hello: SHello) -> None:
        """Take a storage into a running cluster: tell it all that is decided, settle what it had voted.

        What it has voted and nobody will finish is aborted: that of sessions given up or unknown.
        """
        kill = dict(self.aborted)
        for ttid, attempt, parts in hello.voted:
            if self.is_orphan(ttid, attempt):
                self.begin_abort(ttid, attempt, parts, NO_NODE, "")
                kill[ttid] = max(attempt, kill.get(ttid, 0))
        decisions = tuple(sorted(self.decisions_above_mark(), key=lambda d: d.tid))
        if self.last < hello.last <= tid_from_time(self.now.wall + self.settings.clock_jump_s):
            self.tid_floor = max(self.tid_floor, hello.last)  # of a line that was given up: not to be given again
        self.adopted.discard(storage)
        self.obeying.add(storage)
        self.told_tid[storage] = self.last
        self.adopted_with[storage] = self.last
        self.start_sent[storage] = self.now.monotonic
        self.tell_nodes(storage)
        self.send(
            storage,
            Adopt(
                self.epoch,
                self.cluster_id,
                self.table_for(storage, is_whole=True),
                self.stable_pt.version == self.pt.version and not self.is_taken_back,
                self.ceilings_asked or self.ceilings,
                decisions,
                tuple(Tombstone(ttid, kill[ttid]) for ttid in sorted(kill)),
                tuple(self.gone),
                self.packed,
            ),
        )
        for ttid in sorted(self.sealing):
            if storage in self.pt.written(min(self.sealing[ttid].finish.parts)):
                self.seal(ttid)
        self.tell_pack(storage)
        self.pump()

    def is_orphan(self, ttid: Ttid, attempt: int) -> bool:
        """Whether an undecided vote has nobody who will finish it."""
        if ttid in self.decided or self.aborted.get(ttid, 0) >= attempt or ttid in self.sealing:
            return False
        session = ttid.session
        return session in self.gone or not (session in self.client_of or session in self.lost)


def with_lead(row: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return a row in which a FEEDING cell, which has all that it had, takes the place of the last UP_TO_DATE one."""
    heir = next((i for i, c in enumerate(row) if c.state is CellState.FEEDING), None)
    if heir is None or any(c.state is CellState.UP_TO_DATE for c in row):
        return tuple(row)
    return (*row[:heir], Cell(row[heir].node, CellState.UP_TO_DATE), *row[heir + 1 :])


def progress_of(hello: CHello | None, ttid: Ttid, attempt: int) -> Progress | None:
    """Return how far its client says it is with that attempt; None if it does not speak of it."""
    if hello is None:
        return None
    return next((u.progress for u in hello.underway if u.ttid == ttid and u.attempt == attempt), None)
