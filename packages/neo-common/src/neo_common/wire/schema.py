"""Every packet: its code, its fields, who may send it to whom. The single source. Pure.

The codecs, the page docs/protocol.md and the fuzzer's grammar are made from the classes below. A packet is a
NamedTuple; the annotation of a field says how it travels:

    U8 U16 U32 U64          unsigned, big-endian                 bool        one byte, 0 or 1
    Oid Tid Epoch Session   U64                                  Partition NodeId   U32      Ptid   U64
    Seconds                 IEEE double                          bytes       U32 length, then the bytes
    Bytes16                 16 bytes                             str         as bytes, in UTF-8
    an IntEnum              U8, its value checked                tuple[X, ...]      U32 count, then the items
    another NamedTuple      its fields                           X | None    one byte 0, or 1 and X
    TableUpdate             as `bytes`, packed by model.keys

A frame is `U32 length of the payload, U16 code, U32 request id, payload`. Request id 0 is a notification. An answer has
the code of its question with the bit 0x8000, and its request id. `Error` answers any question.

Packets of the commit protocol keep the names of docs/commit-protocol.md and are notifications: they are matched by
ttid and attempt, and their order on a connection is part of the protocol. Everything else is AskX and AnswerX.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Final, NamedTuple, TypeVar

from neo_common.ids import NO_TID, Epoch, NodeId, Oid, Partition, Seconds, Session, Tid, Ttid, Version
from neo_common.model.partition_table import TableUpdate
from neo_common.states import ClusterState, NodeState, Role

MAGIC: Final = b"NEO\x01"
"""Sent by both sides before their first frame. Not the first byte of a TLS record, nor of HTTP."""
PROTOCOL_VERSION: Final = 1
FRAME_MAX: Final = 16 * 2**20
"""Largest payload of a frame, in bytes."""
PIECE_BYTES: Final = 2**20
"""Values above this travel, and rest, in pieces of this size (the last one is shorter)."""
INLINE_BYTES: Final = 4 * 2**20
"""A Vote, Fwd or answer carries at most about this many bytes of values; the rest goes ahead in Store packets."""
ANSWER_CODE: Final = 0x8000

U8 = Annotated[int, "u8"]
U16 = Annotated[int, "u16"]
U32 = Annotated[int, "u32"]
U64 = Annotated[int, "u64"]
Bytes16 = Annotated[bytes, "bytes16"]

Packet = tuple[object, ...]
"""Any packet. (They have no other base: a NamedTuple cannot.)"""


class Kind(IntEnum):
    """How a packet is matched with others."""

    NOTIFICATION = 0
    QUESTION = 1
    ANSWER = 2


class PacketInfo(NamedTuple):
    """What the schema knows of a packet class."""

    code: int
    kind: Kind
    senders: frozenset[Role]
    receivers: frozenset[Role]
    cls: type


PACKETS: Final[dict[int, PacketInfo]] = {}
"""Code to packet."""
CODES: Final[dict[type, int]] = {}
"""Packet class to code."""

S, M, C, A = Role.STORAGE, Role.MASTER, Role.CLIENT, Role.ADMIN
_ALL = (S, M, C, A)
_T = TypeVar("_T", bound=type)


def _packet(code: int, kind: Kind, senders: tuple[Role, ...], receivers: tuple[Role, ...]) -> Callable[[_T], _T]:
    def register(cls: _T) -> _T:
        assert code not in PACKETS, f"{code:#x} is {PACKETS[code].cls.__name__}"
        PACKETS[code] = PacketInfo(code, kind, frozenset(senders), frozenset(receivers), cls)
        CODES[cls] = code
        return cls

    return register


def _notify(code: int, senders: tuple[Role, ...], receivers: tuple[Role, ...]) -> Callable[[_T], _T]:
    return _packet(code, Kind.NOTIFICATION, senders, receivers)


def _ask(code: int, senders: tuple[Role, ...], receivers: tuple[Role, ...]) -> Callable[[_T], _T]:
    return _packet(code, Kind.QUESTION, senders, receivers)


def _answer(code: int, senders: tuple[Role, ...], receivers: tuple[Role, ...]) -> Callable[[_T], _T]:
    """Register the answer to the question *code*; senders and receivers are the answer's."""
    return _packet(code | ANSWER_CODE, Kind.ANSWER, senders, receivers)


# ---------------------------------------------------------------------------------------------- enumerations


class RefusalCode(IntEnum):
    """Why a handshake is refused."""

    VERSION = 0
    """No protocol version in common."""
    CLUSTER = 1
    """Another cluster's name or id."""
    NOT_PRIMARY = 2
    """A master that is not in charge; `primary` says who is, if known."""
    IDENTITY = 3
    """The node id belongs to another process."""
    STOPPING = 4
    """The node or cluster is going down."""
    ROLE = 5
    """That role has no business here."""
    LIMIT = 6
    """Too many connections."""
    SECRET = 7
    """One side has no shared secret, or another one."""
    CERTIFICATE = 8
    """The certificate is for another cluster, role or name."""


class ErrorCode(IntEnum):
    """Why a question is answered with `Error`."""

    NOT_FOUND = 0
    """No such oid, or no such revision of it."""
    NOT_READABLE = 1
    """No readable cell for that oid here: ask another node, with a newer table."""
    NOT_READY = 2
    """The cluster does not serve this now: try again later."""
    ILLEGAL = 3
    """Legal nowhere, or not in this state of the cluster. The text says what would be."""
    PARTITION = 4
    """The oid is not of a partition that this storage has a cell of."""
    READ_ONLY = 5
    """Writes are not accepted."""
    NO_SPACE = 6
    """The disk is full, or above its limit."""
    TOO_LARGE = 7
    """Above a configured limit."""
    CORRUPTED = 8
    """The checksum of stored data does not hold."""
    EPOCH = 9
    """Another primary reigns."""
    DELETED = 10
    """The object exists, but was deleted, or its creation undone, at that moment."""
    INTERNAL = 11
    """Our bug; the server has the details in its log."""


class Compression(IntEnum):
    """How the stored bytes of a value are coded."""

    NONE = 0
    ZLIB = 1
    ZSTD = 2
    ABSENT = 15
    """No value: the object was deleted, or its creation undone."""


class Mode(IntEnum):
    """What recovery presumes of a fully voted transaction: C commit, A abort."""

    C = 0
    A = 1


class LockMode(IntEnum):
    """S: shared, for readCurrent. X: exclusive, for writes."""

    S = 0
    X = 1


class Progress(IntEnum):
    """How far a client is with an attempt, in CHello."""

    VOTING = 0
    VOTED = 1
    FINISHING = 2
    ABORTING = 3


class FateKind(IntEnum):
    """What became of a transaction that a client had under way, in Welcome."""

    UNCHANGED = 0
    VOTED = 1
    COMMITTED = 2
    ABORTED = 3


