"""When recovery cannot go on by itself: which tables were found, what each would lose, the operator's choice. Pure.

A choice begins a new *line* of history: its id goes with the table from then on (docs/masters.md, "Chosen by an
operator"). Who has a table of another line was not there: what it has beyond counts no more, and it is not let in
before the operator says so. Where it cannot be told which line is the later one, nobody goes on without a choice.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from neo_common.ids import NO_NODE, NO_TID, NO_VERSION, NodeId, Partition, Ptid, Tid, Version, tid_from_time
from neo_common.model.orders import CHOICES_MAX, REASON_BYTES, Choice, Orders, is_beginning
from neo_common.model.partition_table import EMPTY, Cell, PartitionTable, Row, TableUpdate, whole
from neo_common.states import CellState, ClusterState, NodeState, Role, role_of
from neo_common.wire.schema import (
    AnswerChoose,
    AnswerReadmit,
    AnswerRecovery,
    AskChoose,
    AskReadmit,
    AskRecovery,
    Error,
    ErrorCode,
    Fenced,
    FoundTable,
    Register,
    SHello,
    VotedId,
    Voter,
)
from neo_master.core.base import MasterBase
from neo_master.core.changes import Begin
from neo_master.core.effects import WARNING
from neo_master.core.underway import Chosen

DECISIONS_MAX: Final = 100
PARTITIONS_SHOWN: Final = 12
_REIGNS: Final = 2
"""How many may have begun in a hurry before a choice, each above the ceilings of the one before."""
_U, _F, _O, _C = CellState.UP_TO_DATE, CellState.FEEDING, CellState.OUT_OF_DATE, CellState.CORRUPTED


class Kind(NamedTuple):
    """The partitions of a table by what is there of them."""

    stale: tuple[Partition, ...]
    lost: tuple[Partition, ...]


class Choices(MasterBase):
    """Show, choose, leave behind, readmit."""

    # ------------------------------------------------------------------------------------------ what was found

    def all_replies(self) -> dict[NodeId, Fenced]:
        """Return what every storage has told, whether it counts or not."""
        return {**self.replies, **self.behind}

    def known_registers(self) -> dict[NodeId, Register]:
        """Return what the masters that hear us hold, this one included."""
        return {self.me: self.register, **{m: p.register for m, p in self.promises.items()}}

    def found_updates(self) -> list[TableUpdate]:
        """Return every partition table that storages and masters have, newest first."""
        updates = [reply.table for _, reply in sorted(self.all_replies().items())]
        updates += [register.table for _, register in sorted(self.known_registers().items())]
        distinct = {(u.version, u.orders.line): u for u in updates if u.partitions}
        return [distinct[key] for key in sorted(distinct, reverse=True)]

    def found_tables(self) -> list[PartitionTable]:
        """Return the same as tables."""
        return [u.apply(EMPTY) for u in self.found_updates()]

    def why_torn(self, newest: PartitionTable) -> str:
        """Return who has gone another way than the newest table, so that recovery cannot tell what counts; or nothing.

        What goes on from a choice counts more than what was before it. But not if the choice is unknown to the newest
        table, or if somebody who had not heard of it has gone on after it, and was not readmitted since.
        """
        line = newest.orders.line
        for table in self.found_updates():
            if not is_beginning(table.orders.line, line):
                return f"table {table.version} is of another line of history than table {newest.version}"
        for storage, reply in sorted(self.all_replies().items()):
            mine = reply.table.orders.line
            if reply.table.partitions and mine != line and storage not in newest.orders.readmitted:
                choice = newest.orders.choices[len(mine)]
                # Tids run ahead of the clock: a reign begins above the ceilings of the one before.
                ahead_s = _REIGNS * self.settings.ceiling_ahead_s
                if reply.last > max(choice.known, tid_from_time(choice.at + ahead_s)):
                    return f"{self.text(storage)} has gone on after table {choice.table} was chosen"
        return ""

    def belongs(self, storage: NodeId, reply: Fenced, table: PartitionTable) -> bool:
        """Whether that storage has gone no further than *table*, and no other way.

        One that was there when *table* was chosen and has not heard of it yet belongs too: it is readable in it.
        """
        own, line = reply.table, table.orders.line
        if not own.partitions or storage in table.orders.readmitted:
            return True
        if own.orders.line == line:
            return own.version <= table.version
        was_there = storage in table.readable_nodes() and own.orders.line == line[:-1]
        return was_there and own.version <= table.orders.choices[-1].table

    def leave_behind(self, table: PartitionTable) -> None:
        """Count only those that belong to *table*."""
        for storage in sorted(self.replies):
            if not self.belongs(storage, self.replies[storage], table):
                self.behind[storage] = self.replies.pop(storage)

    def readable_there(self, table: PartitionTable, partition: Partition, there: Iterable[NodeId]) -> list[NodeId]:
        """Return the readable cells of a row on storages that have their disks."""
        replies = self.all_replies()
        return [n for n in table.readable(partition) if n in there and replies[n].table.partitions]

    def stale_there(
        self, table: PartitionTable, partition: Partition, there: Iterable[NodeId], older: frozenset[NodeId]
    ) -> list[NodeId]:
        """Return the other cells of a row that are there, the one that is likely to have most first.

        Those that should be readable are among them if their disks are *older* than they were.
        """
        replies = self.all_replies()
        found = [
            (state == _C, -replies[n].last, n)
            for n, state in table.rows[partition]
            if n in there and (n in older or not state.is_readable) and is_cell_of(replies[n], partition, n)
        ]
        return [n for _, _, n in sorted(found)]

    def kinds(self, table: PartitionTable, there: Iterable[NodeId]) -> Kind:
        """Return the partitions without a readable cell there."""
        there, older = set(there), self.older_disks(table)
        stale: list[Partition] = []
        lost: list[Partition] = []
        for p in map(Partition, range(table.partitions)):
            if not self.readable_there(table, p, there - older):
                (stale if self.stale_there(table, p, there, older) else lost).append(p)
        return Kind(tuple(stale), tuple(lost))

    # ------------------------------------------------------------------------------------------ showing it

    def on_ask_recovery(self, peer: NodeId, packet: AskRecovery, request: int) -> None:
        """Show every table, and what it would lose."""
        if packet.begin and self.is_running:
            if self.state is not ClusterState.RUNNING or not self.readiness.rows_not_ready:
                text = f"the cluster is {self.state.name}, every partition can be read: there is nothing to choose"
                self.send(peer, Error(ErrorCode.ILLEGAL, text), request)
                return
            text = f"an operator wants to choose: {self.reason or 'partitions cannot be read'}"
            for client in self.peers(Role.CLIENT):
                self.cut(client, text)
            self.restart_recovery(text)
        is_over = self.is_running or self.start_need is not None
        tables = [] if is_over else self.found_tables()
        newest = self.pt if self.pt.partitions else self.newest_table()
        self.send(
            peer,
            AnswerRecovery(
                self.state,
                self.reason,
                bool(not is_over and self.why_torn(newest)),
                bool(tables) and self.state is ClusterState.RECOVERING,
                tuple(sorted(self.all_replies())),
                tuple(sorted(self.promises)),
                len(self.masters),
                tuple(self.described(table, newest) for table in tables),
                whole(newest),
            ),
            request,
        )

    def described(self, table: PartitionTable, newest: PartitionTable) -> FoundTable:
        """Return what would become of the cluster with *table*."""
        replies, registers = self.all_replies(), self.known_registers()
        there = [n for n in sorted(replies) if self.belongs(n, replies[n], table)]
        behind = [n for n in sorted(replies) if n not in there]
        older = self.older_disks(table)
        whole = set(there) - older
        readable = {n for p in range(table.partitions) for n in self.readable_there(table, Partition(p), whole)}
        kinds = self.kinds(table, there)
        kept = {d.ttid for n in there for d in replies[n].decisions}
        lost = {d.ttid: d for n in behind for d in replies[n].decisions if d.ttid not in kept}
        voted = {r.ttid for n in there for r in replies[n].voted}
        votes = {r.ttid for n in behind for r in replies[n].voted} - voted - kept - set(lost)
        lost.update(
            (d.ttid, d) for d in self.missing_commits(table, self.best_there(table, there)) if d.ttid not in kept
        )
        return FoundTable(
            version=table.version,
            choice=choice_of(table.orders),
            is_newest=table.version == newest.version and table.orders.line == newest.orders.line,
            since=min((r.last for r in registers.values() if r.table.version == table.version), default=NO_TID),
            storages=tuple(n for n in sorted(replies) if is_of(replies[n], table)),
            masters=tuple(m for m in sorted(registers) if registers[m].table.version == table.version),
            there=tuple(sorted(readable)),
            missing=tuple(sorted(table.readable_nodes() - readable)),
            behind=tuple(behind),
            stale=kinds.stale,
            lost=kinds.lost,
            older=tuple(sorted(older & table.readable_nodes())),
            last=self.last_of(there),
            known=max(self.last_of(replies), self.last_held(table), *(r.last for r in registers.values())),
            decisions=tuple(sorted(lost.values(), key=lambda d: d.tid)[:DECISIONS_MAX]),
            votes=len(votes),
        )

    def best_there(self, table: PartitionTable, there: Iterable[NodeId]) -> dict[Partition, Tid]:
        """Return, by partition, the last tid of the cell with which *table* would go on; 0 where there is none.

        It is that of the storage, and perhaps of another of its partitions: what is missing is above.
        """
        there, older = set(there), self.older_disks(table)
        replies, found = self.all_replies(), dict[Partition, Tid]()
        for p in map(Partition, range(table.partitions)):
            nodes = self.readable_there(table, p, there - older) or self.stale_there(table, p, there, older)
            found[p] = max((replies[n].last for n in nodes), default=NO_TID)
        return found

    def last_of(self, storages: Iterable[NodeId]) -> Tid:
        """Return the highest tid that those storages know."""
        replies = [reply for n, reply in self.all_replies().items() if n in set(storages)]
        return max([NO_TID, *(r.last for r in replies), *(d.tid for r in replies for d in r.decisions)])

    # ------------------------------------------------------------------------------------------ choosing

    def on_ask_choose(self, peer: NodeId, packet: AskChoose, request: int) -> None:
        """Go on with the table that an operator wants."""
        if self.starts and not self.is_running:  # nothing has left this master yet
            self.restart_recovery("an operator wants to choose a partition table")
        refusal = self.choose_refusal(packet)
        if refusal is not None:
            self.send(peer, refusal, request)
            return
        table = next(t for t in self.found_tables() if t.version == packet.version)
        told = self.described(table, self.newest_table())
        number = self.rng.getrandbits(64) or 1
        reason = packet.reason.encode()[:REASON_BYTES].decode(errors="ignore")
        known = max(told.known, told.last)
        choice = Choice(number, int(self.now.wall), table.version, told.last, known, reason)
        self.chosen = Chosen(choice, table, frozenset(packet.storages), packet.use_stale, packet.make_empty)
        text = f"an operator has chosen partition table {table.version}: {reason}. {self.loss_text(told)}"
        self.log(WARNING, text)
        self.send(peer, AnswerChoose(number, text), request)
        self.try_start()

    def choose_refusal(self, packet: AskChoose) -> Error | None:
        """Return why that is not legal now, and what would be; None if it is."""
        ready, illegal = ErrorCode.NOT_READY, ErrorCode.ILLEGAL
        if self.is_running or self.state is not ClusterState.RECOVERING or self.start_need is not None:
            return Error(illegal, f"a table is chosen while the cluster is RECOVERING: it is {self.state.name}")
        replies = self.all_replies()
        unheard = [n for n in self.peers(Role.STORAGE) if n not in replies]
        unheard += [n for n in self.peers(Role.MASTER) if n not in self.promises]
        if unheard or self.me not in self.promises:
            return Error(ready, f"{self.texts(unheard) or 'this master'} has not told what is there: try again")
        if set(packet.storages) != set(replies):
            there = self.texts(replies) or "none"
            return Error(ready, f"the storages that are there have changed: now {there}. Look again, then choose")
        tables = [t for t in self.found_tables() if t.version == packet.version]
        if len(tables) != 1:
            found = ", ".join(str(t.version) for t in self.found_tables()) or "none"
            return Error(illegal, f"there are {len(tables)} tables {packet.version}; found: {found}")
        newest = self.newest_table()
        is_newest = tables[0].version == newest.version and not self.why_torn(newest)
        if is_newest and (not self.missing(newest) or self.can_do_without(newest)):
            return Error(illegal, f"table {newest.version} needs no choice: recovery goes on with it by itself")
        if len(tables[0].orders.choices) >= CHOICES_MAX:
            return Error(illegal, f"{CHOICES_MAX} choices were made in this cluster: export it, and import it anew")
        belonging = [n for n in replies if self.belongs(n, replies[n], tables[0])]
        kinds = self.kinds(tables[0], belonging)
        if not belonging or len(kinds.lost) == tables[0].partitions:
            return Error(illegal, f"no storage is there that has anything of table {packet.version}")
        if kinds.stale and not packet.use_stale:
            text = f"of partitions {numbers_text(kinds.stale)} only cells that are not up to date are there: they lack "
            return Error(illegal, text + "what was committed since they were, and may have gaps: --stale to use them")
        if kinds.lost and not packet.make_empty:
            text = f"of partitions {numbers_text(kinds.lost)} no cell is there: all their objects would be lost: "
            return Error(illegal, text + "--empty to go on without them")
        return None

    def loss_text(self, told: FoundTable) -> str:
        """Return what is lost, for people."""
        last = f"kept up to tid {told.last:016x}"
        lost = [f"known up to {told.known:016x}: what is between is lost"] if told.known > told.last else []
        lost += [f"{len(told.stale)} partitions go on with old data ({numbers_text(told.stale)})"] if told.stale else []
        lost += [f"{len(told.lost)} partitions begin empty ({numbers_text(told.lost)})"] if told.lost else []
        left = sorted({*told.behind, *told.missing})
        lost += [f"left behind, with all that they alone have: {self.texts(left)}"] if left else []
        return "; ".join([last, *lost])

    def check_chosen(self) -> None:
        """Forget the choice when it was made for other storages than those that are there now."""
        if self.chosen is not None and set(self.all_replies()) != self.chosen.storages:
            there = self.texts(self.all_replies()) or "none"
            self.log(WARNING, f"table {self.chosen.table.version} is not chosen any more: there are now {there}")
            self.chosen = None
            self.grace_until = None

    def chosen_table(self, chosen: Chosen) -> PartitionTable:
        """Return the first table of the new line."""
        table, there = chosen.table, set(self.replies)
        older = self.older_disks(table)
        room = {n: len(table.partitions_of(n)) for n in sorted(there)}
        rows = []
        for p in map(Partition, range(table.partitions)):
            readable = self.readable_there(table, p, there - older)
            heirs = readable or self.stale_there(table, p, there, older)[:1]
            if not heirs:
                heirs = [min(room, key=lambda n: (room[n], n))]
                room[heirs[0]] += 1
            rows.append(row_of(table.rows[p], heirs, is_readable=bool(readable)))
        version = Version(self.epoch, Ptid(table.version.ptid + 1))
        leaving = tuple(n for n in table.orders.leaving if n in there)
        orders = table.orders._replace(choices=(*table.orders.choices, chosen.choice), readmitted=(), leaving=leaving)
        return PartitionTable(version, table.replicas, rows, orders)

    def first_voters(self) -> tuple[Voter, ...]:
        """Return the masters that count in a majority from now on: after a choice those that are there."""
        if self.chosen is None:
            return self.newest_register().voters
        return tuple(Voter(m, self.promises[m].memory) for m in sorted(self.promises))

    # ------------------------------------------------------------------------------------------ who was left behind

    def is_of_line(self, storage: NodeId, hello: SHello) -> bool:
        """Whether that storage may come into the running cluster: it is new, of this line of history, or readmitted."""
        orders = self.pt.orders
        is_ours = hello.version == NO_VERSION or hello.choice == choice_of(orders)
        return is_ours or storage in orders.readmitted

    def turn_away_behind(self) -> None:
        """The reign begins: send those away that do not belong to it."""
        behind, self.behind = sorted(self.behind), {}
        for storage in behind:
            self.turn_away(storage)

    def turn_away(self, storage: NodeId) -> None:
        """Send a storage away that has gone another way, and do not let it in again before the operator says so."""
        self.turned_away[storage] = self.connected[storage].incarnation
        self.send_away(storage, self.behind_text(storage))
        self.change_node(storage, NodeState(self.nodes[storage].state), self.behind_text(storage))

    def behind_text(self, storage: NodeId) -> str:
        """Return why it is not let in, and what the operator can do."""
        name = self.nodes[storage].name if storage in self.nodes else ""
        return (
            "left behind by the choice of another partition table: what it alone has is not part of this cluster. "
            f"`neoadmin recovery readmit {name or storage & 0xFFFFFF}` lets it in and discards that"
        )

    def on_ask_readmit(self, peer: NodeId, packet: AskReadmit, request: int) -> None:
        """Let storages in that were left behind."""
        orders, replicas = self.last_ordered()
        wrong = [n for n in packet.nodes if role_of(n) is not Role.STORAGE or n == NO_NODE]
        if self.state is not ClusterState.RUNNING or wrong or not orders.choices:
            text = f"storages are readmitted to a RUNNING cluster that has left some behind: it is {self.state.name}"
            text = f"{self.texts(wrong)} is not a storage" if wrong else text
            self.send(peer, Error(ErrorCode.ILLEGAL, text), request)
            return
        text = f"{self.texts(packet.nodes)}: let in again; what was committed there alone is discarded"
        self.log(WARNING, f"{text}: {packet.reason}")
        for node in packet.nodes:
            self.turned_away.pop(node, None)
        readmitted = tuple(sorted({*orders.readmitted, *packet.nodes}))
        self.request_change(Begin(orders._replace(readmitted=readmitted), replicas))
        self.answer_order(peer, request, AnswerReadmit(text))


def choice_of(orders: Orders) -> int:
    """Return the id of the last choice, 0 if there is none."""
    return orders.choices[-1].id if orders.choices else 0


def is_of(reply: Fenced, table: PartitionTable) -> bool:
    """Whether that is the table that a storage has."""
    return reply.table.partitions > 0 and (reply.table.version, reply.table.orders.line) == (
        table.version,
        table.orders.line,
    )


def is_cell_of(reply: Fenced, partition: Partition, node: NodeId) -> bool:
    """Whether a storage has a cell of that partition, as it knows itself."""
    return any(p == partition and any(n == node for n, _ in row) for p, row in reply.table.rows)


def row_of(row: Row, heirs: list[NodeId], *, is_readable: bool) -> Row:
    """Return a row of the new line: the heirs in their order, the others out of date."""
    states = dict(row)
    kept = [Cell(n, states[n] if is_readable else _U) for n in heirs]
    if not any(c.state == _U for c in kept):
        kept[0] = Cell(kept[0].node, _U)
    rest = [Cell(n, _O) for n, _ in row if n not in heirs]
    return (*kept, *rest)


def numbers_text(partitions: tuple[Partition, ...]) -> str:
    """Return partitions for people, not too many.

    >>> numbers_text((Partition(1), Partition(3)))
    '1, 3'
    """
    shown = ", ".join(str(p) for p in partitions[:PARTITIONS_SHOWN])
    more = len(partitions) - PARTITIONS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def hello_of(reply: Fenced) -> SHello:
    """Return what a storage that has told all says of itself."""
    voted = sorted({VotedId(r.ttid, r.attempt, r.parts) for r in reply.voted})
    choice = choice_of(reply.table.orders)
    return SHello(reply.epoch, reply.table.version, tuple(voted), choice, reply.last, reply.position)
