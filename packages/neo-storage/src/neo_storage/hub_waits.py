"""How readers wait that are used in the hub: `backends.base.Waits` with gevent."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from gevent.event import AsyncResult
from gevent.hub import Waiter, get_hub

from neo_storage.native import Door, Worker

_T = TypeVar("_T")
_READ: Final = 1
_WRITE: Final = 2


class HubWaits:
    """For one greenlet, which waits for one thing at a time. Watchers are kept: making one costs as much as waiting."""

    def __init__(self, door: Door) -> None:
        self._worker = Worker(door)
        self._hub = get_hub()
        self._watchers: dict[tuple[int, bool], Any] = {}  # Any: gevent has no types for them
        self._timers: dict[float, Any] = {}

    def ready(self, fd: int, *, is_writing: bool, timeout_s: float) -> bool:
        """Let others go on until *fd* can be read, or written; return whether it can within that time."""
        loop = self._hub.loop
        watcher = self._watchers.get((fd, is_writing))
        if watcher is None:
            watcher = self._watchers[fd, is_writing] = loop.io(fd, _WRITE if is_writing else _READ)
        timer = self._timers.get(timeout_s)
        if timer is None:
            timer = self._timers[timeout_s] = loop.timer(0.0, repeat=timeout_s)
        waiter = Waiter(self._hub)
        watcher.start(waiter.switch, True)
        timer.again(waiter.switch, False)  # not `start`: that goes on with what was left when it was stopped
        try:
            return bool(waiter.get())
        finally:
            watcher.stop()
            timer.stop()

    def forget(self, fd: int) -> None:
        """Another descriptor may have that number soon."""
        for is_writing in (False, True):
            watcher = self._watchers.pop((fd, is_writing), None)
            if watcher is not None:
                watcher.close()

    def apart(self, function: Callable[[], _T]) -> _T:
        """Return what *function* returns, or raises, on a native thread; others go on meanwhile."""
        result = AsyncResult()

        def done(found: object) -> None:
            if isinstance(found, Exception):
                result.set_exception(found)
            else:
                result.set(found)

        self._worker.submit(function, done)
        found: _T = result.get()
        return found

    def close(self, timeout_s: float) -> bool:
        """End its thread; return whether it has ended. Nobody waits any more."""
        for fd, _ in list(self._watchers):
            self.forget(fd)
        for timer in self._timers.values():
            timer.close()
        self._timers.clear()
        return self._worker.stop(timeout_s)
