"""Hostile peers of every role, on every port: garbage, mutated recordings, and packets made from the schema.

    python -m support.fuzz --seconds 600        in tests/, against a cluster of its own; prints what it has tried

What a well-formed packet of an authenticated peer may do by right is left out (`POWERS`): an admin may stop the
cluster, a client may pack it. Everything else must do no harm to anybody else: see `Harm` for what that means.
"""

import argparse
import contextlib
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from struct import Struct
from typing import Any, Final, NamedTuple

from ZODB.Connection import TransactionMetaData
from ZODB.POSException import ConflictError
from ZODB.utils import p64, u64, z64

from neo_common.checksum import checksum
from neo_common.ids import NO_EPOCH, NO_NODE, Epoch, NodeId, Partition, Ptid, Seconds, Tid, Version
from neo_common.model.partition_table import Cell, TableUpdate
from neo_common.states import CellState, Role, node_id
from neo_common.wire import schema
from neo_common.wire.codec import frame
from neo_common.wire.layout import Layout, Wire, layout_of
from neo_common.wire.schema import CODES, MAGIC, PACKETS, Packet
from neo_common.wire.session import Ended, Opened
from neo_common.wire.session import Session as WireSession
from support.cluster import Cluster

_READS: Final = frozenset(
    {
        schema.AskCluster,
        schema.AskNodes,
        schema.AskTable,
        schema.AskPackState,
        schema.AskReplication,
        schema.AskMoves,
        schema.AskDebug,
    }
)
"""What an admin may ask without changing anything; all else that an admin asks a master is an order."""
POWERS: Final = frozenset(
    {info.cls for info in PACKETS.values() if info.kind == schema.Kind.QUESTION and Role.ADMIN in info.senders}
    & {info.cls for info in PACKETS.values() if Role.MASTER in info.receivers} - _READS
) | {
    schema.AskPack,  # who may read history may have it removed
    schema.AskCollect,  # so may who has looked for garbage
    schema.AskImport,  # an import makes all others read only
    schema.AskRaiseOid,  # and takes oids
    schema.Finish,  # the primary believes that all have voted: docs/security.md, "What a peer may do by right"
}
HONEST_OIDS: Final = 64
"""Objects 0..: the honest client's. Hostile votes that are legal in all else may write any other object."""
FUZZ_OIDS: Final = 2**40
MEMORY_MAX_KB: Final = 300 * 1024
"""Above what a daemon had before, while hostile peers are connected."""
ANSWER_S: Final = 30.0
_HEADER: Final = Struct(">IHI")
_ROLES: Final = (Role.CLIENT, Role.CLIENT, Role.STORAGE, Role.ADMIN, Role.MASTER)


class Truth(NamedTuple):
    """What a hostile peer that has looked around knows of the cluster."""

    cluster_id: bytes
    epoch: Epoch
    version: Version
    partitions: int
    nodes: tuple[NodeId, ...]
    last: Tid


# ---------------------------------------------------------------------------------------------- values


