"""Secret and certificate in a handshake: both sides prove, nothing is believed before, nothing can be replayed."""

import pickle
from itertools import permutations

import pytest

from neo_common.errors import ConfigError, HandshakeRefused, RemoteProtocolError
from neo_common.ids import NO_EPOCH, NO_NODE, Seconds
from neo_common.states import Role, node_id
from neo_common.wire.codec import frame
from neo_common.wire.guard import Guard, Identity, Secret, identity_of, proof
from neo_common.wire.schema import (
    MAGIC,
    Challenge,
    Hello,
    HelloNo,
    HelloOk,
    HelloWait,
    Packet,
    Ping,
    Proof,
    RefusalCode,
)
from neo_common.wire.session import Ended, Greeting, Opened, Session, SessionEvent, Waiting

T0 = Seconds(0.0)
SECRET, OTHER = Secret("a secret of this test"), Secret("another one of this test")
HELLO = Hello(1, 1, (), Role.STORAGE, "s1", "test", bytes(16), NO_NODE, 7, NO_EPOCH, "")
OK = HelloOk(
    1, (), Role.MASTER, "m1", "test", bytes(16), node_id(Role.MASTER, 1), 1, NO_EPOCH, node_id(Role.STORAGE, 1)
)
N1, N2 = b"1" * 16, b"2" * 16


def dialler(secret: Secret | None = SECRET, hello: Hello = HELLO) -> Session:
    return Session(hello, True, now=T0, guard=Guard(secret, N1, hello.role) if secret else None)


def dialled(secret: Secret | None = SECRET) -> Session:
    return Session(None, False, now=T0, guard=Guard(secret, N2, Role.MASTER) if secret else None)


def pump(a: Session, b: Session) -> list[SessionEvent]:
    """Let both talk until they are silent; return the events of both, in order. Bytes come one at a time."""
    events: list[SessionEvent] = []
    while a.output_bytes or b.output_bytes:
        for giver, taker in ((a, b), (b, a)):
            for byte in b"".join(giver.take_output()):
                events += taker.receive(bytes((byte,)), T0)
    return events


def told(session: Session, *packets: Packet) -> list[SessionEvent]:
    return session.receive(MAGIC + b"".join(map(frame, packets)), T0)


def error_of(events: list[SessionEvent]) -> Exception:
    (ended,) = [e for e in events if isinstance(e, Ended)]
    return ended.error


def test_both_prove_it_then_the_handshake_goes_on() -> None:
    a, b = dialler(), dialled()
    assert pump(a, b) == [Greeting(HELLO)]
    b.accept(OK)
    assert pump(a, b) == [Opened(OK)]
    assert a.is_open
    assert b.is_open


def test_who_is_made_to_wait_has_seen_the_proof_first() -> None:
    a, b = dialler(), dialled()
    pump(a, b)
    b.wait(HelloWait("not yet"))
    assert pump(a, b) == [Waiting("not yet")]


@pytest.mark.parametrize(("ours", "theirs"), [p for p in permutations((SECRET, OTHER, None), 2)])
def test_no_other_pair_gets_in(ours: Secret | None, theirs: Secret | None) -> None:
    """The listener never says Greeting, the dialler is refused with SECRET."""
    a, b = dialler(ours), dialled(theirs)
    events = pump(a, b)
    assert not any(isinstance(e, Greeting | Opened | Waiting) for e in events)
    assert isinstance(a.error, HandshakeRefused)
    assert isinstance(b.error, HandshakeRefused)
    assert a.error.code == b.error.code == RefusalCode.SECRET
    assert "secret" in str(a.error)


def test_dialler_believes_nobody_who_has_not_proved_it() -> None:
    """Neither HelloOk nor HelloWait, before the proof, without a challenge, or with somebody else's proof."""
    for packet in (OK, HelloWait("please")):
        assert isinstance(error_of(told(dialler(), packet)), RemoteProtocolError)
        assert isinstance(error_of(told(dialler(), Challenge(Role.MASTER, N2), packet)), RemoteProtocolError)
    wrong = proof(
        Guard(OTHER, N2, Role.MASTER), of_dialler=False, dialler=N1, dialled=N2, dialled_role=Role.MASTER, hello=HELLO
    )
    for mac in (wrong, b"", bytes(32)):
        a = dialler()
        assert "another one" in str(error_of(told(a, Challenge(Role.MASTER, N2), Proof(mac), OK)))


def test_refusal_without_a_proof_is_heard_but_sends_nobody_elsewhere() -> None:
    error = error_of(told(dialler(), HelloNo(RefusalCode.NOT_PRIMARY, "go there", "evil:1")))
    assert isinstance(error, HandshakeRefused)
    assert error.primary == ""


def test_own_proof_sent_back_is_worth_nothing() -> None:
    """A mirror: who has no secret sends back nonce and proof."""
    a = dialler()
    told(a, Challenge(Role.STORAGE, N1))
    (sent,) = a.take_output()
    mine = sent[-(4 + 32) :][4:]
    assert frame(Proof(mine)) in sent
    assert isinstance(error_of(a.receive(frame(Proof(mine)), T0)), RemoteProtocolError)


