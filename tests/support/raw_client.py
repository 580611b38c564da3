"""A client that says packets, one by one, over blocking sockets: for tests of daemons without neo_client."""

import select
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from neo_common.checksum import checksum
from neo_common.ids import NO_EPOCH, NO_NODE, NO_SESSION, NO_TID, NodeId, Oid, Partition, Seconds, Tid, Ttid
from neo_common.model.partition_table import EMPTY
from neo_common.states import Role
from neo_common.wire.schema import (
    PROTOCOL_VERSION,
    AnswerLoad,
    AskLoad,
    CHello,
    Compression,
    Contended,
    Data,
    Error,
    ErrorCode,
    Finish,
    Finished,
    Heard,
    Hello,
    Metadata,
    Mode,
    Packet,
    Vote,
    Voted,
    Welcome,
    Work,
    Write,
)
from neo_common.wire.session import Answered, Ended, Notified, Opened, Session

_P = TypeVar("_P")
DEADLINE_S = 10.0


class Gone(Exception):
    """The other side has closed, or refused; the argument is the session's error."""


class RawConnection:
    """One connection, opened."""

    def __init__(
        self,
        address: str,
        *,
        node: NodeId = NO_NODE,
        role: Role = Role.CLIENT,
        cluster: str = "test",
        cluster_id: bytes = bytes(16),
        deadline_s: float = DEADLINE_S,
    ) -> None:
        host, port = address.rsplit(":", 1)
        self._deadline = time.monotonic() + deadline_s
        self._sock = self._connect(host, int(port))
        us = Hello(PROTOCOL_VERSION, PROTOCOL_VERSION, (), role, "raw", cluster, cluster_id, node, 1, NO_EPOCH, "")
        self.session = Session(us, True, now=self._now())
        self.notified: list[Packet] = []
        self._answers: dict[int, Packet] = {}
        self._write()
        opened: list[Opened] = []

        def see(event: object) -> None:
            if isinstance(event, Opened):
                opened.append(event)

        try:
            self._until(lambda: bool(opened), deadline_s, see)
        except BaseException:
            self.close()
            raise
        self.you = opened[0].hello_ok.you
        self.cluster_id = opened[0].hello_ok.cluster_id

    def _connect(self, host: str, port: int) -> socket.socket:
        while True:
            try:
                return socket.create_connection((host, port), timeout=1)
            except OSError:
                if time.monotonic() > self._deadline:
                    raise
                select.select([], [], [], 0.02)

    @staticmethod
    def _now() -> Seconds:
        return Seconds(time.monotonic())

    def _write(self) -> None:
        try:
            for data in self.session.take_output():
                self._sock.sendall(data)
        except OSError as error:
            raise Gone(error) from error

    def _until(
        self, done: Callable[[], bool], deadline_s: float, see: Callable[[Any], object] = lambda event: None
    ) -> None:
        deadline = time.monotonic() + deadline_s
        while not done():
            left = deadline - time.monotonic()
            assert left > 0, f"nothing came in {deadline_s} s; notified: {self.notified}"
            readable, _, _ = select.select([self._sock], [], [], min(left, 0.5))
            if readable:
                try:
                    data = self._sock.recv(2**20)
                except OSError as error:
                    raise Gone(error) from error
                events = self.session.receive(data, self._now()) if data else self.session.lost("closed")
            else:
                events = self.session.tick(self._now())
            for event in events:
                see(event)
                if isinstance(event, Notified):
                    self.notified.append(event.packet)
                elif isinstance(event, Answered):
                    self._answers[event.request] = event.packet
                elif isinstance(event, Ended):
                    raise Gone(event.error)
            self._write()

    def notify(self, packet: Packet) -> None:
        """Say something."""
        self.session.notify(packet)
        self._write()

    def ask(self, packet: Packet, deadline_s: float = DEADLINE_S) -> Any:
        """Ask; return the answer, perhaps an `Error`."""
        request = self.session.ask(packet, Seconds(self._now() + deadline_s), self._now())
        self._write()
        self._until(lambda: request in self._answers, deadline_s)
        return self._answers.pop(request)

    def wait_for(self, cls: type[_P], deadline_s: float = DEADLINE_S) -> _P:
        """Return the next notification of that class; those before it are forgotten."""

        def found() -> bool:
            while self.notified and not isinstance(self.notified[0], cls):
                self.notified.pop(0)
            return bool(self.notified)

        self._until(found, deadline_s)
        packet = self.notified.pop(0)
        assert isinstance(packet, cls)
        return packet

    def close(self) -> None:
        self._sock.close()


