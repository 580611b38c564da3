"""Sessions: handshake, requests, deadlines, silence, roles, the end. Pure: bytes are carried by hand."""

from collections.abc import Callable, Iterator
from random import Random

import pytest

from neo_common.errors import (
    DeadlinePassed,
    HandshakeRefused,
    LocalProtocolError,
    NeoError,
    PeerLost,
    RemoteProtocolError,
)
from neo_common.ids import NO_EPOCH, NO_NODE, Epoch, NodeId, Oid, Seconds, Tid, Ttid
from neo_common.states import Role, node_id
from neo_common.wire import session as sessions
from neo_common.wire.codec import frame
from neo_common.wire.schema import (
    MAGIC,
    AnswerLast,
    AnswerLoad,
    AnswerOids,
    AskLast,
    AskLoad,
    AskOids,
    Compression,
    Data,
    Error,
    ErrorCode,
    Finish,
    Finished,
    Goodbye,
    Hello,
    HelloNo,
    HelloOk,
    HelloWait,
    Invalidate,
    Packet,
    Ping,
    Pong,
    RefusalCode,
    Unvote,
)
from neo_common.wire.session import (
    JOIN_BYTES,
    Answered,
    Asked,
    Ended,
    Expired,
    Greeting,
    Limits,
    Notified,
    Opened,
    Pending,
    Session,
    SessionEvent,
    Waiting,
)

ID = bytes(range(16))
M1, C1, S1 = node_id(Role.MASTER, 1), node_id(Role.CLIENT, 1), node_id(Role.STORAGE, 1)
LIMITS = Limits(idle_s=2.0, dead_s=6.0, handshake_s=10.0, pending_max=8)
FINISHED = Finished(Ttid(1, 1), 0, Tid(5))  # type: ignore[arg-type]


def at(moment: float) -> Seconds:
    return Seconds(moment)


def hello(role: Role = Role.CLIENT, node: NodeId = NO_NODE, versions: tuple[int, int] = (1, 1)) -> Hello:
    return Hello(*versions, (), role, "name", "test", ID, node, 7, NO_EPOCH, "")


def hello_ok(role: Role = Role.MASTER, node: NodeId = M1, you: NodeId = C1) -> HelloOk:
    return HelloOk(1, (), role, "name", "test", ID, node, 8, Epoch(9), you)


def carry(source: Session, target: Session, now: float = 0.0, step: int = 0) -> list[SessionEvent]:
    """Bring what *source* says to *target*, in slices of *step* bytes (0: as it is given out)."""
    events: list[SessionEvent] = []
    for chunk in source.take_output():
        for start in range(0, len(chunk), step or len(chunk)):
            events += target.receive(chunk[start : start + step] if step else chunk, at(now))
    return events


def pair(limits: Limits = LIMITS) -> tuple[Session, Session]:
    """Return an open client's and an open master's session."""
    client, master = Session(hello(), True, limits), Session(None, False, limits)
    carry(client, master)
    master.accept(hello_ok())
    carry(master, client)
    assert client.is_open
    assert master.is_open
    return client, master


def renumbered(data: bytes, request: int) -> bytes:
    """Return a frame with another request id, even one that the codec would not write."""
    return data[:6] + request.to_bytes(4, "big") + data[10:]


def the_end(events: list[SessionEvent]) -> NeoError:
    """Return the error of the last event, which must be Ended."""
    last = events[-1]
    assert isinstance(last, Ended)
    return last.error


# ---------------------------------------------------------------------------------------------- handshake


@pytest.mark.parametrize("step", [0, 1, 3, 7])
def test_handshake_in_any_slicing(step: int) -> None:
    client, master = Session(hello(), True, LIMITS), Session(None, False, LIMITS)
    assert carry(client, master, step=step) == [Greeting(hello())]
    assert not master.is_open
    master.accept(hello_ok())
    master.notify(FINISHED)  # it may speak at once
    assert carry(master, client, step=step) == [Opened(hello_ok()), Notified(FINISHED)]
    assert (client.label, master.label) == ("M1", "C1")


def test_who_waits_may_wait_for_long_and_is_let_in() -> None:
    client, master = Session(hello(), True, LIMITS), Session(None, False, LIMITS)
    carry(client, master)
    master.wait(HelloWait("no primary yet"))
    assert carry(master, client) == [Waiting("no primary yet")]
    for second in range(1, 60):  # far beyond handshake_s and dead_s, kept alive by pings
        assert client.tick(at(second)) == []
        assert master.tick(at(second)) == []
        assert carry(client, master, second) == []
        assert carry(master, client, second) == []
    master.accept(hello_ok())
    assert carry(master, client, 60) == [Opened(hello_ok())]


