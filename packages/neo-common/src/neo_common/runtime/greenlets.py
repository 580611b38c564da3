"""Greenlets with an owner: a crash is logged and stops the daemon, it is never silent."""

import logging
from collections.abc import Callable

import gevent
from gevent.hub import get_hub

log = logging.getLogger("neo.runtime")


class Greenlets:
    """The greenlets and hub callbacks of one daemon.

    The broad `except` of the house style is here, at the root of each greenlet: it logs and stops the node.
    """

    def __init__(self, on_crash: Callable[[str], None]) -> None:
        """*on_crash* is called once with a text; it must make the daemon stop."""
        self._on_crash = on_crash
        self._alive: set[gevent.Greenlet] = set()
        self.crash: str | None = None
        """What crashed first."""
        self.callback_count = 0
        """How often `callback` was called."""
        self._run_callback = get_hub().loop.run_callback

    def __len__(self) -> int:
        return len(self._alive)

    def spawn(self, name: str, function: Callable[..., object], *args: object) -> gevent.Greenlet:
        """Run *function* in a greenlet that people see as *name*."""
        greenlet = gevent.Greenlet(self._run, name, function, *args)
        self._alive.add(greenlet)
        greenlet.link(self._alive.discard)
        greenlet.start()
        return greenlet

    def soon(self, name: str, function: Callable[..., object], *args: object) -> None:
        """Call *function* once, later in this iteration of the loop, in a greenlet of its own."""
        gevent.spawn_raw(self.guarded, name, function, *args)

    def callback(self, name: str, function: Callable[[], object]) -> None:
        """Call *function* once, later in this iteration of the loop, in the hub: it must not switch."""
        self.callback_count += 1
        self._run_callback(self.guarded, name, function)

    def work(self, name: str, function: Callable[[], object]) -> None:
        """As `callback`, for what need not come before the output that this iteration has made."""
        self._run_callback(self.guarded, name, function)

    def thread_door(self) -> Callable[..., None]:
        """Return what native threads may call as `door(function, *args)` to have it called here, as by `soon`."""
        schedule = get_hub().loop.run_callback_threadsafe

        def door(function: Callable[..., object], *args: object) -> None:
            schedule(self.soon, function.__name__, function, *args)

        return door

    def guarded(self, name: str, function: Callable[..., object], *args: object) -> None:
        """Call *function*; a crash stops the daemon. For callbacks of the hub and raw greenlets."""
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001  the root of this callback
            self._crashed(name, error)

    def kill(self) -> None:
        """End every greenlet except the caller's, and wait until they have ended."""
        others = [greenlet for greenlet in self._alive if greenlet is not gevent.getcurrent()]
        gevent.killall(others)
        self._alive.difference_update(others)

    def _run(self, name: str, function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        except gevent.GreenletExit:
            pass  # killed by its owner: the orderly end of a greenlet that waits
        except Exception as error:  # noqa: BLE001  the root of this greenlet
            self._crashed(name, error)

    def _crashed(self, name: str, error: Exception) -> None:
        log.critical("%s crashed; the node stops", name, exc_info=error)
        if self.crash is None:
            self.crash = f"{name}: {type(error).__name__}: {error}"
            self._on_crash(self.crash)
