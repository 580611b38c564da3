"""Stories in which a rule matters, at the very point where it does. `test_rules.py` plants the bug that it is against.

Everything is scripted: the oracle judges, as in every run. Clients are called C1 and C2 whatever happens to them.
"""

from __future__ import annotations

from neo_client.core.events import AbortNow
from neo_common.core import Send
from neo_common.ids import NodeId
from neo_common.states import Role
from neo_common.wire.schema import Ready, SetPT, Vote, Voted, Welcome
from support.application import Spec, Step
from support.simulation import Scenario, Simulation
from support.world import Process

WRITE = Spec(writes=(0,))
SOON_S = 15.0
NOTHING = dict.fromkeys(Role, 0.0)
"""Nothing that a dying process has sent arrives."""


class Story:
    """A calm cluster of one master, and the means to disturb it."""

    def __init__(self, partitions: int, storages: int, replicas: int, clients: int = 2) -> None:
        shape = Scenario(partitions, storages, replicas, ((),) * clients, 2, masters=1)
        self.simulation = Simulation(1, shape, calm=True)
        self.world = self.simulation.world
        self.simulation.start()
        self.world.run(1.0)
        self.master, self.storages = self.simulation.masters[0], self.simulation.storages
        self.clients = self.simulation.clients
        for client in self.clients:
            client.runs_away = False

    def until(self, kind: type, who: Process, to: Process | None = None) -> None:
        """Let time pass until *who* is about to do, or to send to *to*, something of that kind."""
        seen: list[object] = []

        def look(process: Process, effect: object) -> None:
            what = effect.packet if isinstance(effect, Send) else effect
            is_there = to is None or (isinstance(effect, Send) and effect.peer == to.node)
            if process is who and type(what) is kind and is_there:
                seen.append(effect)

        self.world.observers.append(look)
        assert self.world.run(SOON_S, lambda: bool(seen)), f"{who.name} does not come to {kind.__name__}"
        self.world.observers.remove(look)

    def apart(self, one: Process, other: Process, *, both: bool = True) -> None:
        """Let nothing more get from *one* to *other*; nor back, if *both*."""
        self.world.block(one.name, other.name)
        if both:
            self.world.block(other.name, one.name)

    def together(self) -> None:
        """Heal the network."""
        self.world.unblock_all()

    def cut(self, one: Process, other: Process) -> None:
        """Break the connection between them; what is in flight is lost, and they cannot connect again."""
        self.apart(one, other)
        connection = one.connections.get(other.node)
        assert connection is not None
        connection.cut("cut", (0.0, 0.0), (0.001, 0.001))

    def kill(self, *processes: Process) -> None:
        """They die, and nothing that they have sent arrives any more."""
        for process in processes:
            process.crash("killed", NOTHING)

    def pause(self, client: Process, seconds: float) -> None:
        """A client does not run for a while, and loses its connections with all that is in flight."""
        client.stall(seconds)
        for connection in client.all_connections():
            connection.cut("silence", (0.0, 0.0), (0.01, 0.01))

    def lead(self, partition: int = 0) -> NodeId | None:
        """Return who leads a partition."""
        return self.simulation.primary_table().lead(partition)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(seconds)

    def commit(self, client: int) -> None:
        """Let a client commit a transaction."""
        who = self.clients[client]
        who.run_script([WRITE])
        assert self.world.run(2 * SOON_S, lambda: who.step is Step.DONE), who.step
        assert who.outcomes[-1] == "committed"

    def in_order(self) -> tuple[Process, ...]:
        """Return the storages of partition 0 in the order of its row."""
        row = self.simulation.primary_table().rows[0]
        return tuple(next(s for s in self.storages if s.node == node) for node, _ in row)


def test_former_lead_that_knows_of_nothing_gets_no_vote_stored() -> None:
    """It is out of date and has not heard of it; nor has the client that votes there, on a snapshot that is old."""
    story = Story(1, 3, 2)
    first, second, third = story.in_order()
    one, _ = story.clients
    one.vote_not_before = story.world.now + 12.0
    one.run_script([WRITE])
    story.wait(1.0)
    assert one.got
    story.apart(story.master, one, both=False)
    story.cut(story.master, first)
    assert story.world.run(SOON_S, lambda: story.lead() != first.node)
    story.wait(0.5)
    story.commit(1)
    story.until(Vote, one, first)
    story.wait(0.1)
    story.kill(story.master, one, second, third)
    story.together()
    for process in (story.master, second, third):
        process.start()
    story.wait(10.0)
    story.simulation.rest()


def joining(story: Story) -> tuple[Process, Process]:
    """Have a cell begin to join; return the lead and that cell, which is about to say that it is ready."""
    first, second = story.in_order()
    story.kill(second)
    story.wait(0.5)
    story.commit(1)
    second.start()
    story.until(Ready, second)
    return first, second


def test_promotion_counts_only_when_the_lead_has_it_durable() -> None:
    """The lead is lost before it has heard of it, and comes back alone, to a cluster that it knows as its own."""
    story = Story(1, 2, 1)
    first, second = joining(story)
    story.apart(story.master, first, both=False)
    story.until(SetPT, story.master, second)
    story.wait(0.05)
    story.kill(first)
    story.together()
    one, _ = story.clients
    one.run_script([WRITE])
    story.wait(2.0)
    story.kill(second, story.master)
    first.start()
    story.master.start()
    story.wait(10.0)
    second.start()
    story.simulation.rest()


def test_who_gives_up_after_an_attempt_that_may_count_waits_for_a_durable_abort() -> None:
    """All have voted, one answer is lost; the application gives up, and then everything dies."""
    story = Story(2, 2, 0)
    one, _ = story.clients
    left, right = story.storages
    one.run_script([Spec(writes=(0, 1))])
    story.until(Vote, one, right)
    story.apart(right, one, both=False)
    story.until(Voted, right)
    story.wait(0.1)
    story.apart(one, left, both=False)
    story.cut(one, right)
    story.wait(0.1)
    assert one.step is Step.VOTING
    assert one.handle is not None
    one.step = Step.ABORTING
    one.feed(AbortNow(one.handle))
    story.wait(0.1)
    story.kill(one, story.master, left, right)
    story.together()
    for process in (story.master, left, right):
        process.start()
    story.wait(10.0)
    story.simulation.rest()


def test_vote_that_recovery_has_committed_is_not_voted_again_under_another_name() -> None:
    """The client is away while the primary starts again, and again, for longer than its grace, before it is welcome."""
    story = Story(1, 1, 0, clients=1)
    (one,) = story.clients
    one.run_script([Spec(writes=(0,), resolve=True)])
    story.until(Voted, story.storages[0])
    story.pause(one, 8.0)
    story.kill(story.master, *story.storages)
    for process in (story.master, *story.storages):
        process.start()
    story.until(Welcome, story.master, one)
    story.pause(one, 8.0)
    story.wait(10.0)
    story.simulation.rest()
    assert one.outcomes[-1] == "committed"
