"""A snapshot of a cluster in, what to show of it out: plain values for JSON, and rows of text. Pure.

The shape of the JSON is a promise to scripts: keys are added, never renamed. Tids and oids are texts of 16 hexadecimal
digits (JSON numbers lose the last bits of them), times are Unix seconds, nodes are as people write them (`S2`).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from neo_common.ids import Epoch, NodeId, Partition, Tid, time_from_tid
from neo_common.model.partition_table import PartitionTable
from neo_common.states import CellState, ClusterState, NodeState, Role, node_text, role_of
from neo_common.wire.schema import (
    AnswerChange,
    AnswerCluster,
    AnswerMoves,
    AnswerPackState,
    AnswerReplication,
    AnswerScrub,
    CellCopy,
    CellSize,
    NodeInfo,
    Transaction,
)

_BAD_NODES = (NodeState.UNKNOWN, NodeState.UNAVAILABLE)
_GROUP = 10
"""Partitions between two gaps of a drawing."""


class Snapshot(NamedTuple):
    """A cluster at one moment, as its primary tells it."""

    cluster: AnswerCluster
    nodes: tuple[NodeInfo, ...]
    table: PartitionTable


class Transactions(NamedTuple):
    """What several storages know of the last transactions, put together."""

    transactions: tuple[Transaction, ...]
    missing: tuple[Partition, ...]
    """Partitions that nobody could be asked for: what they alone took part in is not here."""


# ------------------------------------------------------------------------------------------------ words


def hex_id(value: int) -> str:
    """Return a tid or oid as ZODB's tools write it.

    >>> hex_id(255)
    '00000000000000ff'
    """
    return f"{value:016x}"


def epoch_text(epoch: Epoch) -> str:
    """Return an epoch as `reign.master`; `-` for none.

    >>> epoch_text(Epoch(0x3000001))
    '3.1'
    """
    return f"{epoch >> 24}.{epoch & 0xFFFFFF}" if epoch else "-"


def time_text(unix_s: float) -> str:
    """Return a time for people, in UTC, to the millisecond.

    >>> time_text(1700000000.5)
    '2023-11-14 22:13:20.500'
    """
    return datetime.fromtimestamp(unix_s, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")


def age_text(seconds: float) -> str:
    """Return a duration for people, its two largest units.

    >>> [age_text(s) for s in (0.0, 59.9, 61, 7265, 180000, -5)]
    ['0s', '59s', '1min 1s', '2h 1min', '2d 2h', '0s']
    """
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def size_text(size: int) -> str:
    """Return a size for people.

    >>> [size_text(n) for n in (0, 1023, 1536, 20 * 2**20)]
    ['0 B', '1023 B', '1.5 kB', '20.0 MB']
    """
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 4)
    return f"{size / 1024**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _text(data: bytes) -> str:
    """Return what a program wrote for people, with what is not text made visible."""
    return data.decode("utf-8", "backslashreplace")


# ------------------------------------------------------------------------------------------------ health


def problems(snapshot: Snapshot) -> list[str]:
    """Return what an operator may want to act on, worst first; empty when all is well."""
    cluster, nodes, table = snapshot
    found = []
    if cluster.state is not ClusterState.RUNNING:
        found.append(f"the cluster is {cluster.state.name}" + (f": {cluster.reason}" if cluster.reason else ""))
    elif cluster.reason:
        found.append(cluster.reason)
    if cluster.rows_not_ready:
        found.append(f"{cluster.rows_not_ready} of {cluster.partitions} partitions have no readable cell")
    thin = [p for p in range(table.partitions) if len(table.readable(Partition(p))) <= table.replicas]
    if len(thin) > cluster.rows_not_ready:
        found.append(f"{len(thin)} of {table.partitions} partitions have fewer copies than wanted")
    if table.orders.is_balancing:
        found.append(moving_text(table))
    for info in nodes:
        if info.state in _BAD_NODES and role_of(info.node) in (Role.STORAGE, Role.MASTER):
            why = f": {info.reason}" if info.reason else ""
            found.append(f"{node_label(info)} is {info.state.name}{why}")
    return found


def moving_text(table: PartitionTable) -> str:
    """Return what moves, as far as the table tells."""
    states = [state for row in table.rows for _, state in row]
    copying, feeding = sum(not s.is_readable for s in states), sum(s is CellState.FEEDING for s in states)
    leaving = "".join(f", {node_text(n)} is drained" for n in table.orders.leaving)
    return f"cells are being moved: {copying} are copied, {feeding} on their way out{leaving}; see `neoadmin moves`"


def node_label(info: NodeInfo) -> str:
    """Return id and name of a node."""
    return f"{node_text(info.node)} ({info.name})" if info.name else node_text(info.node)


# ------------------------------------------------------------------------------------------------ status


def cluster_json(cluster: AnswerCluster) -> dict[str, Any]:
    """Return the cluster for scripts. (Any: what JSON can hold.)"""
    return {
        "name": cluster.name,
        "cluster_id": cluster.cluster_id.hex(),
        "state": cluster.state.name,
        "reason": cluster.reason,
        "epoch": epoch_text(cluster.epoch),
        "primary": node_text(cluster.primary),
        "table": str(cluster.version),
        "partitions": cluster.partitions,
        "replicas": cluster.replicas,
        "rows_not_ready": cluster.rows_not_ready,
        "last_tid": hex_id(cluster.last_tid),
        "durable_tid": hex_id(cluster.durable_tid),
        "last_oid": hex_id(cluster.last_oid),
        "ceiling_tid": hex_id(cluster.ceilings.tid),
        "ceiling_oid": hex_id(cluster.ceilings.oid),
        "clients": cluster.clients,
        "transactions": cluster.transactions,
    }


def status_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return everything `neoadmin status` knows. (Any: what JSON can hold.)"""
    counts: dict[str, dict[str, int]] = {}
    for info in snapshot.nodes:
        states = counts.setdefault(role_of(info.node).name.lower(), {})
        states[info.state.name] = states.get(info.state.name, 0) + 1
    return {**cluster_json(snapshot.cluster), "nodes": counts, "problems": problems(snapshot)}


