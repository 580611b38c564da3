"""One run: a fresh cluster, clients, faults from a seed, healing, and every check at the end.

    python -m support.nemesis --shape 1m-3s-1r --seed 7 --seconds 20

prints the faults and what is wrong; the same words give the same faults again, though not the same races.
"""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import transaction
from ZODB.DB import DB

import neo_client
from support.nemesis.copies import compare
from support.nemesis.deeds import Deeds, end_client
from support.nemesis.ensemble import Ensemble
from support.nemesis.history import Facts, Operation, Outcome, read
from support.nemesis.journal import check_errors, check_notes, check_order
from support.nemesis.schedule import KINDS, Fault, Shape, schedule
from support.nemesis.worker import LAST_ANSWER_S, WORKLOADS
from support.zygote import Zygote

CLIENTS = ("c1", "c2")
HEAL_S = 90.0
TRAFFIC_AFTER_S = 1.0
SETUP = "nemesis set-up"
EXPECTED = {
    "full": re.compile(r"disk|space|clock|No space left|the database is away"),
    "clock": re.compile(r"disk|space|clock|No space left"),
    "server": re.compile(r"the database is away"),
}
"""Errors that an operator is meant to see, by the faults that are told with them."""


@dataclass
class Report:
    """What came of a run."""

    wrong: list[str] = field(default_factory=list)
    history: list[Operation] = field(default_factory=list)
    healed_s: float = 0.0
    resources: dict[str, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)
    """Memory in kB and open files of each daemon that has run all the time: at first and at last."""

    def __str__(self) -> str:
        counts = {o: sum(op.outcome is o for op in self.history) for o in Outcome}
        gap = longest_gap(self.history)
        return (
            f"{counts[Outcome.OK]} transactions acknowledged, {counts[Outcome.FAILED]} failed, "
            f"{counts[Outcome.UNKNOWN]} unknown; longest gap {gap:.1f} s; healed in {self.healed_s:.1f} s"
        )


def longest_gap(history: Sequence[Operation]) -> float:
    """Return the longest time in which nothing was acknowledged."""
    ends = sorted(op.end for op in history if op.outcome is Outcome.OK)
    return max((b - a for a, b in pairwise(ends)), default=0.0)


