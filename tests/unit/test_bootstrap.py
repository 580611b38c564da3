"""The search for the primary: order, delays, hints, and the reason for people."""

from random import Random

import pytest

from neo_common.ids import Seconds
from neo_common.model.bootstrap import DELAY_MAX_S, DELAY_MIN_S, Attempt, Bootstrap
from neo_common.wire.schema import RefusalCode

A, B, C = "a:1", "b:1", "c:1"
T0 = Seconds(100.0)


def search(*masters: str, seed: int = 0) -> Bootstrap:
    return Bootstrap(masters or (A, B, C), Random(seed), T0)


def fail_round(bootstrap: Bootstrap, count: int, now: float) -> list[str]:
    """Let *count* attempts fail at *now*; return whom it wanted."""
    tried = []
    for _ in range(count):
        address, _ = bootstrap.next()
        bootstrap.failed(address, "refused", Seconds(now))
        tried.append(address)
    return tried


def test_every_master_is_tried_once_per_round_without_delay() -> None:
    bootstrap = search()
    assert bootstrap.next().not_before == T0
    tried = []
    for _ in range(3):
        address, not_before = bootstrap.next()
        assert not_before == T0
        assert bootstrap.next().address == address  # asking changes nothing
        bootstrap.failed(address, "refused", T0)
        tried.append(address)
    assert sorted(tried) == [A, B, C]


def test_clients_do_not_all_begin_at_the_same_master() -> None:
    assert {search(seed=seed).next().address for seed in range(50)} == {A, B, C}


def test_delay_between_rounds_grows_to_its_limit_with_jitter() -> None:
    bootstrap = search()
    now = float(T0)
    delays = []
    for _ in range(10):
        fail_round(bootstrap, 3, now)
        delays.append(bootstrap.next().not_before - now)
        now = bootstrap.next().not_before
    for turn, delay in enumerate(delays):
        full = min(DELAY_MAX_S, DELAY_MIN_S * 2**turn)
        assert full / 2 <= delay <= full
    assert len(set(delays)) == len(delays)


def test_two_seeds_wait_differently() -> None:
    waits = set()
    for seed in range(20):
        bootstrap = search(seed=seed)
        fail_round(bootstrap, 3, T0)
        waits.add(bootstrap.next().not_before)
    assert len(waits) > 10


def test_a_hint_is_followed_at_once_even_if_it_is_not_configured() -> None:
    bootstrap = search(A, B)
    first = bootstrap.next().address
    bootstrap.refused(first, RefusalCode.NOT_PRIMARY, "not me", "new:1", Seconds(101))
    address, not_before = bootstrap.next()
    assert address == "new:1"
    assert not_before <= 101
    bootstrap.connected("new:1", Seconds(102))
    assert bootstrap.is_connected
    assert bootstrap.why() == "connected to new:1"


def test_a_hint_to_who_comes_later_is_tried_once() -> None:
    bootstrap = search()
    first = bootstrap.next().address
    hint = next(a for a in (A, B, C) if a != first)
    bootstrap.refused(first, RefusalCode.NOT_PRIMARY, "not me", hint, T0)
    assert bootstrap.next().address == hint
    last = ({A, B, C} - {first, hint}).pop()
    assert fail_round(bootstrap, 2, T0) == [hint, last]
    assert bootstrap.next().not_before > T0


@pytest.mark.parametrize("names", [(A, B), (A, B, "x:1", "y:1")])
def test_masters_that_point_at_each_other_cannot_keep_us_running(names: tuple[str, ...]) -> None:
    bootstrap = search(A, B)
    now = float(T0)
    attempts = 0
    while now < T0 + 60:
        address, not_before = bootstrap.next()
        now = max(now, not_before)
        attempts += 1
        pointed = names[(names.index(address) + 1) % len(names)] if address in names else A
        bootstrap.refused(address, RefusalCode.NOT_PRIMARY, "not me", pointed, Seconds(now))
        assert attempts < 60 * 5, "it runs in circles"
    assert attempts > 20  # and it has not given up


def test_what_an_operator_must_mend_is_asked_slowly() -> None:
    bootstrap = search(A)
    bootstrap.refused(A, RefusalCode.CLUSTER, "another cluster", "", T0)
    assert bootstrap.next().not_before >= T0 + DELAY_MAX_S / 2


def test_lost_primary_is_tried_last_and_the_others_at_once() -> None:
    """It may hang: dialling it would take as long as noticing that did."""
    bootstrap = search()
    fail_round(bootstrap, 7, T0)
    primary = bootstrap.next().address
    bootstrap.connected(primary, Seconds(200))
    bootstrap.lost("cut", Seconds(300))
    assert not bootstrap.is_connected
    assert bootstrap.next().not_before == Seconds(300.0)
    tried = fail_round(bootstrap, 3, 300)
    assert tried[-1] == primary
    assert sorted(tried) == [A, B, C]
    assert bootstrap.next().not_before - 300 <= DELAY_MIN_S


def test_lost_primary_that_is_well_is_found_by_the_first_word_of_another() -> None:
    bootstrap = search()
    primary = bootstrap.next().address
    bootstrap.connected(primary, Seconds(200))
    bootstrap.lost("cut", Seconds(300))
    bootstrap.refused(bootstrap.next().address, RefusalCode.NOT_PRIMARY, "not me", primary, Seconds(300))
    assert bootstrap.next() == Attempt(primary, Seconds(300.0))


def test_a_connection_that_does_not_last_is_no_success() -> None:
    bootstrap = search(A)
    now = float(T0)
    waits = []
    for _ in range(8):
        bootstrap.connected(A, Seconds(now))
        bootstrap.lost("thrown out", Seconds(now + 0.01))
        waits.append(bootstrap.next().not_before - now - 0.01)
        now = bootstrap.next().not_before
    assert waits[-1] >= DELAY_MAX_S / 2
    assert waits[0] <= DELAY_MIN_S


def test_people_are_told_why() -> None:
    bootstrap = search(A, B)
    assert "not tried yet" in bootstrap.why()
    first = bootstrap.next().address
    bootstrap.failed(first, "Connection refused", T0)
    second = bootstrap.next().address
    bootstrap.waiting(second, "2 of 3 storages are missing")
    why = bootstrap.why()
    assert f"{first}: Connection refused" in why
    assert f"{second}: waits: 2 of 3 storages are missing" in why
    bootstrap.connected(second, T0)
    bootstrap.lost("silent for 6.0 s", Seconds(200))
    assert bootstrap.why() == f"no connection to the primary ({second}: lost: silent for 6.0 s)"


def test_what_is_remembered_for_people_is_bounded() -> None:
    bootstrap = search(A)
    for n in range(1000):
        bootstrap.refused(bootstrap.next().address, RefusalCode.NOT_PRIMARY, "not me", f"hint:{n}", T0)
    assert len(bootstrap.why()) < 200
