"""From the files of a storage to its state: back end, log, and what the one lacks of the other."""

from collections.abc import Sequence
from typing import Final

from neo_common.errors import DataCorrupted
from neo_storage.backends.base import REMOVALS, Backend, Op
from neo_storage.core.image import Image, replay
from neo_storage.vote_log import VoteLog

_BATCH_OPS: Final = 1000


def open_storage(backend: Backend, log: VoteLog) -> Image:
    """Open both, bring the back end up to the log, begin a new segment; return the state that they make.

    Doing it again after a death in the middle changes nothing.
    Raises: BackendError; DataCorrupted when log and back end do not belong together, or records are missing.
    """
    kept = backend.open()
    # A generator: the values of what is applied already are not kept in memory.
    image, lacking = replay(kept, log.recover(), log)
    if log.end != image.position:
        raise DataCorrupted(
            f"the vote log ends with record {log.end}, the database has everything up to {image.position}: the log is"
            " missing, or not of this database"
        )
    backend.claim()  # not before: else a storage that was given another's database would stop its owner
    log.flush_recovered()
    _apply(backend, lacking)
    # Before the new segment: a full disk may have no room for another file than one of those.
    log.release(image.needed_from(backend.checkpoint()))
    log.begin(image.position + 1)
    return image


def _apply(backend: Backend, lacking: Sequence[tuple[int, tuple[Op, ...]]]) -> None:
    batch: list[Op] = []
    for number, (position, ops) in enumerate(lacking):
        batch += ops
        following = lacking[number + 1][1] if number + 1 < len(lacking) else ()
        if len(batch) >= _BATCH_OPS or not following or isinstance(following[0], REMOVALS):
            backend.apply(batch, position)
            batch = []
    assert not batch, "every record that is lacking has operations"
