"""A simulated storage whose disk is replaced by an older copy of itself."""

from __future__ import annotations

from support.storing import Disk, Storing, cheap_copy


def copied(storage: Storing) -> Disk:
    """Return a copy of the disk as it is now: what a power cut would leave."""
    disk, copy = storage.disk, Disk()
    copy.records = [r for r in disk.records if r[0] <= disk.durable]
    copy.ever = [r for r in disk.ever if r[0] <= disk.durable]
    copy.durable = disk.durable
    copy.saved, copy.saved_position = cheap_copy(disk.saved), disk.saved_position
    copy.backend.at_once = disk.backend.at_once
    copy.backend.restore(copy.saved)
    copy.saved_copies = list(disk.saved_copies)
    copy.copies = [(at, c) for at, c in disk.copies if any(c is saved for saved in disk.saved_copies)]
    return copy


def restore(storage: Storing, copy: Disk) -> None:
    """Put an older copy in the place of the disk of a storage that does not run."""
    assert not storage.alive
    storage.world.note(storage.name, "is restored", f"to log record {copy.durable} of {storage.disk.durable}")
    storage.disk = copy
