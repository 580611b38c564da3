"""One side of one connection: bytes in, session events out. Pure.

A session does what every connection needs and no node cares for: magic, handshake, request ids, deadlines,
heartbeats, orderly close, and who may say what to whom. It owns no socket and no clock: the shell feeds `receive` and
`tick`, and writes what `take_output` gives. Events must be handled in the order in which they are returned.

    dials:     magic, Hello  ->  [Waiting...]  ->  Opened(hello_ok)                      or Ended(HandshakeRefused)
    is dialled:               ->  Greeting(hello), then the shell calls wait, accept or refuse; after accept it is open

With a shared secret (`Guard`), each side proves that it knows it: before Greeting, and before anything is believed of
who was dialled but its refusal:

    dials:       magic, Challenge, Hello          Proof                     (HelloOk counts only after the Proof)
    is dialled:                magic, Challenge          Proof  ->  Greeting...

With TLS the shell says in `identity` what the peer's certificate allows it to be.

Times are monotonic seconds. `tick` wants to be called about twice per `idle_s` or more often (`next_deadline` says
when something is due): a longer gap is taken for a process that did not run, and does not count against the peer.
"""

from collections.abc import Iterable
from enum import Enum
from functools import cache
from struct import Struct
from typing import Final, NamedTuple

from neo_common.errors import (
    DeadlinePassed,
    HandshakeRefused,
    LocalProtocolError,
    NeoError,
    PeerLost,
    RemoteProtocolError,
)
from neo_common.ids import NO_NODE, NodeId, Seconds
from neo_common.states import Role, node_text
from neo_common.wire.codec import FrameReader, frame
from neo_common.wire.guard import Guard, Identity, is_proof, proof
from neo_common.wire.schema import (
    ANSWER_CODE,
    CODES,
    MAGIC,
    PACKETS,
    PROTOCOL_VERSION,
    Challenge,
    Error,
    Goodbye,
    Hello,
    HelloNo,
    HelloOk,
    HelloWait,
    Kind,
    Packet,
    Ping,
    Pong,
    Proof,
    RefusalCode,
)

JOIN_BYTES: Final = 64 * 2**10
"""Frames below this are joined into one buffer; larger ones are not worth the copy."""
_HEADER: Final = Struct(">IHI")
_SESSION_OWN: Final = frozenset((Hello, HelloOk, HelloNo, HelloWait, Challenge, Proof, Ping, Pong, Goodbye))
_EARLY_CODES: Final = frozenset(CODES[cls] for cls in _SESSION_OWN)
_PING: Final = frame(Ping())
_PONG: Final = frame(Pong())
_NEVER: Final = Seconds(float("inf"))
_ZERO: Final = Seconds(0.0)


class Limits(NamedTuple):
    """Bounds of a session. The thresholds of silence are generous: a busy node is not a dead one."""

    idle_s: float = 2.0
    """After so much silence, ask whether the peer is alive."""
    dead_s: float = 5.5
    """After so much silence, the peer is lost."""
    handshake_s: float = 10.0
    """Time for the handshake; being told to wait ends this limit."""
    pending_max: int = 65536
    """Requests in either direction that have no answer yet."""
    hello_max: int = 65536
    """Largest payload before the session is open, in bytes."""


DEFAULT_LIMITS: Final = Limits()


class Greeting(NamedTuple):
    """Who dialled us says who it is, and waits for `accept`, `wait` or `refuse`."""

    hello: Hello


class Waiting(NamedTuple):
    """Whom we dialled makes us wait."""

    reason: str


class Opened(NamedTuple):
    """Whom we dialled agrees: packets may be sent."""

    hello_ok: HelloOk


class Notified(NamedTuple):
    """The peer has sent a notification."""

    packet: Packet


class Asked(NamedTuple):
    """The peer has sent a question: answer it once, with `answer(request, ...)`."""

    request: int
    packet: Packet


