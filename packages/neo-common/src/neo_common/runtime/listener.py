"""Accepting: one greenlet per address that hands each new socket to its owner."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import gevent
from gevent import socket as gsocket

from neo_common.errors import ConfigError
from neo_common.model.address import Address, parse
from neo_common.runtime.address import Target, resolve, text_of
from neo_common.runtime.greenlets import Greenlets

log = logging.getLogger("neo.runtime")
_BACKLOG: Final = 512
_PAUSE_MAX_S: Final = 1.0


class Listener:
    """The addresses where a node can be dialled."""

    def __init__(
        self, addresses: Sequence[str], accepted: Callable[[gsocket.socket, str], None], greenlets: Greenlets
    ) -> None:
        """Listen at *addresses*; *accepted(socket, address of the peer)* takes each socket over."""
        self._wanted = tuple(addresses)
        self._accepted = accepted
        self._greenlets = greenlets
        self._sockets: list[gsocket.socket] = []
        self._loops: list[gevent.Greenlet] = []
        self._paths: list[str] = []
        self.addresses: tuple[str, ...] = ()
        """Where it listens, with the ports that were chosen for port 0."""

    def start(self) -> None:
        """Bind and listen.

        Raises: ConfigError if an address is wrong, unknown or in use.
        """
        found: list[str] = []
        for text in self._wanted:
            wanted = parse(text)
            try:
                targets = resolve(wanted)
                for target in targets:
                    sock = self._bind(target, wanted)
                    self._sockets.append(sock)
                    name = text_of(target.family, sock.getsockname())
                    if not wanted.path and not wanted.port:  # the other sockets of this name get the same port
                        wanted = Address(wanted.host, sock.getsockname()[1])
                    found.append(name)
                    self._loops.append(self._greenlets.spawn(f"listener {name}", self._accept, sock, name))
            except OSError as error:
                self.close()
                raise ConfigError(f"cannot listen at {text}: {error.strerror or error}") from error
        self.addresses = tuple(found)

    def close(self) -> None:
        """Stop; sockets that were handed over are not touched."""
        gevent.killall(self._loops)
        for sock in self._sockets:
            sock.close()
        for path in self._paths:
            if os.path.exists(path):
                os.unlink(path)
        self._loops, self._sockets, self._paths = [], [], []

    def _bind(self, target: Target, wanted: Address) -> gsocket.socket:
        sock = gsocket.socket(target.family, socket.SOCK_STREAM)
        try:
            if target.family == socket.AF_UNIX:
                self._remove_stale(wanted.path)
                sock.bind(wanted.path)
                self._paths.append(wanted.path)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if target.family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sockaddr = target.sockaddr
                assert not isinstance(sockaddr, str)
                sock.bind((sockaddr[0], wanted.port, *sockaddr[2:]))
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        return sock

    def _remove_stale(self, path: str) -> None:
        """Remove the socket of a process that is gone; a living one keeps its own, and our bind fails."""
        if not os.path.exists(path):
            return
        with gsocket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)

    def _accept(self, sock: gsocket.socket, name: str) -> None:
        pause_s = 0.1
        while True:
            try:
                peer, sockaddr = sock.accept()
            except ConnectionAbortedError:
                continue  # it went away before we looked
            except OSError as error:
                # Out of files or memory: those who are in go on, new ones wait.
                log.warning("%s cannot accept: %s; again in %.1f s", name, error.strerror or error, pause_s)
                gevent.sleep(pause_s)
                pause_s = min(_PAUSE_MAX_S, pause_s * 2)
                continue
            pause_s = 0.1
            self._accepted(peer, text_of(sock.family, sockaddr) if sockaddr else name)
