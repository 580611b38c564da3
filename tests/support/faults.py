"""What goes wrong on purpose. Each fault has a name, chooses its victim by the world's chance, and says what it did.

Faults do not come by time: a commit takes milliseconds, a recovery seconds, and both must be hit in the middle. They
come a number of simulated events apart, or just when somebody does something of a chosen kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from neo_client.core.events import AbortDone, Failed, FinishDone, Invalidated, Resolve, VoteDone
from neo_common.core import Send
from neo_common.ids import Partition
from neo_common.states import Role, node_text
from neo_common.wire.schema import (
    Abort,
    Aborted,
    AbortOk,
    Adopt,
    AnswerLoad,
    Ask,
    AskChange,
    AskDrop,
    AskLoad,
    ChangeKind,
    CHello,
    Commit,
    CommitOk,
    Conflict,
    Contended,
    Error,
    Fence,
    Fenced,
    Finish,
    Finished,
    Fwd,
    FwdFail,
    FwdOk,
    FwdUnvote,
    Gone,
    Invalidate,
    Lock,
    Locked,
    Mode,
    NewPT,
    Overdue,
    Packet,
    PtOk,
    Pull,
    PullData,
    Ready,
    Refused,
    SAbort,
    Seal,
    SealOk,
    SetPT,
    SHello,
    Stable,
    Start,
    StartOk,
    Sync,
    SyncOk,
    Told,
    Unvote,
    UnvoteOk,
    Vote,
    Voted,
    VotedBy,
    Welcome,
)
from neo_master.core.changes import MoveLead
from support import packing
from support.network import Connection
from support.world import Process, draw_keep

if TYPE_CHECKING:
    from support.mastering import Mastering
    from support.simulation import Simulation

SILENCE_S: Final = 6.0
"""After so long without a heartbeat a session ends."""


def _living(simulation: Simulation, *roles: Role) -> list[Process]:
    return [p for _, p in sorted(simulation.world.processes.items()) if p.alive and (not roles or p.role in roles)]


def _restart_delay(simulation: Simulation) -> float | None:
    rng = simulation.world.rng
    return rng.choice((None, 0.05, 0.5, 2.0, 8.0))


def _victim(simulation: Simulation) -> Process | None:
    """Return who dies: rather one of those between whom something just happened."""
    living = _living(simulation)
    near = [p for p in living if p.name in simulation.near]
    rng = simulation.world.rng
    if near and rng.random() < 0.7:
        return rng.choice(near)
    return rng.choice(living) if living else None


def _connection(simulation: Simulation) -> Connection | None:
    living = [p for p in _living(simulation) if p.all_connections()]
    if not living:
        return None
    rng = simulation.world.rng
    near = [c for p in living for c in p.all_connections() if {e.process.name for e in c.ends} == set(simulation.near)]
    if near and rng.random() < 0.7:
        return near[0]
    return rng.choice(rng.choice(living).all_connections())


def crash(simulation: Simulation) -> str:
    """A process dies, and comes back after a while or when faults stop."""
    victim = _victim(simulation)
    if victim is None:
        return "nobody to kill"
    victim.restart_delay_s = _restart_delay(simulation)
    victim.crash()
    return f"kill {victim.name}"


def count(simulation: Simulation) -> str:
    """A process dies between two effects."""
    victim = _victim(simulation)
    if victim is None:
        return "nobody to kill"
    victim.restart_delay_s = _restart_delay(simulation)
    victim.crash_countdown = simulation.world.rng.randint(1, 8)
    return f"kill {victim.name} after {victim.crash_countdown} more effects"


def power(simulation: Simulation) -> str:
    """All servers die at once; the clients too, sometimes."""
    rng = simulation.world.rng
    roles = rng.choice(((Role.STORAGE,), (Role.MASTER, Role.STORAGE), (Role.MASTER, Role.STORAGE, Role.CLIENT)))
    keep = draw_keep(rng)
    for process in _living(simulation, *roles):
        process.restart_delay_s = rng.choice((0.05, 0.5, 2.0))
        process.crash("power cut", keep)
    return f"power cut of {', '.join(r.name for r in roles)}"


def _primary(simulation: Simulation) -> Mastering | None:
    running = simulation.primaries()
    return simulation.world.rng.choice(running) if running else None


def blackout(simulation: Simulation) -> str:
    """Everything dies at once, and nothing that was sent arrives."""
    rng = simulation.world.rng
    for process in _living(simulation):
        process.restart_delay_s = rng.choice((0.05, 0.5, 2.0))
        process.crash("blackout", dict.fromkeys(Role, 0.0))
    return "blackout"


def desert(simulation: Simulation) -> str:
    """A client that has something under way dies, and does not come back soon."""
    busy = [c for c in simulation.clients if c.alive and c.ttid is not None]
    if not busy:
        return "no client is busy"
    client = simulation.world.rng.choice(busy)
    client.restart_delay_s = simulation.world.rng.choice((None, 8.0))
    client.crash()
    return f"kill {client.name}"


def orphan(simulation: Simulation) -> str:
    """The primary dies, and a client cannot reach any master until its grace is over."""
    primary, rng = _primary(simulation), simulation.world.rng
    clients = [c.name for c in simulation.clients if c.alive]
    if primary is None or not clients:
        return "nobody to leave alone"
    near = [name for name in clients if name in simulation.near]
    client = rng.choice(near or clients)
    primary.restart_delay_s = 0.05
    primary.crash()
    pairs = [pair for m in simulation.masters for pair in ((client, m.name), (m.name, client))]
    _block(simulation, pairs, simulation.grace_s + rng.choice((2.0, 5.0, 8.0)))
    return f"kill {primary.name}, keep {client} away from masters"


def cut(simulation: Simulation) -> str:
    """A connection breaks; both sides see it soon."""
    connection, rng = _connection(simulation), simulation.world.rng
    if connection is None:
        return "nothing to cut"
    keep = rng.choice(((0.0, 0.0), (1.0, 1.0), (rng.random(), rng.random())))
    connection.cut("cut", keep, (rng.random() * 0.1, rng.random() * 0.1))
    return f"cut {connection}"


def half_open(simulation: Simulation) -> str:
    """A connection breaks; one side sees it only by silence."""
    connection, rng = _connection(simulation), simulation.world.rng
    if connection is None:
        return "nothing to cut"
    notice = [rng.random() * 0.1, SILENCE_S * rng.uniform(0.2, 1.0)]
    rng.shuffle(notice)
    connection.cut("cut", (rng.random(), rng.random()), (notice[0], notice[1]))
    return f"half open {connection}"


def _block(simulation: Simulation, pairs: Sequence[tuple[str, str]], duration_s: float) -> None:
    world = simulation.world
    for a, b in pairs:
        world.block(a, b)

    def silence() -> None:
        for process in _living(simulation):
            for connection in process.all_connections():
                names = (connection.ends[0].process.name, connection.ends[1].process.name)
                if any(world.is_blocked(a, b) for a, b in (names, names[::-1])):
                    notice = (world.rng.random() * 2, world.rng.random() * 2)
                    connection.cut("silence", (0.0, 0.0), notice)

    def heal() -> None:
        for a, b in pairs:
            world.unblock(a, b)

    if duration_s > SILENCE_S / 2:
        world.schedule(world.rng.uniform(0.5, SILENCE_S / 2), silence)
    world.schedule(duration_s, heal)


def split(simulation: Simulation) -> str:
    """A group of processes is cut off from the others for a while."""
    rng = simulation.world.rng
    names = sorted(simulation.world.processes)
    away = rng.sample(names, rng.randint(1, max(1, len(names) // 2)))
    duration = rng.choice((0.3, 2.0, 5.0, 12.0))
    pairs = [(a, b) for a in names for b in names if (a in away) != (b in away)]
    _block(simulation, pairs, duration)
    return f"split {', '.join(away)} from the others for {duration} s"


def depose(simulation: Simulation) -> str:
    """The primary is cut off from storages, and from other masters; clients reach both sides."""
    primary, rng = _primary(simulation), simulation.world.rng
    if primary is None:
        return "nobody to depose"
    storages = [s.name for s in simulation.storages]
    away = storages if rng.random() < 0.6 else rng.sample(storages, rng.randint(1, len(storages)))
    others = [m.name for m in simulation.masters if m is not primary]
    clients = [c.name for c in simulation.clients if rng.random() < 0.3]
    duration = rng.choice((1.0, 5.0, 12.0))
    pairs = [pair for name in (*away, *others, *clients) for pair in ((primary.name, name), (name, primary.name))]
    _block(simulation, pairs, duration)
    return f"{primary.name} cannot reach {', '.join((*away, *others, *clients))} for {duration} s"


def lead(simulation: Simulation) -> str:
    """The operator gives the lead of a partition to another cell."""
    primary, rng = _primary(simulation), simulation.world.rng
    if primary is None:
        return "nobody to ask"
    partition = Partition(rng.randrange(simulation.scenario.partitions))
    primary.request(MoveLead(partition))
    return f"{primary.name} is asked to move the lead of {partition}"


def overdue(simulation: Simulation) -> str:
    """A vote is said to have held up others for too long."""
    primary, rng = _primary(simulation), simulation.world.rng
    if primary is None:
        return "nobody to tell"
    votes = [
        (storage, voted)
        for storage in simulation.storages
        if storage.alive and storage.core.master == primary.node and storage.core.serving
        for voted in storage.core.image.voted_ids()
        if all(r.mode is Mode.C for r in storage.core.image.records() if r.ttid == voted.ttid)
    ]
    if not votes:
        return "nothing is overdue"
    storage, voted = rng.choice(votes)
    storage.send(primary.node, Overdue((voted,)))
    return f"{storage.name} says that {voted.ttid} is overdue"


def one_way(simulation: Simulation) -> str:
    """Nothing gets from one process to another for a while; the other direction works."""
    rng = simulation.world.rng
    a, b = rng.sample(sorted(simulation.world.processes), 2)
    duration = rng.choice((0.3, 2.0, 12.0))
    _block(simulation, [(a, b)], duration)
    return f"nothing from {a} to {b} for {duration} s"


def stall(simulation: Simulation) -> str:
    """A process does not run for a while."""
    victim, rng = _victim(simulation), simulation.world.rng
    if victim is None:
        return "nobody to stall"
    duration = rng.choice((0.05, 0.5, 4.0, 10.0))
    victim.stall(duration)
    return f"stall {victim.name} for {duration} s"


def pause(simulation: Simulation) -> str:
    """A client does not run for longer than its grace, and everybody sees its connections end."""
    rng = simulation.world.rng
    clients = [c for c in simulation.clients if c.alive and not c.stalled]
    if not clients:
        return "no client runs"
    near = [c for c in clients if c.name in simulation.near]
    busy = [c for c in clients if c.ttid is not None]
    client = rng.choice(near or busy or clients)
    duration = simulation.grace_s + rng.choice((1.5, 4.0, 10.0))
    client.stall(duration)
    for connection in client.all_connections():
        connection.cut("silence", (rng.random(), rng.random()), (rng.random(), rng.random()))
    return f"pause {client.name} for {duration} s"


def clock(simulation: Simulation) -> str:
    """The wall clock of a process steps."""
    victim, rng = _victim(simulation), simulation.world.rng
    if victim is None:
        return "nobody has a clock"
    step = rng.choice((-3000.0, -5.0, 5.0, 3000.0))
    victim.clock_offset += step
    return f"the clock of {victim.name} steps by {step} s"


def change(simulation: Simulation) -> str:
    """The operator changes where cells are."""
    primary, rng = _primary(simulation), simulation.world.rng
    if primary is None:
        return "nobody to order"
    core = primary.core
    kind = rng.choice(list(ChangeKind))
    cells = sorted(core.pt.nodes())
    new = sorted({s.node for s in simulation.storages} - set(cells))
    choice = {ChangeKind.ADD: new, ChangeKind.DRAIN: cells, ChangeKind.KEEP: list(core.pt.orders.leaving)}.get(kind, [])
    nodes = tuple(rng.sample(choice, 1)) if choice else ()
    packet = AskChange(kind, nodes, rng.randrange(3), False, "chance")
    answer = _order(simulation, primary, kind, packet)
    return f"{kind.name} {[node_text(n) for n in nodes]}: {answer}"


def drop(simulation: Simulation) -> str:
    """The operator drops a storage."""
    primary, rng = _primary(simulation), simulation.world.rng
    if primary is None:
        return "nobody to order"
    node = rng.choice(simulation.storages).node
    force = rng.random() < 0.3
    if force:
        simulation.moves.forced.add(node)
    answer = _order(simulation, primary, None, AskDrop((node,), force, "chance"))
    return f"drop {node_text(node)}: {answer}"


def _order(simulation: Simulation, primary: Mastering, kind: ChangeKind | None, packet: Packet) -> object:
    """Give an order. As long as it is not answered, nobody knows what it comes to."""
    simulation.orders.append(kind)
    was, simulation.ordered = simulation.ordered, False
    answer = primary.order(packet, len(simulation.orders))
    if isinstance(answer, Error):
        simulation.ordered = was
    return answer


Fault = Callable[["Simulation"], str]
FAULTS: Final[dict[str, tuple[Fault, int]]] = {
    "crash": (crash, 4),
    "count": (count, 3),
    "power": (power, 2),
    "blackout": (blackout, 1),
    "orphan": (orphan, 1),
    "desert": (desert, 1),
    "cut": (cut, 4),
    "half_open": (half_open, 1),
    "split": (split, 2),
    "depose": (depose, 2),
    "lead": (lead, 2),
    "overdue": (overdue, 2),
    "one_way": (one_way, 1),
    "stall": (stall, 1),
    "pause": (pause, 1),
    "clock": (clock, 1),
}
"""Name to fault and how often it is chosen."""


ORDERS: Final[dict[str, tuple[Fault, int]]] = {"change": (change, 14), "drop": (drop, 3)}
"""What an operator does, where there are storages to spare."""


def _host(simulation: Simulation) -> list[Process]:
    """Return a master and a storage that stand on one machine, where each machine has both."""
    number = simulation.world.rng.randrange(min(len(simulation.masters), len(simulation.storages)))
    primary = simulation.primaries()
    if primary and simulation.world.rng.random() < 0.6:
        number = min(simulation.masters.index(primary[0]), len(simulation.storages) - 1)
    return [simulation.masters[number], simulation.storages[number]]


def host(simulation: Simulation) -> str:
    """A machine dies with its master and its storage; they come back after a while."""
    victims = _host(simulation)
    for victim in victims:
        victim.restart_delay_s = _restart_delay(simulation)
        victim.crash()
    return f"kill the host of {' and '.join(v.name for v in victims)}"


def apart(simulation: Simulation) -> str:
    """A machine is cut off from the others, perhaps with a client."""
    rng = simulation.world.rng
    here = {p.name for p in _host(simulation)}
    here |= {c.name for c in simulation.clients if rng.random() < 0.4}
    duration = rng.choice((1.0, 5.0, 12.0))
    isolate(simulation, here, duration)
    return f"{', '.join(sorted(here))} are cut off from the others for {duration} s"


def isolate(simulation: Simulation, here: set[str], duration_s: float) -> None:
    """Let nothing pass between *here* and the others for a while."""
    names = sorted(simulation.world.processes)
    _block(simulation, [(a, b) for a in names for b in names if (a in here) != (b in here)], duration_s)


def wipe(simulation: Simulation) -> str:
    """A master loses its disk, and begins with an empty one."""
    victim = simulation.world.rng.choice(simulation.masters)
    victim.restart_delay_s = _restart_delay(simulation)
    victim.lose_disk()
    return f"{victim.name} loses its disk"


MASTER_FAULTS: Final[dict[str, tuple[Fault, int]]] = {"host": (host, 4), "apart": (apart, 4), "wipe": (wipe, 2)}
"""The same for clusters in which a majority of the masters counts."""


class Moment:
    """Waits until somebody does something of a chosen kind, for the so-manieth time."""

    KINDS: Final = (
        *(VoteDone, FinishDone, AbortDone, Failed, Resolve, Invalidated),
        *(
            Vote,
            Voted,
            Conflict,
            Contended,
            Refused,
            Unvote,
            UnvoteOk,
            Lock,
            Locked,
            Fwd,
            FwdOk,
            FwdUnvote,
            Sync,
            SyncOk,
        ),
        *(Finish, Commit, Finished, CommitOk, Invalidate, Seal, SealOk, Abort, SAbort, AbortOk, Aborted),
        *(SetPT, PtOk, Stable, FwdFail, Pull, PullData, Ready, NewPT, Ask, Told, AskLoad, AnswerLoad),
        *(CHello, Welcome, Gone, VotedBy, SHello, Fence, Fenced, Start, StartOk, Adopt),
    )

    def __init__(self, simulation: Simulation, kind: type | None = None) -> None:
        rng = simulation.world.rng
        self._simulation = simulation
        kinds = self.KINDS if simulation.packer is None else (*self.KINDS, *packing.KINDS)
        self.kind: type = kind or rng.choice(kinds)
        self._left = rng.randint(1, 3)
        self.is_there = False

    def __call__(self, process: Process, effect: object) -> None:
        """Look at an effect."""
        what = effect.packet if isinstance(effect, Send) else effect
        if type(what) is self.kind and not self.is_there:
            self._left -= 1
            if self._left == 0:
                self.is_there = True
                other = self._simulation.world.by_node(effect.peer) if isinstance(effect, Send) else None
                self._simulation.near = (process.name,) if other is None else (process.name, other.name)


def _wait(simulation: Simulation, scale: int, kind: type | None = None) -> str:
    """Let the run go on: for a number of events, or until something (of that kind, if given) is done."""
    world = simulation.world
    simulation.near = ()
    until = world.event_count + 1 + int(world.rng.expovariate(1 / scale))
    if kind is None and world.rng.random() < 0.4:
        world.run(60.0, lambda: world.event_count >= until)
        return ""
    moment = Moment(simulation, kind)
    until += 3 * scale
    world.observers.append(moment)
    world.run(60.0, lambda: moment.is_there or world.event_count >= until)
    world.observers.remove(moment)
    if moment.is_there and world.rng.random() < 0.4:  # while it is on its way, or when it has just arrived
        world.run(world.delay(world.temper.net_s, 0.0))
    return f"at {moment.kind.__name__}: " if moment.is_there else ""


Plan = tuple[tuple[type, str], ...]
"""Moments and what happens at each, in this order."""


def happen(simulation: Simulation, count: int, kinds: Sequence[str] = (), plan: Plan = ()) -> None:
    """Let what is planned happen, then *count* faults, while the scripts run."""
    world = simulation.world
    for kind, name in plan:
        when = _wait(simulation, 150, kind)
        world.note("-", "fault", when + (FAULTS | MASTER_FAULTS)[name][0](simulation))
    possible = {
        **FAULTS,
        **(ORDERS if simulation.scenario.spares else {}),
        **(MASTER_FAULTS if simulation.scenario.masters >= 3 else {}),
    }
    names = [n for n in possible if not kinds or n in kinds]
    weights = [possible[n][1] for n in names]
    scale = world.rng.choice((10, 40, 150))
    for _ in range(count):
        when = _wait(simulation, scale)
        name = world.rng.choices(names, weights)[0]
        world.note("-", "fault", when + possible[name][0](simulation))
    simulation.near = ()