def test_recorded_handshake_cannot_be_used_again() -> None:
    """With another nonce of the listener the same bytes are refused."""
    a, b = dialler(), dialled()
    recorded = b"".join(a.take_output())
    b.receive(recorded, T0)
    a.receive(b"".join(b.take_output()), T0)
    recorded += b"".join(a.take_output())
    again = Session(None, False, now=T0, guard=Guard(SECRET, b"3" * 16, Role.MASTER))
    assert isinstance(error_of(again.receive(recorded, T0)), HandshakeRefused)


def test_proof_covers_everything_that_hello_says() -> None:
    guard = Guard(SECRET, N1, Role.STORAGE)

    def mac(hello: Hello = HELLO, role: Role = Role.MASTER, of_dialler: bool = True, n1: bytes = N1) -> bytes:
        return proof(guard, of_dialler=of_dialler, dialler=n1, dialled=N2, dialled_role=role, hello=hello)

    others = [
        mac(HELLO._replace(role=Role.CLIENT)),
        mac(HELLO._replace(cluster="other")),
        mac(HELLO._replace(version_max=2)),
        mac(HELLO._replace(name="s2")),
        mac(HELLO._replace(node=node_id(Role.STORAGE, 4))),
        mac(role=Role.STORAGE),
        mac(of_dialler=False),
        mac(n1=N2),
    ]
    assert len({mac(), *others}) == len(others) + 1
    assert len(mac()) == 32


@pytest.mark.parametrize(
    "packets",
    [
        (Proof(b""),),
        (Challenge(Role.CLIENT, N1), Proof(b"")),
        (Challenge(Role.CLIENT, N1), Challenge(Role.CLIENT, N1)),
        (HELLO, Challenge(Role.CLIENT, N1)),
        (Challenge(Role.CLIENT, N1), HELLO, HELLO),
        (Challenge(Role.CLIENT, N1), HELLO, Challenge(Role.CLIENT, N1)),
        (Challenge(Role.CLIENT, N1), HELLO, OK),
        (Challenge(Role.CLIENT, N1), HELLO, Proof(bytes(31))),
        (Challenge(Role.CLIENT, N1), HELLO, Ping(), Proof(bytes(33))),
    ],
)
def test_any_other_order_ends_it(packets: tuple[Packet, ...]) -> None:
    b = dialled()
    assert isinstance(error_of(told(b, *packets)), RemoteProtocolError | HandshakeRefused)
    assert b.hello is None or not b.is_greeted


def test_slow_prover_is_cut_off_in_time() -> None:
    """Having said Hello is not enough to stay."""
    b = dialled()
    told(b, Challenge(Role.STORAGE, N1), HELLO)
    for second in range(1, 12):
        b.receive(frame(Ping()), Seconds(float(second)))
        events = b.tick(Seconds(float(second)))
        if events:
            break
    assert "no handshake within 10 s" in str(b.error)


def test_listener_that_changes_its_role_is_not_believed() -> None:
    a, b = dialler(), dialled()
    pump(a, b)
    b.accept(OK._replace(role=Role.ADMIN, node=node_id(Role.ADMIN, 1)))
    pump(a, b)
    assert "a MASTER says it is a ADMIN" in str(a.error)


def test_certificate_must_fit_what_is_said() -> None:
    """On both sides: role, cluster and, if it has one, name."""
    for identity, good in (
        (Identity("test", Role.STORAGE, "s1"), True),
        (Identity("test", Role.STORAGE), True),
        (Identity("test", Role.STORAGE, "s2"), False),
        (Identity("test", Role.CLIENT), False),
        (Identity("other", Role.STORAGE, "s1"), False),
    ):
        a, b = dialler(None), dialled(None)
        b.identity, a.identity = identity, Identity("test", Role.MASTER)
        greeted = pump(a, b) == [Greeting(HELLO)]
        assert greeted == good, identity
        if not greeted:
            assert isinstance(a.error, HandshakeRefused)
            assert a.error.code == RefusalCode.CERTIFICATE
            continue
        b.accept(OK)
        assert pump(a, b) == [Opened(OK)]
    a, b = dialler(None), dialled(None)
    a.identity = Identity("test", Role.CLIENT)
    pump(a, b)
    b.accept(OK)
    pump(a, b)
    assert "the certificate is for neo://test/client" in str(a.error)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "neo://",
        "neo://x",
        "neo://x/boss",
        "neo://x/client/",
        "neo://x/client/a/b",
        "https://x/client",
        "neo:///client",
    ],
)
def test_names_that_are_no_identity(uri: str) -> None:
    assert identity_of(uri) is None


def test_identity_survives_its_text() -> None:
    for identity in (Identity("a/b c%ü", Role.ADMIN, "x/y z"), Identity("s", Role.CLIENT)):
        assert identity_of(str(identity)) == identity


def test_secret_is_not_shown_nor_short() -> None:
    text = "correct horse battery staple"
    secret = Secret(f" {text}\n")
    guard = Guard(secret, N1, Role.CLIENT)
    session = Session(HELLO, True, guard=guard)
    for shown in (repr(secret), str(secret), repr(guard), repr(session), f"{secret}"):
        assert "horse" not in shown
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    assert secret.sign(b"x") == Secret(text).sign(b"x")
    with pytest.raises(ConfigError, match=r"has 5 characters, it needs 16: `neoadmin secret FILE`") as caught:
        Secret("short")
    assert "short" not in str(caught.value)
