"""Native threads in a process that gevent has patched: for what would block the hub."""

import logging
import select
from collections.abc import Callable
from typing import Any, Final

from gevent.monkey import get_original

# Any: gevent hands out originals without types. An unpatched process, as in tests, gets the same.
_start_new_thread: Final[Any] = get_original("_thread", "start_new_thread")
_allocate_lock: Final[Any] = get_original("_thread", "allocate_lock")
_sleep: Final[Any] = get_original("time", "sleep")
_poll: Final[Any] = get_original("select", "poll")
NativeQueue: Final[Any] = get_original("queue", "SimpleQueue")
"""A queue between native threads, and from the hub to them; never to be waited for in the hub."""

log = logging.getLogger("neo.storage")

Door = Callable[..., None]
"""`door(function, *args)`: has *function* called in the hub, from any thread."""


def start(function: Callable[[], None]) -> Callable[[float], bool]:
    """Run *function* on a native thread. Return what waits for its end, so many seconds, and says whether it came."""
    ended = _allocate_lock()
    ended.acquire()

    def run() -> None:
        try:
            function()
        finally:
            ended.release()

    def wait(timeout_s: float) -> bool:
        """Block the whole thread that calls: only for when everything else has stopped."""
        if ended.acquire(timeout=timeout_s):
            ended.release()
            return True
        return False

    _start_new_thread(run, ())
    return wait


def new_lock() -> Any:
    """Return a lock between native threads, for moments only: who waits for it blocks its whole thread."""
    return _allocate_lock()


def pause(seconds: float) -> None:
    """Let this native thread rest. In the hub only before anything else runs in it: it blocks."""
    _sleep(seconds)


def wait_for(fd: int, *, is_writing: bool, timeout_s: float) -> bool:
    """Block this native thread until *fd* can be read, or written; return whether it can within that time."""
    poll = _poll()
    poll.register(fd, select.POLLOUT if is_writing else select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class Bell:
    """Wakes one native thread early; rung by one thread, the hub's. A ring while nobody waits ends the next wait."""

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake who waits, or will wait next."""
        if self._lock.locked():
            self._lock.release()

    def wait(self, timeout_s: float) -> None:
        """Wait for a ring, at most so long."""
        self._lock.acquire(timeout=timeout_s)


class Worker:
    """One native thread that does jobs, in order; each result, or error, comes back to the hub."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._jobs = NativeQueue()
        self._wait = start(self._run)

    def submit(self, job: Callable[[], object], done: Callable[[object], None]) -> None:
        """Have *job* done; then *done* is called in the hub with its result, or with the exception that it raised."""
        self._jobs.put((job, done))

    def stop(self, timeout_s: float) -> bool:
        """End it when the jobs that wait are done; block until then. Return whether it has ended."""
        self._jobs.put(None)
        return self._wait(timeout_s)

    def _run(self) -> None:
        while True:
            item = self._jobs.get()
            if item is None:
                return
            job, done = item
            result: object
            try:
                result = job()
            except Exception as error:  # noqa: BLE001  the root of this thread; the hub decides what it means
                result = error
            self._door(done, result)
            del item, job, done, result  # nothing of the last job is kept while we wait for the next
