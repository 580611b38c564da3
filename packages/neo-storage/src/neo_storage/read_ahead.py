"""What is likely to be asked next by who reads all transactions: kept, or on its way. Pure.

Who iterates asks for the next transactions only when it has those before, as only then it knows where they begin. A
storage knows it sooner, and reads meanwhile.
"""

from dataclasses import dataclass
from typing import Final

from neo_common.ids import NodeId
from neo_common.wire.schema import AnswerTransactions, AskTransactions
from neo_storage.core.events import ReadRange

AHEAD_MAX: Final = 4
"""Answers that nobody has asked for yet, of `ranges.ANSWER_BYTES` each."""

_Key = tuple[NodeId, AskTransactions]


@dataclass(slots=True)
class Ahead:
    """An answer that nobody has asked for when its reading began."""

    peer: NodeId
    question: AskTransactions
    position: int
    """It has everything up to there; it is void for who must see more."""
    answer: AnswerTransactions | None = None
    wanted: ReadRange | None = None
    """Who has asked for it before it was there."""


class ReadAhead:
    """The Aheads of all peers."""

    def __init__(self) -> None:
        self._all: dict[_Key, Ahead] = {}
        """The oldest first."""

    def __contains__(self, ahead: Ahead) -> bool:
        return self._all.get(_key(ahead.peer, ahead.question)) is ahead

    def begin(self, peer: NodeId, packet: AskTransactions, answer: AnswerTransactions, position: int) -> Ahead | None:
        """Return what to read now that *packet* has *answer*; None if there is nothing, or no room."""
        if not answer.next:
            return None
        following = packet._replace(stop=answer.next) if packet.descending else packet._replace(start=answer.next)
        if len(self._all) >= AHEAD_MAX and not self._forget_oldest():
            return None
        ahead = self._all[_key(peer, following)] = Ahead(peer, following, position)
        return ahead

    def claim(self, read: ReadRange) -> Ahead | None:
        """Return what will answer *read*, or does already; None if that must be read. It is kept until `forget`."""
        if not isinstance(read.packet, AskTransactions):
            return None
        ahead = self._all.get(_key(read.peer, read.packet))
        if ahead is None or ahead.wanted is not None:
            return None
        if ahead.position < read.position or ahead.question.limit > read.packet.limit:
            self.forget(ahead)
            return None
        ahead.wanted = read
        return ahead

    def forget(self, ahead: Ahead) -> None:
        """It was given, or cannot be."""
        if ahead in self:
            del self._all[_key(ahead.peer, ahead.question)]

    def forget_unwanted(self) -> None:
        """Forget what nobody has asked for yet: it may not be so any more."""
        self._all = {key: ahead for key, ahead in self._all.items() if ahead.wanted is not None}

    def _forget_oldest(self) -> bool:
        for ahead in self._all.values():
            if ahead.wanted is None:
                self.forget(ahead)
                return True
        return False


def _key(peer: NodeId, question: AskTransactions) -> _Key:
    # A limit may grow from question to question: an answer with fewer is one too.
    return peer, question._replace(limit=0)
