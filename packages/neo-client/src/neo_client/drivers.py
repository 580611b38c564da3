"""Who reads the sockets, and how a thread waits: the one part of a client that knows threads.

The thread that waits for an answer reads the sockets itself and hands others their packets: it *leads*. When it has
what it waited for, it hands the lead to one of those that still wait. A wake-up of another thread costs more than a
round trip on this machine, and so it is paid only when several threads wait at once. The janitor thread leads when
nobody has for some tens of milliseconds: it hears invalidations, answers pings, looks at deadlines and resolves
names.

Under gevent's monkey patching `neo_client.green` has another driver with the same methods.
"""

import os
import select
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Final, Protocol

from neo_client.connections import Connection

IDLE_S: Final = 0.03
"""The janitor leads when nobody has for so long."""
SPIN_S: Final = 600e-6
"""How long a thread that waits alone looks for its answer without sleeping, while that is likely to help: the votes of
a small commit take some 300 us, the flush included. Who sleeps finds the processor's caches cold, which costs more."""
_SPIN_LUCK: Final = 0.3
"""Share of the last waits that spinning must have ended for it to go on."""
_SPIN_TRY: Final = 64
"""Once in so many waits it is tried although it has not helped."""
_give_way: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: sleep(0))
"""macOS has no sched_yield."""
_FOREVER: Final = float("inf")
_POLL_MAX_S: Final = 60.0


class Work(Protocol):
    """What a driver drives: the shell."""

    lock: threading.RLock

    def ready(self, fds: list[int]) -> None:
        """These sockets can be read or written. Under the lock."""

    def tick(self) -> float:
        """Look at what is due; return when to come again (monotonic seconds). Under the lock."""

    def resolve_names(self) -> None:
        """Do what may block for long: look up names. Without the lock."""

    @property
    def has_names(self) -> bool:
        """Whether `resolve_names` has something to do."""


class Parked:
    """Something that a thread waits for; done once, under the lock."""

    __slots__ = ("is_done", "park")

    def __init__(self) -> None:
        self.is_done = False
        self.park: threading.Lock | None = None


class Driver(Protocol):
    """How to wait."""

    def start(self) -> None:
        """Begin to serve."""

    def stop(self) -> None:
        """Leave nothing behind. Whoever waits returns. Without the lock."""

    def forget(self) -> None:
        """In a forked child: let go of what is the parent's."""

    def register(self, conn: Connection) -> None:
        """Serve this connection. Under the lock."""

    def output_changed(self, conn: Connection) -> None:
        """`conn.wants_write` may have changed. Under the lock."""

    def close(self, conn: Connection) -> None:
        """Close the socket of this connection. Under the lock."""

    def release(self, conn: Connection) -> None:
        """Stop serving the present socket of this connection, which stays open. Under the lock."""

    def complete(self, parked: Parked) -> None:
        """It is done: whoever waits for it goes on. Under the lock."""

    def wait(self, parked: Parked, deadline: float) -> bool:
        """Wait until it is done, or until *deadline* (monotonic). Return whether it is. Without the lock."""

    def hurry(self) -> None:
        """There is work for the janitor, or an earlier deadline. Under the lock."""


class _Poller:
    """epoll where there is one: sockets may come and go while another thread waits in it. Else selectors."""

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._other = None if self._epoll else selectors.DefaultSelector()

    def register(self, fd: int, write: bool) -> None:
        if self._epoll:
            self._epoll.register(fd, select.EPOLLIN | (select.EPOLLOUT if write else 0))
        elif self._other:
            self._other.register(fd, selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0))

    def modify(self, fd: int, write: bool) -> None:
        if self._epoll:
            self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if write else 0))
        elif self._other:
            self._other.modify(fd, selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0))

    def unregister(self, fd: int) -> None:
        if self._epoll:
            self._epoll.unregister(fd)
        elif self._other:
            self._other.unregister(fd)

    def poll(self, timeout: float) -> list[int]:
        if self._epoll:
            return [fd for fd, _ in self._epoll.poll(timeout)]
        assert self._other
        return [key.fd for key, _ in self._other.select(timeout)]

    def close(self) -> None:
        if self._epoll:
            self._epoll.close()
        elif self._other:
            self._other.close()


class Spin:
    """Whether to look for an answer for some microseconds before going to sleep.

    To be woken on a processor that has gone idle costs several times what a storage on the same or a near machine needs
    to answer. Whether answers do come in that time is found out by trying; where they do not, nothing is spent.
    """

    def __init__(self) -> None:
        self._luck = 1.0
        self._skipped = 0

    def is_worth_it(self) -> bool:
        """Return whether to spin now."""
        if self._luck >= _SPIN_LUCK:
            return True
        self._skipped += 1
        return self._skipped % _SPIN_TRY == 0

    def poll(self, poller: _Poller) -> list[int]:
        """Return what is ready within SPIN_S, giving way to whoever wants the processor."""
        until = monotonic() + SPIN_S
        while not (fds := poller.poll(0)) and monotonic() < until:
            _give_way()
        # Late: others want this processor, and had it for ms. Who sleeps is woken in time, who gives way is not.
        late = monotonic() - until
        self._luck = 0.0 if late > SPIN_S else self._luck + ((bool(fds) and late < 0) - self._luck) * 0.05
        return fds