def status_rows(snapshot: Snapshot, now: float) -> list[tuple[str, str]]:
    """Return pairs of a word and what to say; *now* is Unix time."""
    cluster = snapshot.cluster
    primary = next((n for n in snapshot.nodes if n.node == cluster.primary), None)
    copies = f"{cluster.replicas + 1} copies each" if cluster.replicas else "1 copy each"
    rows = [
        ("cluster", f"{cluster.name} ({cluster.cluster_id.hex()})"),
        ("state", cluster.state.name + (f": {cluster.reason}" if cluster.reason else "")),
        ("primary", f"{_primary(primary, cluster)}, epoch {epoch_text(cluster.epoch)}"),
        ("table", f"{cluster.version}: {cluster.partitions} partitions, {copies}, {_readable(cluster)}"),
    ]
    if cluster.state is ClusterState.RECOVERING and cluster.partitions:
        rows.append(("recovery", "`neoadmin recovery` shows what was found, and what each choice would lose"))
    for role in (Role.MASTER, Role.STORAGE, Role.ADMIN, Role.CLIENT):
        told = [n for n in snapshot.nodes if role_of(n.node) is role]
        if told:
            rows.append((f"{role.name.lower()}s", _counted(told)))
        elif role is Role.CLIENT:
            rows.append(("clients", str(cluster.clients)))
    rows += [
        ("last tid", _tid(cluster.last_tid, now)),
        ("last oid", hex_id(cluster.last_oid)),
        ("under way", f"{cluster.transactions} transactions"),
    ]
    choices = snapshot.table.orders.choices
    if choices:
        text = f"table {choices[-1].table} was chosen {age_text(now - choices[-1].at)} ago; see `neoadmin recovery`"
        rows.append(("choices", text))
    return rows