# ---------------------------------------------------------------------------------------------- common parts


class Data(NamedTuple):
    """A value as it travels and rests. In pieces when `size` is not 0 and `value` is empty."""

    compression: Compression
    checksum: Bytes16
    """XXH3-128, big-endian, of the stored bytes: verified without decompressing."""
    size: U64
    """Length of the stored bytes."""
    value: bytes
    """The stored bytes, or empty when they go apart, in pieces."""


class Write(NamedTuple):
    """A new revision that a transaction wants."""

    oid: Oid
    base: Tid
    """The serial that it replaces; 0 for a new object."""
    copied_from: Tid
    """The serial whose data this is a copy of (undo), or 0."""
    data: Data


class ReadCheck(NamedTuple):
    """readCurrent: *serial* must still be current when the transaction commits."""

    oid: Oid
    serial: Tid


class Metadata(NamedTuple):
    """What ZODB says of a transaction; bytes, verbatim."""

    user: bytes
    description: bytes
    extension: bytes


class Record(NamedTuple):
    """A voted record: what one transaction wants in one partition.

    On the wire the first `tentative` writes are left out when they went ahead in Store or FwdStore.
    """

    ttid: Ttid
    attempt: U32
    partition: Partition
    parts: tuple[Partition, ...]
    """Every partition that the transaction touches, ascending."""
    metadata: Metadata
    tentative: U32
    writes: tuple[Write, ...]
    reads: tuple[ReadCheck, ...]
    mode: Mode
    floor: Tid
    """The tid of this transaction will be above it."""
    given_tid: Tid
    """The tid that an import wants, or 0."""


class RecordHead(NamedTuple):
    """A voted record without its data, for recovery."""

    ttid: Ttid
    attempt: U32
    partition: Partition
    parts: tuple[Partition, ...]
    mode: Mode
    floor: Tid
    given_tid: Tid


class VotedId(NamedTuple):
    """Which transaction has votes here."""

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]


class Decision(NamedTuple):
    """A commit: ttid at that attempt became tid. `parts` is empty when unknown."""

    ttid: Ttid
    attempt: U32
    tid: Tid
    parts: tuple[Partition, ...]


class Tombstone(NamedTuple):
    """An abort of every attempt up to this one."""

    ttid: Ttid
    attempt: U32


class Ceilings(NamedTuple):
    """No tid and no oid at or above these has been given to anybody."""

    tid: Tid
    oid: Oid


class NodeInfo(NamedTuple):
    """A node, as the primary knows it."""

    node: NodeId
    name: str
    address: str
    """`host:port`, `[v6]:port` or `unix:/path`; empty for a node that does not listen."""
    state: NodeState
    incarnation: U64
    since: Seconds
    """When it entered this state, Unix time."""
    reason: str


# ---------------------------------------------------------------------------------------------- every session


@_notify(0x0001, _ALL, _ALL)
class Hello(NamedTuple):
    """First frame of who dials."""

    version_min: U16
    version_max: U16
    capabilities: tuple[str, ...]
    role: Role
    name: str
    """The name of the node in the configuration; a label for a client."""
    cluster: str
    cluster_id: Bytes16
    """Zeros when not known yet."""
    node: NodeId
    """0 when none was given yet."""
    incarnation: U64
    """Chosen at random when the process starts."""
    epoch: Epoch
    """The highest epoch that the node knows."""
    address: str
    """Where it listens, as others must dial it; empty if it does not."""


@_notify(0x0002, _ALL, _ALL)
class HelloOk(NamedTuple):
    """First frame of who was dialled, when it agrees."""

    version: U16
    capabilities: tuple[str, ...]
    role: Role
    name: str
    cluster: str
    cluster_id: Bytes16
    node: NodeId
    """The node that speaks."""
    incarnation: U64
    epoch: Epoch
    you: NodeId
    """The id of the node that dialled: given now if it had none."""


@_notify(0x0003, _ALL, _ALL)
class HelloNo(NamedTuple):
    """First frame of who was dialled, when it does not; then it closes."""

    code: RefusalCode
    reason: str
    primary: str


@_notify(0x0004, _ALL, _ALL)
class HelloWait(NamedTuple):
    """You came early: HelloOk will follow when the cluster can use you."""

    reason: str


@_notify(0x0005, _ALL, _ALL)
class Ping(NamedTuple):
    """Are you alive? Sent in idle time."""


@_notify(0x0006, _ALL, _ALL)
class Pong(NamedTuple):
    """Yes."""


@_notify(0x0007, _ALL, _ALL)
class Goodbye(NamedTuple):
    """Last frame before an orderly close."""

    reason: str


@_notify(0x0009, _ALL, _ALL)
class Challenge(NamedTuple):
    """Prove that you know the shared secret. Who dials says it before Hello, who was dialled after it."""

    role: Role
    """Of who speaks."""
    nonce: Bytes16


@_notify(0x000A, _ALL, _ALL)
class Proof(NamedTuple):
    """The answer to Challenge; who dials proves first."""

    mac: bytes
    """HMAC-SHA256 of a label for each side, both nonces, the role of who was dialled, and the frame of Hello."""


@_packet(0x0008 | ANSWER_CODE, Kind.ANSWER, _ALL, _ALL)
class Error(NamedTuple):
    """The answer to any question that cannot be answered otherwise."""

    code: ErrorCode
    text: str


# ---------------------------------------------------------------------------------------------- client and storage


@_notify(0x0101, (C,), (S,))
class Store(NamedTuple):
    """Tentative writes of a large transaction, ahead of its Vote: the `first`-th of that partition, and on.

    None at all, from 0: its client has given it up, and what went ahead for that partition is forgotten.
    """

    ttid: Ttid
    epoch: Epoch
    partition: Partition
    first: U32
    writes: tuple[Write, ...]


@_notify(0x0102, (C,), (S,))
class StorePiece(NamedTuple):
    """A piece of a value in pieces, ahead of the Store or Vote that names the oid. Offsets ascend, without gap."""

    ttid: Ttid
    epoch: Epoch
    oid: Oid
    offset: U64
    value: bytes


class Work(NamedTuple):
    """What a Vote wants in one partition."""

    partition: Partition
    tentative: U32
    """How many writes went ahead in Store. `writes` are those after them."""
    writes: tuple[Write, ...]
    reads: tuple[ReadCheck, ...]


@_notify(0x0103, (C,), (S,))
class Vote(NamedTuple):
    """Vote, at the lead, for all these partitions or for none."""

    ttid: Ttid
    attempt: U32
    epoch: Epoch
    version: Version
    parts: tuple[Partition, ...]
    metadata: Metadata
    work: tuple[Work, ...]
    mode: Mode
    known: Tid
    """The last tid that the client knows."""
    given_tid: Tid


@_notify(0x0104, (C,), (S,))
class Unvote(NamedTuple):
    """Forget the votes of every attempt up to this one, in these partitions."""

    ttid: Ttid
    attempt: U32
    epoch: Epoch
    parts: tuple[Partition, ...]