class Answered(NamedTuple):
    """Our question has its answer, perhaps an `Error`."""

    request: int
    packet: Packet


class Expired(NamedTuple):
    """Our question will have no answer: DeadlinePassed, or the error that ended the session."""

    request: int
    error: NeoError


class Ended(NamedTuple):
    """The session is over; the last event. Write what `take_output` still has, then close."""

    error: NeoError


SessionEvent = Greeting | Waiting | Opened | Notified | Asked | Answered | Expired | Ended


class Pending(NamedTuple):
    """A question of ours without an answer: what we wait for, since when."""

    request: int
    peer: str
    packet: str
    since: Seconds
    deadline: Seconds


class _Phase(Enum):
    MAGIC = 0
    """The first bytes of the peer have not come."""
    HELLO = 1
    """Its first frame has not come."""
    GREETED = 2
    """It has said Hello and waits for us, or has told us to wait."""
    OPEN = 3
    ENDED = 4


@cache
def _rules(sender: Role, receiver: Role) -> dict[type, Kind]:
    """Return what *sender* may send to *receiver* once the session is open, the session's own packets excepted."""
    return {
        info.cls: info.kind
        for info in PACKETS.values()
        if sender in info.senders and receiver in info.receivers and info.cls not in _SESSION_OWN
    }


