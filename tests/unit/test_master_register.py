"""The rules of a majority of masters: who may come to power, what masters must hold before what (docs/masters.md)."""

from __future__ import annotations

from typing import Any

import pytest

from neo_common.core import Received, Send
from neo_common.ids import NO_EPOCH, Epoch, NodeId, Oid, Partition, Ptid, Session, Tid, Ttid, Version, make_epoch
from neo_common.model.partition_table import EMPTY, Cell, PartitionTable, Row, TableUpdate, whole
from neo_common.states import CellState, ClusterState, Role, role_of
from neo_common.wire import schema as s
from neo_master.core.changes import DemoteCell
from neo_master.core.effects import NOTHING_HELD, Kept, Store, Stored
from neo_master.core.master import MasterCore
from support.reign import C1, M1, M2, M3, S1, S2, Reign, p, record

U, F, J, OUT = CellState.UP_TO_DATE, CellState.FEEDING, CellState.JOINING, CellState.OUT_OF_DATE
OLD = make_epoch(3, M2)
HIGH = make_epoch(9, M2)
CLUSTER_ID = b"0123456789abcdef"
T5, T6 = Version(OLD, Ptid(5)), Version(OLD, Ptid(6))
BOTH = ((Cell(S1, U), Cell(S2, U)), (Cell(S2, U), Cell(S1, U)))
ONLY_S1 = ((Cell(S1, U), Cell(S2, OUT)), (Cell(S1, U), Cell(S2, OUT)))
JOINING = ((Cell(S2, U), Cell(S1, J)), (Cell(S2, U), Cell(S1, J)))
VOTE = Ttid(Session(3 << 32 | 1), 1)


def memory_of(master: NodeId) -> bytes:
    """Return what marks the disk of a master."""
    return bytes([master & 0xFF]) * 16


VOTERS = tuple(s.Voter(m, memory_of(m)) for m in (M1, M2, M3))


def register(table: PartitionTable, number: int = 5) -> s.Register:
    """Return a register of the former reign."""
    return NOTHING_HELD._replace(epoch=OLD, number=number, cluster_id=CLUSTER_ID, table=whole(table), voters=VOTERS)


class Majority(Reign):
    """Three masters: the core is M1, the others answer by rote what is in `answers`."""

    def __init__(self, held: PartitionTable = EMPTY, **settings: Any) -> None:
        super().__init__(masters=3, partitions=2, **{"takeover_s": 0.5, "power_on_s": 0.5, **settings})
        kept = Kept(
            memory_of(M1), OLD if held.partitions else NO_EPOCH, register(held) if held.partitions else NOTHING_HELD
        )
        self.core = MasterCore(M1, self.settings, self.configured, self.core.rng, kept)
        self.memories = {m: memory_of(m) for m in (M2, M3)}
        self.registers = {m: kept.register for m in (M2, M3)}
        self.answers = {m: {s.Claim, s.Hold, s.Renew} for m in (M2, M3)}
        self.stored: list[Kept] = []
        self.is_storing = True

    def _perform(self, effect: Any) -> None:
        if isinstance(effect, Store):
            self.stored.append(effect.kept)
            if not self.is_storing:
                return
        super()._perform(effect)
        if isinstance(effect, Send) and effect.peer in self.connected and role_of(effect.peer) is Role.MASTER:
            for told in self.told(effect.peer, effect.packet):
                self._events.append(Received(effect.peer, told))

    def told(self, master: NodeId, packet: Any) -> list[Any]:
        """Return what another master answers."""
        if type(packet) not in self.answers[master]:
            return []
        match packet:
            case s.Claim(epoch):
                return [s.Promised(epoch, self.memories[master], self.registers[master])]
            case s.Hold(_, new):
                self.registers[master] = new
                return [s.Held(new.epoch, new.number, self.memories[master])]
            case s.Renew(epoch, number):
                return [s.Renewed(epoch, number, 0)]
        return []

    def found(self, tables: dict[NodeId, PartitionTable]) -> None:
        """Let storages of a former reign come, with what they have."""
        self.tick(10.0)  # until the lease of the former primary is over, and this one is elected
        assert self.core.is_primary
        for node in tables:
            storage = self.storages[node]
            storage.epoch, storage.cluster_id, storage.table = OLD, CLUSTER_ID, tables[node]
            storage.ceilings, storage.last = s.Ceilings(Tid(1000), Oid(500)), Tid(900)
        self.dial(*tables)
        self.tick(8.0)