def test_half_a_ping_before_accept_is_not_lost() -> None:
    client, master = Session(hello(), True, LIMITS), Session(None, False, LIMITS)
    carry(client, master)
    ping = frame(Ping())
    master.receive(ping[:4], at(1))
    master.accept(hello_ok())
    master.take_output()
    assert master.receive(ping[4:] + frame(AskLast(), 1), at(1)) == [Asked(1, AskLast())]
    assert master.take_output() == [frame(Pong())]


def test_refusal_names_the_primary() -> None:
    client, master = Session(hello(), True, LIMITS), Session(None, False, LIMITS)
    carry(client, master)
    assert isinstance(the_end(master.refuse(HelloNo(RefusalCode.NOT_PRIMARY, "not me", "h:1"))), HandshakeRefused)
    error = the_end(carry(master, client))
    assert isinstance(error, HandshakeRefused)
    assert (error.code, error.primary) == (RefusalCode.NOT_PRIMARY, "h:1")
    assert "not me" in str(error)


def test_no_version_in_common_is_refused_by_the_session_itself() -> None:
    client, master = Session(hello(versions=(2, 3)), True, LIMITS), Session(None, False, LIMITS)
    the_end(carry(client, master))
    error = the_end(carry(master, client))
    assert isinstance(error, HandshakeRefused)
    assert error.code == RefusalCode.VERSION


def test_a_version_that_was_not_offered_is_an_error() -> None:
    client = Session(hello(), True, LIMITS)
    error = the_end(client.receive(MAGIC + frame(hello_ok()._replace(version=2)), at(0)))
    assert isinstance(error, RemoteProtocolError)


@pytest.mark.parametrize(
    ("first", "word"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00", "TLS"),
        (b"NEO\x02", "framing"),
        (b"S", "does not speak NEO"),
        (bytes(100), "does not speak NEO"),
    ],
)
def test_strangers_are_named_and_told_nothing(first: bytes, word: str) -> None:
    master = Session(None, False, LIMITS)
    error = the_end(master.receive(first, at(0)))
    assert isinstance(error, RemoteProtocolError)
    assert word in str(error)
    assert master.take_output() == []


@pytest.mark.parametrize(
    "data",
    [
        frame(AskLast(), 1),
        frame(hello_ok()),
        renumbered(frame(hello()), 1),
        frame(Ping()) + frame(FINISHED),
        frame(hello()) + frame(hello()),
        frame(hello()) + frame(AskLast(), 1),  # not before we have agreed
        frame(hello(Role.CLIENT, S1)),
        frame(hello(node=NodeId(9 << 24 | 1))),
        b"\x00\x01\x00\x01\x00\x01" + bytes(4),  # 65537 bytes of Hello
        b"\xff\xff\xff\xff\x00\x01" + bytes(4),
        bytes(100),
    ],
)
def test_nothing_but_a_small_hello_opens(data: bytes) -> None:
    master = Session(None, False, LIMITS)
    assert isinstance(the_end(master.receive(MAGIC + data, at(0))), RemoteProtocolError)
    assert not master.is_open


def test_memory_before_the_handshake_is_bounded() -> None:
    master = Session(None, False, LIMITS)
    master.receive(MAGIC + b"\x00\x00\xff\xff\x00\x01" + bytes(4), at(0))
    for _ in range(1000):
        events = master.receive(bytes(1000), at(0))
        if events:
            break
    assert isinstance(the_end(events), RemoteProtocolError)  # at the latest when the 65535 bytes are there


def test_handshake_has_a_deadline() -> None:
    for silent in (Session(hello(), True, LIMITS), Session(None, False, LIMITS)):
        events: list[SessionEvent] = []
        for second in range(1, 12):
            silent.receive(b"", at(second))  # no silence, no progress
            events = silent.tick(at(second))
            assert bool(events) == (second >= 10)
            if events:
                break
        assert "no handshake within 10 s" in str(the_end(events))


# ---------------------------------------------------------------------------------------------- requests


def test_questions_are_pipelined_and_answered_in_any_order() -> None:
    client, master = pair()
    first, second = client.ask(AskLast(), at(9), at(0)), client.ask(AskOids(3), at(9), at(0))
    assert carry(client, master) == [Asked(first, AskLast()), Asked(second, AskOids(3))]
    assert master.owed_count == 2
    master.answer(second, AnswerOids(Oid(1), 3))
    master.notify(FINISHED)
    master.answer(first, Error(ErrorCode.NOT_READY, "later"))
    assert carry(master, client) == [
        Answered(second, AnswerOids(Oid(1), 3)),
        Notified(FINISHED),
        Answered(first, Error(ErrorCode.NOT_READY, "later")),
    ]
    assert client.pending_count == master.owed_count == 0


