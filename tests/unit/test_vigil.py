"""When a managed server hangs: never while it begins, repairs or stops, however long that takes."""

from signal import SIGKILL, SIGTERM, Signals

import pytest

from neo_storage.backends.mysql.vigil import Sign, Vigil

ANSWER, ABSENT, SILENCE = Sign.ANSWER, Sign.ABSENT, Sign.SILENCE


def signals(*signs: tuple[float, Sign]) -> list[tuple[float, Signals]]:
    """What a server gets that is looked at so: 100 s of silence, 20 s after SIGTERM, 600 s if it is stopping."""
    vigil = Vigil(0.0, silence_s=100.0, stop_s=20.0, patience_s=600.0)
    found = ((now, vigil.saw(sign, now)) for now, sign in signs)
    return [(now, number) for now, number in found if number is not None]


def every(seconds: float, sign: Sign, start: float, stop: float) -> list[tuple[float, Sign]]:
    return [(start + n * seconds, sign) for n in range(round((stop - start) / seconds))]


def test_silent_server_gets_sigterm_and_then_sigkill_once() -> None:
    assert signals(*every(10, ANSWER, 0, 50), *every(10, SILENCE, 50, 400)) == [(140.0, SIGTERM), (160.0, SIGKILL)]


@pytest.mark.parametrize("sign", [ABSENT, ANSWER])
def test_server_that_repairs_or_answers_is_left_alone(sign: Sign) -> None:
    assert signals(*every(10, sign, 0, 10_000)) == []


def test_one_answer_begins_the_silence_anew() -> None:
    assert signals(*every(10, SILENCE, 0, 100), (100.0, ANSWER), *every(10, SILENCE, 110, 200)) == []


def test_silence_counts_from_the_beginning_of_a_server_that_never_spoke() -> None:
    assert signals(*every(10, SILENCE, 0, 120)) == [(100.0, SIGTERM)]


def test_one_long_look_is_not_enough() -> None:
    """This process, or the machine, stood still: the server has not had its time either."""
    assert signals((0.0, ANSWER), (5000.0, SILENCE), (5001.0, SILENCE), (5002.0, ANSWER)) == []
    assert signals((0.0, ANSWER), (5000.0, SILENCE), (5001.0, SILENCE), (5002.0, SILENCE)) == [(5002.0, SIGTERM)]


def test_server_that_has_heard_sigterm_may_take_its_time_to_stop() -> None:
    signs = [*every(10, SILENCE, 0, 110), *every(10, ABSENT, 110, 690)]
    assert signals(*signs) == [(100.0, SIGTERM)]
    assert signals(*signs, (700.0, ABSENT), (710.0, ABSENT)) == [(100.0, SIGTERM), (700.0, SIGKILL)]
