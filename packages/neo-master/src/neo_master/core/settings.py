"""What a master must know of its configuration, as values. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

from neo_common.ids import NodeId


class Configured(NamedTuple):
    """A node that the configuration names."""

    name: str
    node: NodeId
    """The id that the configuration gives it; `NO_NODE` to let the primary choose."""
    address: str
    domain: str = ""
    """Of a storage: what fails together with it; empty: it stands alone."""
    weight: int = 1
    """Of a storage: its share of the cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSettings:
    """Everything that the core reads of the configuration. Durations in seconds."""

    cluster: str
    partitions: int = 12
    replicas: int = 0
    """`partitions` and `replicas` count only when the first table is made."""
    auto_start: bool = True
    storages: tuple[Configured, ...] = ()
    """Those that `auto_start` waits for."""
    finish_durable: bool = False
    """`Finished` waits until the commit is durable on every written cell."""
    lease_s: float = 3.0
    grace_s: float = 3.0
    told_s: float = 60.0
    """After so long a client is taken to have had its answer without saying `Heard`: else its heartbeats had failed."""
    election_wait_s: float = 1.5
    takeover_s: float = 1.0
    """How long a new primary waits for storages that it can do without, when another one has reigned before."""
    power_on_s: float = 30.0
    """The same when everything starts."""
    stop_s: float = 30.0
    ceiling_ahead_s: float = 5.0
    oid_batch: int = 1000
    oid_batches_ahead: int = 10
    clock_jump_s: float = 3600.0
    rejoin_min_s: float = 0.2
    """Before a cell whose join was broken off joins again; doubles up to `rejoin_max_s`."""
    rejoin_max_s: float = 30.0
    moves_max: int = 8
    """Cells of one storage that are copied to it at the same time, when the cluster is changed."""
    node_expiry_s: float = 3600.0
    """After which the operator is told of a storage that is away."""
    clients_max: int = 4096
    parked_max: int = 4096
    waiting_max: int = 10_000
    """Requests of all clients that wait for a ceiling."""
    remembered_max: int = 10_000
    """Sessions given up, aborts, and answers to lost clients, of each so many are remembered."""
