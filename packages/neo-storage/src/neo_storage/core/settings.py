"""What a storage's core can be told to do differently. Pure. The names are those of the configuration."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Times in seconds, sizes in bytes."""

    lease_s: float = 3.0
    lease_margin_s: float = 0.5
    """How much longer the lease is honoured than the primary counts on it: clocks differ, answers travel."""
    first_dial_s: float = 1.0
    """How long votes wait for a cell's storage that was not connected yet, after a start or when a table brings it."""
    lock_s: float = 10.0
    """Locks of the ordered path, while others wait for them."""
    overtaken_s: float = 0.05
    """How long a vote that has overtaken a Commit waits for it."""
    overdue_s: float = 30.0
    """After which the primary is told of votes that keep a lock that others wait for."""
    transaction_age_s: float = 3600.0
    """After which data that went ahead and nobody votes is forgotten, and a vote that nobody decides is aborted."""
    object_bytes: int = 2**30
    transaction_bytes: int = 8 * 2**30
    """All values of one transaction in one partition."""
    undecided_bytes: int = 4 * 2**30
    """Voted and tentative values at this storage, and what is known of them; above it votes are refused."""
    overlay_bytes: int = 256 * 2**20
    """Decided but not applied; above it votes wait."""
    disk_reserve_bytes: int = 256 * 2**20
    """Free disk space below which votes are refused."""
    waiters: int = 10_000
    """Lock packets that wait at this storage; above it they are refused."""
    held_packets: int = 10_000
    """Packets of one peer that wait for a table or for the applier; above it the connection is cut."""
    wrong: int = 10_000
    """Transactions that sent ahead what cannot be taken, until they vote; above it the connection is cut."""
    loads: int = 10_000
    """Reads that wait for the primary; above it they are answered NOT_READY."""
    serials: int = 500_000
    """Serials kept in memory, some 150 bytes each, where the database cannot be asked at once."""
    values_bytes: int = 64 * 2**20
    """Current values kept in memory, where the database cannot be asked at once; 0: none."""
    stale_bytes: int = 256 * 2**10
    """Largest value that is sent along with a conflict."""
    state_s: float = 5.0
    """Between two StorageState packets, unless something changes."""
    copy_parallel: int = 4
    """Cells that are copied at once."""
    copy_floor: int = 2 * 2**20
    """Bytes per second that copying is given whatever clients do."""
    copy_ceiling: int = 64 * 2**20
    """Bytes per second that it never takes more than."""
    copy_backlog_bytes: int = 8 * 2**20
    """Copied but not in the database yet; above it nothing is pulled."""
    copy_range: int = 2000
    """Revisions per range whose digests are compared."""
    copy_timeout_s: float = 30.0
    """Without an answer of a source."""
    domain: str = ""
    """What fails together with this storage; empty: it stands alone. The primary is told."""
    weight: int = 1
    """Its share of the cells, beside those of the others."""
    scrub_rate: int = 2**20
    """Bytes per second that are read again to be verified; 0: never."""
    scrub_every_s: float = 7 * 86400.0
    """Between the beginnings of two passes."""
    scrub_confirm_s: float = 10.0
    """What differs must still do so after that time: a collection of garbage reaches one cell before the other."""
