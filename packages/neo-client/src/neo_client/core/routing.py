"""Which storage to ask: by what is known of each, never by a message. Pure.

Preferred, in this order: a node that has not failed just now; on this host; connected already; quicker by a factor.
Among equals the choice depends on the client, so that many clients spread over the replicas.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Final, NamedTuple

from neo_common.ids import NodeId, Partition, Seconds
from neo_common.model.partition_table import PartitionTable
from neo_common.wire.schema import NodeInfo

PENALTY_S: Final = 5.0
"""How long a node that has failed is asked last."""
_WEIGHT: Final = 0.1
"""Of the newest latency in the moving average."""


class _Known(NamedTuple):
    latency_s: float = 0.0
    failed_at: float = float("-inf")


class Router:
    """What this client knows of the storages as sources of data."""

    def __init__(self, hosts: Container[str], salt: int) -> None:
        """`hosts`: names and addresses of this machine; `salt`: any number of this client's own."""
        self._hosts = hosts
        self._salt = salt
        self._known: dict[NodeId, _Known] = {}
        self._local: dict[str, bool] = {}

    def answered(self, node: NodeId, latency_s: float) -> None:
        """Note how long an answer of *node* took."""
        known = self._known.get(node)
        if known is None or not known.latency_s:
            self._known[node] = _Known(latency_s)
        else:
            self._known[node] = known._replace(latency_s=known.latency_s * (1 - _WEIGHT) + latency_s * _WEIGHT)

    def failed(self, node: NodeId, now: Seconds) -> None:
        """Note that *node* has not answered, or not well."""
        self._known[node] = self._known.get(node, _Known())._replace(failed_at=now)

    def cells(
        self,
        table: PartitionTable,
        nodes: Mapping[NodeId, NodeInfo],
        partition: Partition,
        connected: Container[NodeId],
        now: Seconds,
    ) -> list[NodeId]:
        """Return the nodes that may answer for *partition*, best first.

        Empty when the primary says that none serves.
        """
        readable = [n for n in table.readable(partition) if n in nodes]
        if len(readable) < 2:
            return readable

        def rank(item: tuple[int, NodeId]) -> tuple[bool, bool, bool, int, int]:
            place, node = item
            known = self._known.get(node, _Known())
            failed = now - known.failed_at < PENALTY_S
            quickness = int(known.latency_s * 1e6).bit_length()  # within a factor of two they count as equal
            turn = (place + self._salt + partition) % len(readable)
            return failed, not self._is_local(nodes[node].address), node not in connected, quickness, turn

        return [node for _, node in sorted(enumerate(readable), key=rank)]

    def cover(
        self,
        table: PartitionTable,
        nodes: Mapping[NodeId, NodeInfo],
        partitions: Iterable[Partition],
        connected: Container[NodeId],
        now: Seconds,
    ) -> dict[NodeId | None, tuple[Partition, ...]]:
        """Return whom to ask so that each partition is asked for once; under None those that nobody serves."""
        chosen: dict[NodeId | None, list[Partition]] = {}
        for p in partitions:
            cells = self.cells(table, nodes, p, connected, now)
            chosen.setdefault(cells[0] if cells else None, []).append(p)
        return {node: tuple(ps) for node, ps in chosen.items()}

    def _is_local(self, address: str) -> bool:
        local = self._local.get(address)
        if local is None:
            host = address.rpartition(":")[0].strip("[]")
            local = self._local[address] = address.startswith("unix:") or host in self._hosts
        return local