def ids_rows(cluster: AnswerCluster, now: float) -> list[tuple[str, str]]:
    """Return the ids of a cluster, for people."""
    return [
        ("cluster id", cluster.cluster_id.hex()),
        ("epoch", epoch_text(cluster.epoch)),
        ("table", str(cluster.version)),
        ("last tid", _tid(cluster.last_tid, now)),
        ("durable tid", _tid(cluster.durable_tid, now)),
        ("last oid", hex_id(cluster.last_oid)),
        ("tid ceiling", _tid(cluster.ceilings.tid, now)),
        ("oid ceiling", hex_id(cluster.ceilings.oid)),
    ]


def _primary(info: NodeInfo | None, cluster: AnswerCluster) -> str:
    if info is None:
        return node_text(cluster.primary)
    return f"{node_label(info)} at {info.address}"


def _readable(cluster: AnswerCluster) -> str:
    if not cluster.partitions:
        return "not created yet"
    return f"{cluster.rows_not_ready} not readable" if cluster.rows_not_ready else "all readable"


def _counted(nodes: Sequence[NodeInfo]) -> str:
    states = sorted({n.state for n in nodes}, key=lambda s: (s is not NodeState.RUNNING, s))
    return ", ".join(f"{sum(n.state is s for n in nodes)} {s.name}" for s in states)


def _tid(tid: Tid, now: float) -> str:
    if not tid:
        return "none"
    at = time_from_tid(tid)
    when = f"{age_text(now - at)} ago" if at <= now else f"in {age_text(at - now)}"
    return f"{hex_id(tid)}  {time_text(at)} UTC, {when}"


# ------------------------------------------------------------------------------------------------ nodes


def nodes_json(nodes: Iterable[NodeInfo]) -> list[dict[str, Any]]:
    """Return the nodes for scripts. (Any: what JSON can hold.)"""
    return [
        {
            "node": node_text(n.node),
            "role": role_of(n.node).name.lower(),
            "name": n.name,
            "address": n.address,
            "state": n.state.name,
            "since": n.since,
            "reason": n.reason,
        }
        for n in nodes
    ]


def nodes_rows(snapshot: Snapshot, now: float) -> list[tuple[str, ...]]:
    """Return rows of id, name, address, state, for how long, remark."""
    rows: list[tuple[str, ...]] = []
    for n in snapshot.nodes:
        remark = "primary" if n.node == snapshot.cluster.primary else n.reason
        cells = snapshot.table.partitions_of(n.node)
        if cells:
            remark = f"{len(cells)} cells" + (f"; {remark}" if remark else "")
        rows.append((node_text(n.node), n.name, n.address, n.state.name, age_text(now - n.since), remark))
    return rows


# ------------------------------------------------------------------------------------------------ partitions


def table_json(table: PartitionTable) -> dict[str, Any]:
    """Return the partition table for scripts. (Any: what JSON can hold.)"""
    return {
        "version": str(table.version),
        "replicas": table.replicas,
        "rows": [[{"node": node_text(n), "state": s.name} for n, s in row] for row in table.rows],
        "leads": [None if (n := table.lead(Partition(p))) is None else node_text(n) for p in range(table.partitions)],
    }