def table(version: Version = T5, rows: tuple[Row, ...] = BOTH) -> PartitionTable:
    return PartitionTable(version, 1, rows)


def running(*masters: NodeId) -> Majority:
    """Return a primary of a cluster of two storages that runs, with these masters."""
    r = Majority()
    for master in masters or (M2, M3):
        r.master(master, s.MHello(NO_EPOCH, NodeId(0), False, ""))
    r.tick(2.0)
    r.run(C1)
    return r


# ---------------------------------------------------------------------------------------------- coming to power


def test_one_master_of_three_waits_for_every_storage() -> None:
    r = Majority(table())
    r.found({S1: table()})
    assert r.core.state is ClusterState.RECOVERING
    assert not r.to(S1, s.Start)


def test_two_masters_of_three_go_on_without_a_storage() -> None:
    r = Majority(table())
    r.master(M2)
    r.found({S1: table()})
    assert r.core.is_running, r.core.reason
    assert r.core.pt.rows == ONLY_S1


def test_a_master_without_its_former_disk_is_no_voter() -> None:
    r = Majority(table())
    r.memories[M2], r.registers[M2] = b"new" + bytes(13), NOTHING_HELD
    r.master(M2)
    r.found({S1: table()})
    assert r.core.state is ClusterState.RECOVERING
    assert not r.to(S1, s.Start)


def test_a_lone_master_does_not_trust_the_table_of_its_register() -> None:
    """It may hold what no reign has begun with: S1 alone would be enough for it, and S2 has what was committed."""
    r = Majority(table(T6, ONLY_S1))
    r.found({S1: table()})
    assert r.core.newest_table().version == T5
    assert r.core.state is ClusterState.RECOVERING


def test_a_cell_whose_promotion_no_majority_holds_does_not_count() -> None:
    """Only S1 knows that it was promoted: S2 alone may have gone on, after the promotion was taken back."""
    r = Majority(table(T5, JOINING))
    r.master(M2)
    r.found({S1: table(T6, BOTH)})
    assert r.core.state is ClusterState.RECOVERING
    assert not r.to(S1, s.Start)


def test_a_reign_that_leaves_somebody_out_has_its_table_at_a_majority_before_any_start() -> None:
    r = Majority(table())
    r.answers[M2].discard(s.Hold)
    r.master(M2)
    r.found({S1: table()})
    assert not r.to(S1, s.Start), "the masters do not hold it"
    held = r.last_to(M2, s.Hold).register
    assert held.table.apply(EMPTY).rows == ONLY_S1
    r.say(M2, s.Held(held.epoch, held.number, memory_of(M2)))
    assert r.to(S1, s.Start)


def test_a_reign_runs_only_when_its_table_is_covered() -> None:
    """M2 dies between holding the table and the word of S1: a majority that has not heard of it may come to power."""
    r = Majority(table())
    r.storages[S1].answers.discard(s.Start)
    r.master(M2)
    r.found({S1: table()})
    assert r.to(S1, s.Start)
    r.core.held = {(M1, memory_of(M1))}
    r.core.pt_have.clear()
    r.core.stable_pt = table()
    r.core.pt_have.discard(S1)
    r.core.rows_key = None
    r.say(S1, s.StartOk(r.core.epoch))
    assert not r.core.is_running, "nor S2, which was readable before, nor a majority has the table"


def test_who_was_left_out_of_a_reign_is_not_believed() -> None:
    r = Majority(table(T5, ONLY_S1))
    r.storages[S2].decisions = [s.Decision(VOTE, 1, Tid(950), (p(0),))]
    r.storages[S1].voted = [record(VOTE, 0)]
    r.storages[S1].tombstones = [s.Tombstone(VOTE, 1)]
    older = table(Version(make_epoch(2, M1), Ptid(3)))
    r.found({S2: older, S1: table(T5, ONLY_S1)})
    assert r.core.is_running
    assert VOTE not in r.core.decided
    assert not r.to(S2, s.Start), "it is adopted, and forgets"
    assert r.to(S2, s.Adopt)


# ---------------------------------------------------------------------------------------------- promises and leases


def test_a_promise_is_on_disk_before_it_is_given() -> None:
    r = Majority(table())
    r.tick(10.0)
    r.master(M2)
    r.is_storing = False
    r.forget()
    r.say(M2, s.Claim(HIGH))
    assert not r.to(M2, s.Promised)
    assert r.stored[-1].promised == HIGH
    r.feed(Stored(r.core.store_number))
    assert r.last_to(M2, s.Promised).epoch == HIGH


