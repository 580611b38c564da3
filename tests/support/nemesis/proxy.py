"""A TCP proxy in front of every node: links between any two processes are cut, half-cut, reset and slowed in it.

Whoever dials says who it is in its first packet, so one listener per node is enough to tell all its links apart. What
is sent into a cut link waits, as the kernel of a real machine would keep it, and arrives when the link is mended; a
half-cut link carries one direction only. Closing a connection does not pass a cut either.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from neo_common.states import Role
from neo_common.wire.codec import FrameReader
from neo_common.wire.schema import MAGIC, Hello

CLIENT = "client"
"""What all clients and admins are called."""
_CHUNK = 65536
_HELLO_S = 30.0
_T = TypeVar("_T")
Direction = tuple[str, str]


class _Link:
    """One connection through the proxy."""

    def __init__(self, source: str, target: str, writers: tuple[asyncio.StreamWriter, ...]) -> None:
        self.ends = {source, target}
        self.writers = writers

    def reset(self) -> None:
        """Break it off: both sides get a reset."""
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxies:
    """One for each node. Its methods may be called from any thread."""

    def __init__(self, routes: Mapping[str, tuple[int, int]]) -> None:
        """Listen; `routes` has for each node the port where others dial it and the one where it listens."""
        self._routes = dict(routes)
        self._gates: dict[Direction, asyncio.Event] = {}
        self._delays: dict[Direction, float] = {}
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._call(self._listen())

    def block(self, directions: Iterable[Direction]) -> None:
        """Let nothing pass from the first to the second of each."""
        self._do(lambda: self._set(directions, is_open=False))

    def unblock(self, directions: Iterable[Direction]) -> None:
        """Let what has waited pass."""
        self._do(lambda: self._set(directions, is_open=True))

    def slow(self, directions: Iterable[Direction], delay_s: float) -> None:
        """Delay each piece by so much; 0 ends it."""
        self._do(lambda: self._delays.update(dict.fromkeys(directions, delay_s)))

    def reset(self, one: str, two: str) -> None:
        """Break off all connections between two nodes."""
        self._do(lambda: self._reset({one, two}))

    def close(self) -> None:
        """End everything."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ------------------------------------------------------------------------------------------ in the loop's thread

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _do(self, action: Callable[[], object]) -> None:
        async def run() -> None:
            action()

        self._call(run())

    def _set(self, directions: Iterable[Direction], *, is_open: bool) -> None:
        for direction in directions:
            gate = self._gate(*direction)
            if is_open:
                gate.set()
            else:
                gate.clear()

    def _reset(self, ends: set[str]) -> None:
        for link in tuple(self._links):
            if link.ends == ends:
                link.reset()

    def _gate(self, source: str, target: str) -> asyncio.Event:
        gate = self._gates.get((source, target))
        if gate is None:
            gate = self._gates[source, target] = asyncio.Event()
            gate.set()
        return gate

    async def _listen(self) -> None:
        for name, (dialled, _) in self._routes.items():

            def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name) -> None:
                task = self._loop.create_task(self._serve(name, reader, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            self._servers.append(await asyncio.start_server(accepted, "127.0.0.1", dialled, backlog=512))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for link in tuple(self._links):
            link.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HELLO_S):
                begun, source = await _introduction(reader)
                await self._gate(source, target).wait()
                back_reader, back = await asyncio.open_connection("127.0.0.1", self._routes[target][1])
        except (OSError, EOFError, TimeoutError):
            writer.transport.abort()
            return
        link = _Link(source, target, (writer, back))
        self._links.add(link)
        back.write(begun)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(source, target, reader, back))
                group.create_task(self._pump(target, source, back_reader, writer))
        except* OSError:
            pass  # one end is gone: so is the other, below
        finally:
            self._links.discard(link)
            for each in link.writers:
                each.close()

    async def _pump(self, source: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate = self._gate(source, target)
        while True:
            error: OSError | None = None
            try:
                data = await reader.read(_CHUNK)
            except OSError as caught:
                data, error = b"", caught
            delay_s = self._delays.get((source, target), 0.0)
            if delay_s:
                await asyncio.sleep(delay_s)
            await gate.wait()
            if error is not None:
                raise error
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


async def _introduction(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """Return what a node has said so far, up to its Hello, and its name."""
    begun = await reader.readexactly(len(MAGIC))
    frames = FrameReader()
    while True:
        data = await reader.read(_CHUNK)
        if not data:
            raise EOFError
        begun += data
        for _, packet in frames.feed(data):
            if isinstance(packet, Hello):
                return begun, packet.name if packet.role in (Role.MASTER, Role.STORAGE) else CLIENT
            raise EOFError