class Want(NamedTuple):
    """A lock that the ordered path asks for."""

    oid: Oid
    mode: LockMode
    base: Tid


@_notify(0x0105, (C,), (S,))
class Lock(NamedTuple):
    """The ordered path: all these locks together, waiting in order."""

    ttid: Ttid
    attempt: U32
    epoch: Epoch
    version: Version
    wants: tuple[Want, ...]


@_notify(0x0111, (S,), (C,))
class Voted(NamedTuple):
    """Durable wherever it must be, for these partitions."""

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]


class Stale(NamedTuple):
    """An object that is not at the serial that the transaction started from: its current revision."""

    oid: Oid
    serial: Tid
    data: Data | None
    """None when it is too large to be sent along: load it."""


@_notify(0x0112, (S,), (C,))
class Conflict(NamedTuple):
    """These are not at their base; nothing of this attempt was kept here."""

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]
    stale: tuple[Stale, ...]


@_notify(0x0113, (S,), (C,))
class Contended(NamedTuple):
    """Another transaction has, or waits for, a lock; nothing of this attempt was kept here."""

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]


@_notify(0x0114, (S,), (C,))
class Refused(NamedTuple):
    """This lead does not take that vote or lock. `code` NOT_READY: not the lead, or it was aborted: try again.

    Another code (NO_SPACE, TOO_LARGE, PARTITION...) is final: the transaction fails with the text.
    """

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]
    code: ErrorCode
    text: str


@_notify(0x0115, (S,), (C,))
class Locked(NamedTuple):
    """All locks of the Lock are held. `stale`: the objects that are not at their base."""

    ttid: Ttid
    attempt: U32
    stale: tuple[Stale, ...]


@_notify(0x0116, (S,), (C,))
class UnvoteOk(NamedTuple):
    """No written cell of these partitions has that vote any more."""

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]


@_ask(0x0120, (C, A), (S,))
class AskLoad(NamedTuple):
    """The last revision of *oid* with a tid below *before*."""

    epoch: Epoch
    oid: Oid
    before: Tid


@_answer(0x0120, (S,), (C, A))
class AnswerLoad(NamedTuple):
    """`end`: tid of the next revision, 0 if there is none. Error NOT_FOUND or DELETED otherwise."""

    tid: Tid
    end: Tid
    data: Data


@_ask(0x0121, (C, A), (S,))
class AskPiece(NamedTuple):
    """A piece of the value of that revision, from *offset* (a multiple of PIECE_BYTES)."""

    epoch: Epoch
    oid: Oid
    tid: Tid
    offset: U64


@_answer(0x0121, (S,), (C, A))
class AnswerPiece(NamedTuple):
    """At most PIECE_BYTES of stored bytes."""

    value: bytes


class Loaded(NamedTuple):
    """One of several loads. `data` None: error `code`."""

    oid: Oid
    tid: Tid
    end: Tid
    data: Data | None


@_ask(0x0122, (C,), (S,))
class AskLoads(NamedTuple):
    """As AskLoad, for many oids at once (prefetch)."""

    epoch: Epoch
    oids: tuple[Oid, ...]
    before: Tid


@_answer(0x0122, (S,), (C,))
class AnswerLoads(NamedTuple):
    """Those found, in any order; what is missing, undecided, elsewhere, or beyond about INLINE_BYTES is left out."""

    loaded: tuple[Loaded, ...]


class Change(NamedTuple):
    """A revision in the history of an object, without its value."""

    tid: Tid
    size: U64
    metadata: Metadata


@_ask(0x0123, (C, A), (S,))
class AskHistory(NamedTuple):
    """The last *limit* revisions of *oid*, newest first."""

    epoch: Epoch
    oid: Oid
    limit: U32


@_answer(0x0123, (S,), (C, A))
class AnswerHistory(NamedTuple):
    """Newest first."""

    changes: tuple[Change, ...]


class Revision(NamedTuple):
    """A revision within a transaction or a stream."""

    oid: Oid
    tid: Tid
    copied_from: Tid
    data: Data | None
    """None when only the fact was asked for."""


class Transaction(NamedTuple):
    """A committed transaction, as one storage has it: its own partitions' revisions only."""

    tid: Tid
    ttid: Ttid
    metadata: Metadata
    parts: tuple[Partition, ...]
    """Every partition that it touches, wherever they are."""
    revisions: tuple[Revision, ...]


@_ask(0x0124, (C, A), (S,))
class AskTransactions(NamedTuple):
    """The transactions that touch *partitions*, from *start* to *stop* (both included), in the order of their tids."""

    epoch: Epoch
    partitions: tuple[Partition, ...]
    start: Tid
    stop: Tid
    descending: bool
    """From *stop* down to *start*."""
    revisions: bool
    """With the oids of these partitions, or without."""
    values: bool
    """With their values too (those in pieces excepted)."""
    limit: U32
    """At most so many transactions; the storage may stop earlier."""


@_answer(0x0124, (S,), (C, A))
class AnswerTransactions(NamedTuple):
    """`next`: ask again from there (as `start`, or as `stop` when descending); 0 when this was the last."""

    transactions: tuple[Transaction, ...]
    next: Tid


@_ask(0x0125, (C,), (S,))
class AskRecords(NamedTuple):
    """The revisions of one partition that were current just below *before*, by ascending oid from *first* on.

    Deleted objects are left out.
    """

    epoch: Epoch
    partition: Partition
    first: Oid
    before: Tid
    limit: U32
    newer: bool
    """With the revisions at and above *before* too (for garbage collection)."""


@_answer(0x0125, (S,), (C,))
class AnswerRecords(NamedTuple):
    """`next`: the first oid not looked at, None at the end."""

    revisions: tuple[Revision, ...]
    next: Oid | None


class UndoInfo(NamedTuple):
    """What a client must know to undo what *tid* did to *oid*. Absent values have compression ABSENT."""

    oid: Oid
    current: Tid
    """The current serial; 0 when the object has no revision."""
    current_origin: Tid
    """The serial where the current data was written first: follows `copied_from`."""
    undone_origin: Tid
    """The same for the revision of *tid*."""
    previous: Tid
    """The serial before *tid*; 0 when that transaction created the object."""
    previous_origin: Tid
    """The same for it; 0 when there is none."""


@_ask(0x0126, (C,), (S,))
class AskUndo(NamedTuple):
    """How to undo what transaction *tid* did to these objects."""

    epoch: Epoch
    tid: Tid
    oids: tuple[Oid, ...]


@_answer(0x0126, (S,), (C,))
class AnswerUndo(NamedTuple):
    """One per oid asked. Error NOT_FOUND when one has no revision at *tid*."""

    objects: tuple[UndoInfo, ...]


@_ask(0x0127, (C, A, M), (S,))
class AskSizes(NamedTuple):
    """Counts and sizes of these partitions (all that the storage has, if empty)."""

    partitions: tuple[Partition, ...]


