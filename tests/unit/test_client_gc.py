"""Removing garbage: what a lost storage interrupts is asked again, within wait-timeout."""

from types import SimpleNamespace

import pytest

from neo_client.errors import ClusterUnavailable
from neo_client.gc import _remove
from neo_common.ids import Oid, Tid
from neo_common.wire.schema import AnswerCollect, AskCollect

T9 = Tid(9)


class Primary:
    """A client's shell, as far as `_remove` sees it: *lost* questions fail before one is answered."""

    def __init__(self, lost: int, wait_timeout_s: float) -> None:
        self.options = SimpleNamespace(wait_timeout_s=wait_timeout_s)
        self.lost = lost
        self.asked: list[AskCollect] = []
        self.slept: list[float] = []

    def ask_primary(self, packet: AskCollect) -> AnswerCollect:
        self.asked.append(packet)
        if len(self.asked) <= self.lost:
            raise ClusterUnavailable("s1 (S1) was lost: ask again")
        return AnswerCollect(len(packet.oids))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_removal_is_asked_again_with_growing_delays() -> None:
    primary = Primary(lost=3, wait_timeout_s=30.0)
    assert _remove(SimpleNamespace(shell=primary), T9, [Oid(1), Oid(2)]) == 2  # type: ignore[arg-type]
    assert primary.asked == 4 * [AskCollect(T9, (Oid(1), Oid(2)))]
    assert primary.slept == [0.05, 0.1, 0.2]


def test_removal_gives_up_when_nothing_is_left_of_wait_timeout() -> None:
    primary = Primary(lost=1, wait_timeout_s=0.01)
    with pytest.raises(ClusterUnavailable):
        _remove(SimpleNamespace(shell=primary), T9, [Oid(1)])  # type: ignore[arg-type]
    assert primary.slept == []