def test_a_request_says_what_it_waits_for() -> None:
    client, _ = pair()
    request = client.ask(AskLast(), at(7), at(3))
    (pending,) = client.pending()
    assert pending == Pending(request, "M1", "AskLast", at(3), at(7))


def test_request_ids_wrap_skip_zero_and_those_in_use() -> None:
    client, _ = pair()
    client._next_request = 0xFFFFFFFF
    old = client.ask(AskLast(), at(9), at(0))
    assert [client.ask(AskLast(), at(9), at(0)) for _ in range(2)] == [1, 2]
    client._next_request = 0xFFFFFFFF
    assert client.ask(AskLast(), at(9), at(0)) == 3
    assert old == 0xFFFFFFFF


def test_unanswered_request_expires_once_and_its_late_answer_is_dropped() -> None:
    client, master = pair()
    early, late = client.ask(AskLast(), at(1), at(0)), client.ask(AskLast(), at(3), at(0))
    carry(client, master)
    assert client.next_deadline() == at(1)
    assert client.tick(at(0.9)) == []
    (expired,) = client.tick(at(1.5))
    assert isinstance(expired, Expired)
    assert expired.request == early
    assert isinstance(expired.error, DeadlinePassed)
    assert str(expired.error) == "M1 has not answered AskLast within 1.5 s"
    assert client.tick(at(2)) == []
    master.answer(early, AnswerLast(Tid(1)))
    master.answer(late, AnswerLast(Tid(2)))
    assert carry(master, client, 2) == [Answered(late, AnswerLast(Tid(2)))]
    assert client.tick(at(4)) == []


def test_a_wrong_late_answer_is_still_an_error() -> None:
    client, master = pair()
    client.ask(AskLast(), at(1), at(0))
    client.tick(at(1))
    master.take_output()
    error = the_end(client.receive(frame(AnswerOids(Oid(1), 1), 1), at(1)))
    assert isinstance(error, RemoteProtocolError)


def test_requests_without_answer_are_bounded_on_both_sides() -> None:
    client, master = pair()
    for _ in range(8):
        client.ask(AskLast(), at(1), at(0))
    with pytest.raises(LocalProtocolError):
        client.ask(AskLast(), at(1), at(0))
    client.tick(at(1))
    with pytest.raises(LocalProtocolError):  # expired ones count: the peer may still answer
        client.ask(AskLast(), at(2), at(1))
    carry(client, master)
    assert isinstance(the_end(master.receive(frame(AskLast(), 99), at(1))), RemoteProtocolError)


@pytest.mark.parametrize(
    "data",
    [
        frame(AnswerLast(Tid(1)), 77),  # never asked
        frame(AnswerOids(Oid(1), 1), 1),  # another question's answer
        frame(Error(ErrorCode.INTERNAL, ""), 77),
        frame(AskLast(), 1),  # a master does not ask that
        frame(Unvote(Ttid(1, 1), 0, NO_EPOCH, ())),  # type: ignore[arg-type]  # not for a client
        renumbered(frame(FINISHED), 5),  # a notification with a request id
        frame(hello_ok()),
        frame(hello()),
        frame(HelloWait("")),
    ],
    ids=range(9),
)
def test_what_a_peer_may_not_say_ends_the_session(data: bytes) -> None:
    client, master = pair()
    request = client.ask(AskLast(), at(9), at(0))
    client.take_output()
    events = client.receive(frame(FINISHED) + data + frame(FINISHED), at(0))
    error = the_end(events)
    assert isinstance(error, RemoteProtocolError)
    # What came before it may be lost with it when the codec refuses it: who says this keeps no rule anyway.
    assert events[-2:] == [Expired(request, error), Ended(error)]
    assert events[:-2] in ([Notified(FINISHED)], [])
    # The peer is told, so that its log says why.
    assert "protocol error" in str(the_end(carry(client, master)))


@pytest.mark.parametrize("request_id", [0, 5])
def test_question_ids_are_neither_zero_nor_in_use(request_id: int) -> None:
    _, master = pair()
    master.receive(frame(AskLast(), 5), at(0))
    assert isinstance(the_end(master.receive(renumbered(frame(AskLast(), 1), request_id), at(0))), RemoteProtocolError)


