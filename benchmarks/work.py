"""The work that storages are measured by, through ZODB's public interfaces, the same for each.

Also a program, for storages that live in an environment of their own: a job in JSON on stdin, its figures in JSON on
stdout. One of them still wants Python 2.7: so nothing here is younger than that, and there are no annotations.

    {"open": {"kind": "uri", "uri": "neo://bench@127.0.0.1:4001"}, "work": "commit", "scale": 1.0}

Every `open_` below is a function that returns a new client with an empty cache. Times are wall clock.
"""

import binascii
import json
import os
import random
import shutil
import sys
import tempfile
import time

import transaction
from persistent import Persistent
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

LATEST = b"\x7f" + b"\xff" * 7
_now = getattr(time, "perf_counter", time.time)


class Item(Persistent):
    """An object with a state of a given size, which does not compress."""

    def __init__(self, size):
        self.state = os.urandom(size)


def median(values):
    """Return the middle one."""
    return sorted(values)[len(values) // 2]


def commits(open_, count, objects, size):
    """Return the median time of a commit that changes so many objects of *size* bytes of state, in ms."""
    db = DB(open_())
    manager = transaction.TransactionManager()
    manager.begin()
    connection = db.open(manager)
    items = connection.root()["items"] = PersistentMapping()
    for number in range(objects):
        items[number] = Item(size)
    manager.commit()
    changed = [items[number] for number in range(objects)]
    times = []
    warm = min(20, count)
    for _ in range(count + warm):
        manager.begin()
        for item in changed:
            item.state = os.urandom(size)
        began = _now()
        manager.commit()
        times.append(_now() - began)
    connection.close()
    db.close()
    return median(times[warm:]) * 1e3


def tiny_commit(open_, count):
    """Return the median time of a commit of one object of 128 bytes, in ms."""
    return commits(open_, count, 1, 128)


def bulk_commit(open_, count):
    """Return the median time of a commit of 100 objects of 1 kB, in ms."""
    return commits(open_, count, 100, 1000)


def fill(open_, count):
    """Store objects of 128 bytes; return their oids."""
    db = DB(open_())
    with db.transaction() as connection:
        container = connection.root()["cold"] = PersistentMapping()
        for number in range(count):
            container[number] = Item(128)
    with db.transaction() as connection:
        oids = [item._p_oid for item in connection.root()["cold"].values()]
    db.close()
    return oids


def cold_load(open_, oids):
    """Return the median time of a load by a client with an empty cache, in us."""
    storage = open_()
    instance = storage
    if hasattr(storage, "new_instance"):
        instance = storage.new_instance()
    has_snapshot = hasattr(instance, "poll_invalidations")
    if has_snapshot:
        instance.poll_invalidations()
    order = random.Random(7).sample(oids, len(oids))
    times = []
    for oid in order:
        began = _now()
        found = instance.load(oid) if has_snapshot else instance.loadBefore(oid, LATEST)
        times.append(_now() - began)
        if not found:
            raise SystemExit("an object is lost")
    if instance is not storage:
        instance.close()
    storage.close()
    return median(times) * 1e6


def make_source(path, transactions):
    """Make a FileStorage of transactions of 20 objects of 1 kB; return the bytes of its values."""
    db = DB(FileStorage(path))
    for number in range(transactions):
        with db.transaction() as connection:
            container = connection.root()[number] = PersistentMapping()
            for item in range(20):
                container[item] = Item(1000)
    size = sum(len(record.data) for txn in db.storage.iterator() for record in txn)
    db.close()
    return size


def import_(open_, path, size):
    """Return the speed of copying the FileStorage at *path*, in MB/s."""
    storage, origin = open_(), FileStorage(path, read_only=True)
    began = _now()
    storage.copyTransactionsFrom(origin)
    seconds = _now() - began
    storage.close()
    origin.close()
    return size / seconds / 2**20


def iterate(open_, wanted):
    """Return how many records per second an iteration gives; at least *wanted* must be there."""
    storage = open_()
    began = _now()
    count = sum(1 for txn in storage.iterator() for record in txn if record.data)
    seconds = _now() - began
    storage.close()
    if count < wanted:
        raise SystemExit("an iteration gives too few records")
    return count / seconds


def commit_work(open_, job):
    """Return figures of commits."""
    return {
        "tiny commit ms": tiny_commit(open_, int(600 * job["scale"])),
        "100 x 1 kB ms": bulk_commit(open_, max(10, int(60 * job["scale"]))),
    }


def fill_work(open_, job):
    """Store what the next process loads."""
    return {"oids": [binascii.hexlify(oid).decode() for oid in fill(open_, max(1000, int(3000 * job["scale"])))]}


def load_work(open_, job):
    """Return the figure of loads of what another process has stored."""
    return {"cold load us": cold_load(open_, [binascii.unhexlify(oid) for oid in job["oids"]])}


def bulk_work(open_, job):
    """Return figures of bulk work."""
    directory = tempfile.mkdtemp(prefix="bench-source-")
    try:
        path = os.path.join(directory, "Data.fs")
        transactions = int(400 * job["scale"])
        size = make_source(path, transactions)
        speed = import_(open_, path, size)
        time.sleep(job["rest_s"])
        return {"import MB/s": speed, "iterate records/s": iterate(open_, transactions * 21)}
    finally:
        shutil.rmtree(directory)


# How each kind of storage is opened: what is measured is imported, and nothing else.


def _open_uri(arguments):
    from neo_client.zodburi import resolve_uri  # noqa: PLC0415

    return resolve_uri(arguments["uri"])[0]()


def _open_relstorage(arguments):
    from relstorage.adapters.postgresql import PostgreSQLAdapter  # noqa: PLC0415
    from relstorage.options import Options  # noqa: PLC0415
    from relstorage.storage import RelStorage  # noqa: PLC0415

    options = Options(keep_history=True, driver=arguments["driver"])
    return RelStorage(PostgreSQLAdapter(dsn=arguments["dsn"], options=options), options=options)


def _open_neopy(arguments):
    from neo.client.Storage import Storage  # noqa: PLC0415

    return Storage(master_nodes=str(arguments["masters"]), name=str(arguments["name"]))


OPENERS = {"uri": _open_uri, "relstorage": _open_relstorage, "neopy": _open_neopy}
WORKS = {"commit": commit_work, "fill": fill_work, "load": load_work, "bulk": bulk_work}


def main():
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    opener = OPENERS[job["open"]["kind"]]
    figures = WORKS[job["work"]](lambda: opener(job["open"]), job)
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    # Objects remember the module of their class: it must have a name that the next process finds.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import work

    work.main()
