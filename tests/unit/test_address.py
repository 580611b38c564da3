"""Addresses as people write them."""

import pytest

from neo_common.errors import ConfigError
from neo_common.model.address import Address, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("db.example:2051", Address("db.example", 2051)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("unix:/run/neo:1.sock", Address("", 0, "/run/neo:1.sock")),
    ],
)
def test_addresses_are_read_and_written(text: str, address: Address) -> None:
    assert parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", ":1", "host:", "host:x", "host:-1", "host:65536", "host:\u0661", "::1:2051", "unix:", "unix:relative"],
)
def test_what_is_no_address_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        parse(text)
