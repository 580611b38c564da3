"""Asking the storages: one cell, tried again on another; or one cell of every partition at once."""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, Generic, NamedTuple, TypeVar

from ZODB.POSException import POSKeyError
from ZODB.utils import p64

from neo_client.core.cache import Hit
from neo_client.core.client import Loading
from neo_client.errors import translated
from neo_client.shell import Call, Shell
from neo_common.compression import decompress, verify
from neo_common.errors import DataCorrupted, NeoError, PeerLost, RequestFailed
from neo_common.ids import Epoch, NodeId, Oid, Partition, Seconds, Tid
from neo_common.wire.schema import (
    PIECE_BYTES,
    AnswerHistory,
    AnswerLoad,
    AnswerLoads,
    AnswerPiece,
    AskHistory,
    AskLoad,
    AskLoads,
    AskPiece,
    Compression,
    Data,
    ErrorCode,
    Packet,
)

_ELSEWHERE: Final = frozenset(
    (
        ErrorCode.NOT_READABLE,
        ErrorCode.NOT_READY,
        ErrorCode.EPOCH,
        ErrorCode.CORRUPTED,
        ErrorCode.INTERNAL,
        ErrorCode.PARTITION,
    )
)
"""Errors after which another cell may answer."""
_PIECES_AHEAD: Final = 4
_AGAIN_S: Final = 0.05
"""Pause when every cell has failed."""
_P = TypeVar("_P", bound=tuple[object, ...])


class Covered(NamedTuple, Generic[_P]):
    """An answer of `ask_cover`."""

    node: NodeId
    parts: tuple[Partition, ...]
    packet: _P


class _Failures:
    """What has gone wrong while looking for one answer: not asked again before all others were."""

    def __init__(self) -> None:
        self.tried: set[NodeId] = set()
        self.why: dict[NodeId, str] = {}

    def note(self, node: NodeId, why: str) -> None:
        self.tried.add(node)
        self.why[node] = why

    def __str__(self) -> str:
        return "; ".join(dict.fromkeys(self.why.values())) or "no storage serves them now"


