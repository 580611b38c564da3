"""What a read of one revision of 128 bytes costs a storage on each kind of server, by the ways to wait for it.

    .venv/bin/python benchmarks/micro/points.py          after `make servers`

`blocking`: no hub, the floor; `threads`, `hub`: `neo_storage.points`, one read at a time, then eight at once over four
connections. Medians of ROUNDS turns, of microseconds per read; `cpu`: of this process.
"""

from gevent import monkey

monkey.patch_all()

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.event import AsyncResult
from gevent.hub import get_hub

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from neo_common.ids import Oid, Tid
from neo_storage.backends.server import ServerBackend
from neo_storage.core.events import Loads, PointsRead, ReadPoints
from neo_storage.native import Door
from neo_storage.points import PointReads, ThreadReads, point_reads
from support.backend_contract import END, P0, commit, write
from support.server_kinds import EVERY
from support.servers import backend_on

OBJECTS = 6000
READS = 1500
ROUNDS = 5
READERS = 4


def make_door() -> Door:
    """As a shell's."""
    schedule = get_hub().loop.run_callback_threadsafe
    return lambda function, *arguments: schedule(gevent.spawn_raw, function, *arguments)


class Asker:
    """Waits for what it has asked."""

    def __init__(self, make: Callable[[Callable[[PointsRead], None]], PointReads]) -> None:
        self._results: dict[int, AsyncResult] = {}
        self.reads = make(lambda event: self._results.pop(event.number).set(event.result))
        self._count = 0

    def load(self, oid: int) -> None:
        """Load one."""
        self._count += 1
        result = self._results[self._count] = AsyncResult()
        self.reads.ask(ReadPoints(self._count, Loads(((P0, Oid(oid)),), END)))
        assert result.get()[0]


def one_by_one(load: Callable[[int], object], oids: list[int]) -> float:
    """Return the median time of a load."""
    times = []
    for oid in oids:
        began = time.perf_counter()
        load(oid)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def at_once(load: Callable[[int], object], oids: list[int]) -> float:
    """Return the time per load of eight greenlets together."""
    rest = iter(oids)

    def work() -> None:
        for oid in rest:
            load(oid)

    began = time.perf_counter()
    gevent.joinall([gevent.spawn(work) for _ in range(8)], raise_error=True)
    return (time.perf_counter() - began) / len(oids)


def main() -> None:
    """Run it."""
    keep_alive = gevent.spawn(gevent.sleep, 10**6)
    for kind in EVERY:
        server = kind()
        backend = backend_on(server, server.new_database())
        assert isinstance(backend, ServerBackend)
        backend.open()
        for first in range(0, OBJECTS, 2000):
            batch = [commit(Tid((n + 1) << 32), write(n, b"x" * 128), np=1) for n in range(first, first + 2000)]
            backend.apply(batch, first)
        blocking = backend.range_reader()
        threads = Asker(lambda done, b=backend: ThreadReads(b, make_door(), done, READERS))
        hub = Asker(lambda done, b=backend: point_reads(b, make_door(), gevent.spawn, done, READERS))
        ways = {
            "blocking": (one_by_one, lambda oid, r=blocking: r.load(P0, Oid(oid), END)),
            "threads, one": (one_by_one, threads.load),
            "hub, one": (one_by_one, hub.load),
            "threads, eight": (at_once, threads.load),
            "hub, eight": (at_once, hub.load),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, (how, load) in ways.items():
                oids = [random.randrange(OBJECTS) for _ in range(READS)]
                cpu = time.process_time()
                found[name].append((how(load, oids), (time.process_time() - cpu) / READS))
        for name, figures in found.items():
            wall, cpu = (statistics.median(column) * 1e6 for column in zip(*figures, strict=True))
            print(f"{kind.__name__:12} {name:16} {wall:6.0f} us, cpu {cpu:4.0f}")
        server.end()
    keep_alive.kill()


if __name__ == "__main__":
    main()