def test_our_own_errors_are_found_before_they_are_sent() -> None:
    client, master = pair()
    wrong: list[Callable[[], object]] = [
        lambda: client.notify(FINISHED),
        lambda: client.notify(AskLast()),
        lambda: client.ask(Finish(Ttid(1, 1), 0, NO_EPOCH, (), (), 0, Tid(0)), at(1), at(0)),  # type: ignore[arg-type]
        lambda: client.ask(AskLoad(NO_EPOCH, Oid(1), Tid(1)), at(1), at(0)),
        lambda: client.notify(Ping()),
        lambda: client.send_encoded(AskLast, frame(AskLast(), 1)),
        lambda: client.accept(hello_ok()),
        lambda: master.answer(1, AnswerLast(Tid(1))),
        lambda: master.refuse(HelloNo(RefusalCode.ROLE, "", "")),
        lambda: Session(hello(), True).notify(FINISHED),
    ]
    for call in wrong:
        with pytest.raises(LocalProtocolError):
            call()
    assert client.output_bytes == master.output_bytes == 0
    (asked,) = master.receive(frame(AskLast(), 3), at(0))
    assert asked == Asked(3, AskLast())
    with pytest.raises(LocalProtocolError):
        master.answer(3, AnswerOids(Oid(1), 1))
    master.answer(3, AnswerLast(Tid(1)))
    with pytest.raises(LocalProtocolError):
        master.answer(3, AnswerLast(Tid(1)))


# ---------------------------------------------------------------------------------------------- silence


def test_silent_peer_is_asked_then_lost_with_what_was_pending() -> None:
    client, _ = pair()
    request = client.ask(AskLast(), at(100), at(0))
    client.take_output()
    said: dict[float, list[bytes]] = {}
    for moment in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert client.tick(at(moment)) == []
        said[moment] = client.take_output()
    assert {moment for moment, out in said.items() if out == [frame(Ping())]} == {2.0, 4.0}
    events = client.tick(at(6))
    error = the_end(events)
    assert isinstance(error, PeerLost)
    assert "M1: silent for 6.0 s" in str(error)
    assert events == [Expired(request, error), Ended(error)]


def test_pings_are_answered_and_never_seen() -> None:
    client, master = pair()
    client.tick(at(1))
    client.tick(at(2))
    assert carry(client, master, 2) == []
    assert carry(master, client, 2) == []
    assert client.tick(at(4)) == []


def test_any_byte_is_life() -> None:
    client, master = pair()
    master.notify(FINISHED)
    (data,) = master.take_output()
    for second, byte in enumerate(data[:20]):
        assert client.tick(at(second)) == []
        client.receive(bytes([byte]), at(second))
    assert client.take_output() == []  # nor was there a reason to ask


def test_a_process_that_did_not_run_blames_nobody() -> None:
    client, master = pair()
    request = client.ask(AskLast(), at(5), at(0))
    carry(client, master)
    master.answer(request, AnswerLast(Tid(1)))
    assert client.tick(at(1)) == []
    assert client.tick(at(1000)) == []  # stopped for long: first read what has come
    assert carry(master, client, 1000) == [Answered(request, AnswerLast(Tid(1)))]
    for second in range(1001, 1010):
        events = client.tick(at(second))
        if events:
            break
    assert "silent" in str(the_end(events))  # and a peer that is really dead is found after all
    assert second <= 1006


def test_who_does_not_read_says_that_it_lives_and_blames_nobody() -> None:
    client, _ = pair()
    pings = 0
    for second in range(1, 61):
        assert client.tick(at(second), reading=False) == []
        pings += client.take_output() == [frame(Ping())]
    assert pings == 30


# ---------------------------------------------------------------------------------------------- the end


def test_goodbye_carries_the_reason_after_everything_else() -> None:
    client, master = pair()
    request = client.ask(AskLast(), at(9), at(0))
    carry(client, master)
    master.notify(FINISHED)
    events = master.close("the cluster stops")
    assert "the cluster stops" in str(the_end(events))
    assert master.close("again") == []
    events = carry(master, client)
    error = the_end(events)
    assert isinstance(error, PeerLost)
    assert events == [Notified(FINISHED), Expired(request, error), Ended(error)]
    assert str(error) == "M1 closed the connection: the cluster stops"


