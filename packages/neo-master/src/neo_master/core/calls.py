"""How the parts of a master call each other. Pure.

Each method is made by the part in brackets.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from neo_common.ids import Epoch, NodeId, Partition, Seconds, Session, Tid, Ttid, Version
from neo_common.model.orders import Orders
from neo_common.model.partition_table import PartitionTable, Row, TableUpdate
from neo_common.states import ClusterState, NodeState
from neo_common.wire.schema import (
    Ceilings,
    CHello,
    Decision,
    Fenced,
    Finish,
    MHello,
    NodeInfo,
    Packet,
    Promised,
    Register,
    SHello,
    Voter,
)
from neo_master.core.changes import Change
from neo_master.core.underway import Chosen


class Calls(ABC):
    """What a part may ask of another one."""

    @abstractmethod
    def admit_parked(self) -> None:
        """Look again at everybody who waits to be let in (master)."""

    @abstractmethod
    def cut(self, peer: NodeId, reason: str) -> None:
        """Close a connection, and see to what follows from its loss (master)."""

    @abstractmethod
    def send_away(self, peer: NodeId, reason: str) -> None:
        """Close a connection that should not have been: tell the operator too (master)."""

    @abstractmethod
    def change_node(self, node: NodeId, state: NodeState, reason: str = "") -> None:
        """Change the state of a node, and have it told (roster)."""

    @abstractmethod
    def begin_roster(self) -> None:
        """Begin with the nodes that the configuration names (roster)."""

    @abstractmethod
    def nodes_for_clients(self) -> tuple[NodeInfo, ...]:
        """Return the storages that clients may know (roster)."""

    @abstractmethod
    def name_table_nodes(self) -> None:
        """Have every node of the partition table in the node table (roster)."""

    @abstractmethod
    def tell_nodes(self, peer: NodeId) -> None:
        """Send the node table, as far as it concerns *peer* (roster)."""

    @abstractmethod
    def set_state(self, state: ClusterState, reason: str = "") -> None:
        """Change the state of the cluster, or its reason (master)."""

    @abstractmethod
    def step_down(self, reason: str) -> None:
        """Be primary no more (election)."""

    @abstractmethod
    def raise_epoch(self) -> None:
        """Reign under an epoch above every one heard of; begin recovery from its start (election)."""

    @abstractmethod
    def tell_masters(self) -> None:
        """Say what this master is, if that has changed (election)."""

    @abstractmethod
    def lease_given(self, storage: NodeId, since: Seconds) -> None:
        """*storage* hears nobody else for a while after *since* (election)."""

    @abstractmethod
    def begin_reign(self) -> None:
        """Begin recovery (recovery)."""

    @abstractmethod
    def try_start(self) -> None:
        """Go on with recovery, if nothing is missing (recovery)."""

    @abstractmethod
    def fence_all(self) -> None:
        """Send Fence to every storage that lacks it (recovery)."""

    @abstractmethod
    def newest_table(self) -> PartitionTable:
        """Return the newest table that recovery has found (recovery)."""

    @abstractmethod
    def missing(self, table: PartitionTable) -> list[NodeId]:
        """Return the nodes that recovery must wait for (recovery)."""

    @abstractmethod
    def can_do_without(self, table: PartitionTable) -> bool:
        """Whether recovery may go on without those that are missing (recovery)."""

    @abstractmethod
    def why_torn(self, newest: PartitionTable) -> str:
        """Return why recovery cannot tell which table counts, nothing if it can (choices)."""

    @abstractmethod
    def all_replies(self) -> dict[NodeId, Fenced]:
        """Return what every storage has told (choices)."""

    @abstractmethod
    def leave_behind(self, table: PartitionTable) -> None:
        """Count only those that belong to *table* (choices)."""

    @abstractmethod
    def check_chosen(self) -> None:
        """Forget a choice that was made for other storages (choices)."""

    @abstractmethod
    def chosen_table(self, chosen: Chosen) -> PartitionTable:
        """Return the first table of a new line (choices)."""

    @abstractmethod
    def first_voters(self) -> tuple[Voter, ...]:
        """Return the masters that count in a majority of this reign, at its beginning (choices)."""

    @abstractmethod
    def is_of_line(self, storage: NodeId, hello: SHello) -> bool:
        """Whether a storage may come into the running cluster (choices)."""

    @abstractmethod
    def turn_away_behind(self) -> None:
        """Send those away that do not belong to the reign (choices)."""

    @abstractmethod
    def turn_away(self, storage: NodeId) -> None:
        """Send a storage away that has gone another way (choices)."""

    @abstractmethod
    def behind_text(self, storage: NodeId) -> str:
        """Return why it is not let in (choices)."""

    @abstractmethod
    def is_founded_in_vain(self, table: PartitionTable) -> bool:
        """Whether *table* is the first of all, and nothing was ever stored under it (recovery)."""

    @abstractmethod
    def known_cluster_id(self) -> bytes:
        """Return the id of the cluster, zeros if nobody knows it (recovery)."""

    @abstractmethod
    def names_there(self) -> set[str]:
        """Return the names of the storages that are connected or parked (recovery)."""

    @abstractmethod
    def texts(self, nodes: Iterable[NodeId]) -> str:
        """Return the names of nodes, for people (recovery)."""

    @abstractmethod
    def restart_recovery(self, reason: str) -> None:
        """Begin recovery again, under a higher epoch (recovery)."""

    @abstractmethod
    def adopt(self, storage: NodeId, hello: SHello) -> None:
        """Take a storage into a running cluster (recovery)."""

    @abstractmethod
    def valid_lease(self) -> bool:
        """Whether this master may decide (election)."""

    @abstractmethod
    def my_hello(self) -> MHello:
        """Return what this master is now (election)."""

    @abstractmethod
    def claim(self) -> None:
        """Have every master hear this epoch (register)."""

    @abstractmethod
    def claim_from(self, master: NodeId) -> None:
        """Have one master hear this epoch (register)."""

    @abstractmethod
    def put_forward(self, table: PartitionTable) -> None:
        """Have masters hold a new register (register)."""

    @abstractmethod
    def newest_register(self) -> Register:
        """Return the newest one that the masters that hear us hold (register)."""

    @abstractmethod
    def is_majority(self, who: Iterable[tuple[NodeId, bytes]]) -> bool:
        """Whether those masters are more than half of the voters (register)."""

    @abstractmethod
    def is_covered(self) -> bool:
        """Whether nobody can come to power without meeting the newest table (register)."""

    @abstractmethod
    def is_row_in(self, storages: Iterable[NodeId]) -> bool:
        """Whether every readable cell of some row is on one of those (register)."""

    @abstractmethod
    def is_lease_covered(self) -> bool:
        """Whether nobody can come to power without waiting for the end of a lease (register)."""

    @abstractmethod
    def lease_holder(self) -> NodeId:
        """Return the other master that may believe that this one hears nobody else (register)."""

    @property
    @abstractmethod
    def is_quorum(self) -> bool:
        """Whether there are masters enough for a majority to outlive one of them (register)."""

    @abstractmethod
    def master_of(self, epoch: Epoch) -> NodeId:
        """Return the master that reigns, or would, under *epoch* (register)."""

    @abstractmethod
    def begin_holding(self, table: PartitionTable, former: PartitionTable) -> None:
        """A reign begins: hold what was settled before (settled)."""

    @abstractmethod
    def spread(self) -> None:
        """Have masters hold what was settled (settled)."""

    @abstractmethod
    def disk_told(self, storage: NodeId, position: int) -> None:
        """So many log records of a storage are durable (settled)."""

    @abstractmethod
    def disks_changed(self) -> None:
        """A table is stable: only disks with readable cells count (settled)."""

    @abstractmethod
    def offer(self, master: NodeId) -> None:
        """Tell a claimant what is held here (settled)."""

    @abstractmethod
    def check_offered(self, master: NodeId, packet: Promised) -> None:
        """The promise ends what that master offers (settled)."""

    @abstractmethod
    def settled_decision(self, ttid: Ttid) -> Decision | None:
        """Return what became of a transaction, if it is known to be settled (settled)."""

    @abstractmethod
    def older_disks(self, table: PartitionTable) -> frozenset[NodeId]:
        """Return the storages there whose disks are older than they were (settled)."""

    @abstractmethod
    def older_text(self, storages: Iterable[NodeId]) -> str:
        """Return what is wrong with those disks (settled)."""

    @abstractmethod
    def last_held(self, table: PartitionTable) -> Tid:
        """Return the highest tid of a settled commit that is held (settled)."""

    @abstractmethod
    def is_older(self, position: int, known: int) -> bool:
        """Whether a disk with so many records is older than one that had *known* (settled)."""

    @abstractmethod
    def missing_commits(self, table: PartitionTable, best: dict[Partition, Tid]) -> list[Decision]:
        """Return the settled commits that are missing there (settled)."""

    @abstractmethod
    def send_starts(self) -> None:
        """Begin the reign at the storages (recovery)."""

    @abstractmethod
    def try_run(self) -> None:
        """Serve, if all that recovery has decided is durable (recovery)."""

    @abstractmethod
    def check_stable(self) -> None:
        """See whether the newest table is stable (tables)."""

    @property
    @abstractmethod
    def is_changing(self) -> bool:
        """Whether a change of the table is under way (tables)."""

    @abstractmethod
    def table_held(self, table: PartitionTable) -> None:
        """A majority of the masters holds that table (tables)."""

    @abstractmethod
    def readable_nodes(self) -> frozenset[NodeId]:
        """Return the nodes readable in the newest table or in the stable one (tables)."""

    @abstractmethod
    def written_in(self, partition: Partition) -> set[NodeId]:
        """Return the nodes on which a partition is written in the newest table or in the stable one (tables)."""

    @abstractmethod
    def readable_in(self, partition: Partition) -> set[NodeId]:
        """Return the nodes on which a partition is readable in the newest table or in the stable one (tables)."""

    @abstractmethod
    def request_change(self, change: Change) -> None:
        """Queue a change of the partition table (tables)."""

    @abstractmethod
    def pump(self) -> None:
        """Begin the next change of the partition table, if none is under way (tables)."""

    @abstractmethod
    def trim_replies(self, table: PartitionTable) -> None:
        """Forget what is cut off (truncation)."""

    @abstractmethod
    def lift_last(self) -> None:
        """After a truncation, begin above all tids that were ever given (truncation)."""

    @abstractmethod
    def former_ceiling(self) -> Tid:
        """Return the highest tid that a former primary may have given (recovery)."""

    @abstractmethod
    def orders_of(self, orders: Orders, version: Version) -> Orders:
        """Return the orders of the table of a new reign (truncation)."""

    @abstractmethod
    def next_step(self) -> Change | None:
        """Return the next change towards the goal (moves)."""

    @abstractmethod
    def step_rows(self) -> dict[Partition, Row]:
        """Return the rows of the next step towards the goal (moves)."""

    @abstractmethod
    def last_ordered(self) -> tuple[Orders, int]:
        """Return orders and number of copies as the last order wants them (moves)."""

    @abstractmethod
    def answer_order(self, peer: NodeId, request: int, answer: Packet) -> None:
        """Answer an order when it is durable wherever it must be (moves)."""

    @abstractmethod
    def answer_orders(self) -> None:
        """Answer orders, if the tables that carry them are stable (moves)."""

    @abstractmethod
    def placed(self) -> None:
        """A change has been made: see who has cells (moves)."""

    @abstractmethod
    def may_drop(self, row: Row, node: NodeId) -> bool:
        """Whether the cell of *node* can go from *row* (moves)."""

    @abstractmethod
    def dropped(self, node: NodeId) -> None:
        """*node* has no cells any more, by order (moves)."""

    @abstractmethod
    def mark_leaving(self, node: NodeId) -> None:
        """Show whether a storage in service is drained (moves)."""

    @abstractmethod
    def set_stable(self) -> None:
        """The newest table is stable (tables)."""

    @abstractmethod
    def index_table(self) -> None:
        """Note what is asked often of a new table (tables)."""

    @abstractmethod
    def table_for(self, peer: NodeId, *, is_whole: bool = False) -> TableUpdate:
        """Return the table as *peer* needs it, and note that it has it (tables)."""

    @abstractmethod
    def table_storage_lost(self, storage: NodeId) -> None:
        """Put its cells out of date (tables)."""

    @abstractmethod
    def on_finish(self, client: NodeId, packet: Finish) -> None:
        """Commit, or say why not (transactions)."""

    @abstractmethod
    def begin_abort(self, ttid: Ttid, attempt: int, parts: tuple[Partition, ...], client: NodeId, text: str) -> None:
        """Abort, durably (transactions)."""

    @abstractmethod
    def check_abort(self, ttid: Ttid) -> None:
        """Tell whom it concerns, if that abort is durable now (transactions)."""

    @abstractmethod
    def seal(self, ttid: Ttid) -> None:
        """Send Seal to those that lack it (transactions)."""

    @abstractmethod
    def commit(self, client: NodeId, packet: Finish) -> None:
        """Decide: commit (transactions)."""

    @abstractmethod
    def decisions_above_mark(self) -> list[Decision]:
        """Return every commit that somebody may not have, durably (transactions)."""

    @abstractmethod
    def must_be_told(self, decision: Decision) -> None:
        """Keep a commit above the durable mark until its client has heard of it (transactions)."""

    @abstractmethod
    def acked(self, storage: NodeId, upto: Tid) -> None:
        """Every commit up to *upto* is durable on *storage* (transactions)."""

    @abstractmethod
    def written_changed(self) -> None:
        """A table is stable: cells that are not written any more need not confirm (transactions)."""

    @abstractmethod
    def advance_durable(self) -> None:
        """Move the durable mark as far as it goes (transactions)."""

    @abstractmethod
    def session_given_up(self, session: Session) -> None:
        """Nobody waits for the answers to *session* any more (transactions)."""

    @abstractmethod
    def to_client(self, client: NodeId, packet: Packet, request: int = 0) -> None:
        """Send what has its place in the order of tids (transactions)."""

    @abstractmethod
    def keep_answer(self, decision: Decision) -> None:
        """Keep a decision that its client may still ask for (transactions)."""

    @abstractmethod
    def seek_on(self) -> None:
        """Ask those who have not been asked (sessions)."""

    @abstractmethod
    def seek_elsewhere(self, storage: NodeId) -> None:
        """It is lost, with what it was asked (sessions)."""

    @abstractmethod
    def went(self, session: Session) -> None:
        """See whether all has been heard of a session given up (sessions)."""

    @abstractmethod
    def rewelcome(self) -> None:
        """Welcome those clients whose aborts are durable now (sessions)."""

    @abstractmethod
    def welcome(self, client: NodeId, hello: CHello) -> None:
        """Answer a CHello (sessions)."""

    @abstractmethod
    def lose_session(self, session: Session) -> None:
        """Begin the grace of a session without connection (sessions)."""

    @abstractmethod
    def wait_for_ceiling(self, client: NodeId, packet: Packet, tid: Tid, request: int = 0) -> None:
        """Queue a request until the ceilings are higher (oids)."""

    @abstractmethod
    def check_seal(self, ttid: Ttid) -> None:
        """Commit what is sealed (transactions)."""

    @abstractmethod
    def drop_waiting(self, ttid: Ttid) -> None:
        """Forget a Finish that waits (oids)."""

    @abstractmethod
    def is_waiting(self, ttid: Ttid) -> bool:
        """Whether a Finish waits for a ceiling (oids)."""

    @abstractmethod
    def above_ceiling(self, tid: Tid) -> bool:
        """Whether *tid* must wait for higher ceilings (oids)."""

    @abstractmethod
    def ceilings_storage_lost(self, storage: NodeId) -> None:
        """Do not wait for it any more (oids)."""

    @abstractmethod
    def clock_tid(self) -> Tid:
        """Return the tid of this moment, as far as the clock is believed (oids)."""

    @abstractmethod
    def first_ceilings(self) -> Ceilings:
        """Return the ceilings for Start (oids)."""

    @abstractmethod
    def end_import(self, why: str) -> None:
        """The import is over (admin)."""

    @abstractmethod
    def settle_import(self) -> None:
        """Begin or end an import when that may be (admin)."""

    @abstractmethod
    def tell_pack(self, storage: NodeId) -> None:
        """Tell a storage of the pack under way (packs)."""

    @abstractmethod
    def repeat_pack(self) -> None:
        """A reign begins: have done what was missed of former packs (packs)."""

    @abstractmethod
    def check_pack(self) -> None:
        """Answer who has asked for a pack, if that may be by now (packs)."""

    @abstractmethod
    def packs_storage_lost(self, storage: NodeId) -> None:
        """Do not wait for it any more (packs)."""

    @abstractmethod
    def begin_founding(self, names: frozenset[str]) -> None:
        """Let in the storages for which the first table is made (recovery)."""

    @abstractmethod
    def check_stop(self) -> None:
        """Go on with stopping (admin)."""
