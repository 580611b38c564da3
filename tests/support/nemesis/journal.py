"""Checks of any history against the database's own list of transactions, whatever the workload."""

from collections.abc import Sequence

from support.nemesis.history import Facts, Outcome


def check_notes(facts: Facts, notes: Sequence[str], writes: frozenset[str]) -> list[str]:
    """Acknowledged transactions are there once, failed ones are not, unknown ones at most once.

    `notes` are those of the database, in the order of their tids; `writes` those of operations that change something.
    """
    wrong = []
    seen: set[str] = set()
    for note in notes:
        if note in seen:
            wrong.append(f"{note} was committed twice")
        seen.add(note)
    known = {op.note: op for op in facts.history}
    wrong += [f"{note} is in the database, and nobody asked for it" for note in sorted(seen - known.keys())]
    for note, op in known.items():
        if op.outcome is Outcome.FAILED and note in seen:
            wrong.append(f"{note} is committed, but its client was told: {op.error}")
        if op.outcome is Outcome.OK and note in writes and note not in seen:
            wrong.append(f"{note} was acknowledged, and is lost")
    return wrong


def check_order(facts: Facts, cuts: Sequence[tuple[float, float]] = ()) -> list[str]:
    """Tids have the order in which transactions were acknowledged: of a session always; else of all that is apart.

    `cuts` are spans of time in which everything was killed at once: recovery may then give the last transactions new
    tids, in an order that their clients cannot tell from the true one; so only the session's order is checked there.
    """
    wrong = []
    committed = facts.committed()
    by_session: dict[str, int] = {}
    latest = None
    for op in committed:
        if by_session.get(op.session, -1) > op.number:
            wrong.append(f"{op.note} has a higher tid than {op.session}/{by_session[op.session]}, which came later")
        by_session[op.session] = op.number
        if any(begin <= op.end <= end for begin, end in cuts):
            continue
        if latest is not None and op.end < latest.start:
            wrong.append(f"{op.note} was acknowledged before {latest.note} began, and has the higher tid")
        if latest is None or op.start > latest.start:
            latest = op
    return wrong


def check_errors(facts: Facts) -> list[str]:
    """An error out of a transaction is one that a retry may cure."""
    return [f"{op.note} ended with {op.error}" for op in facts.history if not op.is_transient]
