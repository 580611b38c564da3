"""The driver for programs under gevent's monkey patching. Imported only there.

Each connection has a reader greenlet; who waits is a parked greenlet. Locks are the patched ones, so the rest of the
client is the same as under threads.
"""

import threading
from time import monotonic

import gevent
import gevent.event
import gevent.hub
import gevent.lock

from neo_client.connections import Connection
from neo_client.drivers import Parked, Work

_READ, _WRITE = 1, 2


class GreenDriver:
    """See the module."""

    def __init__(self, work: Work, name: str) -> None:
        self._work = work
        self._lock = work.lock
        self._name = name
        self._readers: dict[int, gevent.Greenlet] = {}
        self._writers: dict[int, gevent.Greenlet] = {}
        self._waiting: set[Parked] = set()
        self._stopping = False
        self._nap = gevent.event.Event()
        self._janitor = gevent.Greenlet(self._keep_house)

    def start(self) -> None:
        """Begin to serve."""
        self._janitor.start()

    def stop(self) -> None:
        """Leave nothing behind."""
        with self._lock:
            self._stopping = True
            for parked in self._waiting:
                assert parked.park is not None
                parked.park.release()
            self._waiting.clear()
            greenlets = [self._janitor, *self._readers.values(), *self._writers.values()]
        self._nap.set()
        gevent.joinall([g for g in greenlets if g is not gevent.getcurrent()])

    def forget(self) -> None:
        """In a forked child, where gevent has made a new hub: the parent's greenlets do not run here."""
        self._stopping = True
        self._readers.clear()
        self._writers.clear()

    def register(self, conn: Connection) -> None:
        """Serve this connection."""
        self._readers[conn.fd] = gevent.spawn(self._read, conn, conn.fd)

    def output_changed(self, conn: Connection) -> None:
        """Have a greenlet wait for writability while there is something to write."""
        if conn.wants_write and conn.fd not in self._writers and not conn.is_connecting:
            self._writers[conn.fd] = gevent.spawn(self._write, conn, conn.fd)

    def release(self, conn: Connection) -> None:
        """Stop serving its present socket."""
        for greenlets in (self._readers, self._writers):
            greenlet = greenlets.pop(conn.fd, None)
            if greenlet is not None and greenlet is not gevent.getcurrent():
                greenlet.kill(block=False)

    def close(self, conn: Connection) -> None:
        """Close the socket when its greenlets have let go of it."""
        greenlets = [
            g for gs in (self._readers, self._writers) if (g := gs.get(conn.fd)) and g is not gevent.getcurrent()
        ]
        self.release(conn)
        if greenlets:
            gevent.spawn(_close_after, conn, greenlets)
        else:
            conn.sock.close()

    def complete(self, parked: Parked) -> None:
        """It is done."""
        if parked.is_done:
            return
        parked.is_done = True
        if parked in self._waiting:
            self._waiting.discard(parked)
            assert parked.park is not None
            parked.park.release()

    def wait(self, parked: Parked, deadline: float) -> bool:
        """Park this greenlet."""
        with self._lock:
            if parked.is_done or self._stopping:
                return parked.is_done
            parked.park = threading.Lock()
            parked.park.acquire()
            self._waiting.add(parked)
        try:
            left = deadline - monotonic()
            parked.park.acquire(timeout=min(max(left, 0.0), 1e6))
        finally:
            self._waiting.discard(parked)
        return parked.is_done

    def hurry(self) -> None:
        """Wake the janitor."""
        self._nap.set()

    def _read(self, conn: Connection, fd: int) -> None:
        hub = gevent.get_hub()
        watcher = hub.loop.io(fd, _WRITE if conn.is_connecting else _READ)
        try:
            while not conn.is_dead and conn.fd == fd:
                hub.wait(watcher)
                was_connecting = conn.is_connecting
                with self._lock:
                    if conn.is_dead or conn.fd != fd:
                        return
                    self._work.ready([fd])
                if was_connecting and not conn.is_connecting:
                    watcher.close()
                    watcher = hub.loop.io(fd, _READ)
        finally:
            watcher.close()
            if self._readers.get(fd) is gevent.getcurrent():
                del self._readers[fd]

    def _write(self, conn: Connection, fd: int) -> None:
        hub = gevent.get_hub()
        watcher = hub.loop.io(fd, _WRITE)
        try:
            while not conn.is_dead and conn.wants_write and conn.fd == fd:
                hub.wait(watcher)
                with self._lock:
                    if not conn.is_dead and conn.fd == fd:
                        self._work.ready([fd])
        finally:
            watcher.close()
            if self._writers.get(fd) is gevent.getcurrent():
                del self._writers[fd]

    def _keep_house(self) -> None:
        while not self._stopping:
            self._work.resolve_names()
            with self._lock:
                due = self._work.tick()
            self._nap.wait(max(0.0, due - monotonic()))
            self._nap.clear()


def _close_after(conn: Connection, greenlets: list[gevent.Greenlet]) -> None:
    sock = conn.sock
    gevent.joinall(greenlets)
    sock.close()
