"""Ports that are kept for the daemons of a test."""

import socket
import sys

import pytest

from neo_admin.ports import HOST, free_ports
from support.ports import hold_ports

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ports are found, not kept")


@linux_only
def test_nobody_finds_it_free() -> None:
    (port,) = hold_ports(1)
    with socket.socket() as probe, pytest.raises(OSError, match="in use"):
        probe.bind((HOST, port))
    assert port not in hold_ports(200)


def test_a_daemon_can_listen_there_and_again_after_its_death() -> None:
    (port,) = hold_ports(1)
    for _ in range(2):
        with socket.socket() as daemon:
            daemon.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            daemon.bind((HOST, port))
            daemon.listen()
            with socket.create_connection((HOST, port)) as client:
                daemon.accept()[0].close()
                assert client.recv(1) == b""


@linux_only
def test_two_who_found_the_same_do_not_both_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (taken,) = hold_ports(1)
    (other,) = free_ports(1)
    found = iter([[taken], [other]])
    monkeypatch.setattr("support.ports.free_ports", lambda count: next(found))
    assert hold_ports(1) == [other]
