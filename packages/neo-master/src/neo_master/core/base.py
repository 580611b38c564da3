"""What a master knows, and how its parts reach each other. Pure.

`MasterCore` (in `master`) is made of parts, each a class with one concern. They share the state that is listed here,
and call each other through the methods that are abstract here. What it knew of a reign dies with the reign
(`forget_reign`); on disk it has what `Kept` says.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

from neo_common.core import Accept, Disconnect, Log, Park, Refuse, Send
from neo_common.ids import (
    NO_EPOCH,
    NO_NODE,
    NO_TID,
    Epoch,
    Instant,
    NodeId,
    Oid,
    Partition,
    Seconds,
    Session,
    Tid,
    Ttid,
    Version,
)
from neo_common.model.nodes import NodeTable
from neo_common.model.orders import Choice, Orders
from neo_common.model.partition_table import EMPTY, PartitionTable, Readiness, Row, TableUpdate, whole
from neo_common.states import ClusterState, NodeState, Role, node_text, role_of
from neo_common.wire.schema import (
    Ceilings,
    CellCopy,
    CHello,
    Claim,
    Decision,
    Fenced,
    Finding,
    Finish,
    Hello,
    MHello,
    NodeInfo,
    NodeScrub,
    Packet,
    Page,
    Promised,
    Register,
    SHello,
    Start,
    StorageState,
    Voter,
)
from neo_master.core.holding import NEWEST_MAX, UNHEARD_MAX, Holding
from neo_master.core.settings import Configured, MasterSettings

DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
NO_ID: Final = bytes(16)


class Chance(Protocol):
    """A source of random bits: `random.Random`, or the system's."""

    def getrandbits(self, k: int, /) -> int:
        """Return an integer with that many random bits."""


class Exit(NamedTuple):
    """Stop the process with that status, once all output is written."""

    status: int
    reason: str


class Kept(NamedTuple):
    """What a master has on disk."""

    memory: bytes
    """16 bytes, made by chance when there was nothing: who has lost its disk is not taken for who remembers."""
    promised: Epoch
    """It hears no epoch below this one."""
    register: Register
    """What it holds for the next primary."""


NOTHING_HELD: Final = Register(NO_EPOCH, 0, NO_ID, whole(EMPTY), (), (), Ceilings(NO_TID, Oid(0)), NO_TID, NO_TID)


class Store(NamedTuple):
    """Make `kept` durable, instead of what was; then `Stored(number)`. In order: the last one is enough."""

    number: int
    kept: Kept


class Stored(NamedTuple):
    """Event: what that `Store`, and every one before it, has said is durable."""

    number: int


class Note(NamedTuple):
    """Write that page behind those before it, at leisure: nothing waits for it."""

    page: Page


class Terminate(NamedTuple):
    """Event: this process is asked to end (SIGTERM)."""

    reason: str


Effect = Send | Disconnect | Accept | Park | Refuse | Log | Store | Note | Exit


class Place(Enum):
    """What this master is among the masters."""

    ELECTING = "electing"
    SECONDARY = "secondary"
    PRIMARY = "primary"


class Aborting(NamedTuple):
    """An abort that is not durable yet: AbortOk has come from `done`."""

    attempt: int
    parts: tuple[Partition, ...]
    done: set[NodeId]
    client: NodeId
    """Who is told when it is durable; NO_NODE for nobody."""
    text: str


class Sealing(NamedTuple):
    """A Finish in mode A: SealOk has come from `done`."""

    client: NodeId
    finish: Finish
    done: set[NodeId]


class Seeking(NamedTuple):
    """A transaction that is looked for in the history above a tid.

    `asked`: the partitions whose cells have not answered, with the storage that was asked, NO_NODE if none could be.
    """

    attempt: int
    above: Tid
    parts: tuple[Partition, ...]
    asked: dict[Partition, NodeId]


class Demote(NamedTuple):
    """Table change: put every cell of *node* out of date, where another one is UP_TO_DATE."""

    node: NodeId


class DemoteCell(NamedTuple):
    """Table change: put that cell out of date, if it is JOINING or another one is UP_TO_DATE."""

    partition: Partition
    node: NodeId


class Join(NamedTuple):
    """Table change: OUT_OF_DATE cells of *node* become JOINING."""

    node: NodeId
    partitions: tuple[Partition, ...]


