"""What clients have asked and been told: operations with their times, written down as they happen.

A client may be killed at any moment: each line of its journal is one write, and an operation without an end is unknown.
Times are those of the monotonic clock, which all processes of a machine share.
"""

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any


class Outcome(Enum):
    """How an operation has ended."""

    OK = "ok"
    FAILED = "failed"
    """It raised: nothing of it may ever be seen."""
    UNKNOWN = "unknown"
    """Its client was killed, or never answered."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One transaction. `asked` and `seen` are JSON values; what they hold is its workload's business."""

    client: str
    session: str
    """A thread of the client: one operation after the other."""
    number: int
    workload: str
    asked: Any
    start: float
    end: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    seen: Any = None
    error: str = ""
    is_transient: bool = True
    """Whether the error says that the same may succeed later."""
    is_synced: bool = False
    """The client sees everything that was acknowledged to anybody before the operation began."""

    @property
    def note(self) -> str:
        """What the transaction is called in the database."""
        return f"{self.session}/{self.number}"


class Journal:
    """Writes operations down. Use from any thread."""

    def __init__(self, path: Path, client: str, *, is_synced: bool) -> None:
        self.client = client
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._lock = threading.Lock()
        self._write({"client": client, "synced": is_synced})

    def begin(self, session: str, number: int, workload: str, asked: Any) -> None:
        """An operation is about to begin."""
        self._write({"s": session, "n": number, "w": workload, "asked": asked, "t": time.monotonic()})

    def end(self, session: str, number: int, seen: Any) -> None:
        """It was acknowledged."""
        self._write({"s": session, "n": number, "seen": seen, "t": time.monotonic()})

    def fail(self, session: str, number: int, error: str, *, is_transient: bool) -> None:
        """It has raised."""
        self._write({"s": session, "n": number, "error": error, "transient": is_transient, "t": time.monotonic()})

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)


def read(paths: Iterable[Path]) -> list[Operation]:
    """Return what these journals say, in the order of the operations' starts."""
    found: dict[tuple[Path, str, int], Operation] = {}
    for path in paths:
        client, is_synced = "", False
        for line in path.read_bytes().split(b"\n")[:-1]:  # the last one is empty, or was cut by a kill
            entry = json.loads(line)
            if "client" in entry:
                client, is_synced = entry["client"], entry["synced"]
                continue
            key = path, entry["s"], entry["n"]
            if "asked" in entry:
                found[key] = Operation(
                    client, entry["s"], entry["n"], entry["w"], entry["asked"], entry["t"], is_synced=is_synced
                )
            elif "error" in entry:
                found[key] = replace(
                    found[key],
                    end=entry["t"],
                    outcome=Outcome.FAILED,
                    error=entry["error"],
                    is_transient=entry["transient"],
                )
            else:
                found[key] = replace(found[key], end=entry["t"], outcome=Outcome.OK, seen=entry["seen"])
    return sorted(found.values(), key=lambda op: op.start)


@dataclass(frozen=True, slots=True)
class Facts:
    """What checkers are given."""

    history: tuple[Operation, ...]
    """By start."""
    tids: Mapping[str, int]
    """Notes of the transactions that are in the database at the end, with their tids."""
    final: Any = None
    """What the workload's `final` has read at the end, with a new client."""

    def of(self, workload: str, final: Any = None) -> "Facts":
        """Return those of one workload."""
        return Facts(tuple(op for op in self.history if op.workload == workload), self.tids, final)

    def committed(self) -> list[Operation]:
        """Return the operations that have changed the database, in the order of their tids, whatever was told."""
        return sorted((op for op in self.history if op.note in self.tids), key=lambda op: self.tids[op.note])

    def ok(self) -> list[Operation]:
        """Return what was acknowledged."""
        return [op for op in self.history if op.outcome is Outcome.OK]