class CellSize(NamedTuple):
    """What a cell holds."""

    partition: Partition
    objects: U64
    """Distinct oids that are not deleted."""
    revisions: U64
    transactions: U64
    bytes: U64
    """Stored bytes of values."""


@_answer(0x0127, (S,), (C, A, M))
class AnswerSizes(NamedTuple):
    """One per partition asked."""

    cells: tuple[CellSize, ...]
    disk_used: U64
    """Bytes of the database and the log on disk."""
    disk_free: U64


# ---------------------------------------------------------------------------------------------- storage and storage


@_notify(0x0201, (S,), (S,))
class FwdStore(NamedTuple):
    """The lead passes a Store on."""

    epoch: Epoch
    version: Version
    store: Store


@_notify(0x0202, (S,), (S,))
class FwdPiece(NamedTuple):
    """The lead passes a StorePiece on."""

    epoch: Epoch
    version: Version
    piece: StorePiece


@_notify(0x0203, (S,), (S,))
class Fwd(NamedTuple):
    """The lead passes a vote on: the records of partitions that it leads and the receiver has a cell of."""

    epoch: Epoch
    version: Version
    records: tuple[Record, ...]


@_notify(0x0204, (S,), (S,))
class FwdOk(NamedTuple):
    """The records of these partitions are durable here."""

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]


@_notify(0x0205, (S,), (S,))
class FwdUnvote(NamedTuple):
    """The lead passes an Unvote on."""

    epoch: Epoch
    version: Version
    ttid: Ttid
    attempt: U32
    partition: Partition


@_notify(0x0206, (S,), (S,))
class FwdUnvoteOk(NamedTuple):
    """That record is forgotten here, durably."""

    ttid: Ttid
    attempt: U32
    partition: Partition


@_notify(0x0207, (S,), (S,))
class Sync(NamedTuple):
    """The lead's word on what is undecided in a partition."""

    epoch: Epoch
    version: Version
    partition: Partition
    records: tuple[Record, ...]
    decisions: tuple[Decision, ...]
    tombstones: tuple[Tombstone, ...]


class VoteId(NamedTuple):
    """A vote of one partition, by transaction and attempt."""

    ttid: Ttid
    attempt: U32


@_notify(0x0208, (S,), (S,))
class SyncOk(NamedTuple):
    """What Sync listed is durable here."""

    partition: Partition
    version: Version
    votes: tuple[VoteId, ...]


class RangeDigest(NamedTuple):
    """What a cell has of the tids from *start* to *stop*, both included, in 16 bytes (docs/replication.md)."""

    start: Tid
    stop: Tid
    revisions: U64
    digest: Bytes16


@_notify(0x0209, (S,), (S,))
class Pull(NamedTuple):
    """A cell asks for committed history: from oid *first* of tid *start* to all of tid *stop*.

    With *start* 0 (a cell that joins): for the decisions up to *stop*.
    """

    epoch: Epoch
    version: Version
    partition: Partition
    start: Tid
    stop: Tid
    first: Oid = Oid(0)
    number: U32 = 0
    """Repeated in the answer."""
    values: bool = True
    """With values; else oids, tids and checksums only."""


@_notify(0x020A, (S,), (S,))
class PullData(NamedTuple):
    """Some of it, in the order of tids and oids. `next` 0: that was all; else pull again from there.

    A transaction may be cut: what follows of it has its metadata again. Values in pieces come before, in PullPiece.
    """

    epoch: Epoch
    version: Version
    partition: Partition
    stop: Tid
    transactions: tuple[Transaction, ...]
    decisions: tuple[Decision, ...]
    next: Tid
    next_oid: Oid = Oid(0)
    number: U32 = 0


@_notify(0x020B, (S,), (S,))
class PullPiece(NamedTuple):
    """A piece of a value, ahead of the PullData that names it. Offsets ascend, without gap."""

    partition: Partition
    number: U32
    oid: Oid
    tid: Tid
    offset: U64
    value: bytes


@_notify(0x020C, (S,), (S,))
class PullNo(NamedTuple):
    """That cell is not given here, not now: ask another."""

    partition: Partition
    number: U32
    text: str
    is_damaged: bool = False
    """A value there has not its checksum."""


@_notify(0x020D, (S,), (S,))
class Compare(NamedTuple):
    """Which of these ranges are not the same at yours? Without ranges: how much is there from *start* on?

    Of tids up to *stop*, or to the last one there.
    """

    epoch: Epoch
    version: Version
    partition: Partition
    number: U32
    start: Tid
    stop: Tid
    ranges: tuple[RangeDigest, ...]


@_notify(0x020E, (S,), (S,))
class Compared(NamedTuple):
    """`different`: the places, in the question, of the ranges that differ."""

    partition: Partition
    number: U32
    stop: Tid
    """The last tid that counts."""
    revisions: U64
    """How many revisions there are from *start* to *stop*; only told without ranges."""
    different: tuple[U32, ...]
    load: U32
    """How many such questions wait here: who can choose asks the least loaded."""
    packed: Tid = NO_TID
    """To which tid the cell is packed, or is being packed."""
    is_packed: bool = True
    """Not being packed now."""


# ---------------------------------------------------------------------------------------------- client and master


class Underway(NamedTuple):
    """A transaction that a client has under way."""

    ttid: Ttid
    attempt: U32
    progress: Progress
    parts: tuple[Partition, ...]


@_notify(0x0301, (C,), (M,))
class CHello(NamedTuple):
    """A client's first word to a primary, and its promise to hear no lower epoch."""

    session: Session
    """0 for none yet."""
    epoch: Epoch
    promised: Epoch
    underway: tuple[Underway, ...]
    known: tuple[Decision, ...]
    """Commits above the durable mark that it knows."""
    last: Tid
    """The last tid that it knows."""
    read_only: bool


class Fate(NamedTuple):
    """What became of a transaction under way. `tid` only for COMMITTED."""

    ttid: Ttid
    attempt: U32
    kind: FateKind
    tid: Tid


@_notify(0x0302, (M,), (C,))
class Welcome(NamedTuple):
    """The primary's answer to CHello."""

    epoch: Epoch
    session: Session
    cluster_id: Bytes16
    table: TableUpdate
    nodes: tuple[NodeInfo, ...]
    last: Tid
    durable: Tid
    """The durable mark D."""
    fates: tuple[Fate, ...]
    reset: bool
    """A tid that the client knows is not the cluster's: drop the cache, open snapshots fail."""


@_notify(0x0303, (C,), (M,))
class Finish(NamedTuple):
    """All leads have voted: commit."""

    ttid: Ttid
    attempt: U32
    epoch: Epoch
    """That of the votes."""
    parts: tuple[Partition, ...]
    oids: tuple[Oid, ...]
    mode: Mode
    given_tid: Tid


