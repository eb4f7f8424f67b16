"""A TCP proxy on loopback that misbehaves on request: what a bad network does to a broker connection.

A test puts it between a driver and its server and then cuts, stalls, slows, slices or refuses. It runs an event loop in
a thread of its own; every method may be called from any thread and has taken effect when it returns.
"""

from __future__ import annotations

import asyncio
import enum
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["FaultProxy", "Side"]

T = TypeVar("T")

#: Most that is forwarded in one piece.
_CHUNK = 65536
#: SO_LINGER with zero seconds: closing sends RST, as if the peer's machine had gone.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Side(enum.Enum):
    """An end of a proxied connection."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(slots=True)
class _Weather:
    """How connections behave now. One object for all of them, so that a change reaches those that exist."""

    flowing: asyncio.Event
    latency: float = 0.0
    bandwidth: float = 0.0  # bytes a second; 0 is unlimited
    largest_piece: int = 0  # 0 is unlimited
    bytes_left: int | None = None  # until everything is reset
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def piece(self, data: bytes) -> bytes:
        """What of `data` is forwarded next."""
        if not self.largest_piece:
            return data
        return data[: self.random.randint(1, self.largest_piece)]


@dataclass(slots=True, eq=False)
class _Connection:
    client: asyncio.StreamWriter
    task: asyncio.Task[None]
    server: asyncio.StreamWriter | None = None
    ended: set[Side] = field(default_factory=set)  # sides that were told that nothing more comes

    def writers(self) -> list[asyncio.StreamWriter]:
        return [writer for writer in (self.client, self.server) if writer is not None]

    def writer(self, side: Side) -> asyncio.StreamWriter | None:
        return self.client if side is Side.CLIENT else self.server

    def end(self, side: Side) -> None:
        """Send this side an end of stream (FIN)."""
        writer = self.writer(side)
        if writer is not None and side not in self.ended and not writer.transport.is_closing():
            self.ended.add(side)
            writer.write_eof()

    def close(self) -> None:
        """Close both sides once they have what was forwarded."""
        for writer in self.writers():
            writer.close()

    def reset(self) -> None:
        """Close both sides with RST; what was not sent yet is lost."""
        for writer in self.writers():
            if not writer.transport.is_closing():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class FaultProxy:
    """Forwards 127.0.0.1:`port` to a server, as badly as the test asks.

    Example:
        with FaultProxy(6379) as proxy:
            transport = open_transport(f"redis://127.0.0.1:{proxy.port}/0", {})
            proxy.cut()
    """

    def __init__(self, server_port: int, server_host: str = "127.0.0.1") -> None:
        self._server = (server_host, server_port)
        self._loop = asyncio.new_event_loop()
        self._weather = _Weather(flowing=asyncio.Event())
        self._connections: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self._accepted = 0
        self._forwarded = {Side.CLIENT: 0, Side.SERVER: 0}
        # Bound but never listening: while the proxy refuses, nobody else is given its port.
        self._holder = _bound_socket(0)
        self.port: int = self._holder.getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fault-proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Reset all connections and free the port."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    # What a test asks for.

    def heal(self) -> None:
        """Forward everything at full speed; accept connections again. Connections that were reset stay so."""
        self._run(self._heal())

    def cut(self) -> None:
        """Reset all connections now. New ones are accepted as before."""
        self._run(self._cut())

    def deaf(self) -> None:
        """Accept, and keep connections open, but forward nothing in either direction until healed."""
        self._run(self._set_flowing(False))

    def refuse(self) -> None:
        """Reset all connections and refuse new ones until healed."""
        self._run(self._refuse())

    def slow(self, latency: float = 0.0, bandwidth: float = 0.0) -> None:
        """Delay each piece by `latency` seconds, and let at most `bandwidth` bytes a second through (0: all)."""
        self._run(self._set(latency=latency, bandwidth=bandwidth))

    def slice(self, largest: int) -> None:
        """Forward in pieces of 1 to `largest` bytes, each in a packet of its own."""
        self._run(self._set(largest_piece=largest))

    def half_close(self, side: Side) -> None:
        """Tell this side of all connections that nothing more will come; what it sends is still forwarded."""
        self._run(self._half_close(side))

    def drop_after(self, count: int) -> None:
        """Forward `count` more bytes, counted over all connections and both directions, then reset them all."""
        self._run(self._set(bytes_left=count))

    # What a test can see.

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._run(self._get(lambda: len(self._connections)))

    @property
    def accepted(self) -> int:
        """How many connections were ever accepted."""
        return self._run(self._get(lambda: self._accepted))

    def forwarded(self, to: Side) -> int:
        """How many bytes this side was sent."""
        return self._run(self._get(lambda: self._forwarded[to]))

    # In the proxy's thread.

    def _run(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(timeout=30)

    async def _get(self, question: Callable[[], T]) -> T:
        return question()

    async def _set(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self._weather, name, value)

    async def _set_flowing(self, flowing: bool) -> None:
        if flowing:
            self._weather.flowing.set()
        else:
            self._weather.flowing.clear()

    async def _heal(self) -> None:
        await self._set(latency=0.0, bandwidth=0.0, largest_piece=0, bytes_left=None)
        await self._set_flowing(True)
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, sock=_bound_socket(self.port))

    async def _cut(self) -> None:
        for connection in self._connections:
            connection.reset()
            connection.task.cancel()
        self._connections.clear()

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._cut()

    async def _half_close(self, side: Side) -> None:
        for connection in self._connections:
            connection.end(side)

    async def _stop(self) -> None:
        await self._refuse()
        for _ in range(
            10
        ):  # what was just accepted makes itself known after a few turns: cancelled before, it stays open
            await asyncio.sleep(0)
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(client=writer, task=task)
        self._connections.add(connection)
        self._accepted += 1
        try:
            await self._weather.flowing.wait()
            server_reader, connection.server = await asyncio.open_connection(*self._server)
            await asyncio.gather(
                self._pump(reader, connection, Side.SERVER),
                self._pump(server_reader, connection, Side.CLIENT),
            )
            connection.close()
        except (OSError, asyncio.CancelledError):
            connection.reset()  # a connection that ends badly is what this is for
        finally:
            self._connections.discard(connection)

    async def _pump(self, reader: asyncio.StreamReader, connection: _Connection, to: Side) -> None:
        while data := await reader.read(_CHUNK):
            while data:
                await self._weather.flowing.wait()
                piece = self._weather.piece(data)
                data = data[len(piece) :]
                await self._forward(piece, connection, to)
        await self._weather.flowing.wait()
        connection.end(to)

    async def _forward(self, piece: bytes, connection: _Connection, to: Side) -> None:
        weather, writer = self._weather, connection.writer(to)
        delay = weather.latency + (len(piece) / weather.bandwidth if weather.bandwidth else 0.0)
        if delay:
            await asyncio.sleep(delay)
        if weather.bytes_left is not None:
            piece = piece[: weather.bytes_left]
            weather.bytes_left -= len(piece)
        if writer is not None and to not in connection.ended:
            writer.write(piece)
            self._forwarded[to] += len(piece)
            await writer.drain()
        if weather.bytes_left == 0:
            weather.bytes_left = None
            await self._cut()
        elif weather.largest_piece:
            await asyncio.sleep(0)  # let the piece leave before the next is written


def _bound_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