def test_while_a_lease_lives_no_other_claim_is_heard() -> None:
    r = Majority()
    r.master(M2)
    r.master(M3)
    r.say(M2, s.Claim(HIGH))
    assert r.to(M2, s.Promised)
    later = make_epoch(10, M3)
    r.say(M3, s.Claim(later))
    assert not r.to(M3, s.Promised)
    r.tick(5.0)
    assert r.last_to(M3, s.Promised).epoch == later


def test_a_restarted_master_waits_out_the_lease_that_it_may_have_given() -> None:
    r = Majority(table())
    r.master(M3)
    r.say(M3, s.Claim(make_epoch(9, M3)))
    assert not r.to(M3, s.Promised), "M2, of epoch 3, may rely on it"
    r.tick(5.0)
    assert r.to(M3, s.Promised)


def test_a_register_of_a_lower_epoch_than_the_promise_is_not_held() -> None:
    r = Majority()
    r.master(M2)
    r.master(M3)
    r.say(M2, s.Claim(HIGH))
    former = make_epoch(4, M3)
    r.say(M3, s.Hold(former, register(table())._replace(epoch=former)))
    assert not r.to(M3, s.Held)
    assert r.core.register == NOTHING_HELD
    assert r.last_to(M3, s.Denied).epoch == HIGH


def test_a_primary_whose_leases_are_no_cover_decides_nothing() -> None:
    """S1 obeys it; the other masters and S2 may hear somebody else by now."""
    r = running()
    assert r.core.valid_lease()
    r.lose(M2, M3)
    r.core.lease_until.pop(S2)
    r.core.covered_until = r.core.lease_until[S1].__class__(0.0)
    assert not r.core.valid_lease()


# ---------------------------------------------------------------------------------------------- tables


def test_a_table_that_takes_readable_cells_away_goes_to_the_masters_first() -> None:
    r = running()
    for master in (M2, M3):
        r.answers[master].discard(s.Hold)
    r.forget()
    r.lose(S2)
    assert not r.to(S1, s.SetPT)
    held = r.last_to(M2, s.Hold).register
    r.say(M2, s.Held(held.epoch, held.number, memory_of(M2)))
    assert r.to(S1, s.SetPT)


def test_any_other_table_goes_to_the_storages_first() -> None:
    """A majority that holds a promotion of which the storages know nothing would be content with that cell."""
    r = running()
    r.lose(S2)
    r.storages[S1].answers.discard(s.SetPT)
    r.dial(S2)
    r.forget()
    r.tick(5.0)
    assert r.to(S1, s.SetPT), "a cell joins"
    assert r.core.pt.version not in [h.register.table.version for h in r.to(M2, s.Hold)]


def test_a_table_is_stable_when_it_is_covered() -> None:
    """S1 has the table that puts its own second cell out of date, but S2 has not, and no majority: S2 alone, with
    the former one, would be complete for a candidate that hears of nobody else."""
    r = running()
    r.answers[M2].discard(s.Hold)
    r.answers[M3].discard(s.Hold)
    before = r.core.stable_pt.version
    r.core.must_be_held_first = lambda *_: False  # type: ignore[method-assign]  # as if another row were a cover
    r.storages[S2].answers.discard(s.SetPT)
    r.core.request_change(DemoteCell(p(0), S2))
    r.core.pt_need = set()
    r.core.pt_have = {S1}
    r.core.check_stable()
    assert r.core.stable_pt.version == before
    r.core.pt_have = {S1, S2}
    r.core.check_stable()
    assert r.core.stable_pt.version > before


def test_voters_are_chosen_anew_only_by_all_masters() -> None:
    r = running(M2)
    assert not r.core.voters, "M3 has never been there"
    r = running()
    assert {v.node for v in r.core.voters} == {M1, M2, M3}
    before = r.core.voters
    r.lose(M3)
    r.memories[M2] = b"new" + bytes(13)
    r.lose(M2)
    r.master(M2, s.MHello(NO_EPOCH, NodeId(0), False, ""))
    assert r.core.voters == before, "M2 has lost its disk, and M3 is not there"


def test_while_a_table_is_not_stable_an_abort_counts_with_the_cells_of_the_stable_one() -> None:
    r = running()
    r.lose(S2)
    r.core.stable_pt = r.core.stable_pt.changed(r.core.stable_pt.version, {p(0): BOTH[0], p(1): BOTH[1]})
    r.core.pt = r.core.pt.changed(Version(r.core.pt.version.epoch, Ptid(99)), {})
    ttid = r.ttid(C1)
    r.say(C1, s.Abort(ttid, 1, (p(0),)))
    r.say(S1, s.AbortOk(ttid, 1))
    assert not r.to(C1, s.Aborted), "S2 was readable, and may be all that the next primary finds"


