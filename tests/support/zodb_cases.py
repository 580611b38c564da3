"""ZODB's own storage suites, unmodified, as test cases on a cluster. Every shape and every way to wait uses these.

ZODB before 6 names its tests `check*`, ZODB 6 `test*`; both are run.
"""

import doctest
import unittest
from pathlib import Path
from typing import Any

import ZODB.tests.testDemoStorage
import ZODB.tests.util
from ZODB import DB
from ZODB.DemoStorage import DemoStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.tests import (
    BasicStorage,
    ConflictResolution,
    HistoryStorage,
    IteratorStorage,
    MTStorage,
    PackableStorage,
    PersistentStorage,
    ReadOnlyStorage,
    RecoveryStorage,
    RevisionStorage,
    StorageTestBase,
    Synchronization,
    TransactionalUndoStorage,
    hexstorage,
    testMVCCMappingStorage,
    testZODB,
)

from support.zodb_clusters import POOLS, OnCluster, Shape


class HexStorage(hexstorage.HexStorage):
    """ZODB's, with two errors mended.

    It hands a version to `invalidate`, which MVCCAdapter does not take any more; and it registers for invalidations
    before it has anybody to hand them to.
    """

    def invalidate(self, transaction_id: bytes, oids: list[bytes], version: str = "") -> None:
        """Hand on what the storage tells."""
        if "db" in vars(self):
            self.db.invalidate(transaction_id, oids)

    def invalidateCache(self) -> None:  # noqa: N802 - ZODB's name
        """Hand on what the storage tells."""
        if "db" in vars(self):
            self.db.invalidateCache()


class Case(OnCluster, StorageTestBase.StorageTestBase):
    """`self._storage` is a client of a fresh cluster."""

    use_extension_bytes = True

    def setUp(self) -> None:
        """Take a cluster and open it."""
        StorageTestBase.StorageTestBase.setUp(self)
        self.set_up_cluster()
        self.open()

    def open(self, **options: Any) -> None:
        """Open it (again)."""
        self._storage = self.new_client(**options)

    def _new_storage_client(self) -> Any:
        return self.new_client()

    def tearDown(self) -> None:
        """Close all, end the cluster."""
        try:
            StorageTestBase.StorageTestBase.tearDown(self)
        finally:
            self.tear_down_cluster()


class StorageCase(
    Case,
    BasicStorage.BasicStorage,
    ConflictResolution.ConflictResolvingStorage,
    ConflictResolution.ConflictResolvingTransUndoStorage,
    HistoryStorage.HistoryStorage,
    IteratorStorage.ExtendedIteratorStorage,
    IteratorStorage.IteratorStorage,
    MTStorage.MTStorage,
    PackableStorage.PackableStorageWithOptionalGC,
    PackableStorage.PackableUndoStorage,
    PersistentStorage.PersistentStorage,
    ReadOnlyStorage.ReadOnlyStorage,
    RevisionStorage.RevisionStorage,
    Synchronization.SynchronizedStorage,
    TransactionalUndoStorage.TransactionalUndoStorage,
    testMVCCMappingStorage.MVCCTests,
):
    """Everything that a storage without blobs can run."""

    def testPackUndoLog(self) -> None:  # noqa: N802 - ZODB's name
        """ZODB's test with the real clock: it pretends that time passes, and a server in another process does
        not see that.
        """
        PackableStorage.PackableUndoStorage.testPackUndoLog.__wrapped__(self)


class HexCase(StorageCase):
    """The same on top of a wrapper that transforms data."""

    def open(self, **options: Any) -> None:
        """Open it (again)."""
        self._storage = HexStorage(self.new_client(**options))

    def _new_storage_client(self) -> Any:
        return HexStorage(self.new_client())


class RecoveryCase(Case, RecoveryStorage.RecoveryStorage):
    """From one cluster to another."""

    def setUp(self) -> None:
        """Take two clusters."""
        Case.setUp(self)
        self._clusters.append(POOLS[self.shape].take())
        self._dst = self.new_dest()

    def new_dest(self) -> Any:
        """Return a client of the second cluster."""
        return self.new_client(1)