class Session:
    """One side of one connection.

    Invariants:
      * nothing but the session's own packets is sent or taken before it is open;
      * every `ask` is followed by exactly one Answered or Expired; after Ended there is no event at all;
      * each question of the peer is answered at most once, and with its own answer or an Error.
    """

    def __init__(
        self,
        us: Hello | None,
        dialled: bool,
        limits: Limits = DEFAULT_LIMITS,
        now: Seconds = _ZERO,
        guard: Guard | None = None,
    ) -> None:
        """Begin at *now*. `dialled`: we have dialled, and *us* is what we say; else None will do until `accept`.

        *guard*: the secret that both sides must know; None: neither must have one.
        """
        self._limits = limits
        self._dialled = dialled
        self._us = us
        self._phase = _Phase.MAGIC
        self._head = bytearray()
        self._reader = FrameReader()
        self._out: list[bytes] = []
        self.output_bytes = 0
        """How much `take_output` would give, in bytes; not to be set. (A property would be asked for each packet.)"""
        self._began = self._heard = self._ticked = self._pinged = now
        self._receivable: dict[type, Kind] = {}
        self._sendable: dict[type, Kind] = {}
        self._next_request = 1
        self._pending: dict[int, tuple[type, Seconds, Seconds]] = {}
        self._expired: dict[int, type] = {}
        self._owed: dict[int, type] = {}
        self._earliest = _NEVER
        self._error: NeoError | None = None
        self.label = "peer"
        """How people call the peer: its id, or its role and name while it has none. The shell may set a better one."""
        self.hello: Hello | None = None
        """What the peer that dialled us has said."""
        self.hello_ok: HelloOk | None = None
        """What was agreed."""
        self.identity: Identity | None = None
        """What the peer's certificate says; set by the shell before the first bytes. None: no TLS."""
        self._guard = guard
        self._challenge: Challenge | None = None
        """The peer's."""
        self._is_proven = guard is None
        if dialled:
            assert us is not None, "who dials speaks first"
            self._queue(MAGIC)
            if guard is not None:
                self._queue(frame(Challenge(guard.role, guard.nonce)))
            self._queue(frame(us))

    def __repr__(self) -> str:
        counts = f"pending={len(self._pending)} owed={len(self._owed)} output={self.output_bytes}"
        return f"<Session {self.label} {self._phase.name} {counts}>"

    # -------------------------------------------------------------------------------------- what the shell may ask

    @property
    def is_open(self) -> bool:
        """Whether packets may be sent and come."""
        return self._phase is _Phase.OPEN

    @property
    def is_greeted(self) -> bool:
        """Whether the peer's Hello waits for our word."""
        return self._phase is _Phase.GREETED and not self._dialled

    @property
    def error(self) -> NeoError | None:
        """Why the session has ended; None while it has not."""
        return self._error

    @property
    def pending_count(self) -> int:
        """How many questions of ours wait for an answer."""
        return len(self._pending)

    @property
    def owed_count(self) -> int:
        """How many questions of the peer wait for our answer."""
        return len(self._owed)

    def pending(self) -> list[Pending]:
        """Return what we wait for, oldest first."""
        return [Pending(r, self.label, cls.__name__, since, until) for r, (cls, since, until) in self._pending.items()]

    def next_deadline(self) -> Seconds:
        """Return when `tick` has something to do at the latest."""
        if self._phase is _Phase.ENDED:
            return _NEVER
        limits = self._limits
        due = min(self._earliest, max(self._heard, self._pinged) + limits.idle_s, self._heard + limits.dead_s)
        return Seconds(due if self._handshake_over() else min(due, self._began + limits.handshake_s))

    # -------------------------------------------------------------------------------------- bytes and time

    def receive(self, data: bytes, now: Seconds) -> list[SessionEvent]:
        """Take bytes of the peer, in any slicing."""
        if self._phase is _Phase.ENDED:
            return []
        self._heard = now
        if self._phase is not _Phase.OPEN:
            return self._handshake(data)
        try:
            frames = self._reader.feed(data)
        except RemoteProtocolError as error:
            return self._fail(str(error))
        return self._take(frames)

    def lost(self, reason: str, *, is_ended: bool = False) -> list[SessionEvent]:
        """Note that no more bytes will come, nor go. `is_ended`: the peer, or its kernel, has closed the connection."""
        return self._end(PeerLost(f"{self.label}: {reason}", is_ended=is_ended))

    def broken(self, error: NeoError) -> list[SessionEvent]:
        """Note what below the session has gone wrong: bytes that are no TLS, a certificate that is not believed."""
        return self._end(type(error)(f"{self.label}: {error}"))

    def tick(self, now: Seconds, reading: bool = True) -> list[SessionEvent]:
        """Look at deadlines. `reading` False: we take nothing from the peer now, so its silence means nothing."""
        if self._phase is _Phase.ENDED:
            return []
        limits = self._limits
        gap, self._ticked = now - self._ticked, now
        if gap > limits.idle_s:
            # We did not run (stopped, or blocked): what the peer said meanwhile may wait to be read. Read it first.
            self._heard = min(now, Seconds(self._heard + gap))
            self._began = Seconds(self._began + gap)
            return []
        if not reading:
            self._heard = now
        if not self._handshake_over() and now - self._began >= limits.handshake_s:
            return self._end(PeerLost(f"{self.label}: no handshake within {limits.handshake_s:g} s"))
        silence = now - self._heard
        if silence >= limits.dead_s:
            return self._end(PeerLost(f"{self.label}: silent for {silence:.1f} s"))
        ask = silence >= limits.idle_s or not reading  # not reading, we say at least that we are alive
        if ask and self._phase is not _Phase.MAGIC and now - self._pinged >= limits.idle_s:
            self._pinged = now
            self._queue(_PING)
        if now < self._earliest:
            return []
        return self._expire(now)

    def take_output(self) -> list[bytes]:
        """Return what to write, in order: small frames joined, large ones by themselves (for sendmsg)."""
        out, self._out = self._out, []
        size, self.output_bytes = self.output_bytes, 0
        if len(out) < 2:
            return out
        if size <= JOIN_BYTES:
            return [b"".join(out)]
        result: list[bytes] = []
        small: list[bytes] = []
        for chunk in out:
            if len(chunk) < JOIN_BYTES:
                small.append(chunk)
                continue
            if small:
                result.append(b"".join(small))
                small = []
            result.append(chunk)
        if small:
            result.append(b"".join(small))
        return result

    # -------------------------------------------------------------------------------------- what the shell says

    def notify(self, packet: Packet) -> None:
        """Send a notification; dropped if the session has ended.

        Raises: LocalProtocolError if we may not say this, or not yet.
        """
        if self._may_send(type(packet), Kind.NOTIFICATION):
            self._queue(frame(packet))

    def send_encoded(self, cls: type, data: bytes) -> None:
        """Send `data`, a frame of the notification class *cls* that was encoded once for many peers."""
        if self._may_send(cls, Kind.NOTIFICATION):
            self._queue(data)

    def ask(self, packet: Packet, deadline: Seconds, now: Seconds) -> int:
        """Send a question; return its request id. Answered or Expired will follow.

        Raises: PeerLost if the session has ended; LocalProtocolError if we may not ask this, or ask too much.
        """
        cls = type(packet)
        if not self._may_send(cls, Kind.QUESTION):
            raise PeerLost(str(self._error))
        if len(self._pending) + len(self._expired) >= self._limits.pending_max:
            raise LocalProtocolError(f"{len(self._pending)} requests to {self.label} have no answer yet")
        request = self._next_request
        while request in self._pending or request in self._expired:
            request = request % 0xFFFFFFFF + 1
        data = frame(packet, request)
        self._next_request = request % 0xFFFFFFFF + 1
        self._pending[request] = (cls, now, deadline)
        self._earliest = min(self._earliest, deadline)
        self._queue(data)
        return request

    def answer(self, request: int, packet: Packet) -> None:
        """Answer the peer's question *request*; dropped if the session has ended.

        Raises: LocalProtocolError if it was not asked, is answered already, or has another answer.
        """
        cls = type(packet)
        if not self._may_send(cls, Kind.ANSWER):
            return
        asked = self._owed.get(request)
        if asked is None:
            raise LocalProtocolError(f"{cls.__name__} answers request {request} of {self.label}, which is not open")
        if cls is not Error and CODES[cls] != CODES[asked] | ANSWER_CODE:
            raise LocalProtocolError(f"{cls.__name__} does not answer {asked.__name__}")
        data = frame(packet, request)
        del self._owed[request]
        self._queue(data)

    def wait(self, packet: HelloWait) -> None:
        """Tell who dialled us to wait."""
        if self._phase is not _Phase.ENDED:
            self._must_be_greeted("wait")
            self._queue(frame(packet))

    def accept(self, packet: HelloOk) -> None:
        """Let in who dialled us: the session is open. Dropped if it has ended."""
        if self._phase is _Phase.ENDED:
            return
        self._must_be_greeted("accept")
        hello = self.hello
        assert hello is not None
        self._open(packet.role, hello.role, packet.you, hello.name)
        self.hello_ok = packet
        # Whole frames were taken already: what is left is the beginning of one.
        frames = self._reader.feed(bytes(self._head))
        assert not frames, frames
        self._head.clear()
        self._queue(frame(packet))

    def refuse(self, packet: HelloNo) -> list[SessionEvent]:
        """Send away who dialled us; the session ends."""
        if self._phase is _Phase.ENDED:
            return []
        self._must_be_greeted("refuse")
        self._queue(frame(packet))
        return self._end(HandshakeRefused(packet.code, f"{self.label} refused: {packet.reason}", packet.primary))

    def close(self, reason: str) -> list[SessionEvent]:
        """End the session in order: Goodbye is the last frame."""
        if self._phase is _Phase.ENDED:
            return []
        self._say_goodbye(reason)
        return self._end(PeerLost(f"{self.label}: closed here: {reason}"))

    # -------------------------------------------------------------------------------------- parts

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        self.output_bytes += len(data)

    def _must_be_greeted(self, what: str) -> None:
        if not self.is_greeted:
            raise LocalProtocolError(f"cannot {what} a session in phase {self._phase.name}")

    def _may_send(self, cls: type, kind: Kind) -> bool:
        if self._phase is not _Phase.OPEN:
            if self._phase is _Phase.ENDED:
                return False
            raise LocalProtocolError(f"{cls.__name__} before the handshake with {self.label}")
        if self._sendable.get(cls) is not kind:
            raise LocalProtocolError(f"we may not send {cls.__name__} to {self.label} as a {kind.name.lower()}")
        return True

    def _handshake_over(self) -> bool:
        return self._phase is _Phase.OPEN or self._phase is _Phase.GREETED

    def _open(self, ours: Role, theirs: Role, node: NodeId, name: str) -> None:
        self._phase = _Phase.OPEN
        self._sendable = _rules(ours, theirs)
        self._receivable = _rules(theirs, ours)
        self.label = _label(node, theirs, name)

    def _handshake(self, data: bytes) -> list[SessionEvent]:
        head = self._head
        head += data
        if self._phase is _Phase.MAGIC:
            got = bytes(head[: len(MAGIC)])
            if got != MAGIC[: len(got)]:
                return self._end(RemoteProtocolError(f"{self.label}: {_foreign(got)}"))
            if len(got) < len(MAGIC):
                return []
            del head[: len(MAGIC)]
            self._phase = _Phase.HELLO
            if not self._dialled:
                self._queue(MAGIC)
        events: list[SessionEvent] = []
        while self._phase is not _Phase.OPEN:
            # Frames are taken one by one until the session is open: none of them may be large.
            if len(head) < _HEADER.size:
                return events
            length, code, request = _HEADER.unpack_from(head)
            if code not in _EARLY_CODES or request:
                info = PACKETS.get(code)
                return events + self._fail(f"{info.cls.__name__ if info else hex(code)} before the handshake")
            if length > self._limits.hello_max:
                limit = self._limits.hello_max
                return events + self._fail(f"{length} bytes before the handshake; the limit is {limit}")
            size = _HEADER.size + length
            if len(head) < size:
                return events
            try:
                ((_, packet),) = FrameReader().feed(bytes(head[:size]))
            except RemoteProtocolError as error:
                return events + self._fail(str(error))
            del head[:size]
            events += self._early(packet)
            if self._phase is _Phase.ENDED:
                return events
        rest = bytes(head)
        head.clear()
        if rest:
            try:
                frames = self._reader.feed(rest)
            except RemoteProtocolError as error:
                return events + self._fail(str(error))
            events += self._take(frames)
        return events

    def _early(self, packet: Packet) -> list[SessionEvent]:
        """Take one of the session's own packets, before the session is open."""
        match packet:
            case Ping():
                self._queue(_PONG)
                return []
            case Pong():
                return []
            case Goodbye(reason):
                return self._end(PeerLost(f"{self.label} closed the connection: {reason}", is_ended=True))
            case Challenge() if self._challenge is None and self.hello is None:
                return self._challenged(packet)
            case Proof(mac) if self._awaits_proof:
                return self._proved(mac)
            case Hello() if not self._dialled and self.hello is None:
                self.hello = packet
                if self._guard is None:
                    return self._greeted(packet)
                if self._challenge is None:
                    return self._turn_away(
                        RefusalCode.SECRET,
                        "this cluster has a secret, you show none: set security.secret_file in the configuration, "
                        "secret-file in a client's",
                    )
                self._queue(frame(Challenge(self._guard.role, self._guard.nonce)))
                return []
            case HelloNo(code, reason, primary) if self._dialled:
                # Whom we have not seen prove anything may send us away, but nowhere else.
                hint = primary if self._is_proven else ""
                return self._end(HandshakeRefused(code, f"{self.label} refused: {reason}", hint))
            case HelloWait() | HelloOk() if self._dialled and not self._is_proven:
                return self._fail("it has not proved that it knows the secret of this cluster")
            case HelloWait(reason) if self._dialled:
                self._phase = _Phase.GREETED
                return [Waiting(reason)]
            case HelloOk() if self._dialled:
                us = self._us
                assert us is not None
                low, high = us.version_min, us.version_max
                if not low <= packet.version <= high:
                    return self._fail(f"HelloOk chooses version {packet.version}, we offered {low} to {high}")
                if packet.node >> 24 != packet.role or packet.you >> 24 != us.role:
                    return self._fail(
                        f"a {packet.role.name} says it is node {packet.node:#x} and we are {packet.you:#x}"
                    )
                if self._challenge is not None and packet.role != self._challenge.role:
                    return self._fail(f"a {self._challenge.role.name} says it is a {packet.role.name}")
                if self.identity is not None:
                    wrong = self.identity.contradicts(packet.cluster, packet.role, packet.name)
                    if wrong:
                        return self._fail(wrong)
                self.hello_ok = packet
                self._open(us.role, packet.role, packet.node, packet.name)
                return [Opened(packet)]
        return self._fail(f"{type(packet).__name__} at the wrong moment of the handshake")

    def _greeted(self, hello: Hello) -> list[SessionEvent]:
        """Take the Hello of a peer that has proved what it must."""
        if hello.node != NO_NODE and hello.node >> 24 != hello.role:
            return self._fail(f"a {hello.role.name} says it is node {hello.node:#x}")
        self.label = _label(hello.node, hello.role, hello.name)
        if self.identity is not None:
            wrong = self.identity.contradicts(hello.cluster, hello.role, hello.name)
            if wrong:
                return self._turn_away(RefusalCode.CERTIFICATE, wrong)
        self._phase = _Phase.GREETED
        low, high = hello.version_min, hello.version_max
        if not low <= PROTOCOL_VERSION <= high:
            reason = f"this node speaks version {PROTOCOL_VERSION}, you {low} to {high}"
            return self.refuse(HelloNo(RefusalCode.VERSION, reason, ""))
        return [Greeting(hello)]

    @property
    def _awaits_proof(self) -> bool:
        has_all = self._challenge is not None and (self._dialled or self.hello is not None)
        return has_all and not self._is_proven

    def _challenged(self, packet: Challenge) -> list[SessionEvent]:
        """The peer wants a proof."""
        guard = self._guard
        if guard is None:
            text = "this node's configuration has no secret, yours has: give all of them the same, or none"
            return self._fail(text) if self._dialled else self._turn_away(RefusalCode.SECRET, text)
        self._challenge = packet
        if self._dialled:
            self._queue(frame(Proof(self._proof(of_dialler=True))))
        return []

    def _proved(self, mac: bytes) -> list[SessionEvent]:
        """The peer gives its proof."""
        if not is_proof(self._proof(of_dialler=not self._dialled), mac):
            text = "the secret of this cluster is another one"
            return self._fail(text) if self._dialled else self._turn_away(RefusalCode.SECRET, text)
        self._is_proven = True
        if self._dialled:
            return []
        assert self.hello is not None, "a proof is made of it"
        self._queue(frame(Proof(self._proof(of_dialler=False))))
        return self._greeted(self.hello)

    def _proof(self, *, of_dialler: bool) -> bytes:
        guard, theirs = self._guard, self._challenge
        assert guard is not None
        assert theirs is not None
        if self._dialled:
            dialler, dialled, role, hello = guard.nonce, theirs.nonce, theirs.role, self._us
        else:
            dialler, dialled, role, hello = theirs.nonce, guard.nonce, guard.role, self.hello
        assert hello is not None
        return proof(guard, of_dialler=of_dialler, dialler=dialler, dialled=dialled, dialled_role=role, hello=hello)

    def _turn_away(self, code: RefusalCode, reason: str) -> list[SessionEvent]:
        """Refuse who dialled us, before the shell hears of it."""
        self._queue(frame(HelloNo(code, reason, "")))
        return self._end(HandshakeRefused(code, f"{self.label} refused: {reason}"))

    def _take(self, frames: Iterable[tuple[int, Packet]]) -> list[SessionEvent]:
        """Take frames of an open session."""
        events: list[SessionEvent] = []
        rules = self._receivable
        for request, packet in frames:
            cls = type(packet)
            kind = rules.get(cls)
            if kind is Kind.NOTIFICATION:
                if request:
                    return events + self._fail(f"{cls.__name__} with request id {request}")
                events.append(Notified(packet))
            elif kind is Kind.QUESTION:
                if not request or request in self._owed:
                    return events + self._fail(f"{cls.__name__} with request id {request}, which is in use")
                if len(self._owed) >= self._limits.pending_max:
                    return events + self._fail(f"more than {self._limits.pending_max} questions without an answer")
                self._owed[request] = cls
                events.append(Asked(request, packet))
            elif kind is Kind.ANSWER:
                pending = self._pending.pop(request, None)
                asked = pending[0] if pending else self._expired.pop(request, None)
                if asked is None:
                    return events + self._fail(f"{cls.__name__} answers request {request}, which was not made")
                if cls is not Error and CODES[cls] != CODES[asked] | ANSWER_CODE:
                    # It has its one end all the same: with all the others, below.
                    if pending:
                        self._pending[request] = pending
                    return events + self._fail(f"{cls.__name__} answers {asked.__name__}")
                if pending:
                    events.append(Answered(request, packet))
            elif cls is Ping:
                self._queue(_PONG)
            elif cls is Goodbye:
                return events + self._end(PeerLost(f"{self.label} closed the connection: {packet[0]}", is_ended=True))
            elif cls is not Pong:
                return events + self._fail(f"{cls.__name__} is not for its sender to send, or not to this node")
        return events

    def _expire(self, now: Seconds) -> list[SessionEvent]:
        # A scan, but a rare one: after it nothing can expire before the earliest deadline of what is left.
        events: list[SessionEvent] = []
        earliest = _NEVER
        for request, (cls, since, deadline) in list(self._pending.items()):
            if deadline > now:
                earliest = min(earliest, deadline)
                continue
            del self._pending[request]
            self._expired[request] = cls
            text = f"{self.label} has not answered {cls.__name__} within {now - since:.1f} s"
            events.append(Expired(request, DeadlinePassed(text)))
        self._earliest = earliest
        return events

    def _say_goodbye(self, reason: str) -> None:
        if self._dialled or self._phase is not _Phase.MAGIC:  # to who has not shown the magic we say nothing
            self._queue(frame(Goodbye(reason)))

    def _fail(self, reason: str) -> list[SessionEvent]:
        """End the session because of what the peer has sent; it is told, and does not come back by itself."""
        self._say_goodbye(f"protocol error: {reason}")
        return self._end(RemoteProtocolError(f"{self.label}: {reason}"))

    def _end(self, error: NeoError) -> list[SessionEvent]:
        if self._phase is _Phase.ENDED:
            return []
        self._phase = _Phase.ENDED
        self._error = error
        events: list[SessionEvent] = [Expired(request, error) for request in self._pending]
        self._pending.clear()
        self._expired.clear()
        self._owed.clear()
        self._head.clear()
        self._reader = FrameReader()
        self._earliest = _NEVER
        events.append(Ended(error))
        return events


def _label(node: NodeId, role: Role, name: str) -> str:
    return node_text(node) if node != NO_NODE else f"{role.name.lower()} {name!r}"


def _foreign(got: bytes) -> str:
    """Say in words what begins with *got* instead of our magic."""
    if got[:3] == MAGIC[:3]:
        return f"speaks NEO in another framing ({got[3]}, not {MAGIC[3]})"
    if got[:2] in (b"\x16\x03", b"\x15\x03"):
        return "speaks TLS, this side does not: give all of them the same security.tls_* (tls-* in a client's section)"
    if got in (b"GET ", b"HEAD", b"POST", b"PUT ", b"HTTP"):
        return "speaks HTTP, this address does not"
    return f"does not speak NEO: begins with {got!r}"
