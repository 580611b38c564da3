"""Copying transactions with their tids, several at a time: one is voted while those before it are finished.

The tids are given, so the order is known beforehand. Each transaction is voted, sent to the primary and answered as
any other; only the waiting overlaps:

    prepare n+1   |   vote n      finish n-1        (the client computes while the storages do)
    prepare n+2   |   vote n+1    finish n

A transaction is voted only when the one before it is fully voted, and finished only when that one is committed; its
vote says that it rests on that one's tid. Its lead gives it the locks of that one, and takes for current what that one
will have written. So whatever crashes, what is there is a beginning of what was copied: recovery does not commit what
rests on a tid that it does not have (docs/commit-protocol.md, "Settled").
"""

import contextlib

from ZODB.POSException import StorageError

from neo_client.commit import Commit, Resolver
from neo_common.ids import NO_TID, Tid


class Pipeline:
    """Takes commits in the order of their tids: `prepare`, then `vote`, for each; `drain` at the end.

    For one thread. Every method raises ZODB's errors, of this commit or of those before it. After an error, of whatever
    kind, `abandon` must follow.
    """

    def __init__(self) -> None:
        self._preparing: Commit | None = None
        self._voting: tuple[Commit, Resolver] | None = None
        self._voted: Commit | None = None
        self._finishing: Commit | None = None
        self._last: Tid = NO_TID

    def prepare(self, commit: Commit) -> None:
        """Take the next one, which is still to be filled."""
        assert self._preparing is None, "the one before it was not voted"
        self._preparing = commit

    def vote(self, resolver: Resolver) -> None:
        """Vote it, when the one before it is voted. Return while that is under way."""
        commit = self._preparing
        assert commit is not None
        self._end_vote()
        commit.begin_vote(after=self._last)
        self._preparing, self._voting, self._last = None, (commit, resolver), commit.given_tid
        self._begin_finish()

    def drain(self) -> None:
        """Return when all of them are committed."""
        self._end_vote()
        self._begin_finish()
        self._end_finish()

    def abandon(self) -> None:
        """Abort what the primary was not asked to commit, the newest first; wait for the rest."""
        commits = [self._preparing, self._voting and self._voting[0], self._voted]
        self._preparing = self._voting = self._voted = None
        try:
            for commit in commits:
                if commit is not None:
                    commit.abort()
        finally:
            with contextlib.suppress(StorageError):  # what has failed is told already
                self._end_finish()

    def _end_vote(self) -> None:
        """Wait for the vote that is under way."""
        if self._voting is not None:
            commit, resolver = self._voting
            commit.end_vote(resolver)
            self._voting, self._voted = None, commit

    def _begin_finish(self) -> None:
        """Finish what is voted, when the one before it is committed. Return while that is under way."""
        if self._voted is not None:
            self._end_finish()
            self._finishing, self._voted = self._voted, None
            self._finishing.begin_finish(lambda tid: None)

    def _end_finish(self) -> None:
        if self._finishing is not None:
            commit, self._finishing = self._finishing, None
            commit.end_finish()
