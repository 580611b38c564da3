"""Who else takes part in a transaction, and can still refuse after this storage has voted.

A transaction of several databases must not be committed in this one because recovery presumes so while another one has
refused: that is what mode A of the commit protocol is for (one more round trip). It is needed only when somebody votes
after us: the managers of a transaction vote one after the other, in the order of their sort keys, and each only when
all before it have agreed.

A storage is given a transaction's metadata, not the transaction, and so looks whether the thread's current transaction
is the one. A program with transaction managers of its own, not the thread's (`explicit` ones, as pyramid_tm has them),
chooses with `two-phase`.
"""

from typing import Any

import transaction


def may_refuse_later(metadata: Any) -> bool:
    """Return whether somebody votes after the connection that has begun *metadata* (the argument of tpc_begin).

    False when the thread's transaction is another one: then nothing is known.
    """
    txn = transaction.manager.manager._txn  # get() would begin one where there is none
    if txn is None:
        return False
    managers = sorted(txn._resources, key=lambda manager: manager.sortKey())
    mine = next((n for n, manager in enumerate(managers) if _data_of(txn, manager) is metadata), None)
    return mine is not None and mine + 1 < len(managers)


def _data_of(txn: Any, manager: Any) -> Any:
    """Return what *manager* has left with its transaction; ZODB's connections leave the metadata of theirs."""
    try:
        return txn.data(manager)
    except KeyError:
        return None
