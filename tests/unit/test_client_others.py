"""Who else takes part in a transaction: asked of ZODB's own databases, with several of them in one transaction."""

from collections.abc import Iterator

import pytest
import transaction
from ZODB.DB import DB
from ZODB.MappingStorage import MappingStorage

from neo_client.others import may_refuse_later


class Watching(MappingStorage):
    """Notes, at its vote, what a storage there is told."""

    def __init__(self, name: str) -> None:
        MappingStorage.__init__(self, name)
        self.told: list[bool] = []

    def sortKey(self) -> str:  # noqa: N802 - ZODB's name
        return str(self.__name__)

    def tpc_vote(self, meta: object) -> None:
        self.told.append(may_refuse_later(meta))
        MappingStorage.tpc_vote(self, meta)


class Refuser:
    """A manager of something else, that sorts where it is told to."""

    def __init__(self, key: str) -> None:
        self.key = key

    def sortKey(self) -> str:  # noqa: N802 - the transaction package's name
        return self.key

    def nothing(self, txn: object) -> None:
        """Agree."""

    tpc_begin = commit = tpc_vote = tpc_finish = tpc_abort = abort = nothing


@pytest.fixture
def pair() -> Iterator[tuple[Watching, Watching, DB]]:
    """Two storages as one multi-database, the first sorting before the second."""
    storages = Watching("a"), Watching("b")
    databases: dict[str, DB] = {}
    first = DB(storages[0], databases=databases, database_name="a")
    second = DB(storages[1], databases=databases, database_name="b")
    for storage in storages:
        storage.told.clear()  # what creating the roots has told
    yield (*storages, first)
    transaction.abort()
    first.close()
    second.close()


def test_the_one_that_votes_first_can_be_refused_later(pair: tuple[Watching, Watching, DB]) -> None:
    a, b, db = pair
    conn = db.open()
    conn.root()["x"] = 1
    conn.get_connection("b").root()["x"] = 1
    transaction.commit()
    assert (a.told, b.told) == ([True], [False])


def test_alone_nobody_refuses_later(pair: tuple[Watching, Watching, DB]) -> None:
    a, b, db = pair
    db.open().root()["x"] = 1
    transaction.commit()
    assert (a.told, b.told) == ([False], [])


@pytest.mark.parametrize(("key", "later"), [("a", False), ("zz", True)])
def test_any_other_manager_counts_by_its_place(pair: tuple[Watching, Watching, DB], key: str, later: bool) -> None:
    """ZODB's connections sort as `<sortKey of the storage>:<id>`."""
    a, _, db = pair
    db.open().root()["x"] = 1
    transaction.get().join(Refuser(key))
    transaction.commit()
    assert a.told == [later]


def test_a_transaction_that_is_not_the_threads_says_nothing(pair: tuple[Watching, Watching, DB]) -> None:
    a, _, db = pair
    own = transaction.TransactionManager()
    conn = db.open(own)
    conn.root()["x"] = 1
    own.get().join(Refuser("zz"))
    own.commit()
    assert a.told == [False]


def test_without_any_transaction_none_is_begun() -> None:
    transaction.abort()
    assert not may_refuse_later(object())
    assert transaction.manager.manager._txn is None