@_notify(0x0304, (M,), (C,))
class Finished(NamedTuple):
    """It is committed."""

    ttid: Ttid
    attempt: U32
    tid: Tid


@_notify(0x0305, (C,), (M,))
class Abort(NamedTuple):
    """Abort, durably."""

    ttid: Ttid
    attempt: U32
    parts: tuple[Partition, ...]


@_notify(0x0306, (M,), (C,))
class Aborted(NamedTuple):
    """It is aborted, durably; or Finish was refused, then `text` says why."""

    ttid: Ttid
    attempt: U32
    text: str


@_notify(0x0307, (M,), (C,))
class Invalidate(NamedTuple):
    """Another client's commit. In the order of tids, without gap."""

    tid: Tid
    ttid: Ttid
    attempt: U32
    oids: tuple[Oid, ...]
    durable: Tid


@_notify(0x0308, (M,), (C, A))
class NewPT(NamedTuple):
    """A stable table."""

    table: TableUpdate


@_notify(0x0309, (M,), (C, A, S, M))
class Nodes(NamedTuple):
    """Nodes that are new or have changed; `whole`: and no others exist.

    Clients hear only of storages that can serve them.
    """

    whole: bool
    nodes: tuple[NodeInfo, ...]


@_notify(0x030A, (M,), (C, A, S))
class Cluster(NamedTuple):
    """The state of the cluster has changed."""

    state: ClusterState
    reason: str


@_notify(0x030B, (C,), (M,))
class Heard(NamedTuple):
    """The client has handled every Finished and Invalidate up to *last*.

    Sent after a Finished, at leisure (with the next Tick). Without it the primary cannot know that its answer arrived,
    must keep the decision, and cannot move the durable mark past it for a minute.
    """

    last: Tid


@_notify(0x030C, (C,), (M,))
class Leave(NamedTuple):
    """The client closes: its session is given up at once."""


@_ask(0x0320, (C,), (M,))
class AskOids(NamedTuple):
    """A range of new oids."""

    number: U32


@_answer(0x0320, (M,), (C,))
class AnswerOids(NamedTuple):
    """`number` oids from `first` on, below the durable ceiling. It may be lower than asked for, never 0."""

    first: Oid
    number: U32


@_ask(0x0321, (C,), (M,))
class AskRaiseOid(NamedTuple):
    """An import brings oids of its own: give none up to *oid* any more."""

    oid: Oid


@_answer(0x0321, (M,), (C,))
class AnswerRaiseOid(NamedTuple):
    """Done, durably."""


@_ask(0x0322, (C,), (M,))
class AskLast(NamedTuple):
    """sync(): one round trip. By order of delivery, all invalidations up to the answer have come before it."""


@_answer(0x0322, (M,), (C,))
class AnswerLast(NamedTuple):
    """The last tid published."""

    last: Tid
    durable: Tid = NO_TID
    """The durable mark D: packs go no further."""


@_ask(0x0323, (C,), (M,))
class AskImport(NamedTuple):
    """Begin (True) or end (False) an import: this client's transactions have their own tids, the others read only."""

    begin: bool


@_answer(0x0323, (M,), (C,))
class AnswerImport(NamedTuple):
    """It has begun, or ended. `last`: given tids must be above it."""

    last: Tid


@_ask(0x0324, (C, A), (M, A))
class AskPack(NamedTuple):
    """Pack the history of every cell, up to *tid*. One pack at a time."""

    tid: Tid
    reason: str


@_answer(0x0324, (M, A), (C, A))
class AnswerPack(NamedTuple):
    """Every storage in service knows the order, durably. `tid` is where it packs to: never above the durable mark."""

    order: U64
    tid: Tid


@_ask(0x0325, (C, A), (M, A))
class AskPackState(NamedTuple):
    """How far is the pack?"""


@_answer(0x0325, (M, A), (C, A))
class AnswerPackState(NamedTuple):
    """The last pack. `order` 0: there was none. `cells_done == cells_total`: it has ended."""

    order: U64
    tid: Tid
    started: Seconds
    cells_done: U32
    cells_total: U32
    revisions_removed: U64
    bytes_removed: U64


@_ask(0x0326, (C,), (M,))
class AskCollect(NamedTuple):
    """Garbage: remove every revision of these objects, if none is above *tid*. On every written cell."""

    tid: Tid
    oids: tuple[Oid, ...]


@_answer(0x0326, (M,), (C,))
class AnswerCollect(NamedTuple):
    """Done on every written cell, durably."""

    removed: U64


# ---------------------------------------------------------------------------------------------- storage and master


@_notify(0x0401, (S,), (M,))
class SHello(NamedTuple):
    """A storage's first word to a master."""

    epoch: Epoch
    version: Version
    voted: tuple[VotedId, ...]
    choice: U64
    """The last choice of an operator that its table carries; 0 if there is none."""
    last: Tid
    """The highest tid in its database."""
    position: U64
    """How many records its vote log has had, as in Fenced, durable or not."""


@_notify(0x0402, (M,), (S,))
class Fence(NamedTuple):
    """Obey this epoch only, and tell all you have."""

    epoch: Epoch


@_notify(0x0403, (S,), (M,))
class Fenced(NamedTuple):
    """All that was here is durable, and this is it."""

    epoch: Epoch
    cluster_id: Bytes16
    table: TableUpdate
    """The whole table; without rows if the storage has none."""
    voted: tuple[RecordHead, ...]
    decisions: tuple[Decision, ...]
    tombstones: tuple[Tombstone, ...]
    ceilings: Ceilings
    last: Tid
    """The highest tid in its database."""
    last_oid: Oid
    """The highest oid in its database."""
    packed: Tid
    """The tid of the last pack order."""
    position: U64
    """How many durable records its vote log has had, from the first one on, without the epochs at its end: it never
    shrinks."""


@_notify(0x0404, (M,), (S,))
class Start(NamedTuple):
    """Recovery is over: what was decided. Adopt says the same to a storage that comes later."""

    epoch: Epoch
    cluster_id: Bytes16
    table: TableUpdate
    ceilings: Ceilings
    decisions: tuple[Decision, ...]
    """In the order of tids."""
    aborts: tuple[Tombstone, ...]


@_notify(0x0405, (S,), (M,))
class StartOk(NamedTuple):
    """Start, or Adopt, is durable here. The lease runs from this answer on."""

    epoch: Epoch


@_notify(0x0406, (M,), (S,))
class Adopt(NamedTuple):
    """You come back to a running cluster."""

    epoch: Epoch
    cluster_id: Bytes16
    table: TableUpdate
    stable: bool
    ceilings: Ceilings
    decisions: tuple[Decision, ...]
    aborts: tuple[Tombstone, ...]
    gone: tuple[Session, ...]
    packed: Tid


@_notify(0x0407, (M,), (S,))
class SetPT(NamedTuple):
    """A new table; `last` is the cut of the joins that it begins."""

    table: TableUpdate
    last: Tid


