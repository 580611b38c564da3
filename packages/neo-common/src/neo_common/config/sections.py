"""Every section of the configuration, with every key, default and unit: here and nowhere else. Pure.

The name of a key is the name of the field without its unit: `lease_s` is written `lease: 3s`, `cache_size_bytes` is
written `cache_size: 64MB`. What a key means is the `About` beside its type; `config/neo.yaml` and
`docs/configuration.md` are made from these, and a test says so. Nothing is checked here but by the types: see `rules`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, TypeVar

from neo_common.config.values import Address, ByteCount, Duration, FilePath
from neo_common.errors import ConfigError
from neo_common.ids import NodeId
from neo_common.states import Role, node_id

KB: Final = 2**10
MB: Final = 2**20
GB: Final = 2**30
_N = TypeVar("_N", bound="Node")


class About(NamedTuple):
    """What a key means, and the bounds of its value (included; None: none)."""

    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the cluster is. Of `partitions` and `replicas`, the values when it was created count."""

    name: Annotated[str, About("name of the cluster; a node refuses to talk to one of another name")]
    partitions: Annotated[int, About("number of partitions; fixed when the cluster is created", 1, 65535)] = 12
    replicas: Annotated[
        int, About("copies of each partition beyond the first; 1 survives the loss of a disk", 0, 15)
    ] = 0
    auto_start: Annotated[
        bool, About("create the cluster as soon as all the storages below are there; else wait for `neoadmin start`")
    ] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every node that listens has."""

    role: ClassVar[Role]
    name: str = field(metadata={"is_key": False})
    """The key under which the node stands in the file."""
    address: Annotated[Address, About("where it listens and others dial it: host:port, [v6]:port or unix:/path")]
    listen: Annotated[
        str, About("where it listens, if that is not where others dial it: in a container, behind a proxy")
    ] = ""
    number: Annotated[
        int, About("its number among the nodes of its kind; 0: the digits that end its name", 0, 2**24 - 1)
    ] = 0
    host: Annotated[str, About("label of the machine that it runs on; `neoadmin supervisor --host` selects by it")] = ""

    @property
    def listens_at(self) -> str:
        """Where it binds its socket."""
        return self.listen or self.address

    @property
    def node(self) -> NodeId:
        """Its node id: role and number."""
        return node_id(self.role, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Master(Node):
    """A master: one of them is the primary, the others are ready to be."""

    role: ClassVar[Role] = Role.MASTER
    directory: Annotated[
        FilePath,
        About("folder of its journal (a few MB); relative to this file; empty: the name of the node"),
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The back end of a storage. `path`, `page`, `checkpoint` are SQLite's, those from `managed` on the servers'."""

    type: Annotated[Literal["sqlite", "mysql", "postgresql"], About("kind of database; mysql is MariaDB too")] = (
        "sqlite"
    )
    path: Annotated[FilePath, About("its file; relative to the directory of the storage")] = "neo.sqlite"
    cache_bytes: Annotated[ByteCount, About("memory for pages, of each connection; managed: of the server", 1 * MB)] = (
        64 * MB
    )
    page_bytes: Annotated[ByteCount, About("size of a page, when the file is made", 512, 65536)] = 8 * KB
    checkpoint_bytes: Annotated[ByteCount, About("size of SQLite's own log at which it is copied back", 1 * MB)] = (
        16 * MB
    )
    managed: Annotated[
        bool,
        About("mysql: the storage runs a private MariaDB, in `server_directory`; no keys from `name` to `port` then"),
    ] = False
    name: Annotated[str, About("name of the database on its server; no other storage may have the same")] = ""
    user: Annotated[str, About("who we are to the server")] = ""
    password_file: Annotated[
        FilePath, About("file whose first line is the password; relative to this file; empty: none is needed")
    ] = ""
    password_variable: Annotated[str, About("or the environment variable that holds it")] = ""
    socket: Annotated[
        FilePath, About("Unix socket of the server (PostgreSQL: the folder that it is in); empty: `server`")
    ] = ""
    server: Annotated[str, About("host of the server, where there is no socket")] = ""
    port: Annotated[int, About("its port; 0: 3306, or 5432 for PostgreSQL", 0, 65535)] = 0
    tls: Annotated[
        Literal["verify", "unverified", "off"],
        About("to `server`: TLS with its certificate verified; TLS with anybody, who may read and change all; none"),
    ] = "verify"
    tls_ca: Annotated[
        FilePath,
        About("authority that has signed the server's certificate (PEM); empty, for a server of this host: no TLS"),
    ] = ""
    tls_certificate: Annotated[
        FilePath, About("our certificate (PEM), if the server wants one; relative to this file, as its key")
    ] = ""
    tls_key: Annotated[FilePath, About("its private key (PEM), readable by its owner only")] = ""
    readers: Annotated[int, About("connections for loads", 1, 64)] = 4
    values_bytes: Annotated[ByteCount, About("memory of the storage for current values of a server's; 0: none")] = (
        64 * MB
    )
    timeout_s: Annotated[Duration, About("of silence of the server before a connection is given up", 1.0)] = 120.0
    server_directory: Annotated[
        FilePath,
        About(
            "where the server has its files, if on this host: for free space; managed, empty: `mariadb` of the storage"
        ),
    ] = ""
    unsafe: Annotated[
        bool, About("accept a server with settings that lose what it has called durable, when its machine fails")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteLog:
    """The vote log of a storage: the only durable write on the path of a commit."""

    path: Annotated[
        FilePath, About("folder of its segments, best on a fast disk; relative to the directory of the storage")
    ] = "log"
    segment_bytes: Annotated[
        ByteCount, About("size of a segment, reserved on disk when it is made", 1 * MB, 4 * GB)
    ] = 64 * MB
    spare_segments: Annotated[int, About("recycled segments kept ready, beyond the one in use", 1, 64)] = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage(Node):
    """A storage: keeps cells."""

    role: ClassVar[Role] = Role.STORAGE
    directory: Annotated[
        FilePath, About("folder of all its files; relative to this file; empty: the name of the node")
    ] = ""
    domain: Annotated[
        str, About("what fails together with it: copies of a partition go to different domains; empty: its host")
    ] = ""
    weight: Annotated[int, About("its share of the data, beside the weights of the others", 1, 1_000_000)] = 1
    disk_reserve_bytes: Annotated[ByteCount, About("free disk space below which votes are refused; reads go on")] = (
        256 * MB
    )
    database: Database = Database()
    log: VoteLog = VoteLog()

    @property
    def failure_domain(self) -> str:
        """What fails together with it: its `domain`, else its `host`; empty: it stands alone."""
        return self.domain or self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin(Node):
    """An admin: watches the cluster and answers neoadmin. Never in the path of data."""

    role: ClassVar[Role] = Role.ADMIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Who may talk to the cluster: docs/security.md. With neither TLS nor a secret, only this machine may."""

    tls_ca: Annotated[
        FilePath, About("authority of the cluster (PEM); with it every connection is TLS 1.3, both sides certified")
    ] = ""
    tls_certificate: Annotated[
        FilePath, About("certificate of the node (PEM); `{name}` stands for its name, `neoadmin` on a command line")
    ] = ""
    tls_key: Annotated[FilePath, About("its private key (PEM), readable by its owner only; `{name}` as above")] = ""
    secret_file: Annotated[
        FilePath, About("file with a secret that all nodes and clients share, readable by its owner only")
    ] = ""
    secret_env: Annotated[str, About("name of an environment variable that holds the secret, instead of a file")] = ""
    insecure: Annotated[
        bool, About("let anybody who reaches the addresses read and change everything, from other machines too")
    ] = False

    @property
    def is_protected(self) -> bool:
        """Whether strangers are kept out."""
        return bool(self.tls_ca or self.secret_file or self.secret_env)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long things may take."""

    handshake_s: Annotated[
        Duration, About("between connection and answer to Hello; a parked node waits without end", 0.01)
    ] = 10.0
    heartbeat_s: Annotated[Duration, About("of silence before a peer is asked whether it lives", 0.01)] = 2.0
    silence_s: Annotated[Duration, About("of silence before the connection is given up", 0.02)] = 5.5
    request_s: Annotated[Duration, About("for the answer to a question, unless it says otherwise", 0.1)] = 30.0
    lease_s: Annotated[
        Duration, About("for which storages and masters follow a primary alone; renewed while they talk", 0.1)
    ] = 2.2
    election_s: Annotated[
        Duration, About("for masters to wait for each other before one becomes primary, when none was", 0.0)
    ] = 1.5
    takeover_s: Annotated[
        Duration, About("for a new primary to wait for storages that it can do without, when another has reigned", 0.0)
    ] = 1.0
    power_on_s: Annotated[
        Duration, About("the same when everything starts: who is left out has to copy what it missed", 0.0)
    ] = 30.0
    grace_s: Annotated[
        Duration, About("for a lost client to come back before its votes are decided without it", 0.0)
    ] = 3.0
    overdue_s: Annotated[
        Duration, About("that a voted transaction may keep others waiting before it is aborted", 1.0)
    ] = 30.0
    lock_s: Annotated[Duration, About("to wait in order for a lock", 0.1)] = 10.0
    commit_flush_s: Annotated[Duration, About("until a commit is durable at the storages, at most", 0.0, 1.0)] = 0.01
    stop_s: Annotated[Duration, About("for a node to stop cleanly before it leaves things to the next start", 0.1)] = (
        30.0
    )
    node_expiry_s: Annotated[
        Duration, About("that a storage may be away before the operator is alerted; it is never dropped by itself", 1.0)
    ] = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything there may be. What is above is refused with a clear error, or waits."""

    object_bytes: Annotated[ByteCount, About("one object, as stored", 1 * MB)] = 1 * GB
    transaction_bytes: Annotated[ByteCount, About("all objects of one transaction in one partition", 1 * MB)] = 8 * GB
    transaction_age_s: Annotated[Duration, About("from the first vote of a transaction to its end", 1.0)] = 3600.0
    moves: Annotated[
        int, About("cells of one storage that are copied to it at the same time, when the cluster is changed", 1, 4096)
    ] = 8
    connections: Annotated[int, About("connections that a node accepts", 1)] = 4096
    strangers: Annotated[
        int, About("of these, connections that have not shown yet who they are; above it the oldest is cut", 1)
    ] = 256
    hello_bytes: Annotated[
        ByteCount, About("what a node keeps of a connection that has not shown yet who it is", 4 * KB, 1 * MB)
    ] = 64 * KB
    requests: Annotated[int, About("questions in flight on one connection", 1)] = 1024
    output_bytes: Annotated[
        ByteCount, About("output waiting on one connection; above it the connection is cut", 16 * MB)
    ] = 256 * MB
    undecided_bytes: Annotated[
        ByteCount, About("votes without a decision at one storage; above it votes are refused", 1 * MB)
    ] = 4 * GB
    overlay_bytes: Annotated[
        ByteCount, About("decided but not yet in the database, at one storage; above it votes wait", 1 * MB)
    ] = 256 * MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """How storages copy cells from each other. See docs/replication.md."""

    floor_bytes: Annotated[
        ByteCount, About("per second and storage, which copying is given whatever clients do", 64 * KB)
    ] = 2 * MB
    ceiling_bytes: Annotated[ByteCount, About("per second and storage, which it never takes more than", 64 * KB)] = (
        32 * MB
    )
    parallel: Annotated[int, About("cells that a storage copies at once", 1, 64)] = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrub:
    """How storages look for damage by themselves: values against their checksums, cells of a row against each other."""

    rate_bytes: Annotated[ByteCount, About("per second and storage, read again to be verified; 0: never")] = 1 * MB
    every_s: Annotated[Duration, About("between the beginnings of two passes", 1.0)] = 7 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """What the daemons say, on stderr: supervisord keeps it in a file per node."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], About("the least important that is written")] = (
        "INFO"
    )
    format: Annotated[Literal["text", "json"], About("one line of key=value fields, or one JSON object, per event")] = (
        "text"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """How `neoadmin supervisor` sets up supervisord on a host."""

    directory: Annotated[
        FilePath, About("folder of its configuration, socket, pid file and logs; relative to this file")
    ] = "run"
    start_s: Annotated[Duration, About("that a process must live to count as started", 0.0)] = 1.0
    stop_s: Annotated[Duration, About("from SIGTERM to SIGKILL", 1.0)] = 40.0
    log_bytes: Annotated[ByteCount, About("size of a log file before it is rotated; 0: never", 0)] = 50 * MB
    log_backups: Annotated[int, About("rotated log files kept, per node", 0)] = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of it. `masters`, `storages` and `admins` are in the order of the file."""

    path: str = field(metadata={"is_key": False})
    """The file that was read, absolute."""
    cluster: Cluster
    masters: Mapping[str, Master]
    storages: Mapping[str, Storage]
    admins: Mapping[str, Admin]
    security: Security = Security()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    replication: Replication = Replication()
    scrub: Scrub = Scrub()
    logging: Logging = Logging()
    supervisor: Supervisor = Supervisor()

    @property
    def nodes(self) -> tuple[Master | Storage | Admin, ...]:
        """Every node: masters, storages, admins."""
        return (*self.masters.values(), *self.storages.values(), *self.admins.values())

    @property
    def master_addresses(self) -> tuple[Address, ...]:
        """Where to look for the primary, in the order of the file."""
        return tuple(m.address for m in self.masters.values())

    def node(self, name: str) -> Master | Storage | Admin:
        """Return the node called *name*.

        Raises: ConfigError that lists the names that there are.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise ConfigError(f"{self.path}: there is no node {name!r}; there are {', '.join(n.name for n in self.nodes)}")

    def master(self, name: str) -> Master:
        """Return the master called *name*; ConfigError if that is not a master."""
        return _of_kind(Master, self.node(name), self)

    def storage(self, name: str) -> Storage:
        """Return the storage called *name*; ConfigError if that is not a storage."""
        return _of_kind(Storage, self.node(name), self)

    def admin(self, name: str) -> Admin:
        """Return the admin called *name*; ConfigError if that is not an admin."""
        return _of_kind(Admin, self.node(name), self)


def _of_kind(kind: type[_N], node: Node, config: Config) -> _N:
    if isinstance(node, kind):
        return node
    raise ConfigError(f"{config.path}: {node.name} is a {node.role.name.lower()}, not a {kind.role.name.lower()}")
