"""Packed tables: any update comes back, and the fast packing does what the reference does, on tables and on garbage."""

from hypothesis import given, settings
from hypothesis import strategies as st

from neo_common.model import _keys_c as fast
from neo_common.model import _keys_py as reference
from neo_common.model.partition_table import TableUpdate
from support.packets import outcome, spoilt, updates

WRONG = [None, True, -1, 7, 2**17 + 1, 2**32, 2**64, 1.5, b"", (), (1,), (1, 2), [1]]


@given(updates())
@settings(max_examples=400, deadline=None)
def test_any_update_comes_back(update: TableUpdate) -> None:
    packed = reference.encode_update(update)
    assert fast.encode_update(update) == packed
    assert repr(reference.decode_update(packed)) == repr(update)
    assert repr(fast.decode_update(packed)) == repr(update)


@given(updates(), st.data())
@settings(max_examples=300, deadline=None)
def test_spoilt_updates_are_judged_alike(update: TableUpdate, data: st.DataObject) -> None:
    packed = bytearray(reference.encode_update(update))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    for spoil in (bytes(packed), bytes(packed[: data.draw(st.integers(0, len(packed)))]), bytes(packed) + b"\1\0"):
        assert outcome(fast.decode_update, spoil) == outcome(reference.decode_update, spoil)


@given(st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_garbage_is_judged_alike(garbage: bytes) -> None:
    for head in ("", "00 01 01 01 04 02 05 00", "02 01 01 01 04"):  # good heads, the last before orders
        data = bytes.fromhex(head) + garbage
        assert outcome(fast.decode_update, data) == outcome(reference.decode_update, data)


@given(updates(), st.sampled_from(WRONG))
@settings(max_examples=150, deadline=None)
def test_updates_that_do_not_fit_are_refused_alike(update: TableUpdate, bad: object) -> None:
    for spoil in spoilt(update, bad):
        assert outcome(fast.encode_update, spoil) == outcome(reference.encode_update, spoil)