def table_lines(snapshot: Snapshot, width: int) -> list[str]:
    """Return a drawing of the table, at most *width* columns where that leaves room for a group of partitions.

    A line per node, a letter per cell: the state's, small for an up-to-date cell that does not lead, `.` for none. The
    ruler numbers the partitions; under it `!` marks those that nobody can read, `-` those with too few copies.
    """
    table = snapshot.table
    if not table.partitions:
        return ["There is no partition table: the cluster was never started."]
    infos = {n.node: n for n in snapshot.nodes}
    nodes = sorted(table.nodes() | {n.node for n in snapshot.nodes if role_of(n.node) is Role.STORAGE})
    labels = {n: f"{node_text(n)} {infos[n].name if n in infos else ''}".strip() for n in nodes}
    states = {n: infos[n].state.name if n in infos else "?" for n in nodes}
    left = max(map(len, labels.values()), default=0) + 2
    middle = max(map(len, states.values()), default=0) + 2
    groups = max(1, (width - left - middle + 1) // (_GROUP + 1))
    step = groups * _GROUP
    lines = []
    for first in range(0, table.partitions, step):
        numbers = range(first, min(first + step, table.partitions))
        lines.append(" " * (left + middle) + _ruler(numbers))
        for node in nodes:
            cells = _grouped([_letter(table, Partition(p), node) for p in numbers])
            lines.append(f"{labels[node]:{left}}{states[node]:{middle}}{cells}".rstrip())
        marks = _grouped([_mark(table, Partition(p)) for p in numbers])
        if marks.strip():
            lines.append(" " * (left + middle) + marks.rstrip())
        lines.append("")
    return lines[:-1]


def table_legend(table: PartitionTable) -> str:
    """Return what the letters of this table mean."""
    used = {s for row in table.rows for _, s in row}
    words = ["U leads", "u up to date"] if any(s.letter == "U" for s in used) else []
    words += [f"{s.letter} {s.name.lower().replace('_', ' ')}" for s in sorted(used) if s.letter != "U"]
    return ", ".join([*words, ". none"])


def _ruler(numbers: Sequence[int]) -> str:
    starts = [f"{n:<{_GROUP}}" for n in numbers if n % _GROUP == 0]
    return " ".join(starts).rstrip()


def _grouped(letters: Sequence[str]) -> str:
    groups = ["".join(letters[n : n + _GROUP]) for n in range(0, len(letters), _GROUP)]
    return " ".join(groups)


def _letter(table: PartitionTable, partition: Partition, node: NodeId) -> str:
    state = table.state(partition, node)
    if state is None:
        return "."
    return state.letter.lower() if state.letter == "U" and table.lead(partition) != node else state.letter


def _mark(table: PartitionTable, partition: Partition) -> str:
    readable = len(table.readable(partition))
    return "!" if not readable else "-" if readable <= table.replicas else " "


# ------------------------------------------------------------------------------------------------ moves


def plan_json(told: AnswerChange, sizes: Mapping[Partition, CellSize]) -> dict[str, Any]:
    """Return what would move, for scripts; `rows` and `bytes` null where unknown. (Any: what JSON can hold.)"""
    return {
        "text": told.text,
        "drops": told.drops,
        "leads": told.leads,
        "moves": [
            {
                "partition": m.partition,
                "source": node_text(m.source),
                "target": node_text(m.target),
                "rows": sizes[m.partition].revisions if m.partition in sizes else None,
                "bytes": sizes[m.partition].bytes if m.partition in sizes else None,
            }
            for m in told.moves
        ],
    }


def plan_lines(
    told: AnswerChange, sizes: Mapping[Partition, CellSize], labels: Mapping[NodeId, str], most: int = 40
) -> list[str]:
    """Return what would move, for people: the sum per storage, then the first moves."""
    lines = [told.text]
    for target in sorted({m.target for m in told.moves}):
        mine = [m for m in told.moves if m.target == target]
        known = [sizes[m.partition] for m in mine if m.partition in sizes]
        cost = f"{sum(c.revisions for c in known)} rows, {size_text(sum(c.bytes for c in known))}"
        unknown = f", {len(mine) - len(known)} of unknown size" if len(known) < len(mine) else ""
        lines.append(f"  to {labels.get(target, node_text(target))}: {len(mine)} cells, {cost}{unknown}")
    for m in told.moves[:most]:
        cell = sizes.get(m.partition)
        cost = f"  {cell.revisions} rows, {size_text(cell.bytes)}" if cell else ""
        source = labels.get(m.source, node_text(m.source)) if m.source else "nobody who is there"
        lines.append(f"  partition {m.partition}: {source} -> {labels.get(m.target, node_text(m.target))}{cost}")
    if len(told.moves) > most:
        lines.append(f"  ... and {len(told.moves) - most} more: --json shows all")
    return lines


def moves_json(told: AnswerMoves) -> dict[str, Any]:
    """Return how far the moves are, for scripts. (Any: what JSON can hold.)"""
    return {**told._asdict(), "leaving": [node_text(n) for n in told.leaving]}


def moves_lines(told: AnswerMoves, labels: Mapping[NodeId, str]) -> list[str]:
    """Return how far the moves are, for people."""
    if told.is_balancing:
        lines = [
            f"{told.cells_left} of {told.cells_total} cells are not complete, {told.cells_copying} are being copied; "
            f"{told.drops_left} will be dropped"
        ]
    else:
        lines = ["nothing moves" if told.leaving else "nothing moves: every cell is where it should be"]
    lines += [f"{labels.get(n, node_text(n))} is being drained" for n in told.leaving]
    return [*lines, told.reason] if told.reason else lines


# ------------------------------------------------------------------------------------------------ transactions


def merged(parts: Iterable[Sequence[Transaction]], count: int) -> tuple[Transaction, ...]:
    """Return the *count* newest transactions, newest first, those told by several storages as one.

    Each of *parts* is what one storage has of its own partitions: metadata is the same in all, revisions add up.
    """
    found: dict[Tid, Transaction] = {}
    for part in parts:
        for one in part:
            known = found.get(one.tid)
            if known is not None:
                revisions = {r.oid: r for r in (*known.revisions, *one.revisions)}
                one = one._replace(revisions=tuple(revisions[oid] for oid in sorted(revisions)))
            found[one.tid] = one
    return tuple(found[tid] for tid in sorted(found, reverse=True)[:count])


def transactions_json(told: Transactions) -> dict[str, Any]:
    """Return transactions for scripts, newest first. (Any: what JSON can hold.)"""
    return {
        "transactions": [
            {
                "tid": hex_id(t.tid),
                "time": time_from_tid(t.tid),
                "user": _text(t.metadata.user),
                "description": _text(t.metadata.description),
                "partitions": list(t.parts),
                "oids": [hex_id(r.oid) for r in t.revisions],
            }
            for t in told.transactions
        ],
        "missing_partitions": list(told.missing),
    }


def transactions_rows(told: Transactions) -> list[tuple[str, ...]]:
    """Return rows of tid, time, number of objects, user, description; newest first."""
    return [
        (
            hex_id(t.tid),
            time_text(time_from_tid(t.tid)),
            str(len(t.revisions)),
            _text(t.metadata.user),
            _one_line(_text(t.metadata.description)),
        )
        for t in told.transactions
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())


# ------------------------------------------------------------------------------------------------ pack


def pack_json(state: AnswerPackState) -> dict[str, Any]:
    """Return how far the last pack is, for scripts. (Any: what JSON can hold.)"""
    return {
        "order": state.order,
        "tid": hex_id(state.tid),
        "started": state.started,
        "cells_done": state.cells_done,
        "cells_total": state.cells_total,
        "revisions_removed": state.revisions_removed,
        "bytes_removed": state.bytes_removed,
        "is_done": state.order != 0 and state.cells_done >= state.cells_total,
    }


def pack_text(state: AnswerPackState) -> str:
    """Return how far the last pack is, in a sentence."""
    if not state.order:
        return "Nothing was packed yet."
    if not state.tid:
        return "There was nothing to pack: no transaction is old enough."
    to = f"{time_text(time_from_tid(state.tid))} UTC"
    done = f"{state.revisions_removed} revisions and {size_text(state.bytes_removed)} removed"
    if state.cells_done < state.cells_total:
        return f"Packing to {to}: {state.cells_done} of {state.cells_total} cells, {done}."
    return f"Packed to {to}: {state.cells_total} cells, {done}."


# ------------------------------------------------------------------------------------------------ replication


def seconds_left(copy: CellCopy) -> float | None:
    """Return how long the copy will take still, at the speed so far; None while that cannot be said."""
    if not copy.left:
        return 0.0 if copy.stop else None
    return copy.left * copy.seconds / copy.revisions if copy.revisions and copy.seconds else None


def replication_json(told: AnswerReplication) -> dict[str, Any]:
    """Return the copies of cells, for scripts. (Any: what JSON can hold.)"""
    return {
        "copies": [
            {
                "partition": copy.partition,
                "node": node_text(node),
                "source": node_text(copy.source) if copy.source else None,
                "revisions_done": copy.revisions,
                "revisions_left": copy.left,
                "bytes": copy.bytes,
                "seconds": copy.seconds,
                "seconds_left": seconds_left(copy),
            }
            for node, copy in told.copies
        ],
        "waiting": [{"partition": copy.partition, "node": node_text(node)} for node, copy in told.waiting],
    }


def replication_rows(told: AnswerReplication) -> list[tuple[str, ...]]:
    """Return a row per cell that is copied."""
    rows: list[tuple[str, ...]] = []
    for node, copy in told.copies:
        left = seconds_left(copy)
        whole = copy.revisions + copy.left
        rows.append(
            (
                str(copy.partition),
                node_text(node),
                node_text(copy.source) if copy.source else "nobody: no good cell is there",
                f"{100 * copy.revisions // whole} %" if whole else "",
                size_text(copy.bytes),
                f"{size_text(int(copy.bytes / copy.seconds))}/s" if copy.seconds else "",
                "" if left is None else age_text(left),
            )
        )
    return rows


def replication_text(told: AnswerReplication) -> list[str]:
    """Return what else is to be said."""
    if not told.copies and not told.waiting:
        return ["Every cell is up to date."]
    by_node: dict[NodeId, list[str]] = {}
    for node, copy in told.waiting:
        by_node.setdefault(node, []).append(str(copy.partition))
    return [
        f"{node_text(node)}: partitions {', '.join(cells)} wait, for their turn or for the node"
        for node, cells in sorted(by_node.items())
    ]


# ------------------------------------------------------------------------------------------------ scrub


def scrub_json(told: AnswerScrub) -> dict[str, Any]:
    """Return how far scrubs are and what they have found, for scripts. (Any: what JSON can hold.)"""
    return {
        "storages": [
            {
                "node": node_text(node),
                "running": state.is_running,
                "cells_done": state.cells_done,
                "cells_total": state.cells_total,
                "revisions": state.revisions,
                "bytes": state.bytes,
                "finished": finished or None,
            }
            for node, state, finished in told.storages
        ],
        "findings": [
            {
                "at": finding.at,
                "partition": finding.partition,
                "node": node_text(finding.node) if finding.node else None,
                "by": node_text(finding.by),
                "text": finding.text,
                "rebuilt": finding.is_rebuilt,
            }
            for finding in told.findings
        ],
    }


def scrub_rows(told: AnswerScrub, now: float) -> list[tuple[str, ...]]:
    """Return a row per storage."""
    rows: list[tuple[str, ...]] = []
    for node, state, finished in told.storages:
        what = f"{state.cells_done} of {state.cells_total} cells" if state.is_running else "at rest"
        last = f"{age_text(now - finished)} ago" if finished else ""
        rows.append((node_text(node), what, str(state.revisions), size_text(state.bytes), last))
    return rows


def scrub_findings(told: AnswerScrub) -> list[str]:
    """Return what was found, newest first."""
    lines = []
    for finding in told.findings:
        whose = f"the cell of {node_text(finding.node)}" if finding.node else "two cells differ; nobody can tell which"
        then = "rebuilt" if finding.is_rebuilt else "NOT rebuilt"
        lines.append(f"{time_text(finding.at)} partition {finding.partition}: {whose}: {finding.text} ({then})")
    return lines
