"""Whether the copies of a partition are the same, record by record. Pure."""

from typing import Any

from neo_common.wire.schema import Transaction


def compare(cells: dict[str, dict[int, list[Any]]]) -> list[str]:
    """Return where two copies of a partition differ, transaction by transaction, revision by revision."""
    wrong = []
    first: dict[int, tuple[str, list[Any]]] = {}
    for name, partitions in cells.items():
        for p, mine in partitions.items():
            other, theirs = first.setdefault(p, (name, mine))
            if mine == theirs:
                continue
            pairs = list(zip(theirs, mine, strict=False))
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            one, two = (_brief(txns[at]) if at < len(txns) else "nothing more" for txns in (theirs, mine))
            wrong.append(f"partition {p}, transaction {at}: {other} has {one}; {name} has {two}")
    return wrong


def _brief(txn: Any) -> str:
    if not isinstance(txn, Transaction):
        return repr(txn)
    what = ", ".join(f"{r.oid}@{r.tid:016x} {r.data.checksum.hex()[:8] if r.data else None}" for r in txn.revisions)
    ttid = f"{txn.ttid.session}.{txn.ttid.counter}"
    return f"{txn.tid:016x} ({txn.metadata.description.decode()}, {ttid}, parts {txn.parts}, revisions {what})"
