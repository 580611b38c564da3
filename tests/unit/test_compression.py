"""Values as they travel: compressed where that helps, verified, and never larger than allowed."""

import threading
import zlib

import pytest
import zstandard

from neo_common.compression import ABSENT, SMALL, compress, decompress, make_data, verify
from neo_common.errors import DataCorrupted
from neo_common.wire.schema import Compression, Data

NONE, ZLIB, ZSTD = Compression.NONE, Compression.ZLIB, Compression.ZSTD
TEXT = b"cmyapp.folder\nFolder\n" * 40
NOISE = bytes(zlib.crc32(bytes([n])) & 0xFF for n in range(200))


@pytest.mark.parametrize("preferred", [NONE, ZLIB, ZSTD])
def test_a_value_comes_back(preferred: Compression) -> None:
    compression, stored = compress(TEXT, preferred)
    assert compression is preferred
    assert decompress(compression, stored) == TEXT
    assert (len(stored) < len(TEXT)) == (preferred is not NONE)


@pytest.mark.parametrize("preferred", [ZLIB, ZSTD])
def test_small_values_and_noise_are_stored_as_they_are(preferred: Compression) -> None:
    assert compress(b"a" * (SMALL - 1), preferred) == (NONE, b"a" * (SMALL - 1))
    assert compress(b"a" * SMALL, preferred)[0] is preferred
    assert compress(NOISE, preferred) == (NONE, NOISE)


@pytest.mark.parametrize("preferred", [ZLIB, ZSTD])
def test_garbage_truncations_and_tails_are_corruption(preferred: Compression) -> None:
    _, stored = compress(TEXT, preferred)
    for spoilt in (b"", b"garbage", stored[:-1], stored[:5], stored + b"\0", stored[:9] + b"\xff\xff" + stored[11:]):
        with pytest.raises(DataCorrupted):
            decompress(preferred, spoilt)
    assert decompress(preferred, stored) == TEXT  # the context has survived


def test_a_bomb_is_not_unpacked() -> None:
    """Neither one that is honest about its size nor one that hides it."""
    size = 50 * 2**20
    packer = zstandard.ZstdCompressor().compressobj()  # a stream that does not know its size
    hidden = packer.compress(bytes(size)) + packer.flush()
    for compression, bomb in (
        (ZLIB, zlib.compress(bytes(size))),
        (ZSTD, zstandard.ZstdCompressor().compress(bytes(size))),
        (ZSTD, hidden),
    ):
        with pytest.raises(DataCorrupted):
            decompress(compression, bomb, 2**20)


@pytest.mark.parametrize("preferred", [NONE, ZLIB, ZSTD])
def test_the_limit_is_inclusive(preferred: Compression) -> None:
    compression, stored = compress(TEXT, preferred)
    assert decompress(compression, stored, len(TEXT)) == TEXT
    with pytest.raises(DataCorrupted):
        decompress(compression, stored, len(TEXT) - 1)


def test_an_absent_value_cannot_be_decompressed() -> None:
    with pytest.raises(DataCorrupted):
        decompress(Compression.ABSENT, b"")


def test_made_data_is_verified() -> None:
    data = make_data(TEXT, ZSTD)
    assert data.size == len(data.value) < len(TEXT)
    verify(data)
    for spoilt in (
        data._replace(value=data.value[:-1] + b"!"),
        data._replace(value=data.value[:-1]),
        data._replace(checksum=bytes(16)),
        data._replace(size=data.size + 1),
    ):
        with pytest.raises(DataCorrupted):
            verify(spoilt)


def test_an_empty_value_has_a_checksum_too() -> None:
    verify(make_data(b"", ZSTD))
    with pytest.raises(DataCorrupted):
        verify(Data(NONE, bytes(16), 0, b""))


def test_values_in_pieces_are_not_verified_here() -> None:
    verify(Data(NONE, bytes(16), 5 * 2**20, b""))


def test_an_absent_value_has_no_bytes() -> None:
    verify(ABSENT)
    for spoilt in (ABSENT._replace(value=b"x"), ABSENT._replace(size=1)):
        with pytest.raises(DataCorrupted):
            verify(spoilt)


def test_threads_do_not_share_a_context() -> None:
    """Contexts are handed from thread to thread, never held by two: large values let threads overlap."""
    values = [bytes([n]) * 300_000 + TEXT * n for n in range(8)]
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(30):
            compression, stored = compress(values[n], ZSTD)
            if decompress(compression, stored) != values[n]:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
