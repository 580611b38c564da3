"""What a storage's core and its disk cost: microseconds of this process per vote, commit and load, without a network.

    .venv/bin/python benchmarks/micro/storage.py [--profile NAME]

The core, SQLite and the vote log are the real ones (on a disk, flushed); packets are decoded from, and encoded to,
frames, as the shell does. `import` is a transaction of 20 objects of 1 kB over 12 partitions, `tiny` is one of 128
bytes, `load` a load of 128 bytes that the back end has. Best of REPEATS.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from neo_common.checksum import checksum
from neo_common.core import Connected, Durable, Received, Send
from neo_common.ids import (
    NO_EPOCH,
    NO_TID,
    Instant,
    NodeId,
    Oid,
    Partition,
    Ptid,
    Seconds,
    Session,
    Tid,
    Ttid,
    Version,
    make_epoch,
)
from neo_common.model.partition_table import Cell, PartitionTable, whole
from neo_common.states import CellState, Role, node_id
from neo_common.wire.codec import FrameReader, frame
from neo_common.wire.schema import (
    AskLoad,
    Ceilings,
    Commit,
    Compression,
    Data,
    Fence,
    Hello,
    Metadata,
    Mode,
    Packet,
    Start,
    Vote,
    Work,
    Write,
)
from neo_storage.backends.sqlite.backend import SqliteBackend
from neo_storage.core.events import Append, Applied, Apply
from neo_storage.core.node import StorageCore
from neo_storage.core.settings import StorageSettings
from neo_storage.log_files import OsLogFiles
from neo_storage.opening import open_storage
from neo_storage.vote_log import VoteLog

REPEATS = 5
ROUNDS = 200
PARTITIONS = 12
ME, MASTER, CLIENT = (node_id(role, 1) for role in (Role.STORAGE, Role.MASTER, Role.CLIENT))
EPOCH = make_epoch(1, MASTER)
VERSION = Version(EPOCH, Ptid(1))
META = Metadata(b"admin", b"number 7", b"")
_WHO = {MASTER: Role.MASTER, CLIENT: Role.CLIENT}


class Storage:
    """One storage without a shell."""

    def __init__(self, directory: Path) -> None:
        self.backend = SqliteBackend(directory / "data.sqlite")
        self.log = VoteLog(OsLogFiles(directory), segment_bytes=64 * 2**20, spare_segments=1, new_salt=lambda: 7)
        image = open_storage(self.backend, self.log)
        self.core = StorageCore(ME, image, self.backend, StorageSettings(), self.now())
        self.ops: list[Apply] = []
        self.spent = {"core": 0.0, "codec": 0.0, "append": 0.0, "flush": 0.0, "apply": 0.0}
        row = (Cell(ME, CellState.UP_TO_DATE),)
        table = PartitionTable(VERSION, 0, [row] * PARTITIONS)
        for node, role in _WHO.items():
            hello = Hello(1, 1, (), role, "peer", "bench", bytes(16), node, 1, NO_EPOCH, "")
            self.handle(Connected(node, hello))
            if role is Role.MASTER:
                self.receive(MASTER, Fence(EPOCH))
                self.flush()
                ceilings = Ceilings(Tid(2**62), Oid(2**62))
                self.receive(MASTER, Start(EPOCH, b"cluster-16-bytes", whole(table), ceilings, (), ()))
                self.flush()
        self.apply()

    def now(self) -> Instant:
        """As a shell asks the clock."""
        return Instant(Seconds(time.monotonic()), Seconds(time.time()))

    def handle(self, event: object) -> None:
        """Give *event* to the core, perform its effects."""
        began = time.perf_counter()
        effects = self.core.handle(event, self.now())  # type: ignore[arg-type]  # any event
        self._add("core", began)
        appends: list[Append] = []
        for effect in effects:
            if isinstance(effect, Send):
                began = time.perf_counter()
                frame(effect.packet, effect.request)
                self._add("codec", began)
            elif isinstance(effect, Append):
                appends.append(effect)
            elif isinstance(effect, Apply):
                self.ops.append(effect)
        if appends:
            began = time.perf_counter()
            self.log.extend(appends[0].position, [append.record for append in appends])
            self._add("append", began)

    def receive(self, peer: NodeId, packet: Packet, request: int = 0) -> None:
        """*peer* has sent it."""
        self.receive_bytes(peer, frame(packet, request))

    def receive_bytes(self, peer: NodeId, data: bytes) -> None:
        """*peer* has sent that frame."""
        began = time.perf_counter()
        ((request, packet),) = FrameReader().feed(data)
        self._add("codec", began)
        self.handle(Received(peer, packet, request))

    def flush(self) -> None:
        """Flush the log, tell the core."""
        began = time.perf_counter()
        job = self.log.flush_job()
        job.run()
        self._add("flush", began)
        self.handle(Durable(job.position))

    def apply(self) -> None:
        """The applier's batch."""
        began = time.perf_counter()
        ops, self.ops = self.ops, []
        self.backend.apply([op for effect in ops for op in effect.ops], ops[-1].position)
        self._add("apply", began)
        self.handle(Applied(ops[-1].position))

    def close(self) -> None:
        """Close the files."""
        self.backend.close()
        self.log.close()

    def _add(self, what: str, began: float) -> None:
        self.spent[what] += time.perf_counter() - began


