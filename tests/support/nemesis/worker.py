"""A client process: every workload in a thread of its own, all on one database, until its input ends.

    python -m support.nemesis.worker '{"uri": ..., "client": "c1", "journal": ..., "seed": 7, ...}'

It may be killed or stopped at any moment. It ends with status 0 when every transaction was answered.
"""

import faulthandler
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import transaction
from transaction.interfaces import TransientError
from ZODB.DB import DB

import neo_client
from support.nemesis.append import Append
from support.nemesis.bank import Bank
from support.nemesis.counter import Counter
from support.nemesis.history import Journal
from support.nemesis.skew import Skew
from support.nemesis.snapshot import Snapshot
from support.nemesis.unique import Unique
from support.nemesis.workload import Workload

WORKLOADS: dict[str, type[Workload]] = {w.name: w for w in (Bank, Counter, Unique, Append, Skew, Snapshot)}
PAUSE_S = 0.02
"""Between two operations of a session, on average."""
PAUSE_AFTER_FAILURE_S = 0.1
LAST_ANSWER_S = 90.0
STUCK = 3


class Session(threading.Thread):
    """One operation after the other."""

    def __init__(self, db: Any, workload: Workload, journal: Journal, seed: str, done: threading.Event) -> None:
        super().__init__(name=f"{journal.client}.{workload.name}", daemon=True)
        self._db = db
        self._workload = workload
        self._journal = journal
        self._rng = random.Random(f"{seed} {self.name}")
        self._done = done

    def run(self) -> None:
        manager = transaction.TransactionManager(explicit=True)
        number = 0
        while not self._done.is_set():
            number += 1
            asked = self._workload.next(self._rng, self.name, number)
            self._journal.begin(self.name, number, self._workload.name, asked)
            is_well = self._operation(manager, number, asked)
            pause_s = PAUSE_S if is_well else PAUSE_AFTER_FAILURE_S
            self._done.wait(self._rng.expovariate(1 / pause_s))

    def _operation(self, manager: Any, number: int, asked: Any) -> bool:
        connection = None
        try:
            manager.begin()
            connection = self._db.open(manager)
            seen = self._workload.apply(connection, asked)
            if self._workload.changes(asked):
                manager.get().note(f"{self.name}/{number}")
                manager.commit()
            else:
                manager.abort()
        except Exception as error:  # noqa: BLE001 - whatever it is, the checkers judge it
            text = f"{type(error).__name__}: {error}"
            manager.abort()
            self._journal.fail(self.name, number, text, is_transient=isinstance(error, TransientError))
            return False
        else:
            self._journal.end(self.name, number, seen)
            return True
        finally:
            if connection is not None:
                connection.close()


def main(settings: dict[str, Any]) -> int:
    """Run; return the exit status."""
    options = settings.get("options", {})
    journal = Journal(Path(settings["journal"]), settings["client"], is_synced=bool(options.get("server_sync")))
    db = DB(neo_client.open(settings["uri"], client_label=settings["client"], **options), pool_size=32)
    done = threading.Event()
    sessions = [Session(db, WORKLOADS[w](), journal, settings["seed"], done) for w in settings["workloads"]]
    for session in sessions:
        session.start()
    sys.stdin.read()
    done.set()
    deadline = time.monotonic() + LAST_ANSWER_S
    for session in sessions:
        session.join(max(0.0, deadline - time.monotonic()))
    if any(session.is_alive() for session in sessions):
        faulthandler.dump_traceback()
        return STUCK
    db.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
