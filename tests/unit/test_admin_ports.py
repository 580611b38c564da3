"""Ports of a local cluster: free, different, and out of the way of outgoing connections."""

import socket

from neo_admin.ports import HOST, ephemeral_start, free_ports


def test_ports_are_free_different_and_below_those_of_outgoing_connections() -> None:
    ports = free_ports(40)
    assert len(set(ports)) == 40
    assert max(ports) < ephemeral_start()
    for port in ports:
        with socket.socket() as probe:
            probe.bind((HOST, port))


def test_a_port_in_use_is_not_offered() -> None:
    with socket.socket() as taken:
        (port,) = free_ports(1)
        taken.bind((HOST, port))
        taken.listen()
        assert port not in free_ports(2000)
