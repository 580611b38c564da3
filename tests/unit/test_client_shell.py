"""The client's shell, where threads meet."""

from collections import deque
from types import SimpleNamespace

from neo_client.drivers import Parked
from neo_client.shell import Shell, Underway
from neo_common.ids import Session, Ttid


class Lock:
    """A lock; when it is let go for the first time, another thread is faster than we are."""

    def __init__(self) -> None:
        self.then = lambda: None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        then, self.then = self.then, lambda: None
        then()


def test_answer_that_comes_before_the_waiting_is_not_lost() -> None:
    """Another thread takes the answer from the socket between our look into the inbox and our wait."""
    ttid = Ttid(Session(1), 1)
    tx = Underway(ttid, lambda partition, first: iter(()))
    waited: list[Parked] = []
    lock = Lock()
    driver = SimpleNamespace(complete=lambda parked: setattr(parked, "is_done", True))
    shell = SimpleNamespace(lock=lock, driver=driver, wait=waited.append)

    def other_thread() -> None:
        tx.inbox.append("answer")  # type: ignore[arg-type]
        Shell._wake(shell, tx)  # type: ignore[arg-type]

    lock.then = other_thread
    assert isinstance(tx.inbox, deque)
    assert Shell.answer(shell, tx) == "answer"  # type: ignore[arg-type,comparison-overlap]
    assert [parked.is_done for parked in waited] == [True]
