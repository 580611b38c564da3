"""The nemesis's power cuts are real: what was synced is there afterwards, what was not is gone; a full disk is full."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.nemesis.images import Image, images_work


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    if not images_work(tmp_path):
        pytest.skip("only root may mount file systems, on loop devices")
    made = Image(tmp_path / "disk", 32)
    yield made
    made.close()


def test_a_power_cut_takes_what_was_not_synced(image: Image) -> None:
    with (image.path / "synced").open("wb") as file:
        file.write(b"kept")
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(image.path, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    (image.path / "not-synced").write_bytes(bytes(2**20))
    image.cut_power()
    assert (image.path / "synced").read_bytes() == b"kept"
    assert not (image.path / "not-synced").exists()


def test_a_full_disk_takes_nothing_until_it_is_emptied(image: Image) -> None:
    image.fill()
    with pytest.raises(OSError, match="No space"):
        (image.path / "more").write_bytes(bytes(2**22))
    image.empty()
    assert (image.path / "more").write_bytes(bytes(2**20)) == 2**20