class RawClient:
    """A client of a one-storage cluster: commits one transaction at a time."""

    def __init__(self, master: str, storage: str, deadline_s: float = DEADLINE_S) -> None:
        """Connect when both serve. Before, they close what comes, or tell of another epoch."""
        deadline = time.monotonic() + deadline_s
        while True:
            left = deadline - time.monotonic()
            try:
                self._open(master, storage, max(1.0, left))
            except Gone as error:
                reason = str(error)
            else:
                try:
                    answer = self.load(0, 1)
                    if isinstance(answer, Error) and answer.code == ErrorCode.NOT_FOUND:
                        return
                    reason = str(answer)
                except Gone as error:
                    reason = str(error)
                self.close()
            assert left > 0, f"no service in {deadline_s} s: {reason}"
            select.select([], [], [], 0.05)

    def _open(self, master: str, storage: str, deadline_s: float) -> None:
        self._counter = 0
        self.contended = 0
        self.master = RawConnection(master, deadline_s=deadline_s)
        try:
            self.master.notify(CHello(NO_SESSION, NO_EPOCH, NO_EPOCH, (), (), NO_TID, False))
            self.welcome = self.master.wait_for(Welcome, deadline_s)
            self.table = self.welcome.table.apply(EMPTY)
            self.epoch = self.welcome.epoch
            self.last = self.welcome.last
            self.storage = RawConnection(storage, node=self.master.you, deadline_s=deadline_s)
        except BaseException:
            self.master.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.master.close()
        self.storage.close()

    def ttid(self) -> Ttid:
        """Return a new one."""
        self._counter += 1
        return Ttid(self.welcome.session, self._counter)

    def vote_packet(
        self, ttid: Ttid, writes: Sequence[Write], metadata: Metadata | None = None, attempt: int = 1
    ) -> Vote:
        """Return the Vote for *writes*."""
        grouped: dict[Partition, list[Write]] = {}
        for write in writes:
            grouped.setdefault(self.table.partition(write.oid), []).append(write)
        work = tuple(Work(p, 0, tuple(ws), ()) for p, ws in sorted(grouped.items()))
        parts = tuple(sorted(grouped))
        metadata = metadata or Metadata(b"me", b"", b"")
        return Vote(ttid, attempt, self.epoch, self.table.version, parts, metadata, work, Mode.C, self.last, NO_TID)

    def commit(self, *writes: Write, metadata: Metadata | None = None) -> Tid:
        """Vote and finish; return the tid. Votes again while another transaction has the lock: perhaps our last one."""
        ttid = self.ttid()
        for attempt in range(1, 1000):
            vote = self.vote_packet(ttid, writes, metadata, attempt)
            self.storage.notify(vote)
            voted: set[Partition] = set()
            while voted != set(vote.parts):
                answer = self.storage.wait_for(tuple)
                if isinstance(answer, Contended):
                    break
                assert isinstance(answer, Voted), answer
                voted |= set(answer.parts)
            else:
                return self.finish(vote)
            self.contended += 1
            select.select([], [], [], 0.001)
        raise AssertionError("contended for ever")

    def finish(self, vote: Vote) -> Tid:
        """Finish what was voted."""
        oids = tuple(write.oid for work in vote.work for write in work.writes)
        self.master.notify(Finish(vote.ttid, vote.attempt, self.epoch, vote.parts, oids, Mode.C, NO_TID))
        self.last = self.master.wait_for(Finished).tid
        self.master.notify(Heard(self.last))
        return self.last

    def load(self, oid: int, before: int = 2**63 - 1) -> AnswerLoad | Error:
        """Load."""
        answer: AnswerLoad | Error = self.storage.ask(AskLoad(self.epoch, Oid(oid), Tid(before)))
        return answer


def write(oid: int, value: bytes | None, base: int = 0, copied_from: int = 0) -> Write:
    """A Write of *value*, uncompressed; None deletes."""
    if value is None:
        data = Data(Compression.ABSENT, bytes(16), 0, b"")
    else:
        data = Data(Compression.NONE, checksum(value), len(value), value)
    return Write(Oid(oid), Tid(base), Tid(copied_from), data)
