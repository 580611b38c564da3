"""Files of a vote log in memory, which a kill or a power cut may hit at any operation, and at any byte of a write."""

import errno
import random
from dataclasses import dataclass, field

SECTOR = 512
"""What a disk writes whole, or not at all."""


class Cut(Exception):
    """The process is dead: nothing of it runs on."""


@dataclass
class _File:
    durable: bytearray
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)

    def cached(self) -> bytearray:
        data = bytearray(self.durable)
        for offset, piece in self.unsynced:
            data[offset : offset + len(piece)] = piece
        return data


class LossyFiles:
    """`neo_storage.log_files.LogFiles`. What is created is durable at once, as the real one promises."""

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self.operations = 0
        """Writes, flushes and creations so far."""
        self.writes: list[int] = []
        """The length of each operation's write, 0 for the others."""
        self.cut_at: int | None = None
        """The operation at which the process dies."""
        self.cut_bytes = 0
        """How much of that operation's write still happens."""
        self.room = 2**40
        """Bytes that may still be created."""
        self.failing: set[str] = set()
        """Operations that answer EIO: read, write, sync."""
        self._descriptors: list[str | None] = []

    # ---- what happens to a machine

    def killed(self) -> "LossyFiles":
        """The files as another process finds them when this one is killed."""
        return self._after({name: file.cached() for name, file in self.files.items()}, keep_unsynced=True)

    def power_cut(self, rng: random.Random | None) -> "LossyFiles":
        """The files after a power cut: of what was not flushed, sectors by chance; none without *rng*."""
        after: dict[str, bytearray] = {}
        for name, file in self.files.items():
            data = bytearray(file.durable)
            if rng is not None:
                for offset, piece in file.unsynced:
                    end = offset + len(piece)
                    for sector in range(offset // SECTOR * SECTOR, end, SECTOR):
                        if rng.random() < 0.5:
                            low, high = max(offset, sector), min(end, sector + SECTOR)
                            data[low:high] = piece[low - offset : high - offset]
            after[name] = data
        return self._after(after, keep_unsynced=False)

    def _after(self, contents: dict[str, bytearray], *, keep_unsynced: bool) -> "LossyFiles":
        new = LossyFiles()
        for name, data in contents.items():
            if keep_unsynced:
                new.files[name] = _File(bytearray(self.files[name].durable), list(self.files[name].unsynced))
            else:
                new.files[name] = _File(data)
        return new

    def _operation(self, length: int = 0) -> bool:
        """Count; return whether the process dies here."""
        self.operations += 1
        self.writes.append(length)
        return self.cut_at is not None and self.operations > self.cut_at

    def _check(self, operation: str) -> None:
        if operation in self.failing:
            raise OSError(errno.EIO, f"injected failure of {operation}")

    def _file(self, descriptor: int) -> _File:
        name = self._descriptors[descriptor]
        assert name is not None, "the descriptor was closed"
        return self.files[name]

    # ---- LogFiles

    def names(self) -> list[str]:
        return sorted(self.files)

    def create(self, name: str, size: int) -> int:
        if self._operation():
            raise Cut
        if size > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= size
        assert name not in self.files
        self.files[name] = _File(bytearray(size))
        return self.open(name)

    def open(self, name: str) -> int:
        assert name in self.files
        self._descriptors.append(name)
        return len(self._descriptors) - 1

    def size(self, descriptor: int) -> int:
        return len(self._file(descriptor).durable)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._check("read")
        return bytes(self._file(descriptor).cached()[offset : offset + size])

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        file = self._file(descriptor)
        assert offset + len(data) <= len(file.durable), "a segment never grows"
        if self._operation(len(data)):
            file.unsynced.append((offset, data[: self.cut_bytes]))
            raise Cut
        self._check("write")
        file.unsynced.append((offset, data))

    def sync(self, descriptor: int) -> None:
        if self._operation():
            raise Cut
        self._check("sync")
        file = self._file(descriptor)
        file.durable = file.cached()
        file.unsynced.clear()

    def close(self, descriptor: int) -> None:
        self._file(descriptor)
        self._descriptors[descriptor] = None

    def remove(self, name: str) -> None:
        self.room += len(self.files.pop(name).durable)