@_notify(0x0408, (S,), (M,))
class PtOk(NamedTuple):
    """That table is durable here."""

    version: Version


@_notify(0x0409, (M,), (S,))
class Stable(NamedTuple):
    """That table is durable wherever it must be."""

    version: Version


@_notify(0x040A, (M,), (S,))
class Commit(NamedTuple):
    """It is committed. `tail`: the commits above `durable` that this storage has not been told."""

    ttid: Ttid
    attempt: U32
    tid: Tid
    parts: tuple[Partition, ...]
    tail: tuple[Decision, ...]
    durable: Tid


@_notify(0x040B, (S,), (M,))
class CommitOk(NamedTuple):
    """These commits are durable here."""

    ttids: tuple[Ttid, ...]
    position: U64
    """How many records of the vote log are durable, as in Fenced."""


@_notify(0x040C, (M,), (S,))
class Seal(NamedTuple):
    """From now on recovery commits it."""

    ttid: Ttid
    attempt: U32


@_notify(0x040D, (S,), (M,))
class SealOk(NamedTuple):
    """The seal is durable here."""

    ttid: Ttid
    attempt: U32


@_notify(0x040E, (M,), (S,))
class SAbort(NamedTuple):
    """It is aborted, up to this attempt."""

    ttid: Ttid
    attempt: U32


@_notify(0x040F, (S,), (M,))
class AbortOk(NamedTuple):
    """The abort is durable here."""

    ttid: Ttid
    attempt: U32


@_notify(0x0410, (M,), (S,))
class Gone(NamedTuple):
    """That session is given up: refuse it, drop its locks, tell its votes."""

    session: Session


@_notify(0x0411, (S,), (M,))
class VotedBy(NamedTuple):
    """The votes of that session here."""

    session: Session
    voted: tuple[VotedId, ...]


@_notify(0x0412, (S,), (M,))
class Ask(NamedTuple):
    """A reader waits for these undecided transactions: what is the last tid?"""

    ttids: tuple[Ttid, ...]


@_notify(0x0413, (M,), (S,))
class Told(NamedTuple):
    """Those that are still undecided after this will get a tid above *last*."""

    last: Tid
    ttids: tuple[Ttid, ...]


@_notify(0x0428, (M,), (S,))
class AskFate(NamedTuple):
    """Is this transaction, of a client that was away for long, in the history of these partitions, above that tid?"""

    ttid: Ttid
    parts: tuple[Partition, ...]
    above: Tid


@_notify(0x0429, (S,), (M,))
class ToldFate(NamedTuple):
    """It is, as *tid*; or, with 0, it is not. The answer to AskFate, when all that was committed is in the database."""

    ttid: Ttid
    parts: tuple[Partition, ...]
    tid: Tid


@_notify(0x0414, (S,), (M,))
class FwdFail(NamedTuple):
    """The lead cannot reach that node."""

    version: Version
    node: NodeId


@_notify(0x0415, (S,), (M,))
class Ready(NamedTuple):
    """The join that began with that version is complete."""

    version: Version
    partition: Partition


@_notify(0x0416, (M,), (S, M))
class Renew(NamedTuple):
    """Renew the lease."""

    epoch: Epoch
    number: U64


@_notify(0x0417, (S, M), (M,))
class Renewed(NamedTuple):
    """Renewed, from when that Renew was handled."""

    epoch: Epoch
    number: U64
    position: U64
    """How many records of a storage's vote log are durable, as in Fenced; 0 from a master."""


@_notify(0x0418, (M,), (S, M))
class Resign(NamedTuple):
    """The primary steps down: the lease is over."""

    epoch: Epoch


@_notify(0x0419, (M,), (S,))
class SetCeilings(NamedTuple):
    """Higher ceilings."""

    ceilings: Ceilings


@_notify(0x041A, (S,), (M,))
class CeilingsOk(NamedTuple):
    """They are durable here."""

    ceilings: Ceilings


@_notify(0x041B, (M,), (S,))
class Pack(NamedTuple):
    """Pack your readable cells to *tid*, at your leisure."""

    order: U64
    tid: Tid


@_notify(0x041C, (S,), (M,))
class PackProgress(NamedTuple):
    """`accepted`: the order is durable here. Then one for each cell done."""

    order: U64
    cells_done: U32
    cells_total: U32
    revisions_removed: U64
    bytes_removed: U64


@_notify(0x041D, (M,), (S,))
class Collect(NamedTuple):
    """Garbage, as in AskCollect, those of your partitions. `number` is repeated in the answer."""

    number: U64
    tid: Tid
    oids: tuple[Oid, ...]


@_notify(0x041E, (S,), (M,))
class CollectOk(NamedTuple):
    """Done, durably."""

    number: U64
    removed: U64


@_notify(0x041F, (M,), (S, M))
class Stop(NamedTuple):
    """The cluster stops: finish what was begun, then exit cleanly."""

    reason: str


@_notify(0x0420, (S,), (M,))
class StorageState(NamedTuple):
    """What a storage tells of itself, every few seconds and when it changes."""

    accepts_votes: bool
    reason: str
    disk_used: U64
    disk_free: U64
    domain: str
    """What fails together with it, as configured; empty: it stands alone."""
    weight: U32
    """Its share of the cells beside those of the others, as configured."""


@_notify(0x0421, (S,), (M,))
class Overdue(NamedTuple):
    """Others have waited for `overdue_s` for what these votes hold: abort them. (Never sent for votes of mode A.)"""

    voted: tuple[VotedId, ...]


class CellCopy(NamedTuple):
    """How far the copying of a cell is."""

    partition: Partition
    source: NodeId
    """Whom it pulls from; 0 when it has nobody."""
    upto: Tid
    """All up to that tid is as it is there."""
    stop: Tid
    revisions: U64
    """Compared or copied since it began."""
    left: U64
    """Revisions to go, about."""
    bytes: U64
    """Copied since it began."""
    seconds: U32
    """Since it began."""


@_notify(0x0440, (S,), (M,))
class Copying(NamedTuple):
    """The cells that a storage copies now: every second while there are any, and once when there are none left."""

    cells: tuple[CellCopy, ...]


@_notify(0x0442, (M,), (S,))
class Scrub(NamedTuple):
    """Compare your readable cells with the others now, all of them."""


@_notify(0x0443, (S,), (M,))
class ScrubState(NamedTuple):
    """How far the scrub of a storage is: every few seconds while it looks at something, and at the end."""

    cells_done: U32
    cells_total: U32
    revisions: U64
    """Values read again and verified, in this pass."""
    bytes: U64
    is_running: bool
    """False: that was all."""


@_notify(0x0444, (S,), (M,))
class Damaged(NamedTuple):
    """The cell of *node* is not as it should be. `node` 0: two cells differ and nobody can tell which is right."""

    version: Version
    partition: Partition
    node: NodeId
    text: str