_counter = iter(range(1, 10**9))


def transaction(objects: int, size: int) -> Iterator[tuple[NodeId, Packet]]:
    """Yield the packets of a transaction of new objects."""
    number = next(_counter)
    value = number.to_bytes(8, "big") * (size // 8)
    data = Data(Compression.NONE, checksum(value), len(value), value)
    writes: dict[int, list[Write]] = {}
    for i in range(objects):
        oid = number * 64 + i
        writes.setdefault(oid % PARTITIONS, []).append(Write(Oid(oid), NO_TID, NO_TID, data))
    parts = tuple(map(Partition, sorted(writes)))
    work = tuple(Work(p, 0, tuple(writes[p]), ()) for p in parts)
    ttid, tid = Ttid(Session(1), number), Tid(1000 + number)
    yield CLIENT, Vote(ttid, 1, EPOCH, VERSION, parts, META, work, Mode.C, Tid(tid - 1), NO_TID)
    yield MASTER, Commit(ttid, 1, tid, parts, (), Tid(tid - 2))


def commits(storage: Storage, objects: int, size: int) -> None:
    """Some transactions, then the batch that applies them."""
    packets = [[(peer, frame(p)) for peer, p in transaction(objects, size)] for _ in range(ROUNDS)]
    for vote, commit in packets:
        storage.receive_bytes(*vote)
        storage.flush()
        storage.receive_bytes(*commit)
    storage.flush()
    storage.apply()


def loads(storage: Storage) -> None:
    """Loads of objects that `commits` has stored."""
    frames = [frame(AskLoad(EPOCH, Oid((n + 1) * 64), Tid(2**62)), n + 1) for n in range(ROUNDS)]
    for data in frames:
        storage.receive_bytes(CLIENT, data)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="import, tiny or load: show its functions too")
    arguments = parser.parse_args()
    works: dict[str, Callable[[Storage], None]] = {
        "tiny": lambda s: commits(s, 1, 128),
        "load": loads,
        "import": lambda s: commits(s, 20, 1000),
    }
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-storage-")))
        storage = Storage(directory)
        stack.callback(storage.close)
        for name, work in works.items():
            best: dict[str, float] = {}
            for _ in range(REPEATS):
                storage.spent = dict.fromkeys(storage.spent, 0.0)
                work(storage)
                for what, seconds in storage.spent.items():
                    best[what] = min(best.get(what, seconds), seconds)
            parts = "  ".join(f"{what} {seconds / ROUNDS * 1e6:.1f}" for what, seconds in best.items() if seconds)
            print(f"{name:8} {sum(best.values()) / ROUNDS * 1e6:8.1f} us: {parts}")
            if name == arguments.profile:
                profile = cProfile.Profile()
                profile.runcall(work, storage)
                pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
