"""Writers that count in pairs of objects of different partitions, each pair in one transaction; and who checks them.

A writer's own record of what was acknowledged and what failed is the truth that the cluster is held against:
  * after an acknowledged commit both objects have the new number, for ever;
  * after a commit that raised they have the old one, for ever;
  * no snapshot shows the two objects of a pair with different numbers.
"""

import threading

import transaction
from ZODB.DB import DB
from ZODB.POSException import POSError

from support.cluster import Cluster

WRITERS = 3
RECOVERY_DEADLINE_S = 30.0


class Wrong(AssertionError):
    """The cluster does not hold what it acknowledged."""


class Writer(threading.Thread):
    """Counts in a pair of objects, in a client of its own, until told to stop."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._db = DB(cluster.open())
        self._keys = (f"left-{number}", f"right-{number}")
        self._done = threading.Event()
        self.acknowledged = 0
        self.failures: list[str] = []
        self.wrong: list[str] = []
        self.progress = threading.Condition()

    def run(self) -> None:
        manager = transaction.TransactionManager()
        while not self._done.is_set() and not self.wrong:
            connection = None
            try:
                manager.begin()
                connection = self._db.open(manager)
                root = connection.root()
                left, right = (root[key] for key in self._keys)
                self._check(left(), right())
                number = self.acknowledged + 1
                left.set(number)
                right.set(number)
                manager.get().note(f"{self.name} {number}")
                manager.commit()
                with self.progress:
                    self.acknowledged = number
                    self.progress.notify_all()
            except POSError as error:  # every failure of a commit: the next round checks that nothing is left of it
                self.failures.append(f"{type(error).__name__}: {error}")
                manager.abort()
            finally:
                if connection is not None:
                    manager.abort()
                    connection.close()

    def _check(self, left: int, right: int) -> None:
        if left != right:
            self.wrong.append(f"{self.name} sees half of a transaction: {left} and {right}")
        elif left != self.acknowledged:
            self.wrong.append(
                f"{self.name} sees {left}; {self.acknowledged} was acknowledged; failures: {self.failures[-2:]}"
            )
        if self.wrong:
            raise Wrong(self.wrong[-1])

    def wait_for(self, commits: int, deadline_s: float) -> None:
        """Wait until so many commits were acknowledged from now on."""
        with self.progress:
            target = self.acknowledged + commits
            done = self.progress.wait_for(lambda: self.acknowledged >= target or bool(self.wrong), deadline_s)
        assert done, f"{self.name} does not get on; last failures: {self.failures[-3:]}"
        assert not self.wrong, self.wrong

    def stop(self) -> None:
        self._done.set()
        self.join(RECOVERY_DEADLINE_S)
        assert not self.is_alive(), f"{self.name} is stuck"
        self._db.close()


def check_all(cluster: Cluster, writers: list[Writer]) -> None:
    """With new clients, nothing cached: every pair is at what its writer was told."""
    db = DB(cluster.open())
    with db.transaction() as connection:
        root = connection.root()
        for number, writer in enumerate(writers):
            left, right = root[f"left-{number}"](), root[f"right-{number}"]()
            assert (left, right) == (writer.acknowledged, writer.acknowledged), f"{writer.name}: {writer.failures[-2:]}"
    notes = [txn.description.decode() for txn in db.storage.iterator()]
    for writer in writers:
        mine = [note for note in notes if note.startswith(writer.name + " ")]
        assert mine == [f"{writer.name} {n + 1}" for n in range(writer.acknowledged)], (
            "iteration shows other transactions"
        )
    db.close()
