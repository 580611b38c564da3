"""What a master knows: the state that its parts share. Pure.

`MasterCore` (in `master`) is made of parts, each a class with one concern. They share the state that is listed here,
and call each other through the methods of `calls`. What it knew of a reign dies with the reign (`forget_reign`); on
disk it has what `Kept` says, and its notes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from neo_common.core import Log, Send
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
from neo_common.model.orders import Orders
from neo_common.model.partition_table import EMPTY, PartitionTable, Readiness
from neo_common.states import ClusterState, Role, node_text, role_of
from neo_common.wire.schema import (
    Ceilings,
    CellCopy,
    CHello,
    Claim,
    Decision,
    Fenced,
    Finding,
    Hello,
    MHello,
    NodeScrub,
    Packet,
    Promised,
    Register,
    SHello,
    Start,
    StorageState,
    Voter,
)
from neo_master.core.calls import Calls
from neo_master.core.changes import Change, TableChange
from neo_master.core.effects import NO_ID, NOTHING_HELD, Effect, Kept
from neo_master.core.holding import NEWEST_MAX, UNHEARD_MAX, Holding
from neo_master.core.settings import Configured, MasterSettings
from neo_master.core.underway import Aborting, Chosen, Collecting, PackOrder, Place, Sealing, Seeking, Waiting


class Chance(Protocol):
    """A source of random bits: `random.Random`, or the system's."""

    def getrandbits(self, k: int, /) -> int:
        """Return an integer with that many random bits."""


class MasterBase(Calls):
    """The state of a master."""

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
        """What the event that is being handled has brought so far."""
        self.given: set[NodeId] = set()
        """Ids that this event has given to storages."""

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
        self.own_past: tuple[Epoch, tuple[Decision, ...]] = (NO_EPOCH, ())
        """The last reign of this process, and its commits that were not known to be durable when it stepped down."""
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