@_notify(0x0445, (S,), (M,))
class Mended(NamedTuple):
    """A CORRUPTED cell holds nothing any more that is damaged by itself: it may copy what it lacks."""

    version: Version
    partition: Partition


@_notify(0x0441, (S,), (M,))
class CaughtUp(NamedTuple):
    """These cells have, in that reign, history up to near the present: they may join."""

    epoch: Epoch
    partitions: tuple[Partition, ...]


# ---------------------------------------------------------------------------------------------- masters


class Voter(NamedTuple):
    """A master that counts in a majority, with the memory that it had then: its disk, not its name, remembers."""

    node: NodeId
    memory: Bytes16


class Register(NamedTuple):
    """What masters hold for the next primary (docs/masters.md). Ordered by (epoch, number); epoch 0: nothing."""

    epoch: Epoch
    number: U64
    """Counts within the reign."""
    cluster_id: Bytes16
    table: TableUpdate
    """The whole table; without rows if there is none."""
    voters: tuple[Voter, ...]
    nodes: tuple[NodeInfo, ...]
    """The storages."""
    ceilings: Ceilings
    packed: Tid
    """The highest tid that a pack was ordered to."""
    last: Tid
    """The last tid given when this was written."""


@_notify(0x0502, (M,), (M,))
class Claim(NamedTuple):
    """A candidate, or a primary, to another master: hear no epoch below this one, and tell what you hold."""

    epoch: Epoch


@_notify(0x0503, (M,), (M,))
class Promised(NamedTuple):
    """The promise is durable; a lease begins with it, as with every answer to Renew."""

    epoch: Epoch
    memory: Bytes16
    register: Register


@_notify(0x0504, (M,), (M,))
class Denied(NamedTuple):
    """This epoch, a higher one, was promised already."""

    epoch: Epoch


@_notify(0x0505, (M,), (M,))
class Hold(NamedTuple):
    """Hold this instead of what you hold."""

    epoch: Epoch
    register: Register


@_notify(0x0506, (M,), (M,))
class Held(NamedTuple):
    """It is durable here."""

    epoch: Epoch
    number: U64
    memory: Bytes16


class DiskMark(NamedTuple):
    """So many records of the vote log of a storage were durable: a disk that has fewer has lost what it had."""

    node: NodeId
    position: U64


class Page(NamedTuple):
    """Some of what masters hold of the past (docs/masters.md, "What is settled"). Also a record in a file of theirs."""

    version: Version
    """The newest partition table when this was told."""
    choice: U64
    """The last choice of an operator that this table carries; 0 if there is none."""
    is_first: bool
    """Whether all that was held before is to be forgotten."""
    disks: tuple[DiskMark, ...]
    """Of every storage with readable cells; instead of those held before."""
    newest: tuple[Decision, ...]
    """Settled commits, in the order of their tids."""
    unheard: tuple[Decision, ...]
    """Settled commits whose client was not seen to hear of them, in the order of their tids."""


@_notify(0x0507, (M,), (M,))
class Settle(NamedTuple):
    """The primary to another master: hold this too, at leisure. A master to a claimant, before it promises: I do."""

    epoch: Epoch
    page: Page


@_notify(0x0501, (M,), (M,))
class MHello(NamedTuple):
    """A master to another: what it is now. Sent at once and on each change."""

    epoch: Epoch
    """The highest epoch that it has seen."""
    primary: NodeId
    """Whom it follows or is; 0 when it has not chosen."""
    is_primary: bool
    address: str


# ---------------------------------------------------------------------------------------------- admin


@_ask(0x0601, (A,), (M, A))
class AskCluster(NamedTuple):
    """The cluster in a few figures."""


@_answer(0x0601, (M, A), (A,))
class AnswerCluster(NamedTuple):
    """The cluster in a few figures."""

    name: str
    cluster_id: Bytes16
    state: ClusterState
    reason: str
    """What it waits for, in words; empty in RUNNING when all is well."""
    epoch: Epoch
    primary: NodeId
    version: Version
    partitions: U32
    replicas: U32
    rows_not_ready: U32
    last_tid: Tid
    durable_tid: Tid
    last_oid: Oid
    ceilings: Ceilings
    clients: U32
    transactions: U32
    """Under way: sealing, aborting, or not durable everywhere yet."""


@_ask(0x0602, (A,), (M, A))
class AskNodes(NamedTuple):
    """Every node."""


@_answer(0x0602, (M, A), (A,))
class AnswerNodes(NamedTuple):
    """Every node, masters first, by id."""

    nodes: tuple[NodeInfo, ...]


@_ask(0x0603, (A,), (M, A))
class AskTable(NamedTuple):
    """The partition table."""


@_answer(0x0603, (M, A), (A,))
class AnswerTable(NamedTuple):
    """The whole partition table."""

    table: TableUpdate


@_ask(0x0604, (A,), (M, A))
class AskStart(NamedTuple):
    """Start the cluster with the storages that are there."""

    reason: str


@_answer(0x0604, (M, A), (A,))
class AnswerStart(NamedTuple):
    """It starts. Error ILLEGAL or NOT_READY otherwise, with what is missing."""

    text: str


@_ask(0x0605, (A,), (M, A))
class AskStop(NamedTuple):
    """Stop the cluster cleanly."""

    reason: str


@_answer(0x0605, (M, A), (A,))
class AnswerStop(NamedTuple):
    """It stops."""

    text: str


class NodeCopy(NamedTuple):
    """A cell that *node* copies."""

    node: NodeId
    copy: CellCopy


@_ask(0x0640, (A,), (M, A))
class AskReplication(NamedTuple):
    """Which cells are being copied?"""


@_answer(0x0640, (M, A), (A,))
class AnswerReplication(NamedTuple):
    """Every cell that is not up to date: how far its copy is, as its storage has told last."""

    copies: tuple[NodeCopy, ...]
    waiting: tuple[NodeCopy, ...]
    """Cells of which nobody tells: of storages that are not there, or that have caught up and wait to join."""


class ChangeKind(IntEnum):
    """What an operator wants of the partition table."""

    TWEAK = 0
    """Make it even."""
    ADD = 1
    """Give cells to these storages too, and make it even."""
    DRAIN = 2
    """Take all cells from these storages; they serve until others have the data."""
    KEEP = 3
    """These storages stay after all: the opposite of DRAIN."""
    REPLICAS = 4
    """Have so many copies beyond the first."""
    PAUSE = 5
    """Begin no more moves. Copies that have begun go on, and what was on its way out stays."""


class CellMove(NamedTuple):
    """A cell to make: *partition* is copied from *source* to *target*. *source* 0: from nobody who is there now."""

    partition: Partition
    source: NodeId
    target: NodeId