class Promote(NamedTuple):
    """Table change: the cell of *node* that began to join with *version* becomes UP_TO_DATE."""

    partition: Partition
    node: NodeId
    version: Version


class MoveLead(NamedTuple):
    """Table change: the lead of *partition* goes to the end of the row, if another cell is UP_TO_DATE."""

    partition: Partition


class Begin(NamedTuple):
    """Table change: orders and number of copies, with the first step towards the goal if there is one."""

    orders: Orders
    replicas: int


class Advance(NamedTuple):
    """Table change: a step towards the goal, as `moving.next_rows` made it for the table of this moment."""

    rows: tuple[tuple[Partition, Row], ...]


class Drop(NamedTuple):
    """Table change: *node* has no cells any more, where another one is UP_TO_DATE."""

    node: NodeId


class Corrupt(NamedTuple):
    """Table change: the cell of *node* is CORRUPTED, if another one is UP_TO_DATE."""

    partition: Partition
    node: NodeId


class Rebuild(NamedTuple):
    """Table change: the CORRUPTED cell of *node*, mended as far as it can be by itself, is OUT_OF_DATE."""

    partition: Partition
    node: NodeId


Change = Corrupt | Rebuild | Demote | DemoteCell | Join | Promote | MoveLead | Begin | Advance | Drop


class TableChange(NamedTuple):
    """A table and what else its beginning notes."""

    table: PartitionTable
    rows: dict[Partition, Row]
    promoted: tuple[tuple[Partition, NodeId], ...]
    joined: tuple[tuple[Partition, NodeId], ...]


class Waiting(NamedTuple):
    """A request of a client that waits for a ceiling."""

    client: NodeId
    packet: Packet
    request: int


class PackOrder:
    """A pack under way, or the last one."""

    __slots__ = ("asked_by", "done", "number", "progress", "started", "tid")

    def __init__(self, number: int, tid: Tid, started: Seconds) -> None:
        self.number = number
        self.tid = tid
        self.started = started
        self.progress: dict[NodeId, tuple[int, int, int, int] | None] = {}
        """Cells done, cells in all, revisions and bytes removed; None until the order is durable there."""
        self.done = (0, 0, 0, 0)
        """The sum over storages that are gone."""
        self.asked_by: list[tuple[NodeId, int]] = []
        """Who waits for AnswerPack."""


class Chosen(NamedTuple):
    """The table that an operator has chosen, as long as recovery has not begun with it."""

    choice: Choice
    table: PartitionTable
    storages: frozenset[NodeId]
    """Those that were there: with others it is another choice."""
    use_stale: bool
    make_empty: bool


class Collecting(NamedTuple):
    """A Collect under way."""

    client: NodeId
    request: int
    missing: set[NodeId]
    removed: list[int]