class Maker:
    """Makes values of any layout: legal ones, likely to be taken further than the first check."""

    def __init__(self, rng: Random, truth: Truth) -> None:
        self.rng = rng
        self.truth = truth

    def frame(self, cls: type) -> bytes:
        """Return a packet of that class, as it travels."""
        is_notification = PACKETS[CODES[cls]].kind == schema.Kind.NOTIFICATION
        return frame(self.packet(cls), 0 if is_notification else self.rng.randrange(1, 2**32))

    def packet(self, cls: type) -> Packet:
        """Return a packet of that class."""
        made = self.value(layout_of(cls))
        assert isinstance(made, tuple)
        return made

    def value(self, layout: Layout) -> Any:
        """Return a legal value."""
        rng, truth = self.rng, self.truth
        match layout.wire:
            case Wire.U8 | Wire.U16 | Wire.U32 | Wire.U64:
                return self._number(layout)
            case Wire.BOOL:
                return rng.random() < 0.5
            case Wire.DOUBLE:
                return rng.choice([0.0, -1.0, 1e300, time.time(), rng.uniform(-1e6, 1e6)])
            case Wire.BYTES16:
                return truth.cluster_id if rng.random() < 0.5 else rng.randbytes(16)
            case Wire.BYTES:
                return rng.randbytes(rng.choice([0, 1, 20, 200, 5000]))
            case Wire.TEXT:
                return rng.choice(["", "s1", "m1", "x" * 300, "127.0.0.1:1", "größer\n\0", "../../etc"])
            case Wire.TABLE:
                row = tuple(Cell(n, rng.choice(list(CellState))) for n in rng.sample(truth.nodes, 1))
                base = truth.version if rng.random() < 0.3 else None
                body = tuple((Partition(n), row) for n in range(truth.partitions))
                return TableUpdate(base, Version(self._epoch(), Ptid(rng.randrange(300))), 1, truth.partitions, body)
            case Wire.ENUM:
                assert layout.cls is not None
                return rng.choice(list(layout.cls))  # type: ignore[call-overload]  # an IntEnum class
            case Wire.STRUCT:
                return self._struct(layout)
            case Wire.TUPLE:
                assert layout.item is not None
                count = rng.choice([0, 1, 1, 2, 3, 50])
                return tuple(self.value(layout.item) for _ in range(count))
            case Wire.OPTIONAL:
                assert layout.item is not None
                return None if rng.random() < 0.3 else self.value(layout.item)

    def _struct(self, layout: Layout) -> Any:
        cls = layout.cls
        assert cls is not None
        if cls is Version and self.rng.random() < 0.7:
            return self.truth.version
        made = cls(*(self.value(field.layout) for field in layout.fields))
        if cls is schema.Data and self.rng.random() < 0.8:
            made = made._replace(checksum=checksum(made.value), size=len(made.value))
        return made

    def _number(self, layout: Layout) -> int:
        rng, truth = self.rng, self.truth
        top = {Wire.U8: 2**8, Wire.U16: 2**16, Wire.U32: 2**32, Wire.U64: 2**64}[layout.wire] - 1
        match layout.name:
            case "Epoch":
                return self._epoch()
            case "Partition":
                return rng.choice([rng.randrange(truth.partitions), rng.randrange(truth.partitions), top, 0])
            case "NodeId":
                return rng.choice([*truth.nodes, node_id(Role.CLIENT, 999_999), 0, top])
            case "Tid":
                return rng.choice([0, 1, truth.last, truth.last + 1, top, top // 2])
            case "Oid":
                return rng.choice([FUZZ_OIDS + rng.randrange(50), FUZZ_OIDS + rng.randrange(2**20), top])
            case "Session":
                return rng.choice([0, 7, top, 2**40 + rng.randrange(100)])
        return rng.choice([0, 1, 2, 3, rng.randrange(100), top, rng.randint(0, top)])

    def _epoch(self) -> Epoch:
        return self.rng.choice([self.truth.epoch] * 6 + [NO_EPOCH, Epoch(1), Epoch(2**64 - 1), Epoch(2**40)])


def mutated(data: bytes, rng: Random) -> bytes:
    """Return *data* with some of it changed, cut out, repeated or put in."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1:
                del out[at : at + rng.choice([1, 4, 10, 100])]
            case 2:
                out[at:at] = rng.randbytes(rng.choice([1, 4, 10]))
            case 3:
                out[at:at] = out[at : at + rng.choice([10, 100])]
            case 4 if at + 4 <= len(out):
                out[at : at + 4] = rng.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\xff\xff\xff", b"\x7f\xff\xff\xff"]
                )
    return bytes(out)


# ---------------------------------------------------------------------------------------------- peers


class Recorder:
    """What a client says, by the address that it says it to, frame by frame: the seed of mutations."""

    def __init__(self) -> None:
        self.frames: dict[str, list[bytes]] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Note what the sessions of this process write."""
        original = WireSession.take_output
        said: dict[int, tuple[WireSession, bytearray]] = {}

        def take(session: WireSession) -> list[bytes]:
            out = original(session)
            said.setdefault(id(session), (session, bytearray()))[1].extend(b"".join(out))
            return out

        WireSession.take_output = take  # type: ignore[method-assign]  # the test's own process
        try:
            yield
        finally:
            WireSession.take_output = original  # type: ignore[method-assign]
        for session, data in said.values():
            self.frames.setdefault(session.label[:1], []).extend(split(bytes(data.removeprefix(MAGIC))))


def split(data: bytes) -> list[bytes]:
    """Return the frames of *data*."""
    found = []
    while data:
        size = _HEADER.size + _HEADER.unpack_from(data)[0]
        found.append(data[:size])
        data = data[size:]
    return found


class Hostile:
    """One connection to one port."""

    def __init__(self, address: str, rng: Random) -> None:
        host, port = address.rsplit(":", 1)
        self.rng = rng
        self.sock = socket.create_connection((host, int(port)), ANSWER_S)
        self.sock.settimeout(ANSWER_S)
        if rng.random() < 0.2:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def close(self) -> None:
        """Go: sometimes with a reset."""
        if self.rng.random() < 0.2:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, Struct("ii").pack(1, 0))
        self.sock.close()

    def say(self, data: bytes) -> bool:
        """Send *data*, in slices; return whether the peer still listens. What it says is read, but not waited for."""
        rng = self.rng
        try:
            if rng.random() < 0.1:
                for at in range(0, min(len(data), 200), 7):
                    self.sock.send(data[at : at + 7])
                data = data[200:]
            self.sock.sendall(data)
            self.sock.setblocking(False)
            try:
                while self.sock.recv(65536):
                    pass
            except BlockingIOError:
                return True
            finally:
                self.sock.settimeout(ANSWER_S)
        except OSError:
            return False
        return False

    def shake_hands(self, hello: schema.Hello) -> bool:
        """Return whether we are in. Parked, or refused, we are not."""
        session = WireSession(hello, True, now=Seconds(0.0))
        self.sock.settimeout(2.0)
        try:
            while True:
                self.sock.sendall(b"".join(session.take_output()))
                for event in session.receive(self.sock.recv(65536), Seconds(0.0)):
                    if isinstance(event, Opened):
                        return True
                    if isinstance(event, Ended):
                        return False
                if session.error is not None:
                    return False
        except OSError:
            return False
        finally:
            self.sock.settimeout(ANSWER_S)


class Fuzzer:
    """Attacks the ports of a cluster, one connection after another."""

    def __init__(
        self,
        addresses: dict[str, str],
        truth: Truth,
        recorded: dict[str, list[bytes]],
        seed: int,
        absent: tuple[str, ...] = (),
    ) -> None:
        """*absent*: masters that are configured and do not run. Who says that he is one of them is believed."""
        self.addresses = {name: address for name, address in addresses.items() if name not in absent}
        self.absent = absent
        self.truth = truth
        self.recorded = recorded
        self.seed = seed
        self.tried: Counter[str] = Counter()
        self.last = ""
        """What the last connection did, for whoever finds the harm."""

    def attack(self, number: int) -> None:
        """Make connection *number*; all that it does follows from the seed and that number."""
        rng = Random(f"{self.seed}.{number}")
        name = rng.choice(sorted(self.addresses))
        way = rng.choice([self.garbage, self.early, self.packets, self.packets, self.packets, self.replay])
        self.last = f"seed {self.seed}, connection {number}: {way.__name__} at {name}"
        try:
            peer = Hostile(self.addresses[name], rng)
        except OSError:
            self.tried["not taken"] += 1
            return
        try:
            self.tried[f"{name} {way(peer, name, rng)}"] += 1
        finally:
            peer.close()

    def garbage(self, peer: Hostile, name: str, rng: Random) -> str:
        """Bytes that nobody has made."""
        start = rng.choice([b"", MAGIC, b"GET / HTTP/1.0\r\n", b"\x16\x03\x01"])
        peer.say(start + rng.randbytes(rng.choice([1, 100, 10_000, 200_000])))
        return "garbage"

    def early(self, peer: Hostile, name: str, rng: Random) -> str:
        """Packets before, or instead of, a handshake."""
        maker = Maker(rng, self.truth)
        frames = [maker.frame(PACKETS[rng.choice(sorted(PACKETS))].cls) for _ in range(rng.randrange(1, 5))]
        hello = frame(self.hello(rng, rng.choice(list(Role))))
        frames.insert(rng.randrange(2), mutated(hello, rng) if rng.random() < 0.7 else hello)
        peer.say(MAGIC + b"".join(frames))
        return "early"

    def replay(self, peer: Hostile, name: str, rng: Random) -> str:
        """What a client has said, damaged."""
        frames = list(self.recorded[name[0].upper()]) if name[0].upper() in self.recorded else []
        if not frames:
            return self.packets(peer, name, rng)
        head, rest = frames[:1], frames[1:]
        rng.shuffle(rest)
        for index in range(len(rest)):
            if rng.random() < 0.3:
                rest[index] = mutated(rest[index], rng)
        if rng.random() < 0.1:
            head = [mutated(head[0], rng)]
        rest = [data for data in rest if not self.is_power(data)]
        peer.say(MAGIC + head[0])
        for data in rest[:100]:
            if not peer.say(data):
                break
        return "replay"

    def packets(self, peer: Hostile, name: str, rng: Random) -> str:
        """A handshake, then packets made from the schema, most of them for that role to say."""
        role = rng.choice(_ROLES)
        if not peer.shake_hands(self.hello(rng, role)):
            return f"packets of a {role.name}, not let in"
        to = {"m": Role.MASTER, "s": Role.STORAGE, "a": Role.ADMIN}[name[0]]
        legal = [i.cls for _, i in sorted(PACKETS.items()) if role in i.senders and to in i.receivers]
        legal = [cls for cls in legal if CODES[cls] & 0x7FFF > 0x00FF]
        maker = Maker(rng, self.truth)
        if role is Role.CLIENT and to is Role.MASTER and rng.random() < 0.7:
            peer.say(frame(maker.packet(schema.CHello)))
        for _ in range(rng.choice([1, 5, 30, 100])):
            cls = rng.choice(legal) if legal and rng.random() < 0.9 else PACKETS[rng.choice(sorted(PACKETS))].cls
            data = maker.frame(cls)
            if rng.random() < 0.15:
                data = mutated(data, rng)
            if not self.is_power(data) and not peer.say(data):
                break
        return f"packets of a {role.name}"

    def hello(self, rng: Random, role: Role) -> schema.Hello:
        """Return a Hello that may be believed."""
        truth = self.truth
        name = {Role.STORAGE: "s77", Role.MASTER: "m77", Role.ADMIN: "neoadmin"}.get(role, "hostile")
        node = NO_NODE if role is Role.ADMIN or rng.random() < 0.3 else node_id(role, 900_000 + rng.randrange(1000))
        if role is Role.MASTER and self.absent and rng.random() < 0.9:
            name = rng.choice(self.absent)
            node = node_id(role, int(name[1:]))
        cluster_id = truth.cluster_id if rng.random() < 0.7 else bytes(16)
        capabilities = ("debug",) if rng.random() < 0.2 else ()
        epoch = truth.epoch if rng.random() < 0.9 else Maker(rng, truth).value(layout_of(schema.Hello).fields[9].layout)
        address = "" if role is Role.CLIENT else "127.0.0.1:9"
        return schema.Hello(
            1, 1, capabilities, role, name, "test", cluster_id, node, rng.getrandbits(63), epoch, address
        )

    @staticmethod
    def is_power(data: bytes) -> bool:
        """Whether a frame that arrives whole may do harm by right."""
        if len(data) < _HEADER.size:
            return False
        info = PACKETS.get(_HEADER.unpack_from(data)[1])
        return info is not None and info.cls in POWERS


# ---------------------------------------------------------------------------------------------- who must not be harmed


class Honest:
    """A client that goes on committing: each object counts its own commits."""

    def __init__(self, cluster: Cluster) -> None:
        self.storage = cluster.open(cache_size=0, wait_timeout=ANSWER_S)
        self.serials: dict[int, bytes] = {}
        self.counts: Counter[int] = Counter()
        self.commits = 0
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="honest", daemon=True)

    def commit(self, *oids: int) -> None:
        """Add one to each of these objects. Raises: whatever a storage raises, after its own patience."""
        while True:
            txn = TransactionMetaData()
            self.storage.tpc_begin(txn)
            try:
                for oid in oids:
                    value = b"%d %d" % (oid, self.counts[oid] + 1)
                    self.storage.store(p64(oid), self.serials.get(oid, z64), value, "", txn)
                self.storage.tpc_vote(txn)
                tid = self.storage.tpc_finish(txn)
            except ConflictError:
                self.storage.tpc_abort(txn)
                continue  # contended: somebody holds a lock; the next attempt waits in order
            except BaseException:
                self.storage.tpc_abort(txn)
                raise
            break
        for oid in oids:
            self.serials[oid] = tid
            self.counts[oid] += 1
        self.commits += 1

    def start(self) -> None:
        """Commit in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Raises what stopped it, if anything did."""
        self._stop.set()
        self._thread.join(4 * ANSWER_S)
        assert not self._thread.is_alive(), "a commit hangs"
        if self.error is not None:
            raise self.error

    def check(self) -> None:
        """Every object is as the last commit left it."""
        for oid, count in self.counts.items():
            assert self.storage.load(p64(oid)) == (b"%d %d" % (oid, count), self.serials[oid])

    def _run(self) -> None:
        rng = random.Random(1)
        try:
            while not self._stop.wait(0.01):
                self.commit(*rng.sample(range(HONEST_OIDS), rng.randrange(1, 5)))
        except Exception as error:  # noqa: BLE001  the root of this thread; raised again by `stop`
            self.error = error