class Reader:
    """See the module. Every method may wait, up to wait-timeout, and raises ZODB's errors."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell

    # ------------------------------------------------------------------------------------------ revisions

    def load(self, oid: Oid, before: Tid) -> Hit | None:
        """Return the revision of *oid* just below *before*; None when the object is newer than that.

        Raises: POSKeyError when there is no such object, or not any more at that moment.
        """
        with self.shell.lock:
            self.shell.check_open()
            hit = self.shell.cache.get(oid, before)
        if hit is not None:
            return hit
        deadline = self.deadline()
        failures = _Failures()
        loading: list[Loading] = []  # the one on its way
        while True:
            try:
                node, packet = self.ask_cell(
                    self._partition(oid, deadline),
                    lambda epoch: AskLoad(epoch, oid, before),
                    AnswerLoad,
                    deadline,
                    failures,
                    began=lambda: loading.append(self.shell.core.load_began(oid, before)),
                    ended=lambda: self.shell.core.load_ended(loading.pop()),
                )
            except RequestFailed as error:
                if error.code == ErrorCode.NOT_FOUND and self._exists(oid):
                    return None
                raise POSKeyError(p64(oid)) from error
            try:
                value = self.value(node, oid, packet.tid, packet.data, deadline)
            except (PeerLost, DataCorrupted, RequestFailed) as error:
                failures.note(node, f"{self.shell.core.names([node])}: {error}")
                with self.shell.lock:
                    self.shell.router.failed(node, Seconds(monotonic()))
                    self.shell.core.load_ended(loading.pop())
                if monotonic() >= deadline:
                    raise translated(error) from error
                continue
            with self.shell.lock:
                it = loading.pop()
                end = self.shell.core.load_ended(it, packet.tid, packet.end)
                if it.void:
                    continue
                self.shell.cache.put(oid, packet.tid, end, value)
            return Hit(value, packet.tid, end)

    def load_data(self, oid: Oid, before: Tid) -> tuple[Tid, Data]:
        """Return serial and stored value of the revision just below *before*, as they rest. Not cached.

        Raises: POSKeyError.
        """
        deadline = self.deadline()
        try:
            node, packet = self.ask_cell(
                self._partition(oid, deadline), lambda epoch: AskLoad(epoch, oid, before), AnswerLoad, deadline
            )
        except RequestFailed as error:
            raise POSKeyError(p64(oid)) from error
        data = packet.data
        if data.size and not data.value:
            data = data._replace(value=self._pieces(node, oid, packet.tid, data.size, deadline))
        verify(data)
        return packet.tid, data

    def prefetch(self, oids: Iterable[Oid], before: Tid) -> None:
        """Bring these into the cache: one question per storage. What fails is left to the loads themselves."""
        shell, deadline = self.shell, self.deadline()
        with shell.lock:
            wanted = [oid for oid in dict.fromkeys(oids) if shell.cache.get(oid, before) is None]
        if not wanted:
            return
        shell.wait_ready(deadline)
        calls: list[tuple[Call, NodeId, dict[Oid, Loading]]] = []
        with shell.lock:
            core, now = shell.core, Seconds(monotonic())
            parts: dict[Partition, list[Oid]] = {}
            for oid in wanted:
                parts.setdefault(core.table.partition(oid), []).append(oid)
            for node, ps in shell.router.cover(core.table, core.nodes, parts, shell.by_node, now).items():
                there = tuple(oid for p in ps for oid in parts[p])
                call = shell.call(node, AskLoads(core.epoch, there, before), deadline) if node is not None else None
                if call is not None and node is not None:
                    calls.append((call, node, {oid: core.load_began(oid, before) for oid in there}))
            shell.flush()
        for call, _, loading in calls:
            try:
                packet = shell.result(call, deadline)
            except NeoError:
                packet = AnswerLoads(())
            assert isinstance(packet, AnswerLoads)
            values = []
            for item in packet.loaded:
                data = item.data
                if data is None or data.compression is Compression.ABSENT or item.oid not in loading:
                    continue
                if data.value or not data.size:  # not in pieces
                    verify(data)
                    values.append((item, decompress(data.compression, data.value)))
            with shell.lock:
                for item, value in values:
                    it = loading.pop(item.oid)
                    end = shell.core.load_ended(it, item.tid, item.end)
                    if not it.void:
                        shell.cache.put(item.oid, item.tid, end, value)
                for it in loading.values():
                    shell.core.load_ended(it)

    def value(self, node: NodeId, oid: Oid, tid: Tid, data: Data, deadline: float) -> bytes:
        """Return the plain value of *data*, the rest of which is fetched from *node* if it is in pieces.

        Raises: DataCorrupted; PeerLost, RequestFailed for pieces.
        """
        if data.size and not data.value:
            data = data._replace(value=self._pieces(node, oid, tid, data.size, deadline))
        verify(data)
        return decompress(data.compression, data.value)

    def _pieces(self, node: NodeId, oid: Oid, tid: Tid, size: int, deadline: float) -> bytes:
        shell = self.shell
        offsets = iter(range(0, size, PIECE_BYTES))
        calls: list[Call] = []
        parts: list[bytes] = []
        while True:
            with shell.lock:
                while len(calls) < _PIECES_AHEAD and (offset := next(offsets, None)) is not None:
                    call = shell.call(node, AskPiece(shell.core.epoch, oid, tid, offset), deadline)
                    if call is None:
                        raise PeerLost(f"the connection to {shell.core.names([node])} was lost")
                    calls.append(call)
                shell.flush()
            if not calls:
                return b"".join(parts)
            # A large value takes as long as it takes: only a piece must come in time.
            deadline = self.deadline()
            packet = shell.result(calls.pop(0), deadline)
            assert isinstance(packet, AnswerPiece)
            parts.append(packet.value)

    def _exists(self, oid: Oid) -> bool:
        """Whether any revision of *oid* is there."""
        deadline = self.deadline()
        try:
            _, packet = self.ask_cell(
                self._partition(oid, deadline), lambda epoch: AskHistory(epoch, oid, 1), AnswerHistory, deadline
            )
        except RequestFailed as error:
            if error.code in (ErrorCode.NOT_FOUND, ErrorCode.DELETED):
                return False
            raise translated(error) from error
        return bool(packet.changes)

    # ------------------------------------------------------------------------------------------ cells

    def ask_cell(
        self,
        partition: Partition,
        question: Callable[[Epoch], Packet],
        answer: type[_P],
        deadline: float,
        failures: _Failures | None = None,
        began: Callable[[], object] | None = None,
        ended: Callable[[], object] | None = None,
    ) -> tuple[NodeId, _P]:
        """Ask a readable cell of *partition*, another one if that fails; return who has answered, and the answer.

        `began` is called under the lock as the question leaves, `ended` when there will be no answer to it.

        Raises: RequestFailed when the question itself is refused; ClusterUnavailable at the deadline.
        """
        shell = self.shell
        failures = failures or _Failures()
        while True:
            call, node, parked = None, None, None
            with shell.lock:
                shell.check_open()
                core, now = shell.core, monotonic()
                cells = shell.router.cells(core.table, core.nodes, partition, shell.by_node, Seconds(now))
                node = next((n for n in cells if n not in failures.tried), None)
                if node is not None:
                    call = shell.call(node, question(core.epoch), deadline)
                    if call is not None and began is not None:
                        began()
                    elif call is None and (trouble := shell.trouble(node)):
                        failures.note(node, trouble)
                    shell.flush()
                if call is None:
                    parked = shell._watch()
            if call is None:
                assert parked is not None
                if now >= deadline:
                    raise shell.unavailable(f"partition {partition} cannot be read: {failures}")
                everybody = node is None
                shell.wait(parked, min(deadline, now + (_AGAIN_S if everybody else 1.0)))
                if everybody:
                    failures.tried.clear()
                continue
            assert node is not None
            try:
                packet = shell.result(call, deadline)
            except NeoError as error:
                if ended is not None:
                    with shell.lock:
                        ended()
                if isinstance(error, RequestFailed) and error.code not in _ELSEWHERE:
                    raise
                failures.note(node, str(error))
                with shell.lock:
                    shell.router.failed(node, Seconds(monotonic()))
                continue
            except BaseException:
                if ended is not None:
                    with shell.lock:
                        ended()
                raise
            shell.router.answered(node, monotonic() - call.asked_at)
            assert isinstance(packet, answer)
            return node, packet

    def ask_cover(
        self,
        partitions: Iterable[Partition],
        question: Callable[[Epoch, tuple[Partition, ...]], Packet],
        answer: type[_P],
    ) -> list[Covered[_P]]:
        """Ask for each of *partitions* once, all storages at the same time.

        Raises: RequestFailed; ClusterUnavailable when some partition is not served until the deadline.
        """
        shell, deadline = self.shell, self.deadline()
        missing, failures = set(partitions), _Failures()
        result: list[Covered[_P]] = []
        while missing:
            calls: list[tuple[Call, NodeId, tuple[Partition, ...]]] = []
            with shell.lock:
                shell.check_open()
                core, now = shell.core, monotonic()
                cover = shell.router.cover(core.table, core.nodes, sorted(missing), shell.by_node, Seconds(now))
                for node, parts in cover.items():
                    call = shell.call(node, question(core.epoch, parts), deadline) if node is not None else None
                    if call is not None and node is not None:
                        calls.append((call, node, parts))
                    elif node is not None and (trouble := shell.trouble(node)):
                        failures.note(node, trouble)
                        shell.router.failed(node, Seconds(now))
                shell.flush()
                parked = shell._watch()
            for call, node, parts in calls:
                try:
                    packet = shell.result(call, deadline)
                except NeoError as error:
                    if isinstance(error, RequestFailed) and error.code not in _ELSEWHERE:
                        raise
                    failures.note(node, str(error))
                    with shell.lock:
                        shell.router.failed(node, Seconds(monotonic()))
                    continue
                assert isinstance(packet, answer)
                missing.difference_update(parts)
                result.append(Covered(node, parts, packet))
            if missing:
                if now >= deadline:
                    raise shell.unavailable(f"partitions {sorted(missing)} cannot be read: {failures}")
                shell.wait(parked, min(deadline, monotonic() + (_AGAIN_S if calls else 1.0)))
        return result

    def all_partitions(self) -> tuple[Partition, ...]:
        """Return every partition of the cluster."""
        self.shell.wait_ready(self.deadline())
        return tuple(map(Partition, range(self.shell.core.table.partitions)))

    def _partition(self, oid: Oid, deadline: float) -> Partition:
        if not self.shell.core.table.partitions:
            self.shell.wait_ready(deadline)
        return self.shell.core.table.partition(oid)

    def deadline(self) -> float:
        """Return until when to wait for something that is asked now."""
        return monotonic() + self.shell.options.wait_timeout_s