class DatabaseCase(OnCluster, testZODB.ZODBTests):
    """ZODB's tests of a database."""

    def setUp(self) -> None:
        """Take a cluster and open it."""
        ZODB.tests.util.TestCase.setUp(self)
        self.set_up_cluster()
        self._storage = self.new_client()
        self._db = DB(self._storage)

    def tearDown(self) -> None:
        """Close all, end the cluster."""
        try:
            super().tearDown()
        finally:
            self.tear_down_cluster()


class DemoCase(OnCluster, ZODB.tests.testDemoStorage.DemoStorageWrappedBase):
    """A DemoStorage belongs to one process: the race tests with several clients have nothing to run on."""

    test_race_load_vs_external_invalidate = None
    test_race_external_invalidate_vs_disconnect = None


class DemoBaseCase(DemoCase):
    """A DemoStorage whose base is a cluster."""

    def setUp(self) -> None:
        """Take a cluster."""
        self.set_up_cluster()
        super().setUp()

    def _makeBaseStorage(self) -> Any:  # noqa: N802 - ZODB's name
        return self.new_client()

    def tearDown(self) -> None:
        """Close all, end the cluster."""
        try:
            super().tearDown()
        finally:
            self.tear_down_cluster()


class DemoStorageAsMeant(DemoStorage):
    """ZODB's, with one error mended: with changes given, its pack() asks for an attribute that it then has not."""

    _temporary_changes = False


class DemoChangesCase(DemoCase):
    """A DemoStorage that writes into a cluster.

    (Its base classes leave garbage collection out: wrappers never do that.)
    """

    use_extension_bytes = True

    def setUp(self) -> None:
        """Take a cluster."""
        self.set_up_cluster()
        super().setUp()
        self._storage = DemoStorageAsMeant(base=self._base, changes=self.new_client())

    def _makeBaseStorage(self) -> Any:  # noqa: N802 - ZODB's name
        return MappingStorage()

    def tearDown(self) -> None:
        """Close all, end the cluster."""
        try:
            super().tearDown()
        finally:
            self.tear_down_cluster()


BLOB_WORDS = ("Blob", "oid1", "p1", "root()[1]")


class ExternalGCCase(OnCluster, unittest.TestCase):
    """The doctest of IExternalGC, without the object in it that is a blob."""

    def test_external_gc(self) -> None:
        """Run IExternalGC.test."""
        text = (Path(ZODB.tests.util.__file__).parent / "IExternalGC.test").read_text()
        test = doctest.DocTestParser().get_doctest(text, {}, "IExternalGC", "IExternalGC.test", 0)
        test.examples = [e for e in test.examples if not any(word in e.source for word in BLOB_WORDS)]
        assert len(test.examples) > 30
        for example in test.examples:
            if example.source == "len(storage)\n":
                example.want = "2\n"  # the root and object 0
        self.set_up_cluster()
        ZODB.tests.util.setUp(test)
        try:
            test.globs["create_storage"] = lambda: self.new_client(pack_gc=False)
            said: list[str] = []
            runner = doctest.DocTestRunner(checker=ZODB.tests.util.checker)
            runner.run(test, out=said.append, clear_globs=False)
            assert not runner.failures, "".join(said)
        finally:
            ZODB.tests.util.tearDown(test)
            self.tear_down_cluster()


CASES = (StorageCase, HexCase, RecoveryCase, DatabaseCase, DemoBaseCase, DemoChangesCase, ExternalGCCase)


def make(shape: Shape, *cases: type) -> dict[str, type]:
    """Return the test cases of a shape, by name; `check*` are found as `test_check*`."""
    found = {}
    for case in cases:
        members: dict[str, Any] = {"shape": shape, "__test__": True, "__module__": __name__, "__doc__": case.__doc__}
        for name in dir(case):
            if name.startswith("check") and callable(getattr(case, name)):
                members[f"test_{name}"] = getattr(case, name)
        name = f"{case.__name__.removesuffix('Case')}Test"
        found[name] = type(name, (case,), members)
    return found


__all__ = ["CASES", "make"]