def test_closing_fails_what_was_pending_and_cancels_its_deadlines() -> None:
    client, _ = pair()
    requests = [client.ask(AskLast(), at(1), at(0)) for _ in range(3)]
    events = client.close("enough")
    error = the_end(events)
    assert events == [*(Expired(request, error) for request in requests), Ended(error)]
    assert client.tick(at(50)) == []
    assert client.next_deadline() == float("inf")
    assert client.pending() == []
    assert client.error is error


def test_after_the_end_nothing_comes_and_nothing_is_queued() -> None:
    client, master = pair()
    carry(client, master)
    master.receive(frame(AskLast(), 1), at(0))
    master.lost("cut")
    master.notify(FINISHED)
    master.answer(1, AnswerLast(Tid(1)))
    assert master.take_output() == []
    assert master.receive(frame(AskLast(), 2), at(0)) == []
    assert master.tick(at(99)) == []
    assert master.lost("again") == []
    client.lost("cut")
    with pytest.raises(PeerLost, match="cut"):
        client.ask(AskLast(), at(1), at(0))


def test_bytes_after_goodbye_are_ignored() -> None:
    client, _ = pair()
    events = client.receive(frame(Goodbye("bye")) + frame(FINISHED), at(0))
    assert [type(event) for event in events] == [Ended]


def garbage(seed: int) -> Iterator[bytes]:
    """Yield frames that are damaged in some way."""
    rng = Random(seed)
    good: list[Packet] = [FINISHED, Invalidate(Tid(1), Ttid(1, 1), 0, (Oid(1),), Tid(1)), AnswerLast(Tid(1))]  # type: ignore[arg-type]
    for _ in range(20):
        packet = rng.choice(good)
        data = bytearray(frame(packet, rng.randrange(1, 4) if isinstance(packet, AnswerLast) else 0))
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        yield bytes(data)


@pytest.mark.parametrize("seed", range(150))
def test_any_damage_is_taken_or_ends_the_session_cleanly(seed: int) -> None:
    """No other exception, one end at most, every request ends once, whatever the bytes and their slicing."""
    rng = Random(seed)
    client, _ = pair()
    requests = {client.ask(AskLast(), at(9), at(0)) for _ in range(3)}
    data = b"".join(garbage(seed))
    events: list[SessionEvent] = []
    while data:
        cut = rng.randrange(1, 40)
        events += client.receive(data[:cut], at(0))
        data = data[cut:]
    events += client.lost("end of input")
    ended = [event.request for event in events if isinstance(event, Answered | Expired)]
    assert sorted(ended) == sorted(requests)
    assert [type(event) for event in events].count(Ended) == 1
    assert isinstance(events[-1], Ended)


# ---------------------------------------------------------------------------------------------- output


def test_small_frames_are_joined_large_ones_kept_apart() -> None:
    storage = Session(None, False, LIMITS)
    storage.receive(MAGIC + frame(hello()), at(0))
    storage.accept(hello_ok(Role.STORAGE, S1))
    storage.take_output()
    large = AnswerLoad(Tid(1), Tid(0), Data(Compression.NONE, bytes(16), 100_000, bytes(100_000)))
    small = AnswerLoad(Tid(1), Tid(0), Data(Compression.NONE, bytes(16), 3, b"abc"))
    for request, answer in enumerate((small, small, large, small), 1):
        storage.receive(frame(AskLoad(NO_EPOCH, Oid(1), Tid(1)), request), at(0))
        storage.answer(request, answer)
    expected = [frame(small, 1) + frame(small, 2), frame(large, 3), frame(small, 4)]
    assert storage.output_bytes == sum(map(len, expected))
    assert storage.take_output() == expected
    assert storage.output_bytes == 0
    assert len(expected[1]) > JOIN_BYTES


def test_a_notification_for_many_is_encoded_once() -> None:
    packet = Invalidate(Tid(1), Ttid(1, 1), 0, (Oid(1),), Tid(1))  # type: ignore[arg-type]
    encoded = frame(packet)
    for _ in range(3):
        client, master = pair()
        master.send_encoded(Invalidate, encoded)
        (out,) = master.take_output()
        assert out is encoded
        assert client.receive(out, at(0)) == [Notified(packet)]


def test_every_pair_of_roles_has_its_own_rules() -> None:
    """A storage takes a Vote's Unvote from a client, a master does not: the rules come from the schema."""
    clients = sessions._rules(Role.CLIENT, Role.STORAGE)
    assert Unvote in clients
    assert Unvote not in sessions._rules(Role.CLIENT, Role.MASTER)
    assert Error in sessions._rules(Role.ADMIN, Role.ADMIN)
    assert not sessions._SESSION_OWN & clients.keys()
