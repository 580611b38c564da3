"""The job: copy a FileStorage into a storage, compare, query, edit from several processes, undo, pack.

It knows nothing of NEO but a ZODB URI, so it can be pointed at any other storage to see what it should do.
Everything that is found different is an error: `Different` is raised.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

import transaction
import zodburi
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf

EDITORS = 4
EDITS = 25
WORDS = ("asyncio", "coroutine", "deprecated", "pickle", "generator")


class Different(Exception):
    """The cluster does not hold what the source holds."""


class Amount(NamedTuple):
    """What was copied or compared."""

    transactions: int
    records: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        size = self.bytes / 2**20
        return (
            f"{self.transactions} transactions, {self.records} records, "
            f"{size:.1f} MB in {self.seconds:.1f} s ({size / self.seconds:.1f} MB/s)"
        )


Advance = Callable[[int], None]
"""Told how many more bytes of values were handled."""


def open_storage(uri: str) -> Any:
    """Return the storage behind a zodburi URI."""
    factory, _ = zodburi.resolve_uri(uri)
    return factory()


def copy(source: FileStorage, target: Any, advance: Advance) -> Amount:
    """Copy every transaction, with its own tid and metadata."""
    began, transactions, records, size = time.monotonic(), 0, 0, 0
    for txn in source.iterator():
        target.tpc_begin(txn, txn.tid, txn.status)
        for record in txn:
            target.restore(record.oid, record.tid, record.data, "", record.data_txn, txn)
            records += 1
            size += len(record.data or b"")
            advance(len(record.data or b""))
        target.tpc_vote(txn)
        target.tpc_finish(txn)
        transactions += 1
    return Amount(transactions, records, size, time.monotonic() - began)


def compare(source: FileStorage, target: Any, advance: Advance) -> Amount:
    """Compare every record and the metadata of every transaction; raise Different."""
    began, transactions, records, size = time.monotonic(), 0, 0, 0
    for ours, theirs in zip_longest(target.iterator(), source.iterator()):
        if ours is None or theirs is None:
            raise Different(
                f"the {'cluster' if ours is None else 'source'} ends first, after {transactions} transactions"
            )
        for name in ("tid", "status", "user", "description", "extension_bytes"):
            if getattr(ours, name) != getattr(theirs, name):
                raise Different(
                    f"{name} of transaction {theirs.tid.hex()}: {getattr(ours, name)!r}, not {getattr(theirs, name)!r}"
                )
        mine, wanted = {r.oid: r for r in ours}, {r.oid: r for r in theirs}
        if mine.keys() != wanted.keys():
            raise Different(f"transaction {theirs.tid.hex()} has other objects: {mine.keys() ^ wanted.keys()}")
        for oid, record in wanted.items():
            if mine[oid].data != record.data or mine[oid].tid != record.tid:
                raise Different(f"object {oid.hex()} at {record.tid.hex()} differs")
            records += 1
            size += len(record.data or b"")
            advance(len(record.data or b""))
        transactions += 1
    return Amount(transactions, records, size, time.monotonic() - began)


def query(db: DB) -> list[tuple[str, str]]:
    """Return (question, answer) pairs: of the catalogue if there is one, else of the root."""
    with db.transaction() as connection:
        root = connection.root()
        application = root.get("Application")
        catalogue = getattr(application, "words", None)
        if catalogue is None:
            return [("keys of the root", ", ".join(map(str, root.keys())) or "none")]
        files, words = catalogue["files"], catalogue["words"]
        answers = [("files, distinct words, words in all", f"{len(files)}, {len(words)}, {catalogue['total']()}")]
        for word in WORDS:
            numbers = words.get(word, ())
            answers.append(
                (f"files with {word!r}", f"{len(numbers)}, the first is {files[min(numbers)]}" if numbers else "none")
            )
            for number in list(numbers)[:5]:
                content = bytes(application.unrestrictedTraverse(files[number].lstrip("/")))
                if word.encode() not in content:
                    raise Different(f"{files[number]} does not contain {word!r}")
        return answers


class Edited(NamedTuple):
    """What one editor did."""

    commits: int
    retries: int


def edit(uri: str, editor: int, edits: int) -> Edited:
    """In a process of its own: each edit counts, and adds to a tree that all editors share."""
    db = DB(open_storage(uri))
    retries = 0
    try:
        for number in range(edits):
            while True:
                try:
                    with db.transaction() as connection:
                        shared = connection.root()["neo_demo"]
                        shared["count"].change(1)
                        shared["entries"][f"{editor:02}-{number:04}"] = f"editor {editor} was here"
                    break
                except TransientError:
                    retries += 1
    finally:
        db.close()
    return Edited(edits, retries)


def edit_from_processes(db: DB, uri: str) -> tuple[list[Edited], float]:
    """Let EDITORS processes edit the same objects at once; check that no edit is lost."""
    with db.transaction() as connection:
        shared = connection.root()["neo_demo"] = PersistentMapping()
        shared["count"], shared["entries"] = Length(), OOBTree()
        for editor in range(EDITORS):  # buckets of its own for each, so that most conflicts can be resolved
            shared["entries"].update({f"{editor:02}-base-{n:04}": "" for n in range(60)})
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(EDITORS) as pool:
        jobs = [pool.apply_async(edit, (uri, editor, EDITS)) for editor in range(EDITORS)]
        done = [job.get(timeout=300) for job in jobs]
    seconds = time.monotonic() - began
    with db.transaction() as connection:
        shared = connection.root()["neo_demo"]
        if shared["count"]() != EDITORS * EDITS:
            raise Different(f"{EDITORS * EDITS} edits were counted as {shared['count']()}")
        missing = [k for e in range(EDITORS) for n in range(EDITS) if (k := f"{e:02}-{n:04}") not in shared["entries"]]
        if missing:
            raise Different(f"edits are lost: {missing[:5]}")
    return done, seconds


def undo_last(db: DB) -> str:
    """Make a change, undo it, check that it is gone; return the description of what was undone."""
    with db.transaction("a change that will be undone") as connection:
        connection.root()["neo_demo"]["mistake"] = "oops"
    entry = db.undoLog(0, 1)[0]
    txn = transaction.begin()
    db.undo(entry["id"], txn)
    txn.commit()
    with db.transaction() as connection:
        if "mistake" in connection.root()["neo_demo"]:
            raise Different("the undone change is still there")
    return str(entry["description"])


class Packed(NamedTuple):
    """Revisions before and after, and the time that it took."""

    before: int
    after: int
    seconds: float


def pack(db: DB) -> Packed:
    """Pack with garbage collection, and check that every object that can be reached can still be loaded."""
    reachable = set(reach(db.storage))
    before = count(db.storage)
    began = time.monotonic()
    db.pack()
    seconds = time.monotonic() - began
    after = count(db.storage)
    left = set(reach(db.storage))
    if left != reachable:
        raise Different(f"{len(reachable - left)} objects that can be reached are gone")
    if after > before:
        raise Different(f"packing has made {before} revisions into {after}")
    return Packed(before, after, seconds)


def count(storage: Any) -> int:
    """Return the number of revisions."""
    return sum(1 for txn in storage.iterator() for _ in txn)


def reach(storage: Any) -> Iterator[bytes]:
    """Yield every oid that can be reached from the root."""
    todo, seen = [b"\0" * 8], {b"\0" * 8}
    while todo:
        oid = todo.pop()
        data, _ = storage.load(oid)
        yield oid
        fresh = [ref for ref in set(referencesf(data)) if ref not in seen]
        seen.update(fresh)
        todo += fresh