class Harm(AssertionError):
    """Somebody else was harmed; the text says by what, and how."""


def truth_of(storage: Any) -> Truth:
    """Return what a client knows."""
    core = storage._shell.core
    table = core.table
    nodes = tuple(sorted(table.nodes()))
    return Truth(storage._shell._cluster_id, core.epoch, table.version, table.partitions, nodes, Tid(core.last))


def history(storage: Any) -> dict[bytes, list[bytes]]:
    """Return the tids of every revision of every honest object, newest first."""
    found: dict[bytes, list[bytes]] = {}
    for oid in range(HONEST_OIDS):
        with contextlib.suppress(KeyError):
            found[p64(oid)] = [change["tid"] for change in storage.history(p64(oid), size=10_000)]
    return found


def fuzz(cluster: Cluster, seconds: float, seed: int, say: Callable[[str], object] = lambda text: None) -> Fuzzer:
    """Attack *cluster* for so long. Raises: Harm.

    Its masters that do not run are those that the attacker may pretend to be. In the end all start again.
    """
    absent = tuple(name for name in cluster.masters if name not in cluster.processes)
    recorder = Recorder()
    with recorder.recording():
        teacher = Honest(cluster)
        teacher.commit(*range(HONEST_OIDS))
        teacher.commit(*range(0, HONEST_OIDS, 3))
        for oid in range(5):
            teacher.storage.history(p64(oid), size=5)
            teacher.storage.load(p64(oid))
        teacher.storage.undoLog(0, 5)
        list(teacher.storage.iterator())
        u64(teacher.storage.new_oid())
        teacher.check()
        teacher.storage.close()
    honest = Honest(cluster)
    honest.serials, honest.counts = teacher.serials, teacher.counts
    fuzzer = Fuzzer(cluster.addresses, truth_of(honest.storage), recorder.frames, seed, absent)
    memory = {name: cluster.memory_kb(name) for name in cluster.processes}
    honest.start()
    until, number, looked = time.monotonic() + seconds, 0, 0.0
    commits, since = 0, time.monotonic()
    try:
        while time.monotonic() < until:
            fuzzer.attack(number)
            number += 1
            now = time.monotonic()
            if now - looked < 1.0:
                continue
            looked = now
            try:
                cluster.check_alive()
                if honest.error is not None:
                    raise honest.error
                if honest.commits != commits:
                    commits, since = honest.commits, now
                assert now - since < 2 * ANSWER_S, "the honest client does not get on"
                for name in memory:
                    grown = cluster.memory_kb(name) - memory[name]
                    assert grown < MEMORY_MAX_KB, f"{name} has grown by {grown} kB"
            except Exception as error:
                raise Harm(f"{fuzzer.last}, or one shortly before: {error!r}\n{cluster.logs()}") from error
            say(f"{number} connections, {honest.commits} honest commits; {fuzzer.last}")
    finally:
        honest._stop.set()
    try:
        honest.stop()
        honest.check()
        last = honest.storage.lastTransaction()
        whole = history(honest.storage)
        assert {u64(oid): len(tids) for oid, tids in whole.items()} == dict(honest.counts)
        honest.storage.close()
        for name in memory:  # what is on the disks is the same
            if name not in cluster.admins:
                cluster.kill(name)
                cluster.start(name)
        after = cluster.open(cache_size=0)
        assert history(after) == whole
        assert after.lastTransaction() >= last
        after.close()
        cluster.check_logs()
    except Exception as error:
        raise Harm(f"{fuzzer.last}, or one before: {error!r}\n{cluster.logs()}") from error
    assert honest.commits > 0
    say(f"{number} connections, {honest.commits} honest commits: {dict(sorted(fuzzer.tried.items()))}")
    return fuzzer


def main() -> None:
    """Attack a cluster of our own."""
    parser = argparse.ArgumentParser(description="Fuzz a cluster of our own.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--directory", default="")
    options = parser.parse_args()
    sys.stdout.write(f"seed {options.seed}\n")
    directory = Path(options.directory or tempfile.mkdtemp())
    with Cluster(directory, storages=2, replicas=1, admins=1) as cluster:
        fuzz(cluster, options.seconds, options.seed, lambda text: sys.stdout.write(text + "\n"))


if __name__ == "__main__":
    main()