class ThreadDriver:
    """See the module.

    Invariants: at most one thread is in `_poller.poll`, the leader; a follower's `park` is released exactly when it is
    done or becomes the leader; nobody waits without a leader.
    """

    def __init__(self, work: Work, name: str) -> None:
        self._work = work
        self._lock = work.lock
        self._poller = _Poller()
        self._spin = Spin()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._poller.register(self._wake_in.fileno(), False)
        self._leader: Parked | None = None
        self._leader_thread = 0
        self._followers: deque[Parked] = deque()
        self._led_at = monotonic()
        self._tick_at = 0.0
        self._served = False
        """Somebody was served since this leader took over."""
        self._writing: set[int] = set()
        self._stopping = False
        self._nap = threading.Event()
        self._janitor = threading.Thread(target=self._keep_house, name=f"neo-client-{name}", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._janitor.start()

    def stop(self) -> None:
        """Leave nothing behind."""
        with self._lock:
            self._stopping = True
            self._interrupt()
            self._nap.set()
            while self._followers:
                parked = self._followers.popleft()
                assert parked.park is not None
                parked.park.release()
        if self._janitor.is_alive() and threading.current_thread() is not self._janitor:
            self._janitor.join()
        self._close_files()

    def forget(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self._stopping = True
        self._close_files()

    def _close_files(self) -> None:
        self._poller.close()
        self._wake_in.close()
        self._wake_out.close()

    def register(self, conn: Connection) -> None:
        """Serve this connection."""
        self._poller.register(conn.fd, conn.wants_write)
        if conn.wants_write:
            self._writing.add(conn.fd)

    def output_changed(self, conn: Connection) -> None:
        """Look for writability exactly while there is something to write."""
        if conn.wants_write != (conn.fd in self._writing):
            self._poller.modify(conn.fd, conn.wants_write)
            (self._writing.add if conn.wants_write else self._writing.discard)(conn.fd)

    def release(self, conn: Connection) -> None:
        """Stop serving its present socket."""
        self._poller.unregister(conn.fd)
        self._writing.discard(conn.fd)

    def close(self, conn: Connection) -> None:
        """Close the socket of this connection."""
        self.release(conn)
        conn.sock.close()

    def complete(self, parked: Parked) -> None:
        """It is done."""
        if parked.is_done:
            return
        parked.is_done = True
        self._served = True
        if parked is self._leader:
            if threading.get_ident() != self._leader_thread:
                self._interrupt()
        elif parked.park is not None:
            self._followers.remove(parked)
            parked.park.release()

    def wait(self, parked: Parked, deadline: float) -> bool:
        """Wait, as leader or as follower."""
        with self._lock:
            if parked.is_done or self._stopping:
                return parked.is_done
            if self._leader is None:
                self._take_lead(parked)
            else:
                parked.park = threading.Lock()
                parked.park.acquire()
                self._followers.append(parked)
        try:
            while self._leader is not parked:
                assert parked.park is not None
                left = deadline - monotonic()
                woken = parked.park.acquire(timeout=min(max(left, 0.0), threading.TIMEOUT_MAX))
                with self._lock:
                    if self._leader is parked:
                        break
                    if parked.is_done or self._stopping:
                        return parked.is_done
                    if not woken:
                        self._followers.remove(parked)
                        parked.park = None  # it may be completed later, when nobody waits for it
                        return False
            self._lead(parked, deadline)
        except BaseException:  # the application was interrupted: others still need a leader
            with self._lock:
                if parked in self._followers:
                    self._followers.remove(parked)
                    parked.park = None
                if self._leader is parked:
                    self._hand_over()
            raise
        return parked.is_done

    def hurry(self) -> None:
        """Wake who leads, or the janitor."""
        self._tick_at = 0.0
        self._nap.set()
        if threading.get_ident() != self._leader_thread or self._work.has_names:
            self._interrupt()

    def _take_lead(self, parked: Parked) -> None:
        self._leader, self._leader_thread, self._served = parked, threading.get_ident(), False
        parked.park = None

    def _hand_over(self) -> None:
        self._leader, self._leader_thread, self._led_at = None, 0, monotonic()
        if self._followers:
            parked = self._followers.popleft()
            assert parked.park is not None
            self._leader = parked
            parked.park.release()

    def _lead(self, parked: Parked, deadline: float, is_janitor: bool = False) -> None:
        with self._lock:
            self._take_lead(parked)
        while True:
            now = monotonic()
            timeout = min(deadline, self._tick_at, now + _POLL_MAX_S) - now
            fds: list[int] = []
            if timeout > SPIN_S and not (is_janitor or self._followers) and self._spin.is_worth_it():
                fds = self._spin.poll(self._poller)
            if not fds:
                fds = self._poller.poll(max(timeout, 0.0))
            with self._lock:
                if self._wake_in.fileno() in fds:
                    self._drain_wakes()
                if fds:
                    self._work.ready(fds)
                now = monotonic()
                if now >= self._tick_at:
                    self._tick_at = self._work.tick()
                enough = self._followers or self._served or self._work.has_names if is_janitor else parked.is_done
                if enough or self._stopping or now >= deadline:
                    self._hand_over()
                    return

    def _interrupt(self) -> None:
        try:
            self._wake_out.send(b"\0")
        except (BlockingIOError, OSError):
            return  # enough wakes are on their way, or all is closed

    def _drain_wakes(self) -> None:
        try:
            while self._wake_in.recv(1024):
                pass
        except (BlockingIOError, OSError):
            return

    def _keep_house(self) -> None:
        while not self._stopping:
            self._work.resolve_names()
            lead = None
            with self._lock:
                if self._leader is None and monotonic() - self._led_at >= IDLE_S and not self._stopping:
                    lead = Parked()
                    self._take_lead(lead)
            if lead is not None:
                self._lead(lead, _FOREVER, is_janitor=True)
            elif self._nap.wait(IDLE_S):
                self._nap.clear()
