"""The checksum of stored bytes."""

from xxhash import xxh3_128_intdigest

from neo_common.checksum import CHECKSUM_BYTES, checksum


def test_it_is_xxh3_128_with_the_high_byte_first() -> None:
    """The value of the empty string is that of the specification of XXH3: what is on disk must stay readable."""
    assert checksum(b"").hex() == "99aa06d3014798d86001c324468d497f"
    assert checksum(b"neo") == xxh3_128_intdigest(b"neo").to_bytes(CHECKSUM_BYTES, "big")


def test_one_bit_makes_another_checksum() -> None:
    assert checksum(b"\0" * 4096) != checksum(b"\0" * 4095 + b"\1")