class MasterBase(ABC):
    """The state of a master, and the calls between its parts."""

    def __init__(
        self,
        me: NodeId,
        settings: MasterSettings,
        masters: Sequence[Configured],
        rng: Chance,
        kept: Kept | None = None,
        holding: Holding | None = None,
    ) -> None:
        self.me: Final = me
        self.settings: Final = settings
        self.masters: Final = tuple(masters)
        """Every configured master, this one included, in the order of the configuration: that of the election too."""
        self.rng: Final = rng
        self.now = Instant(Seconds(0.0), Seconds(0.0))
        """Time of the event that is being handled."""
        self.effects: list[Effect] = []
        self.given: set[NodeId] = set()
        """Ids that this event has given to storages."""
        """What the event that is being handled has brought so far."""

        # -- of the process
        self.started = False
        self.connected: dict[NodeId, Hello] = {}
        """Every peer that has passed the handshake."""
        self.parked: dict[int, tuple[Hello, str]] = {}
        """Who waits to be let in, by handle, with the reason that it was told."""
        self.said_hello: set[NodeId] = set()
        """Storages whose SHello has come over their connection."""
        self.place = Place.ELECTING
        self.election_deadline = Seconds(0.0)
        self.said: dict[NodeId, MHello] = {}
        """The last word of each connected master."""
        self.silent: set[NodeId] = set()
        """Masters that have not renewed a lease and have said nothing since: they hang, or cannot be reached."""
        self.told_masters: MHello | None = None
        self.primary = NO_NODE
        self.seen_epoch = NO_EPOCH
        """The highest epoch heard of."""
        self.is_failover = False
        """Whether this process has followed a primary, or was one: those who do not come now are gone."""
        self.primary_seen = Seconds(0.0)

        # -- on disk, and whom it hears
        self.memory, self.promised, self.register = kept or (b"", NO_EPOCH, NOTHING_HELD)
        self.register_table: PartitionTable = (
            self.register.table.apply(EMPTY) if self.register.table.partitions else EMPTY
        )
        self.holding = holding or Holding()
        """What is settled, as far as this master was told."""
        self.store_number = 0
        self.when_stored: deque[tuple[int, Callable[[], None]]] = deque()
        """What waits for a `Store`, oldest first."""
        self.lease_to = NO_NODE
        """The master that may believe that this one hears nobody else; itself while it is primary."""
        self.lease_end = Seconds(0.0)
        self.claims: dict[NodeId, Claim] = {}
        """Claims that wait for the end of a lease."""
        self.clock_reference: Instant | None = None
        self.clock_refused = False
        self.forget_reign()

    def forget_reign(self) -> None:
        """Begin without knowing anything."""
        # -- the cluster
        self.state = ClusterState.RECOVERING
        self.reason = ""
        self.is_running = False
        """Whether recovery is over: commits are decided here (in STOPPING too)."""
        self.told_state: tuple[ClusterState, str] | None = None
        self.epoch: Epoch = NO_EPOCH
        self.cluster_id = NO_ID
        self.nodes = NodeTable()
        self.nodes_changed: set[NodeId] = set()
        self.admins_outdated = False
        self.readiness = Readiness()
        self.storage_states: dict[NodeId, StorageState] = {}

        # -- the partition table
        self.pt: PartitionTable = EMPTY
        self.stable_pt: PartitionTable = EMPTY
        """The last table that was durable wherever it must be."""
        self.stable_readable: frozenset[NodeId] = frozenset()
        """The nodes readable in it."""
        self.pt_have: set[NodeId] = set()
        """The storages that have made `pt` durable."""
        self.next_change: TableChange | None = None
        """A change that the masters must hold before storages hear of it."""
        self.is_taken_back = False
        """Whether the promotion under way is to be undone: nobody shall rely on `pt`."""
        self.sent_pt: dict[NodeId, PartitionTable] = {}
        """The last table that each peer was sent over its connection."""
        self.changes: deque[Change] = deque()
        self.new_orders: tuple[Orders, int] | None = None
        """Orders and number of copies that the change which is being made brings."""
        self.pt_need: set[NodeId] | None = None
        """The nodes that must still make `pt` durable; None when it is stable."""
        self.promoting: tuple[tuple[Partition, NodeId], ...] = ()
        self.joining: dict[tuple[Partition, NodeId], Version] = {}
        """The version with which each cell began to join."""
        self.out_of_date: dict[NodeId, list[Partition]] = {}
        """The OUT_OF_DATE cells of each node that has any."""
        self.is_joining: frozenset[NodeId] = frozenset()
        """Nodes with a cell that is JOINING."""
        self.rejoin: dict[NodeId, tuple[Seconds, float]] = {}
        """When cells of a node may join again, and the delay after the next failure."""
        self.caught_up: set[tuple[Partition, NodeId]] = set()
        """OUT_OF_DATE cells that have history up to near the present, over the connection that there is."""
        self.damaged: dict[tuple[Partition, NodeId], None] = {}
        """Cells that were found wrong and are still in service: no other cell was UP_TO_DATE."""
        self.findings: deque[Finding] = deque(maxlen=100)
        """What was found wrong, oldest first."""
        self.scrubs: dict[NodeId, NodeScrub] = {}
        self.copying: dict[NodeId, tuple[CellCopy, ...]] = {}
        """What each storage copies now, as it has told last."""
        self.goal: tuple[tuple[NodeId, ...], ...] | None = None
        """The nodes that each row shall have, the lead first; None when nothing is ordered, or it is to be planned."""
        self.order_answers: list[tuple[NodeId, int, Packet]] = []
        """What those who gave orders are told when the table that carries them is stable: peer, request, answer."""
        self.cut_to: Tid | None = None
        """The tid that recovery truncates to, as an operator has ordered."""
        self.is_trimmed = False
        """Whether recovery has cut something off."""
        self.goal_cells = 0
        """How many cells were to be made when it was planned."""
        self.away_alerted: set[NodeId] = set()
        """Storages that the operator was told of, as they are away for long."""

        # -- tids, oids
        self.last: Tid = NO_TID
        """The last tid given."""
        self.tid_floor: Tid = NO_TID
        """Tids that this primary chooses are above it: the ceilings of the former ones."""
        self.next_oid: Oid = Oid(1)
        self.ceilings = Ceilings(NO_TID, Oid(0))
        """Durable on every readable node."""
        self.ceilings_asked: Ceilings | None = None
        self.ceilings_need: set[NodeId] = set()
        self.waiting: deque[Waiting] = deque()
        self.has_waited = False
        """While what has waited for a ceiling is handled again."""

        # -- transactions
        self.decided: dict[Ttid, Decision] = {}
        """Commits above the durable mark, in the order of their tids; and those whose lost client may still ask."""
        self.undurable: deque[Decision] = deque()
        """Commits above the durable mark, in the order of their tids."""
        self.unacked: dict[Ttid, set[NodeId]] = {}
        """Where a commit above the durable mark is not durable yet."""
        self.untold: dict[Ttid, Seconds] = {}
        """Commits whose client may not know it, and until when that counts."""
        self.untold_of: dict[Session, deque[Decision]] = {}
        """The same by session, in the order of tids."""
        self.kept_answers: deque[Ttid] = deque()
        """Those in `decided` at or below the durable mark, oldest first."""
        self.durable: Tid = NO_TID
        """The durable mark D."""
        self.told_tid: dict[NodeId, Tid] = {}
        """Up to which tid each storage in service knows every decision, over its connection."""
        self.sealing: dict[Ttid, Sealing] = {}
        self.aborted: dict[Ttid, int] = {}
        """The highest aborted attempt."""
        self.abort_forgettable: deque[Ttid] = deque()
        self.aborting: dict[Ttid, Aborting] = {}
        self.pending: set[tuple[Ttid, int]] = set()
        """Voted under an earlier primary, left to their client."""
        self.answers: dict[NodeId, deque[tuple[Ttid | None, Packet, int]]] = {}
        """With `finish_durable`: what a client gets, in this order, once the first commit in it is durable."""

        # -- clients
        self.session_count = 0
        self.clients: dict[NodeId, Session] = {}
        """Who is welcome, under which session."""
        self.client_of: dict[Session, NodeId] = {}
        self.read_only: set[NodeId] = set()
        self.hellos: dict[NodeId, CHello] = {}
        """Who waits for Welcome."""
        self.lost: dict[Session, Seconds] = {}
        """Sessions whose connection was lost, and until when they may come back."""
        self.gone: dict[Session, None] = {}
        """Sessions given up, oldest first."""
        self.going: dict[Session, set[NodeId]] = {}
        """Sessions given up; which storages have told what they had voted."""
        self.seeking: dict[Ttid, Seeking] = {}
        """What clients wait for of whom nobody remembers what became of it."""
        self.absent: set[Ttid] = set()
        """Of these no history knows; until their client is welcome."""
        self.importer: Session | None = None
        self.import_asked: list[tuple[NodeId, int]] = []
        """Who waits until an import has begun, or has ended, with which request."""
        self.client_count = 0
        """For fresh node ids: the highest number given or seen."""

        # -- storages
        self.obeying: set[NodeId] = set()
        """Storages that were sent Start or Adopt over their connection."""
        self.adopted: set[NodeId] = set()
        """Storages connected that know, durably, all that was decided before."""
        self.adopted_with: dict[NodeId, Tid] = {}
        """Up to which tid the Adopt of a storage had the decisions."""
        self.lease_until: dict[NodeId, Seconds] = {}
        self.lease_seen: Seconds = Seconds(0.0)
        """When a lease was last valid."""
        self.renew_number = 0
        self.renews: dict[int, Seconds] = {}
        """When each Renew without an answer of everybody was sent."""
        self.renew_at: Seconds = Seconds(0.0)
        self.start_sent: dict[NodeId, Seconds] = {}

        # -- the register
        self.promises: dict[NodeId, Promised] = {}
        """Masters that hear this epoch, durably, this one included."""
        self.claim_sent: dict[NodeId, Seconds] = {}
        self.master_leases: dict[NodeId, Seconds] = {}
        self.voters: tuple[Voter, ...] = ()
        """The masters that count in a majority."""
        self.register_number = 0
        self.proposed: Register | None = None
        """The register that was put forward last, and its table."""
        self.proposed_table: PartitionTable = EMPTY
        self.held: set[tuple[NodeId, bytes]] = set()
        """Who holds it, with which memory."""
        self.covered_until: Seconds = Seconds(0.0)
        """Until when leases are known to be a cover; 0 when that must be looked at."""
        self.rows_key: object = None
        self.rows_found: frozenset[frozenset[NodeId]] = frozenset()

        # -- what is settled
        self.fresh: deque[Decision] = deque(maxlen=NEWEST_MAX)
        """Commits that the durable mark has passed since masters were told."""
        self.fresh_unheard: deque[Decision] = deque(maxlen=UNHEARD_MAX)
        """Those of them whose client was not seen to hear."""
        self.settle_at = Seconds(0.0)
        self.positions: dict[NodeId, int] = {}
        """How many log records each storage with readable cells has, durably."""
        self.informed: set[NodeId] = set()
        """Masters that were told all that is held, over their connection."""
        self.offered: dict[NodeId, Holding] = {}
        """What the others have told that they hold."""
        self.older: frozenset[NodeId] = frozenset()
        """Storages there whose disks are older than they were, as recovery has found."""
        self.older_told: frozenset[NodeId] = frozenset()

        # -- recovery
        self.starts: dict[NodeId, Start] = {}
        """Starts that wait until a majority holds the table."""
        self.patience_until: Seconds | None = None
        """Until when recovery waits for storages that it could do without."""
        self.chosen: Chosen | None = None
        self.behind: dict[NodeId, Fenced] = {}
        """What those have told that have gone another way than the table that recovery goes on with."""
        self.turned_away: dict[NodeId, int] = {}
        """Storages that have gone another way, with their incarnations."""
        self.fence_sent: dict[NodeId, Epoch] = {}
        """The last Fence sent to each storage over its connection."""
        self.was_fenced: dict[NodeId, Epoch] = {}
        """The same over all its connections."""
        self.replies: dict[NodeId, Fenced] = {}
        self.start_need: set[NodeId] | None = None
        """Who has not confirmed Start; None before it is sent."""
        self.late: dict[NodeId, SHello] = {}
        """Storages that came between Start and RUNNING."""
        self.grace_until: Seconds | None = None
        self.before: Epoch = NO_EPOCH
        """The reign whose tables and decisions recovery has found."""
        self.founding: frozenset[str] | None = None
        """Names of the storages that the first table is made for."""

        # -- packs
        self.packed: Tid = NO_TID
        self.pack: PackOrder | None = None
        self.pack_count = 0
        self.collecting: dict[int, Collecting] = {}
        self.collect_count = 0

        # -- the end
        self.stop_deadline: Seconds | None = None
        self.stop_told: set[NodeId] | None = None
        """Storages that were told to stop and have not hung up; None before."""

    # ------------------------------------------------------------------------------------------ effects

    def send(self, peer: NodeId, packet: Packet, request: int = 0) -> None:
        """Send *packet*, or the answer to *request*."""
        self.effects.append(Send(peer, packet, request))

    def log(self, level: int, text: str) -> None:
        """Tell the operator."""
        self.effects.append(Log(level, text))

    # ------------------------------------------------------------------------------------------ who is there

    @property
    def is_primary(self) -> bool:
        """Whether this master is in charge."""
        return self.place is Place.PRIMARY

    def peers(self, role: Role) -> list[NodeId]:
        """Return the connected nodes of a role, ascending."""
        return sorted(n for n in self.connected if role_of(n) == role)

    def text(self, node: NodeId) -> str:
        """Return how people call *node*: name and id."""
        info = self.nodes.get(node)
        name = info.name if info is not None else ""
        name = name or next((n.name for n in self.settings.storages if n.node == node), "")
        return f"{name} ({node_text(node)})" if name else node_text(node)

    # ------------------------------------------------------------------------------------------ between the parts

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
    def packs_storage_lost(self, storage: NodeId) -> None:
        """Do not wait for it any more (packs)."""

    @abstractmethod
    def begin_founding(self, names: frozenset[str]) -> None:
        """Let in the storages for which the first table is made (recovery)."""

    @abstractmethod
    def check_stop(self) -> None:
        """Go on with stopping (admin)."""