def test_a_promotion_that_is_taken_back_is_held_by_no_master() -> None:
    r = running()
    r.lose(S2)
    r.dial(S2)
    r.tick(5.0)
    assert all(state is J or state is U for row in r.core.pt.rows for _, state in row)
    r.forget()
    r.storages[S1].answers.discard(s.SetPT)
    joined = [(q, v) for (q, n), v in sorted(r.core.joining.items()) if n == S2 and r.core.pt.state(q, S2) is J]
    assert joined
    r.say(S2, s.Ready(joined[0][1], joined[0][0]))
    promoted = r.core.pt
    assert promoted.state(joined[0][0], S2) is U
    r.lose(S1)
    held = [h.register.table.version for h in r.to(M2, s.Hold)]
    assert promoted.version not in held


# ---------------------------------------------------------------------------------------------- packs


def ordered(r: Majority) -> Tid:
    """Have a client order a pack of which neither S2 nor another master hears; return where it goes to."""
    tid = r.commit(C1)
    r.say(C1, s.Heard(tid))
    for master in (M2, M3):
        r.answers[master].discard(s.Hold)
    r.storages[S2].answers.discard(s.Pack)
    assert r.ask(C1, s.AskPack(tid, "")) is None
    return tid


def test_a_pack_is_not_promised_when_another_primary_may_not_hear_of_it() -> None:
    """S1 has the order. The others may have come to power by now with S2, without S1: it was packed less far there."""
    r = running()
    tid = ordered(r)
    r.lose(S2)
    assert (C1, 9) not in r.answered
    held = r.last_to(M2, s.Hold).register
    assert held.packed == tid
    r.say(M2, s.Held(held.epoch, held.number, memory_of(M2)))
    assert isinstance(r.answered[C1, 9], s.AnswerPack), "a majority of the masters has it"


def test_a_pack_is_promised_when_every_cell_of_a_row_has_it() -> None:
    r = running()
    ordered(r)
    r.say(S2, s.PackProgress(r.to(S2, s.Pack)[0].order, 0, 2, 0, 0))
    assert isinstance(r.answered[C1, 9], s.AnswerPack)


# ---------------------------------------------------------------------------------------------- what cannot be


def held(register_: s.Register, epoch: Epoch = HIGH) -> s.Hold:
    return s.Hold(epoch, register_._replace(epoch=epoch))


WHOLE = register(table())
PART = TableUpdate(T5, T6, 1, 2, ((Partition(0), BOTH[0]),))
IMPOSSIBLE = {
    "a claim of an epoch of somebody else": s.Claim(make_epoch(9, M3)),
    "a register under an epoch of somebody else": held(WHOLE, make_epoch(9, M3)),
    "a register of another reign": s.Hold(HIGH, WHOLE),
    "a difference in place of a table": held(WHOLE._replace(table=PART)),
    "rows that are missing": held(WHOLE._replace(table=WHOLE.table._replace(partitions=3))),
    "cells at masters": held(WHOLE._replace(table=whole(table(rows=((Cell(M1, U),), (Cell(M1, U),)))))),
    "tids without end": held(WHOLE._replace(ceilings=s.Ceilings(Tid(2**63 - 1), Oid(500)))),
    "oids without end": held(WHOLE._replace(ceilings=s.Ceilings(Tid(1000), Oid(2**64 - 1)))),
    "more reigns than there can be": s.Denied(Epoch(2**64 - 1)),
    "as many in a promise": s.Promised(Epoch(2**64 - 1), memory_of(M2), WHOLE),
    "a register above its promise": s.Promised(OLD, memory_of(M2), WHOLE._replace(epoch=HIGH)),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
@pytest.mark.parametrize("reigns", [False, True], ids=["secondary", "primary"])
def test_a_master_that_says_what_cannot_be_is_cut_off_and_not_believed(what: str, reigns: bool) -> None:
    r = running(M3) if reigns else Majority(table())
    r.master(M2)
    before = r.core.seen_epoch, r.core.promised, r.core.register, r.core.is_running
    r.say(M2, IMPOSSIBLE[what])
    assert M2 in {d.peer for d in r.disconnected}
    assert (r.core.seen_epoch, r.core.promised, r.core.register, r.core.is_running) == before
