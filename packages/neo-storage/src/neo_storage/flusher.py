"""When the vote log is flushed, and on which thread.

One flush covers all that a loop iteration has appended: what all connections brought. It runs in the hub while the
disk answers within a millisecond: a hand-off to a thread and back costs as much as the flush. When the moving average
says that the disk is slow, and somebody reads, a native thread does it, and loads go on meanwhile. Without readers the
hub waits for a slow disk too: on a busy machine each hand-off may cost ms, twice, and nobody gains by it.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Final

from gevent.hub import get_hub

from neo_common.errors import BackendError
from neo_storage.native import Worker
from neo_storage.vote_log import FlushJob, SpareJob, VoteLog

_SLOW_S: Final = 1e-3
_VERY_SLOW_S: Final = 10e-3
"""The hub is never kept waiting for so long."""
_WEIGHT: Final = 0.1
"""Of the last flush, in the moving average."""


class Flusher:
    """Groups flushes. All calls are the hub's."""

    def __init__(
        self,
        log: VoteLog,
        worker: Worker,
        soon: Callable[[Callable[[], None]], None],
        durable: Callable[[int], None],
        failed: Callable[[str], None],
        no_room: Callable[[str], None],
        lazy_s: float,
    ) -> None:
        """*soon* calls back at the end of the loop iteration. *durable* and the others are told what happened."""
        self._log = log
        self._worker = worker
        self._soon = soon
        self._durable = durable
        self._failed = failed
        self._no_room = no_room
        self._lazy_s = lazy_s
        # It repeats only so that it can be started again: one that has fired once would fire at once from then on.
        self._timer = get_hub().loop.timer(lazy_s, lazy_s)
        self._is_timed = False
        self._is_scheduled = False
        self._is_running = False
        self._is_read = False
        """Somebody has asked something since the last flush began."""
        self._flushed = log.end
        self.mean_s = 0.0
        """Moving average of what a flush takes, in seconds."""
        self.count = 0

    def appended(self, *, urgent: bool) -> None:
        """Note that something was appended."""
        if urgent:
            if not self._is_scheduled and not self._is_running:
                self._is_scheduled = True
                self._soon(self.flush)
        elif not self._is_timed:
            self._is_timed = True
            self._timer.again(self._timed)

    def asked(self) -> None:
        """Note that somebody reads, and would have to wait for a flush in the hub."""
        self._is_read = True

    def flush(self) -> None:
        """Flush what was appended, unless a flush is under way: then another one follows it."""
        self._is_scheduled = False
        if self._is_running or self._log.end <= self._flushed:
            return
        job = self._log.flush_job()
        self._end_timer()
        self.count += 1
        limit_s = _SLOW_S if self._is_read else _VERY_SLOW_S
        self._is_read = False
        if self.mean_s < limit_s:
            began = perf_counter()
            try:
                job.run()
            except BackendError as error:
                self._failed(str(error))
                return
            self._measured(perf_counter() - began)
            self._done(job)
        else:
            self._is_running = True
            self._worker.submit(lambda: _timed(job), lambda result: self._returned(job, result))

    def make_spares(self) -> None:
        """Have a file made for the log if one is missing."""
        job = self._log.spare_job()
        if job is not None:
            self._worker.submit(job.run, lambda result: self._made(job, result))

    def close(self) -> None:
        """Flush no more."""
        self._timer.close()

    def _end_timer(self) -> None:
        """What was appended until now is flushed: what comes later has its own time."""
        self._is_timed = False
        self._timer.stop()

    def _timed(self) -> None:
        self._end_timer()
        if not self._is_scheduled and not self._is_running:
            self._is_scheduled = True
            self._soon(self.flush)

    def _returned(self, job: FlushJob, result: object) -> None:
        self._is_running = False
        if isinstance(result, Exception):
            self._failed(str(result))
            return
        assert isinstance(result, float)
        self._measured(result)
        self._done(job)
        self.flush()  # of what was appended meanwhile, urgent or not

    def _measured(self, took_s: float) -> None:
        self.mean_s += (took_s - self.mean_s) * _WEIGHT

    def _done(self, job: FlushJob) -> None:
        self._flushed = job.position
        self.make_spares()
        self._durable(job.position)

    def _made(self, job: SpareJob, result: object) -> None:
        self._log.add_spare(job)
        if isinstance(result, Exception):
            self._no_room(str(result))


def _timed(job: FlushJob) -> float:
    began = perf_counter()
    job.run()
    return perf_counter() - began