class Run:
    """See the module."""

    def __init__(
        self,
        directory: Path,
        shape: Shape,
        seed: int,
        seconds: float,
        zygote: Zygote,
        *,
        kinds: Sequence[str] = KINDS,
        workloads: Sequence[str] = tuple(WORKLOADS),
        say: Callable[[str], object] = print,
    ) -> None:
        self.faults = schedule(shape, seed, seconds, CLIENTS, kinds)
        self._seed = seed
        self._seconds = seconds
        self._say = say
        self._workloads = workloads
        self._directory = directory
        self._cluster = Ensemble(directory, shape, zygote)
        self._clients: dict[str, subprocess.Popen[bytes]] = {}
        self._journals: list[Path] = []
        self.report = Report()

    def __call__(self) -> Report:
        """Run; return what came of it."""
        self._say(f"nemesis: shape {self._cluster.shape}, seed {self._seed}, {self._seconds:g} s")
        with self._cluster as cluster:
            self._set_up()
            try:
                for name in CLIENTS:
                    self._start_client(name)
                deeds = Deeds(cluster, self._clients, self._start_client)
                before = cluster.resources()
                self._suffer(deeds)
                self._heal(deeds)
                self._stop_clients()
            finally:
                for client in self._clients.values():
                    end_client(client)
            after = cluster.resources()
            self.report.resources = {name: (before[name], after[name]) for name in cluster.names}
            self.report.history = read(self._journals)
            self._check(deeds)
        self._check_logs()
        self._say(f"nemesis: {self.report}")
        return self.report

    def _set_up(self) -> None:
        db = DB(self._cluster.open(wait_timeout=60))
        with db.transaction(SETUP) as connection:
            for name in self._workloads:
                WORKLOADS[name]().set_up(connection.root())
        db.close()

    def _start_client(self, name: str) -> None:
        number = len(self._journals) + 1
        journal = self._directory / f"{name}-{number}.journal"
        journal.touch()  # it may be killed before it begins
        self._journals.append(journal)
        settings = {
            "uri": self._cluster.uri,
            "client": f"c{number}",  # one that was killed never comes back: the next one is another
            "journal": str(journal),
            "seed": f"{self._seed} {number}",
            "workloads": list(self._workloads),
            "options": {"server_sync": number % 2 == 0, "cache_size": 2**16 if name == "c1" else 2**24},
        }
        with (self._directory / f"{name}.out").open("ab") as out:
            self._clients[name] = subprocess.Popen(
                [sys.executable, "-m", "support.nemesis.worker", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                cwd=Path(__file__).parents[2],
            )

    def _suffer(self, deeds: Deeds) -> None:
        """Let the faults happen."""
        start = time.monotonic()
        steps: list[tuple[float, int, Callable[[Fault], None], Fault]] = []
        for fault in self.faults:
            steps.append((fault.at, 1, deeds.begin, fault))
            steps.append((fault.at + fault.seconds, 0, deeds.end, fault))
        for at, begins, deed, fault in sorted(steps, key=lambda step: step[:2]):
            time.sleep(max(0.0, start + at - time.monotonic()))
            self._cluster_is_alive()
            if begins:
                self._say(f"  {fault}")
            deed(fault)

    def _cluster_is_alive(self) -> None:
        self._cluster.check_alive()

    def _heal(self, deeds: Deeds) -> None:
        """Nothing is disturbed any more: soon all must be well, and everybody at work."""
        began = time.monotonic()
        deeds.keep_drained()
        trouble = self._cluster.trouble()
        while trouble:
            self._cluster_is_alive()
            if time.monotonic() - began > HEAL_S:
                self.report.wrong.append(f"not well {HEAL_S:g} s after the last fault: {trouble}")
                return
            time.sleep(0.1)
            deeds.keep_drained()
            trouble = self._cluster.trouble()
        self.report.healed_s = time.monotonic() - began
        time.sleep(TRAFFIC_AFTER_S)  # some traffic on a cluster that is well

    def _stop_clients(self) -> None:
        for client in self._clients.values():
            assert client.stdin is not None
            client.stdin.close()
        for name, client in self._clients.items():
            try:
                status: int | str = client.wait(LAST_ANSWER_S + 30)
            except subprocess.TimeoutExpired:
                status = "nothing"
            if status != 0:
                text = (self._directory / f"{name}.out").read_text(errors="replace")[-4000:]
                self.report.wrong.append(f"client {name} ended with {status}: {text}")

    def _check(self, deeds: Deeds) -> None:
        wrong = self.report.wrong
        history = tuple(self.report.history)
        with contextlib.closing(DB(neo_client.open(self._cluster.uri, wait_timeout=60))) as db:
            records = [(txn.description.decode(), int.from_bytes(txn.tid, "big")) for txn in db.storage.iterator()]
            finals: dict[str, Any] = {}
            connection = db.open(transaction.TransactionManager())
            for name in self._workloads:
                finals[name] = WORKLOADS[name]().final(connection.root())
            connection.close()
        tids = [tid for _, tid in records]
        if tids != sorted(set(tids)):
            wrong.append("iteration does not give ascending tids")
        notes = [note for note, _ in records if note not in ("", "initial database creation", SETUP)]
        facts = Facts(history, {note: tid for note, tid in records})
        writes = frozenset(op.note for op in history if WORKLOADS[op.workload]().changes(op.asked))
        wrong += check_notes(facts, notes, writes)
        wrong += check_order(facts, deeds.cuts)
        wrong += check_errors(facts)
        for name in self._workloads:
            wrong += WORKLOADS[name]().check(facts.of(name, finals[name]))
        if not any(op.outcome is Outcome.OK for op in history):
            wrong.append("nothing was ever acknowledged")
        wrong += compare(self._cluster.cells())

    def _check_logs(self) -> None:
        kinds = {fault.kind for fault in self.faults}
        for name in self._cluster.names:
            for line in (self._directory / f"{name}.log").read_text(errors="replace").splitlines():
                if " ERROR " in line and not any(EXPECTED[kind].search(line) for kind in kinds & set(EXPECTED)):
                    self.report.wrong.append(f"{name} says: {line}")


def parse_shape(text: str) -> Shape:
    """Read `1m-3s-1r`, or `1m-2s-1r-mariadb-postgresql`."""
    match = re.fullmatch(r"(\d+)m-(\d+)s-(\d+)r((?:-(?:mariadb|mysql|postgresql|managed))*)", text)
    if match is None:
        raise ValueError(f"{text!r} is no shape; write for instance 1m-3s-1r")
    *numbers, servers = match.groups()
    return Shape(*map(int, numbers), tuple(servers.split("-")[1:]))
