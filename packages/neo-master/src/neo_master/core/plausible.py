"""What no honest master says: it would be believed for ever, or cannot be computed with. Pure.

Whoever is let in as a master is believed in much (docs/security.md, "What a peer may do by right"), but not in this.
"""

from typing import Final

from neo_common.ids import MAX_OID, Epoch, NodeId, Tid
from neo_common.states import Role
from neo_common.wire.schema import Claim, Denied, Hold, MHello, Promised, Register

REIGNS_MAX: Final = 2**32
"""More reigns than one a second for a century: who speaks of more is wrong, or means harm."""
FUTURE_S: Final = 10 * 365 * 86400.0
"""So far ahead of our clock no tid is, whatever clocks and imports have done."""


def epoch_of(packet: object) -> Epoch | None:
    """Return the highest epoch that a packet between masters speaks of; None if it speaks of none to be believed."""
    match packet:
        case MHello(epoch) | Claim(epoch) | Denied(epoch) | Hold(epoch) | Promised(epoch):
            return epoch
    return None


def problem_of(packet: object, reigns: NodeId, sender: NodeId, future: Tid) -> str:
    """Return what is impossible in what *sender*, another master, says; empty if nothing is.

    *reigns*: whose epoch it is that the packet is about. *future*: above every tid that there can be.
    """
    match packet:
        case Claim() if reigns != sender:
            return "it claims an epoch of somebody else"
        case Hold(epoch, register) if reigns != sender or register.epoch != epoch:
            return "it wants something held under an epoch of somebody else"
        case Promised(epoch, _, register) if register.epoch > epoch:
            return "what it holds is of a later epoch than it has promised"
        case Hold(_, register) | Promised(_, _, register) if not is_possible(register, future):
            return "what it holds cannot be: the partition table is not whole, or ids are out of bounds"
    return ""


def is_possible(register: Register, future: Tid) -> bool:
    """Whether a primary can have made that register."""
    table = register.table
    return (
        table.base is None
        and all(p == number for number, (p, _) in enumerate(table.rows))
        and len(table.rows) == table.partitions
        and table.version.epoch <= register.epoch
        and max(register.ceilings.tid, register.packed, register.last) <= future
        and register.ceilings.oid <= MAX_OID
        and all(cell.node >> 24 == Role.STORAGE for _, row in table.rows for cell in row)
        and all(info.node >> 24 == Role.STORAGE for info in register.nodes)
        and all(voter.node >> 24 == Role.MASTER for voter in register.voters)
    )