@_ask(0x0606, (A,), (M, A))
class AskChange(NamedTuple):
    """Change where cells are. `dry_run`: only tell what would move."""

    kind: ChangeKind
    nodes: tuple[NodeId, ...]
    """For ADD, DRAIN, KEEP."""
    replicas: U32
    """For REPLICAS."""
    dry_run: bool
    reason: str


@_answer(0x0606, (M, A), (A,))
class AnswerChange(NamedTuple):
    """It is ordered, durably with the next table; or what it would mean. Error ILLEGAL or NOT_READY otherwise."""

    text: str
    moves: tuple[CellMove, ...]
    drops: U32
    """Cells that will go, once the others are complete."""
    leads: U32
    """Partitions that get another lead."""


@_ask(0x0607, (A,), (M, A))
class AskMoves(NamedTuple):
    """How far are the moves?"""


@_answer(0x0607, (M, A), (A,))
class AnswerMoves(NamedTuple):
    """How far the moves are. All over: `is_balancing` false."""

    is_balancing: bool
    replicas: U32
    leaving: tuple[NodeId, ...]
    cells_total: U32
    """Cells to make, of the order under way; 0 while a new primary has not looked yet."""
    cells_copying: U32
    cells_left: U32
    """Those that are not complete, with those that are being copied."""
    drops_left: U32
    reason: str
    """Why it does not go on; empty if it does."""


@_ask(0x0608, (A,), (M, A))
class AskDrop(NamedTuple):
    """Forget these storages. Without `force` only if they have no readable cell."""

    nodes: tuple[NodeId, ...]
    force: bool
    reason: str


@_answer(0x0608, (M, A), (A,))
class AnswerDrop(NamedTuple):
    """They are forgotten; `text` says what was lost with them. Error ILLEGAL otherwise, with what would be lost."""

    text: str


class NodeScrub(NamedTuple):
    """How far the scrub of *node* is."""

    node: NodeId
    state: ScrubState
    finished: Seconds
    """When the last pass ended, Unix time; 0 if none has in this reign."""


class Finding(NamedTuple):
    """What scrubs, or readers, have found."""

    at: Seconds
    """Unix time."""
    partition: Partition
    node: NodeId
    """Whose cell is wrong; 0: that cannot be told."""
    by: NodeId
    """Who has found it."""
    text: str
    is_rebuilt: bool
    """Whether the cell was marked CORRUPTED, to be rebuilt from a good one."""


@_ask(0x0641, (A,), (M, A))
class AskScrub(NamedTuple):
    """How far are the scrubs, what have they found? With *start*: begin now."""

    start: bool


@_answer(0x0641, (M, A), (A,))
class AnswerScrub(NamedTuple):
    """`findings`: the last hundred, newest first, of this reign."""

    storages: tuple[NodeScrub, ...]
    findings: tuple[Finding, ...]


@_ask(0x0609, (A,), (M, A))
class AskTruncate(NamedTuple):
    """Cut off all transactions above *tid*: the cluster recovers, and has them nowhere any more."""

    tid: Tid
    reason: str


@_answer(0x0609, (M, A), (A,))
class AnswerTruncate(NamedTuple):
    """It has begun: done when the cluster is RUNNING with a table that carries the cut. Error ILLEGAL otherwise."""

    text: str


class FoundTable(NamedTuple):
    """A partition table that recovery has found, and what would become of the cluster with it."""

    version: Version
    choice: U64
    """The last choice of an operator that it carries; 0 if there is none."""
    is_newest: bool
    """Recovery goes on with it by itself, when nobody is missing."""
    since: Tid
    """The last tid when masters took it; 0 if no master that is there has it."""
    storages: tuple[NodeId, ...]
    """Those that have it."""
    masters: tuple[NodeId, ...]
    """Those that hold it."""
    there: tuple[NodeId, ...]
    """Storages with readable cells that are there."""
    missing: tuple[NodeId, ...]
    """Storages with readable cells that are not."""
    behind: tuple[NodeId, ...]
    """Storages that are there, and would be left behind: they have gone another way, or further."""
    stale: tuple[Partition, ...]
    """Partitions of which only cells that are not up to date are there."""
    lost: tuple[Partition, ...]
    """Partitions of which no cell is there."""
    older: tuple[NodeId, ...]
    """Storages that are there with less on their disks than they had: masters know it. They count as missing."""
    last: Tid
    """The highest tid that would be kept."""
    known: Tid
    """The highest tid that anybody knows of. If it is above `last`, what is between would be lost."""
    decisions: tuple[Decision, ...]
    """Commits that would be lost, as those storages tell which would be left behind, or masters; at most 100, oldest
    first."""
    votes: U32
    """Transactions that only those have voted, and that are not decided."""


@_ask(0x0611, (A,), (M, A))
class AskRecovery(NamedTuple):
    """Which partition tables were found, and what would each lose?

    With *begin* a RUNNING cluster of which not every partition can be read recovers, so that a table can be chosen; if
    all can be read, Error ILLEGAL.
    """

    begin: bool


@_answer(0x0611, (M, A), (A,))
class AnswerRecovery(NamedTuple):
    """`tables`: newest first; empty when the cluster has recovered."""

    state: ClusterState
    reason: str
    """What recovery waits for."""
    is_torn: bool
    """Whether storages have gone different ways: then it does not go on without a choice."""
    may_choose: bool
    storages: tuple[NodeId, ...]
    """Those that have told what they have."""
    masters: tuple[NodeId, ...]
    """Those that hear this primary, itself included."""
    masters_configured: U32
    tables: tuple[FoundTable, ...]
    table: TableUpdate
    """The table in use, or the newest one: its orders carry the choices that were made."""


@_ask(0x0612, (A,), (M, A))
class AskChoose(NamedTuple):
    """Go on with that table and those who are there; the operator answers for what is lost."""

    version: Version
    storages: tuple[NodeId, ...]
    """Those that the operator has seen, as in AnswerRecovery: with others the choice may be another one."""
    use_stale: bool
    """Use cells that are not up to date where no others are there."""
    make_empty: bool
    """Begin partitions of which no cell is there with nothing."""
    reason: str


@_answer(0x0612, (M, A), (A,))
class AnswerChoose(NamedTuple):
    """It has begun. The choice stands as soon as masters have it on disk. Error ILLEGAL or NOT_READY otherwise."""

    choice: U64
    text: str


@_ask(0x0613, (A,), (M, A))
class AskReadmit(NamedTuple):
    """Let in storages that were left behind: what they have beyond the line that was chosen is discarded."""

    nodes: tuple[NodeId, ...]
    reason: str


@_answer(0x0613, (M, A), (A,))
class AnswerReadmit(NamedTuple):
    """They may come, and do so by themselves."""

    text: str


@_ask(0x0610, (A,), (M, S, A))
class AskDebug(NamedTuple):
    """What a node waits for, holds and queues."""


@_answer(0x0610, (M, S, A), (A,))
class AnswerDebug(NamedTuple):
    """A JSON object: sections of names and values. For people; its shape may change."""

    json: str
