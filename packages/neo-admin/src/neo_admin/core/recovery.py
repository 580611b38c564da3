"""What recovery has found, for people and for scripts. Pure. The promises of `view` hold here too."""

from collections.abc import Iterable, Mapping
from typing import Any

from neo_admin.core.view import age_text, hex_id, time_text
from neo_common.ids import NodeId, Partition, Tid, time_from_tid
from neo_common.model.orders import Choice
from neo_common.states import node_text
from neo_common.wire.schema import AnswerRecovery, FoundTable

Labels = Mapping[NodeId, str]


def recovery_json(told: AnswerRecovery) -> dict[str, Any]:
    """Return it for scripts. (Any: what JSON can hold.)"""
    return {
        "state": told.state.name,
        "reason": told.reason,
        "torn": told.is_torn,
        "may_choose": told.may_choose,
        "storages": [node_text(n) for n in told.storages],
        "masters": [node_text(n) for n in told.masters],
        "masters_configured": told.masters_configured,
        "tables": [found_json(t) for t in told.tables],
        "choices": [choice_json(c) for c in told.table.orders.choices],
        "readmitted": [node_text(n) for n in told.table.orders.readmitted],
    }


def found_json(table: FoundTable) -> dict[str, Any]:
    """Return a table that was found, for scripts. (Any: what JSON can hold.)"""
    return {
        "table": str(table.version),
        "newest": table.is_newest,
        "since_tid": hex_id(table.since),
        "storages": [node_text(n) for n in table.storages],
        "masters": [node_text(n) for n in table.masters],
        "there": [node_text(n) for n in table.there],
        "missing": [node_text(n) for n in table.missing],
        "left_behind": [node_text(n) for n in table.behind],
        "stale_partitions": list(table.stale),
        "lost_partitions": list(table.lost),
        "older_disks": [node_text(n) for n in table.older],
        "last_tid": hex_id(table.last),
        "known_tid": hex_id(table.known),
        "lost_commits": [{"tid": hex_id(d.tid), "partitions": list(d.parts)} for d in table.decisions],
        "lost_votes": table.votes,
    }


def choice_json(choice: Choice) -> dict[str, Any]:
    """Return a choice that was made, for scripts. (Any: what JSON can hold.)"""
    return {
        "at": choice.at,
        "table": str(choice.table),
        "last_tid": hex_id(choice.last),
        "known_tid": hex_id(choice.known),
        "reason": choice.reason,
    }


def recovery_lines(told: AnswerRecovery, labels: Labels, now: float) -> list[str]:
    """Return it for people; *now* is Unix time."""
    lines = [
        f"The cluster is {told.state.name}" + (f": {told.reason}" if told.reason else "."),
        f"{len(told.masters)} of {told.masters_configured} masters are there.",
        f"Storages that are there: {names(told.storages, labels)}.",
    ]
    for table in told.tables:
        lines += ["", *table_lines(table, labels, now)]
    if told.tables and told.may_choose:
        lines += [
            "",
            *deaf_lines(told),
            "When what is missing will not come back: `neoadmin recovery choose TABLE`. What others have is lost then.",
        ]
    for choice in told.table.orders.choices:
        lines += ["", *choice_lines(choice, now)]
    return lines


def deaf_lines(told: AnswerRecovery) -> list[str]:
    """Return what to know of masters that are not there: they do not hear of a choice."""
    missing = told.masters_configured - len(told.masters)
    if not missing:
        return []
    text = "does not hear" if missing == 1 else "do not hear"
    return [
        f"deaf      {missing} of {told.masters_configured} masters {text} of a choice: let none of them meet storages",
        "          that are given up before it was in this cluster again, or give it an empty directory",
    ]


def table_lines(table: FoundTable, labels: Labels, now: float) -> list[str]:
    """Return a table that was found."""
    newest = ", the newest" if table.is_newest else ""
    lines = [f"table {table.version}{newest}"]
    lines.append(f"  on        storages {names(table.storages, labels)}; masters {names(table.masters, labels)}")
    if table.since:
        lines.append(f"  since     {tid_text(table.since, now)}")
    lines.append(f"  readable  on {names(table.there, labels)}; missing: {names(table.missing, labels)}")
    return lines + [f"  {line}" for line in loss_lines(table, labels, now)]


def loss_lines(table: FoundTable, labels: Labels, now: float) -> list[str]:
    """Return what would be lost with that table, as far as it is known."""
    lines = [f"kept      up to {tid_text(table.last, now)}"]
    if table.known > table.last:
        lines.append(f"lost      what is above; known are tids up to {tid_text(table.known, now)}")
    for decision in table.decisions:
        lines.append(f"lost      {tid_text(decision.tid, now)}, in partitions {numbers(decision.parts)}")
    if table.votes:
        lines.append(f"lost      {table.votes} transactions that are voted and not decided")
    if table.missing:
        lines.append(f"lost      what was committed on {names(table.missing, labels)} alone: nobody there knows of it")
    if table.older:
        text = "there with less on disk than it had: an old copy, or lost writes. Put the right disk back, or choose"
        lines.append(f"older     {names(table.older, labels)}: {text}")
    if table.stale:
        lines.append(f"old       partitions {numbers(table.stale)}: only cells that are not up to date (--stale)")
    if table.lost:
        lines.append(f"gone      partitions {numbers(table.lost)}: no cell is there (--empty)")
    if table.behind:
        lines.append(f"behind    {names(table.behind, labels)}: gone further, or another way; not let in any more")
    return lines


def choice_lines(choice: Choice, now: float) -> list[str]:
    """Return a choice that was made."""
    lost = f"; known were {tid_text(choice.known, now)}" if choice.known > choice.last else ""
    return [
        f"{time_text(choice.at)} table {choice.table} was chosen: {choice.reason}",
        f"  kept      up to {tid_text(choice.last, now)}{lost}",
    ]


def names(nodes: Iterable[NodeId], labels: Labels) -> str:
    """Return nodes as people call them."""
    return ", ".join(labels.get(n, node_text(n)) for n in nodes) or "none"


def numbers(partitions: Iterable[Partition]) -> str:
    """Return partitions, runs of them joined.

    >>> numbers((Partition(0), Partition(1), Partition(2), Partition(5)))
    '0-2, 5'
    """
    runs: list[list[int]] = []
    for p in sorted(partitions):
        if runs and p == runs[-1][1] + 1:
            runs[-1][1] = p
        else:
            runs.append([p, p])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in runs) or "none"


def tid_text(tid: Tid, now: float) -> str:
    """Return a tid with its time."""
    if not tid:
        return "no transaction"
    at = time_from_tid(tid)
    when = f"{age_text(now - at)} ago" if at <= now else f"in {age_text(at - now)}"
    return f"tid {hex_id(tid)} ({time_text(at)} UTC, {when})"
