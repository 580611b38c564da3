"""Planted bugs: every rule that the model can switch off, and some younger ones, switched off in the real cores.

A plant changes one small method of one core, right after the core was made; the rest is real. `MUTATIONS` names what is
broken, where it shows, and the faults that are likely to show it. Names are the model's where it has the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from neo_client.core.client import ClientCore
from neo_client.core.events import AbortDone, CacheCut, FinishDone, Invalidated, VoteDone
from neo_client.core.tpc import Phase, Waiting
from neo_common.core import Send, Tick
from neo_common.ids import NO_NODE, NO_TID, NodeId, Oid, Partition, Tid, Ttid
from neo_common.model.partition_table import EMPTY, Cell, PartitionTable
from neo_common.states import CellState, Role
from neo_common.wire.schema import (
    AbortOk,
    AnswerPack,
    Commit,
    Contended,
    Fwd,
    Gone,
    Leave,
    LockMode,
    Mode,
    Pull,
    Ready,
    SAbort,
    SetPT,
    Store,
    Sync,
    Told,
    Unvote,
    Voted,
)
from neo_master.core.master import MasterCore
from neo_storage.backends.base import ApplyDrop
from neo_storage.core.events import PackCells
from neo_storage.core.ground import written
from neo_storage.core.log_records import LogPack, LogPiece
from neo_storage.core.node import FROM_PRIMARY, NEEDS_TABLE, StorageCore, Verdict

Plant = Callable[[Any], None]
"""Breaks a core. (`Any`: a MasterCore, StorageCore or ClientCore.)"""


class Mutation(NamedTuple):
    """A planted bug."""

    text: str
    scenarios: tuple[str, ...]
    master: Plant | None = None
    storage: Plant | None = None
    client: Plant | None = None
    kinds: tuple[str, ...] = ()
    """Faults that are likely to show it; any if empty."""
    plan: tuple[tuple[type, str], ...] = ()
    """A way to show it: moments, and what happens at each."""
    slow: tuple[str, ...] = ()
    """Kinds of links that should be slow."""
    packs: bool = False
    """Whether packs are ordered in its runs."""
    pieces: bool = False
    """Whether there are values in pieces in its runs."""
    early: bool = False
    """Whether small values are stored one by one before votes in its runs."""
    first_run: int = 0
    """Where the search begins: it was noticed there."""
    is_rare: bool = False
    """Shown only by long runs, or never yet: those are soak tests, and `test_rules.py` shows the rule itself."""


def instead(name: str, function: Callable[..., Any], part: str = "") -> Plant:
    """Return a plant that replaces a method of a core, or of its *part*; *function* takes core, original, arguments."""

    def plant(core: Any) -> None:
        target = attrgetter(part)(core) if part else core
        original = getattr(target, name)
        setattr(target, name, lambda *args, **kwargs: function(core, original, *args, **kwargs))

    return plant


def nothing(name: str, part: str = "") -> Plant:
    """Return a plant by which a method does nothing."""
    return instead(name, lambda core, original, *args, **kwargs: None, part)


def always(name: str, value: object, part: str = "") -> Plant:
    """Return a plant by which a method returns *value*."""
    return instead(name, lambda core, original, *args, **kwargs: value, part)


def both(*plants: Plant) -> Plant:
    """Return a plant that does all of these."""

    def plant(core: Any) -> None:
        for each in plants:
            each(core)

    return plant


# ---------------------------------------------------------------------------------------------- clients


def _tell_no_oids(core: ClientCore, original: Callable[[object], None], effect: object) -> None:
    original(effect._replace(oids=()) if isinstance(effect, Invalidated) else effect)


def _keep_cache(core: ClientCore, original: object, last: Tid) -> None:
    core._do(CacheCut(last, last))


def _only_void(core: ClientCore, original: object, is_new_epoch: bool) -> None:
    for loadings in core._loading.values():
        for loading in loadings:
            loading.void = loading.void or is_new_epoch


def _reverse_locks(core: ClientCore, original: Callable[[Any], list[NodeId]], tx: Any) -> list[NodeId]:
    """Every second client locks in another order."""
    order = original(tx)
    return order[::-1] if core.session & 1 else order


def _say_unvote_once(core: ClientCore) -> None:
    original = core._repeat_unvotes
    unvote = core._unvote
    state = {"now": False}

    def repeat(which: Iterable[Any], node: NodeId | None = None) -> None:
        if state["now"]:
            original(which, node)

    def once(tx: Any) -> None:
        state["now"] = True
        unvote(tx)
        state["now"] = False

    core._repeat_unvotes = repeat  # type: ignore[method-assign]
    core._unvote = once  # type: ignore[method-assign]


def _keep_name(core: ClientCore, original: object, tx: Any) -> None:
    tx.begin_anew(tx.ttid)


def _anew_whatever(core: ClientCore, original: Callable[..., None], tx: Any, fate: object, is_new: bool) -> None:
    is_early = tx.waiting is Waiting.VOTE and tx.phase is not Phase.COMMITTED
    if is_early and tx.ttid.session != core.session:
        core._begin_anew(tx)
    else:
        original(tx, fate, is_new)


# ---------------------------------------------------------------------------------------------- copies


def _skip_a_range(core: StorageCore, original: Callable[..., None], copy: Any) -> None:
    if copy.differing:
        copy.differing.popleft()
    original(copy)


def _all_are_equal(core: StorageCore, original: Callable[..., None], peer: NodeId, m: Any) -> None:
    original(peer, m._replace(different=()))


def _resume_at_the_end(core: StorageCore, original: object, partition: Any, reached: Tid) -> Tid:
    return max(reached, core.ground.image.last_tid)


def _write_without_drops(
    core: StorageCore, original: Callable[..., int], ops: tuple[Any, ...], size: int = 0, *, durable: bool = False
) -> int:
    return original(tuple(op for op in ops if not isinstance(op, ApplyDrop)), size, durable=durable)


def _end_without_saving(core: StorageCore, original: Callable[..., None], copy: Any) -> None:
    if copy.cut is None:
        original(copy)
    else:
        del core.copies.copies[copy.partition]
        copy.done()


def _trust_earlier_reigns(core: StorageCore, original: Callable[..., None]) -> None:
    core.copies._epoch = core.ground.image.epoch
    original()


def _any_source(core: StorageCore, original: Callable[..., NodeId | None], copy: Any) -> NodeId | None:
    row = core.ground.image.table.rows[copy.partition]
    others = [n for n, _ in row if n != core.me and n in core.ground.peers]
    return others[-1] if others and copy.cut is None else original(copy)


def _lose_the_last_of_a_part(
    core: StorageCore, original: Callable[..., tuple[Any, ...] | None], copy: Any, transactions: Any
) -> tuple[Any, ...] | None:
    return original(copy, transactions[:-1] if len(transactions) > 1 else transactions)


# ---------------------------------------------------------------------------------------------- storages


def _ack_at_once(core: StorageCore, original: Callable[..., None], ballot: Any, records: Any) -> None:
    original(ballot, records)
    core.votes.acked(ballot.ttid, [r.partition for r in records], ballot.attempt, core.me)


def _await_without_joining(core: StorageCore, original: Callable[..., set[NodeId]], partition: Any) -> set[NodeId]:
    return {n for n in original(partition) if core.ground.state(partition, n) != CellState.JOINING}


def _await_newest_only(core: StorageCore, original: object, partition: Any) -> set[NodeId]:
    return {core.me, *written(core.image.table, partition)}


def _only_me(core: StorageCore, original: object, partition: Any) -> set[NodeId]:
    return {core.me}


def _obey_anybody(core: StorageCore, original: Callable[..., Verdict], peer: NodeId, packet: Any) -> Verdict:
    verdict = original(peer, packet)
    if verdict is Verdict.DROP and isinstance(packet, (*FROM_PRIMARY, *NEEDS_TABLE)):
        return Verdict.TAKE
    return verdict


def _drop_locks_only(core: StorageCore, original: object, partitions: Any) -> None:
    core.locks.drop(partitions)


def _take_exclusive_only(core: StorageCore, original: Callable[..., None], ttid: Any, wants: Any) -> None:
    original(ttid, [w for w in wants if w[1] is LockMode.X])


def _check_no_reads(core: StorageCore) -> None:
    reads: set[Oid] = set()
    refusal, stale = core.votes.refusal, core.ground.stale

    def note(m: Any) -> Any:
        reads.clear()
        reads.update(r.oid for w in m.work for r in w.reads)
        return refusal(m)

    core.votes.refusal = note  # type: ignore[method-assign]
    core.ground.stale = lambda pairs, coming=MappingProxyType({}): stale(  # type: ignore[method-assign]
        [p for p in pairs if p[0] not in reads], coming
    )


def _sync_joining_only(core: StorageCore, original: object, partition: Any, node: NodeId) -> bool:
    return core.ground.state(partition, node) == CellState.JOINING


def _sync_others_only(core: StorageCore, original: object, partition: Any, node: NodeId) -> bool:
    return core.ground.state(partition, node) != CellState.JOINING


def _go_on_joining(core: StorageCore, original: Callable[..., None], peer: NodeId, role: Role) -> None:
    original(peer, role)
    if role is Role.STORAGE and core.serving:
        for p in core.ground.partitions():
            if core.ground.leads(p) and core.ground.state(p, peer) == CellState.JOINING:
                core.tables.sync(p, peer)


def _rely_at_once(core: StorageCore, original: object, table: PartitionTable) -> None:
    core.tables.stabilize(table.version)


def _forget_lease(core: StorageCore) -> None:
    core.reign._lease = None


# ---------------------------------------------------------------------------------------------- masters


def _start_without(core: MasterCore) -> None:
    def missing(table: PartitionTable) -> list[NodeId]:
        there = set(core.replies)
        rows = [table.readable(p) for p in range(table.partitions)]  # type: ignore[arg-type]
        return [] if all(there & set(row) for row in rows) else sorted(table.readable_nodes() - there)

    def fully(table: PartitionTable, votes: Any, attempt: int) -> bool:
        have = {(n, r.partition) for n, r in votes if r.attempt == attempt}
        parts = next((r.parts for _, r in votes if r.attempt == attempt), ())
        return bool(parts) and all((n, p) in have for p in parts for n in table.readable(p) if n in core.replies)

    original = core.cleaned

    def cleaned(table: PartitionTable) -> PartitionTable:
        clean = original(table)
        rows = (tuple(Cell(n, s if n in core.replies else CellState.OUT_OF_DATE) for n, s in row) for row in clean.rows)
        return PartitionTable(clean.version, clean.replicas, rows)

    core.missing = missing  # type: ignore[method-assign]
    core.is_voted_fully = fully  # type: ignore[method-assign]
    core.cleaned = cleaned  # type: ignore[method-assign]


def _is_commit(effect: object) -> bool:
    return isinstance(effect, Send) and isinstance(effect.packet, Commit)


def _publish_first(core: MasterCore) -> None:
    """Commit leaves for the storages at the next Tick only."""
    publish, handle = core.publish, core.handle
    deferred: list[Any] = []

    def later(*args: Any) -> None:
        before = len(core.effects)
        publish(*args)
        new = core.effects[before:]
        del core.effects[before:]
        core.effects.extend(e for e in new if not _is_commit(e))
        deferred.extend(e for e in new if _is_commit(e))

    def handle_and_send(event: Any, now: Any) -> list[Any]:
        effects = list(handle(event, now))
        if isinstance(event, Tick):
            effects = [*deferred, *effects]
            deferred.clear()
        return effects

    core.publish = later  # type: ignore[method-assign, assignment]
    core.handle = handle_and_send  # type: ignore[method-assign]


def _commit_to_readable_only(core: MasterCore, original: Callable[..., None], *args: Any) -> None:
    before = len(core.effects)
    original(*args)
    new = core.effects[before:]
    del core.effects[before:]
    for effect in new:
        if isinstance(effect, Send) and isinstance(effect.packet, Commit):
            parts = effect.packet.parts
            if not any(effect.peer in core.pt.readable(p) for p in parts):
                continue
        core.effects.append(effect)


def _is_dead_without_aborts(core: MasterCore, original: object, packet: Any) -> bool:
    return packet.ttid.session in core.gone or not core.is_of_this_reign(packet)


def _any_attempt(core: MasterCore, original: object, table: PartitionTable, votes: Any, attempt: int) -> bool:
    have = {(n, r.partition) for n, r in votes}
    parts = votes[0][1].parts if votes else ()
    return bool(parts) and all((n, p) in have for p in parts for n in table.readable(p))


def _ignore_leave(core: MasterCore) -> None:
    core.notified[Leave] = lambda client, packet: None


def _may_demote_last(core: MasterCore, original: object, row: Any, state: CellState) -> bool:
    return state in (CellState.JOINING, CellState.UP_TO_DATE, CellState.FEEDING)


def _may_promote_any(core: MasterCore, original: object, partition: Any, node: NodeId, version: Any) -> bool:
    return core.pt.state(partition, node) == CellState.JOINING


def _who_is_there(core: MasterCore, original: Callable[[], frozenset[NodeId]]) -> frozenset[NodeId]:
    return frozenset(n for n in original() if n in core.connected)


# ---------------------------------------------------------------------------------------------- a majority of masters


def _uncovered(core: MasterCore, original: Callable[..., object], *args: object) -> None:
    """Do it as if everything were a cover."""
    covered = core.is_covered
    core.is_covered = lambda: True  # type: ignore[method-assign]
    original(*args)
    core.is_covered = covered  # type: ignore[method-assign]


def _trust_register(core: MasterCore, original: Callable[[], PartitionTable]) -> PartitionTable:
    heard = core.is_heard_by_majority
    core.is_heard_by_majority = lambda: True  # type: ignore[method-assign]
    table = original()
    core.is_heard_by_majority = heard  # type: ignore[method-assign]
    return table


def _count_names(core: MasterCore, original: object) -> bool:
    """Take whoever has the name of a voter for one."""
    voters = {v.node for v in core.newest_register().voters}
    return core.is_quorum and 2 * sum(m in voters for m in core.promises) > len(voters) > 0


def _choose_voters(core: MasterCore, original: Callable[..., None], *args: object) -> None:
    original(*args)
    if core.proposed is not None:
        core.voters = core.proposed.voters


def _store_nothing(core: MasterCore, original: object, then: Callable[[], None] | None) -> None:
    if then is not None:
        then()


def _settle_at_once(core: MasterCore, original: Callable[..., None], *args: Any) -> None:
    original(*args)
    core.fresh.append(core.undurable[-1])


def _forget_given_lease(core: MasterCore, original: Callable[[], None]) -> None:
    original()
    core.lease_to = NO_NODE


def _young_cells(core: MasterCore, original: object, table: PartitionTable) -> bool:
    """A cell counts as it is in the newest table, wherever that was found."""
    return core.is_heard_by_majority() and all(
        any(n in core.replies for n in table.readable(Partition(p))) for p in range(table.partitions)
    )


def _newest_only(core: MasterCore, original: object, partition: Partition) -> set[NodeId]:
    return set(core.pt.readable(partition))


def _all_first(core: MasterCore, original: object, *args: object) -> bool:
    return core.is_quorum


def _start_left_out(
    core: MasterCore, original: Callable[..., None], table: Any, aborts: Any, former: Any = EMPTY, left_out: Any = ()
) -> None:
    original(table, aborts, former)


def _adopt_without_seals(core: MasterCore, original: Callable[..., None], *args: object) -> None:
    seal = core.seal
    core.seal = lambda ttid: None  # type: ignore[method-assign]
    original(*args)
    core.seal = seal  # type: ignore[method-assign]


def _tell_current(core: Any, original: Callable[..., None], effect: Any) -> None:
    original(effect._replace(is_last=True) if isinstance(effect, FinishDone) else effect)


def _values(break_it: Plant) -> Plant:
    """Return a plant for the values that a storage on a server keeps in memory."""

    def plant(core: Any) -> None:
        if core.ground.serials is not None:
            break_it(core.ground.serials.values)

    return plant


def _mix_pieces(core: Any, original: Any, position: int, record: LogPiece) -> None:
    """Keep the first piece of an older upload."""
    ahead = core.image.tentative._ahead.get(record.ttid)
    old = None if ahead is None else ahead.chains.get(record.oid)
    original(position, record)
    if record.offset == 0 and old is not None:
        chain = core.image.tentative._ahead[record.ttid].chains[record.oid]
        chain.chunks[0] = old.chunks[0]


def _remember_uploads(core: Any, original: Any, peer: NodeId, reason: str) -> None:
    sent = {tx.handle: tx.uploaded.get(peer) for tx in core.transactions.values()}
    original(peer, reason)
    for tx in core.transactions.values():
        if sent.get(tx.handle) is not None:
            tx.uploaded[peer] = sent[tx.handle]


def _forget_alone(core: Any, original: Any, ttid: Ttid, partition: Partition) -> None:
    core.ahead._have.pop(ttid, None)
    original(ttid, partition)


def _store_once(core: Any, original: Any, tx: Any, partition: Partition, first: int, total: int) -> None:
    if total > tx.ahead.get(partition, 0):
        original(tx, partition, first, total)


def _pack_to_the_present(core: Any, original: Any, effect: object) -> None:
    original(effect._replace(tid=core.image.last_tid) if isinstance(effect, PackCells) else effect)


def _pack_told_early(core: Any, original: Any, record: object, then: Callable[[], None] | None = None) -> None:
    original(record, None if isinstance(record, LogPack) else then)
    if isinstance(record, LogPack) and then is not None:
        then()


def _promise_any_pack(core: Any, original: Any) -> None:
    if core.pack is not None and None not in core.pack.progress.values():
        asked_by, core.pack.asked_by = core.pack.asked_by, []
        for peer, request in asked_by:
            core.send(peer, AnswerPack(core.pack.number, core.pack.tid), request)


MUTATIONS: Final[dict[str, Mutation]] = {
    "read_without_asking": Mutation(
        "a voted object is read without asking the primary",
        ("read_0rep", "read_1rep"),
        storage=always("may_be_below", False, "reading"),
        first_run=9,
    ),
    "unvote_any_attempt": Mutation(
        "Unvote ignores the attempt number",
        ("pair_0rep", "pair_1rep", "three_2rep"),
        storage=always("is_withdrawn", True, "votes"),
        plan=((Unvote, "lead"), (Unvote, "cut")),
        first_run=121,
    ),
    "no_attempts": Mutation(
        "recovery counts votes of different attempts together",
        ("pair_0rep", "pair_1rep"),
        master=instead("is_voted_fully", _any_attempt),
        kinds=("power", "crash", "count"),
        plan=((Contended, "blackout"),),
        first_run=1975,
        is_rare=True,
    ),
    "pt_before_durable": Mutation(
        "a lead goes on without a cell before the table is durable",
        ("tiny", "one_1rep"),
        master=always("must_have_table", set()),
        kinds=("crash", "power", "count"),
        plan=((Fwd, "crash"), (FinishDone, "blackout")),
        first_run=619,
    ),
    "abort_not_durable": Mutation(
        "tpc_abort returns before anything is durable",
        ("abort_C", "abort_A"),
        master=always("is_abort_durable", True),
        kinds=("power", "count"),
        plan=((AbortDone, "blackout"),),
        first_run=82,
    ),
    "vote_before_durable": Mutation(
        "the lead answers before itself is durable",
        ("read_0rep", "pair_0rep", "apart"),
        storage=instead("put", _ack_at_once, "votes"),
        kinds=("power", "crash", "count"),
        first_run=16,
    ),
    "replica_not_awaited": Mutation(
        "the lead answers before the replicas are durable",
        ("chain", "read_1rep"),
        storage=instead("nodes_to_await", _only_me, "votes"),
        first_run=11,
    ),
    "no_fencing": Mutation(
        "a storage obeys the former primary as well",
        ("tiny", "tiny_read", "apart"),
        storage=instead("verdict", _obey_anybody),
        kinds=("crash", "split", "cut"),
        is_rare=True,
    ),
    "recovery_without_all": Mutation(
        "recovery does not wait for all readable nodes",
        ("tiny", "tiny_read"),
        master=_start_without,
        kinds=("crash", "power"),
        first_run=68,
    ),
    "publish_first": Mutation(
        "clients are told before Commit is sent to the storages",
        ("read_0rep", "read_1rep", "chain"),
        master=_publish_first,
        first_run=0,
    ),
    "locks_not_rebuilt": Mutation(
        "a new lead starts with an empty lock table",
        ("one_1rep", "pair_1rep", "pair_0rep"),
        storage=instead("rebuild", _drop_locks_only, "locks"),
        first_run=296,
    ),
    "reads_unlocked": Mutation(
        "readCurrent is checked, not locked",
        ("current",),
        storage=instead("take", _take_exclusive_only, "locks"),
        first_run=141,
    ),
    "reads_unchecked": Mutation(
        "readCurrent is locked, not checked", ("current",), storage=_check_no_reads, first_run=1
    ),
    "cache_not_invalidated": Mutation(
        "a client ignores Invalidate",
        ("read_0rep", "chain"),
        client=instead("_do", _tell_no_oids),
        first_run=1,
    ),
    "cache_kept": Mutation(
        "a client keeps its cache when it comes back",
        ("read_0rep", "read_1rep", "chain"),
        client=both(instead("_cut_cache", _keep_cache), instead("_cut_all_loads", _only_void)),
        first_run=35,
    ),
    "range_skipped": Mutation(
        "who copies forgets a range that differs",
        ("crowd", "rebuild", "read_1rep"),
        storage=instead("_next_range", _skip_a_range, "copies"),
        kinds=("crash", "power"),
        first_run=32,
    ),
    "digests_wrong": Mutation(
        "all ranges are called equal",
        ("crowd", "rebuild", "read_1rep"),
        storage=instead("on_compared", _all_are_equal, "copies"),
        first_run=41,
    ),
    "resumed_too_far": Mutation(
        "a copy goes on above what it has not compared",
        ("crowd", "rebuild", "read_1rep"),
        storage=instead("resume_from", _resume_at_the_end, "copies"),
        first_run=54,
    ),
    "excess_kept": Mutation(
        "who copies keeps what the source has not",
        ("crowd", "rebuild", "read_1rep"),
        storage=instead("write", _write_without_drops, "copies"),
        kinds=("power",),
        first_run=41,
    ),
    "copy_not_saved": Mutation(
        "a cell is ready before what it has copied is durable",
        ("crowd", "rebuild", "read_1rep"),
        storage=instead("_end_pass", _end_without_saving, "copies"),
        is_rare=True,
        first_run=187,
    ),
    "earlier_reigns_trusted": Mutation(
        "what was equal under another primary is not compared again",
        ("crowd", "rebuild", "read_1rep"),
        storage=instead("changed", _trust_earlier_reigns, "copies"),
        is_rare=True,
    ),
    "any_source": Mutation(
        "cells copy from cells that are out of date themselves",
        ("crowd",),
        storage=both(instead("source_of", _any_source, "copies"), always("is_good", True, "giving")),
        is_rare=True,
    ),
    "part_cut_short": Mutation(
        "the last transaction of a part is lost",
        ("crowd", "rebuild", "read_1rep"),
        storage=instead("_take", _lose_the_last_of_a_part, "copies"),
        first_run=3,
    ),
    "joining_gets_no_commit": Mutation(
        "Commit is not sent to a cell that joins",
        ("chain", "read_1rep"),
        master=instead("publish", _commit_to_readable_only),
        first_run=13,
    ),
    "demote_last": Mutation(
        "the last readable cell can be put out of date",
        ("read_0rep", "chain"),
        master=instead("may_demote", _may_demote_last),
        first_run=18,
    ),
    "finish_after_abort": Mutation(
        "Finish is accepted after an abort",
        ("abort_C", "pair_0rep"),
        master=instead("is_dead", _is_dead_without_aborts),
        first_run=427,
    ),
    "unordered_locks": Mutation(
        "one client locks in another order",
        ("pair_0rep",),
        client=both(instead("_lock_order", _reverse_locks), always("_out_of_order", False)),
        slow=("S>C",),
        first_run=445,
    ),
    "no_wake": Mutation("waiters are not woken", ("pair_0rep",), storage=nothing("wake", "locks"), first_run=4),
    "unvote_not_forwarded": Mutation(
        "Unvote stays at the lead",
        ("pair_1rep", "three_2rep"),
        storage=instead("nodes_to_forget", _only_me, "votes"),
        first_run=367,
    ),
    "no_ceiling": Mutation(
        "a new primary starts above the tids that it finds",
        ("apart", "causal"),
        master=always("former_ceiling", NO_TID),
        kinds=("power", "clock"),
        first_run=180,
    ),
    "no_lease": Mutation(
        "a fenced primary still answers its clients",
        ("m3_read", "m3_pair", "m3_abort"),
        master=always("valid_lease", True),
        storage=always("is_free_for", True, "reign"),
        kinds=("split", "depose", "apart"),
        plan=((VoteDone, "depose"),),
        is_rare=True,
    ),
    "lease_forgotten": Mutation(
        "a restarted storage forgets the lease that it gave",
        ("read_0rep", "apart"),
        storage=_forget_lease,
        kinds=("crash", "split"),
        plan=((VoteDone, "depose"), (Told, "crash")),
        is_rare=True,
    ),
    "no_tail": Mutation(
        "a storage hears only of its own decisions",
        ("causal", "apart"),
        master=always("tail_for", ()),
        kinds=("power",),
        plan=((FinishDone, "blackout"),),
        first_run=1267,
    ),
    "recovery_unordered": Mutation(
        "recovery orders what is in doubt at will",
        ("causal", "apart", "chain"),
        master=instead("ordered", lambda core, original, doubts: sorted(doubts, key=lambda d: d.ttid, reverse=True)),
        kinds=("power",),
        plan=((VoteDone, "blackout"),),
        is_rare=True,
    ),
    "no_reset": Mutation(
        "a snapshot survives although recovery has changed tids",
        ("tiny_read", "read_0rep", "apart"),
        master=always("must_reset", False),
        kinds=("power", "crash"),
        plan=((FinishDone, "power"),),
        is_rare=True,
    ),
    "no_lead_sync": Mutation(
        "a new lead does not make the other cells agree",
        ("tiny_2rep", "three_2rep"),
        storage=both(instead("is_synced", _sync_joining_only, "tables"), nothing("resync", "reign")),
        kinds=("crash", "cut"),
        is_rare=True,
    ),
    "stale_lead_accepted": Mutation(
        "a cell accepts votes from a former lead",
        ("one_1rep", "pair_1rep", "three_2rep"),
        storage=always("is_lead", True),
        kinds=("crash", "cut"),
        plan=((Fwd, "lead"), (SetPT, "desert")),
        slow=("S>S",),
        is_rare=True,
    ),
    "join_without_votes": Mutation(
        "a cell becomes UP_TO_DATE without the pending votes",
        ("one_1rep", "tiny_read", "chain"),
        storage=both(
            instead("is_synced", _sync_others_only, "tables"),
            instead("is_join_complete", lambda core, original, join: join.data, "tables"),
        ),
        kinds=("crash", "cut"),
        first_run=139,
    ),
    "joining_not_awaited": Mutation(
        "votes do not wait for a cell that joins",
        ("chain", "read_1rep", "one_1rep"),
        storage=instead("nodes_to_await", _await_without_joining, "votes"),
        kinds=("crash", "cut"),
        plan=((Fwd, "crash"), (Sync, "cut")),
        slow=("S>S",),
        is_rare=True,
    ),
    "promotion_not_cancelled": Mutation(
        "a promotion counts although a readable cell has not made it durable",
        ("tiny", "tiny_read"),
        master=nothing("take_back_promotion"),
        kinds=("crash", "power"),
        is_rare=True,
    ),
    "new_votes_before_stable": Mutation(
        "a vote that arrives after the new table does not wait for it to be durable",
        ("tiny_read", "mixed", "tiny"),
        storage=instead("nodes_to_await", _await_newest_only, "votes"),
        kinds=("split", "crash", "cut"),
        plan=((Fwd, "crash"), (VoteDone, "blackout")),
        is_rare=True,
    ),
    "no_tombstone": Mutation(
        "a forwarded vote is stored after the abort that overtook it",
        ("pair_1rep", "mixed", "three_2rep"),
        storage=always("is_superseded", False, "votes"),
        plan=((Fwd, "overdue"), (SAbort, "desert")),
        slow=("S>S",),
        first_run=636,
    ),
    "early_attempt_forgotten": Mutation(
        "tpc_vote raises although an earlier attempt may be fully voted",
        ("pair_0rep", "pair_1rep", "abort_C", "mixed"),
        client=both(nothing("_note_lost_vote"), always("_recovery_may_commit", False)),
        kinds=("cut", "power"),
        plan=((Voted, "cut"), (AbortDone, "blackout")),
        is_rare=True,
    ),
    "finish_any_epoch": Mutation(
        "Finish is accepted for votes given under an earlier primary",
        ("pair_0rep", "abort_C", "mixed"),
        master=always("is_of_this_reign", True),
        kinds=("crash", "power"),
        plan=((VoteDone, "orphan"),),
        is_rare=True,
    ),
    "load_ignores_invalidation": Mutation(
        "an answer overtaken by Invalidate is cached as current",
        ("read_0rep", "chain"),
        client=nothing("_cut_loads"),
        slow=("S>C",),
        first_run=14,
    ),
    "old_load_cached_as_current": Mutation(
        "an answer for an old snapshot is cached as current",
        ("mixed", "three_1rep", "read_1rep"),
        client=always("_load_cut", NO_TID),
        slow=("M>S",),
        first_run=197,
    ),
    "no_grace": Mutation(
        "recovery does not wait for clients (decides at once)",
        ("abort_C", "mixed"),
        master=always("is_grace_over", True),
        kinds=("power", "crash"),
        plan=((Voted, "orphan"),),
        is_rare=True,
    ),
    "unvote_not_repeated": Mutation(
        "an Unvote lost with a connection is not repeated",
        ("abort_C", "pair_1rep", "pair_0rep"),
        client=_say_unvote_once,
        kinds=("crash", "cut"),
        first_run=6,
    ),
    "join_survives_break": Mutation(
        "a join goes on although the connection to the lead was lost",
        ("one_1rep", "chain", "pair_1rep"),
        storage=instead("connected", _go_on_joining, "reign"),
        kinds=("cut", "crash"),
        plan=((Fwd, "cut"), (Pull, "cut")),
        is_rare=True,
    ),
    "old_stream_accepted": Mutation(
        "a joining cell accepts what was sent before it began to join",
        ("chain", "one_1rep", "read_1rep"),
        storage=always("is_old_stream", False, "tables"),
        kinds=("cut", "crash"),
        plan=((Fwd, "cut"), (Pull, "cut")),
        slow=("S>S",),
        is_rare=True,
    ),
    "stale_ready": Mutation(
        "a cell is made UP_TO_DATE by the Ready of an earlier join",
        ("abort_A", "one_1rep", "read_1rep"),
        master=instead("may_promote", _may_promote_any),
        kinds=("cut", "crash"),
        plan=((Fwd, "cut"), (Ready, "cut")),
        slow=("S>M",),
        is_rare=True,
    ),
    "client_keeps_old_primary": Mutation(
        "a client goes on with an old primary after its hello to a new one",
        ("apart", "causal", "read_0rep"),
        client=both(nothing("_promise"), always("_hears", True)),
        kinds=("crash", "split"),
        is_rare=True,
    ),
    "adopted_table_not_durable": Mutation(
        "a lead relies on a table that it was adopted with before it is durable",
        ("chain", "tiny", "one_1rep"),
        storage=instead("_rely_on", _rely_at_once, "reign"),
        kinds=("split", "power"),
        is_rare=True,
    ),
    "tombstone_kept": Mutation(
        "the tombstone of an abort that recovery has not followed is kept",
        ("read_1rep", "one_1rep"),
        master=always("has_tombstone", False),
        storage=nothing("amnesty", "reign"),
        kinds=("crash", "power"),
        plan=((AbortOk, "blackout"),),
        is_rare=True,
    ),
    "gone_unheard": Mutation(
        "a lost client is told aborted before every readable node has reported its votes",
        ("pair_1rep", "abort_C", "pair_0rep"),
        master=instead("who_must_tell", _who_is_there),
        kinds=("cut", "split", "crash"),
        plan=((VoteDone, "orphan"), (Gone, "crash")),
        is_rare=True,
    ),
    "mode_C_for_two_phase": Mutation(
        "presumed commit although another resource manager may refuse",
        ("abort_A",),
        client=always("_mode", Mode.C),
        kinds=("power", "crash"),
        plan=((VoteDone, "orphan"),),
        first_run=156,
    ),
    "fate_unsought": Mutation(
        "a client is told ABORTED of what nobody remembers, without asking history",
        ("read_0rep", "pair_1rep", "one_1rep"),
        master=always("is_doubtful", False),
        plan=((FinishDone, "desert"), (VoteDone, "orphan")),
        is_rare=True,
    ),
    "leave_ignored": Mutation(
        "the session of a client that leaves is not given up at once",
        ("pair_0rep",),
        master=_ignore_leave,
        is_rare=True,
    ),
    "name_kept": Mutation(
        "a transaction keeps its ttid although its session was given up",
        ("pair_0rep", "abort_C", "pair_1rep"),
        client=instead("_begin_anew", _keep_name),
        kinds=("pause", "cut"),
        is_rare=True,
    ),
    "anew_too_early": Mutation(
        "a transaction is voted under a new ttid although it was committed under the old one",
        ("pair_0rep", "abort_C", "pair_1rep"),
        client=instead("_take_fate", _anew_whatever),
        kinds=("pause", "cut", "power"),
        is_rare=True,
    ),
    "welcome_too_early": Mutation(
        "a client is welcomed although what it had under way is not durably aborted",
        ("pair_1rep", "abort_C", "pair_0rep"),
        master=always("must_wait", False),
        kinds=("pause", "cut", "split"),
        is_rare=True,
    ),
    "import_in_any_order": Mutation(
        "recovery gives tids to others before it commits what an import has brought",
        ("copy", "copy_apart", "m3_copy"),
        master=instead("ordered", lambda core, original, doubts: sorted(doubts)),
        first_run=641,
    ),
    "import_on_nothing": Mutation(
        "recovery commits what an import has voted although what went before it is not there",
        ("copy_apart", "copy", "m3_copy"),
        master=instead("rests_on_commits", lambda core, original, doubt: True),
        first_run=536,
    ),
    "import_shares_nothing": Mutation(
        "the next transaction of an import is compared with what is current, not with what the one before will write",
        ("copy", "copy_apart", "m3_copy"),
        storage=instead("_coming", lambda core, original, base: {}, "votes"),
    ),
    "no_patience": Mutation(
        "a vote reports at once a cell that was never connected",
        ("one_1rep", "chain"),
        storage=always("is_expected", False, "votes"),
        is_rare=True,
    ),
    "minority_rules": Mutation(
        "any master that has promised is taken for a majority",
        ("m3_tiny", "m3_read", "m3_pair"),
        master=both(
            instead("is_majority", lambda core, original, who: core.is_quorum and bool(set(who))),
            instead("is_heard_by_majority", lambda core, original: core.is_quorum and bool(core.promises)),
        ),
        kinds=("apart",),
        is_rare=True,
    ),
    "no_cover_lease": Mutation(
        "a primary decides with the lease of its own host alone",
        ("m3_read", "m3_pair", "m3_abort"),
        master=always("is_lease_covered", True),
        kinds=("apart", "cut"),
        is_rare=True,
    ),
    "stable_uncovered": Mutation(
        "a table is stable although no majority has it, nor a whole row",
        ("m3_tiny", "m3_read", "m3_pair"),
        master=instead("check_stable", _uncovered),
        kinds=("apart", "host", "cut"),
        is_rare=True,
    ),
    "runs_uncovered": Mutation(
        "a reign without everybody begins before a majority has its table",
        ("m3_tiny", "m3_read", "m3_2rep"),
        master=instead("try_run", _uncovered),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "storages_first": Mutation(
        "storages have a table that takes readable cells away before the masters have it",
        ("m3_tiny", "m3_read", "m3_2rep"),
        master=both(always("must_be_held_first", False), always("may_start_at_once", True)),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "register_first": Mutation(
        "masters have a promotion before the storages have it",
        ("m3_read", "m3_2rep", "m3_tiny"),
        master=instead("must_be_held_first", _all_first),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "lone_register": Mutation(
        "a candidate without majority trusts the table of its own register",
        ("m3_tiny", "m3_read", "m3_2rep"),
        master=instead("newest_table", _trust_register),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "blank_votes": Mutation(
        "a master that has lost its disk votes as if it remembered",
        ("m3_tiny", "m3_read", "m3_pair"),
        master=instead("is_heard_by_majority", _count_names),
        kinds=("wipe", "apart", "host"),
        is_rare=True,
    ),
    "voters_by_few": Mutation(
        "new voters are chosen without asking every master",
        ("m3_tiny", "m3_read", "m3_pair"),
        master=both(always("are_all_there", True), instead("on_held", _choose_voters)),
        kinds=("wipe", "apart", "host"),
        is_rare=True,
    ),
    "promise_not_durable": Mutation(
        "a master promises before that is on its disk",
        ("m3_tiny", "m3_read", "m3_pair"),
        master=instead("store", _store_nothing),
        kinds=("apart", "crash", "host"),
        is_rare=True,
    ),
    "promise_ignores_lease": Mutation(
        "a master hears another candidate while its lease is alive",
        ("m3_read", "m3_pair", "m3_abort"),
        master=always("is_free_for", True),
        kinds=("apart", "cut"),
        is_rare=True,
    ),
    "master_lease_forgotten": Mutation(
        "a restarted master forgets the lease that it gave",
        ("m3_read", "m3_pair", "m3_abort"),
        master=instead("begin_memory", _forget_given_lease),
        kinds=("apart", "crash"),
        is_rare=True,
    ),
    "old_epoch_held": Mutation(
        "a master holds the table of an epoch below its promise",
        ("m3_read", "m3_tiny", "m3_pair"),
        master=always("may_hold", True),
        kinds=("apart", "cut", "host"),
        is_rare=True,
    ),
    "young_cell_counts": Mutation(
        "a cell whose promotion no majority holds counts for a takeover",
        ("m3_tiny", "m3_read", "m3_2rep"),
        master=instead("can_do_without", _young_cells),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "only_newest_table": Mutation(
        "aborts and seals count without the cells of the stable table",
        ("m3_abort", "m3_abort_A"),
        master=instead("readable_in", _newest_only),
        kinds=("apart", "cut", "host"),
        is_rare=True,
    ),
    "taken_back_held": Mutation(
        "a promotion that is taken back is held by masters all the same",
        ("m3_2rep", "m3_read", "m3_hosts"),
        master=always("must_skip", False),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "left_out_counts": Mutation(
        "recovery believes decisions of a storage that was left out of a reign",
        ("m3_read", "m3_abort", "m3_pair"),
        master=instead("who_counts", lambda core, original, table: sorted(core.replies)),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "left_out_started": Mutation(
        "a storage that was left out of a reign is started with the others, and keeps its decisions",
        ("m3_read", "m3_abort", "m3_pair"),
        master=instead("start", _start_left_out),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "left_out_remembers": Mutation(
        "a storage that is adopted into a reign that began without it keeps its decisions",
        ("m3_read", "m3_abort", "m3_pair"),
        storage=nothing("forget_decisions", "reign"),
        kinds=("apart", "host", "crash"),
        is_rare=True,
    ),
    "seal_not_repeated": Mutation(
        "a Seal is not sent to a storage that comes back",
        ("m3_abort_A", "abort_A"),
        master=instead("adopt", _adopt_without_seals),
        kinds=("cut", "crash"),
        is_rare=True,
    ),
    "late_commit_current": Mutation(
        "what a client has committed counts as current, although it heard of that after later commits",
        ("tiny_2rep", "alone", "m3_pair", "ahead"),
        client=instead("_do", _tell_current),
        kinds=("pause", "blackout", "crash"),
        first_run=133,
    ),
    "values_outlive_removals": Mutation(
        "values in memory are still taken for current when something else than a commit has changed the database",
        ("rebuild", "grow"),
        storage=_values(lambda cache: setattr(cache, "clear", lambda: None)),
        is_rare=True,
    ),
    "unsettled_held": Mutation(
        "masters are told of commits that are not durable everywhere",
        ("pair_1rep", "one_1rep", "m3_pair"),
        master=instead("publish", _settle_at_once),
        kinds=("power", "blackout", "crash"),
        is_rare=True,
    ),
    "old_disk_trusted": Mutation(
        "recovery does not compare how far a disk has come with what masters know",
        ("pair_1rep",),
        master=always("is_older", False),
        is_rare=True,
    ),
    "any_holding_believed": Mutation(
        "what masters hold is believed although it was cut off, or is of another line of history",
        ("pair_1rep",),
        master=instead("held_for", lambda core, original, table: core.holding),
        is_rare=True,
    ),
    "position_not_durable": Mutation(
        "a storage tells the primary of log records that are not durable",
        ("pair_1rep",),
        storage=instead("durable_records", lambda core, original: core.image.position + 1, "ground"),
        is_rare=True,
    ),
    "packed_to_the_present": Mutation(
        "a pack removes what is current at its tid, if there is something newer",
        ("pair_1rep", "crowd"),
        storage=instead("order", _pack_to_the_present, "ground"),
        packs=True,
    ),
    "missed_pack_forgotten": Mutation(
        "a storage that comes back does not ask itself which pack it has missed, or was about to do",
        ("three_1rep", "pair_1rep"),
        storage=nothing("resume_pack", "upkeep"),
        kinds=("crash",),
        packs=True,
        first_run=82,
    ),
    "joined_cell_not_packed": Mutation(
        "a cell that becomes readable after a pack was ordered is not packed",
        ("three_1rep", "three_2rep"),
        storage=nothing("follow_table", "upkeep"),
        kinds=("crash", "cut"),
        packs=True,
    ),
    "pack_not_durable": Mutation(
        "a storage says that it has a pack order before that is durable",
        ("alone", "pair_1rep"),
        storage=instead("write", _pack_told_early, "ground"),
        kinds=("blackout", "power"),
        plan=((AnswerPack, "blackout"),),
        packs=True,
        first_run=32,
    ),
    "pack_not_repeated": Mutation(
        "a new primary does not order again what a storage has missed of former packs",
        ("m3_0rep", "pair_0rep"),
        master=nothing("repeat_pack"),
        kinds=("crash", "power"),
        packs=True,
    ),
    "pack_promised_to_nobody": Mutation(
        "a pack is answered although no storage has the order",
        ("alone", "one_1rep"),
        master=instead("check_pack", _promise_any_pack),
        kinds=("crash", "count", "power"),
        packs=True,
        first_run=190,
    ),
    "pieces_mixed": Mutation(
        "a value in pieces that is stored once more has the first piece of its older upload",
        ("pair_1rep", "ahead"),
        storage=instead("piece", _mix_pieces, "image.tentative"),
        pieces=True,
    ),
    "uploads_remembered": Mutation(
        "a client does not send again, on a new connection, what went ahead on the lost one",
        ("pair_1rep", "one_1rep"),
        client=instead("_lost", _remember_uploads),
        kinds=("crash", "cut"),
        plan=((Store, "cut"),),
        early=True,
        is_rare=True,
    ),
    "stored_once": Mutation(
        "a client does not send what is stored once more",
        ("pair_1rep", "ahead"),
        client=instead("_stored_ahead", _store_once),
        pieces=True,
    ),
    "pieces_kept": Mutation(
        "a storage never forgets what went ahead of a vote that does not come",
        ("pair_1rep", "alone"),
        storage=nothing("forget", "image.tentative"),
        pieces=True,
    ),
    "pieces_recycled": Mutation(
        "the log lets go of pieces that the vote, or the database, still needs",
        ("pair_1rep", "alone"),
        storage=instead("needed_from", lambda core, original, durable: durable + 1),
        pieces=True,
    ),
    "abort_cuts": Mutation(
        "pieces that an abort has overtaken are taken for a gap",
        ("crowd", "mixed"),
        storage=instead("_gap_unless_over", lambda core, original, peer, ttid: core.ahead.gap(peer, ttid), "ahead"),
        pieces=True,
        is_rare=True,
    ),
    "not_taken_back": Mutation(
        "a client that gives up does not say that nothing will come of what went ahead",
        ("pair_1rep",),
        client=nothing("_take_back"),
        early=True,
    ),
    "parts_unsaid": Mutation(
        "a lead does not say to whom it has passed on what went ahead that it forgets it",
        ("ahead", "pair_1rep"),
        storage=instead("drop", _forget_alone, "ahead"),
        early=True,
    ),
    "parts_too_late": Mutation(
        "a storage keeps what went ahead of a vote that comes too late, or is taken back",
        ("ahead", "pair_1rep"),
        storage=nothing("drop_of", "ahead"),
        early=True,
    ),
    "parts_across_tables": Mutation(
        "a cell that was out of date keeps what went ahead before, as if it had missed nothing since",
        ("ahead", "pair_1rep"),
        storage=nothing("changed", "ahead"),
        kinds=("lead", "cut"),
        early=True,
        first_run=154,
    ),
    "parts_across_reigns": Mutation(
        "what went ahead under one primary stays under the next",
        ("ahead", "m3_pair"),
        storage=nothing("begin_reign", "ahead"),
        early=True,
        first_run=69,
    ),
    "no_heir": Mutation(
        "a FEEDING cell does not take the place of the last UP_TO_DATE one",
        ("rebuild", "grow"),
        master=instead("with_heir", lambda core, original, row, node: row),
        kinds=("change", "crash"),
        is_rare=True,
    ),
}


def plant(mutation: Mutation, core: object, role: Role) -> None:
    """Break *core* as *mutation* says."""
    chosen = {Role.MASTER: mutation.master, Role.STORAGE: mutation.storage, Role.CLIENT: mutation.client}[role]
    if chosen is not None:
        chosen(core)


@contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Break every core of those roles that is made meanwhile, wherever it is made."""
    chosen = ((MasterCore, mutation.master), (StorageCore, mutation.storage), (ClientCore, mutation.client))
    whole = [(cls, cls.__init__) for cls, _ in chosen]
    for cls, broken in chosen:
        if broken is not None:
            _break_all(cls, broken)
    try:
        yield
    finally:
        for cls, init in whole:
            cls.__init__ = init  # type: ignore[method-assign]


def _break_all(cls: Any, broken: Plant) -> None:
    init = cls.__init__

    def make(core: object, *args: object, **kwargs: object) -> None:
        init(core, *args, **kwargs)
        broken(core)

    cls.__init__ = make
