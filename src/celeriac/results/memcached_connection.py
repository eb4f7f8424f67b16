"""Talking to memcached servers: its text protocol, in batches of commands per round trip, with one deadline per batch.

The memcached store calls it. The usual clients send one compare-and-swap per round trip; here a batch of commands goes out
in one write and the answers come in one read, which is what makes storing outcomes in batches worth it. Connections are
pooled, never shared between threads or over a fork. Invariant: an error closes the connection, so no answer is ever
taken for that of a later command.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence

import msgspec

from celeriac.errors import CeleriacError, MessageTooLarge, OperationalError

__all__ = ["Address", "Node", "Settings", "node_for"]

#: (host, port), or the path of a Unix socket.
Address = tuple[str, int] | str
#: Idle connections that a node keeps.
KEPT = 8


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to all nodes.

    Attributes:
        timeout: Seconds that a batch may take, connecting included.
        tls: For servers that want TLS, or None.
    """

    timeout: float = 4.0
    connect_timeout: float = 4.0
    tls: ssl.SSLContext | None = None


class _Connection:
    """One connection. Answers are lines, and values of a length that their line tells."""

    def __init__(self, address: Address, settings: Settings) -> None:
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.settimeout(settings.connect_timeout)
                self._socket.connect(address)
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(address, settings.connect_timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if settings.tls is not None:  # which closes the socket if it fails
                self._socket = settings.tls.wrap_socket(self._socket, server_hostname=address[0])
        self._buffer = bytearray()

    def is_fresh(self) -> bool:
        """Whether the server has said nothing meanwhile; an end counts as something."""
        return not select.select([self._socket], [], [], 0)[0]

    def send(self, data: bytes, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(data)

    def _receive(self, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("it closed the connection")
        self._buffer += data

    def line(self, deadline: float) -> bytes:
        while True:
            end = self._buffer.find(b"\r\n")
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 2]
                return line
            self._receive(deadline)

    def value(self, length: int, deadline: float) -> bytes:
        while len(self._buffer) < length + 2:
            self._receive(deadline)
        value = bytes(self._buffer[:length])
        del self._buffer[: length + 2]
        return value

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


class Node:
    """One server and the idle connections to it."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self.address = address
        self.name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self._settings = settings
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._pid = os.getpid()

    def gets(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
        """Values and their versions, by key, of those keys that there are."""
        command = b"gets " + b" ".join(keys) + b"\r\n"
        found = {}
        connection, deadline = self._sent(command)
        with self._returned(connection):
            while (line := self._checked(connection.line(deadline))) != b"END":
                _, key, _, length, version = line.split(b" ")
                found[key] = (connection.value(int(length), deadline), version)
        return found

    def run(self, commands: Sequence[bytes]) -> list[bytes]:
        """The answers to commands that are answered by one line each."""
        connection, deadline = self._sent(b"".join(commands))
        with self._returned(connection):
            return [self._checked(connection.line(deadline)) for _ in commands]

    def stats(self) -> dict[bytes, bytes]:
        """What the server tells about itself."""
        found = {}
        connection, deadline = self._sent(b"stats\r\n")
        with self._returned(connection):
            while (line := self._checked(connection.line(deadline))) != b"END":
                _, name, value = line.split(b" ", 2)
                found[name] = value
        return found

    def time(self) -> float:
        """Seconds since 1970 by the server's clock, which it tells in whole seconds; the middle of this one."""
        return int(self.stats()[b"time"]) + 0.5

    def _sent(self, data: bytes) -> tuple[_Connection, float]:
        """A connection on which `data` is sent, and until when it must be answered."""
        deadline = time.monotonic() + self._settings.timeout
        connection = self._take()
        if connection is None:
            with self._mapped(None):
                connection = _Connection(self.address, self._settings)
        with self._mapped(connection):
            connection.send(data, deadline)
        return connection, deadline

    def _take(self) -> _Connection | None:
        """An idle connection that is still good, or None."""
        with self._lock:
            if self._pid != os.getpid():  # after a fork: the parent's, which goes on using them
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if connection.is_fresh():
                    return connection
                connection.close()
        return None

    @contextlib.contextmanager
    def _returned(self, connection: _Connection) -> Iterator[None]:
        """Keeps the connection for the next call, unless the block raises."""
        with self._mapped(connection):
            yield
        with self._lock:
            if len(self._idle) < KEPT and self._pid == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    @contextlib.contextmanager
    def _mapped(self, connection: _Connection | None) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            if connection is not None:
                connection.close()
            if isinstance(exc, OSError):
                text = "no answer in time" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
                raise OperationalError(f"memcached at {self.name} can't be reached: {text}.") from exc
            if isinstance(exc, ValueError) and not isinstance(exc, CeleriacError):
                raise OperationalError(f"{self.name} does not answer as a memcached server does.") from exc
            raise

    def _checked(self, line: bytes) -> bytes:
        if not line.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")):
            return line
        text = line.decode(errors="replace")
        if b"too large" in line:
            raise MessageTooLarge(f"A result is larger than memcached at {self.name} takes (its option -I): {text}.")
        raise OperationalError(f"memcached at {self.name} refuses: {text}.")

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


def node_for(key: bytes, nodes: Sequence[Node]) -> Node:
    """The node that has a key: the one with the highest hash, so that a node more or less moves few keys."""
    if len(nodes) == 1:
        return nodes[0]
    return max(nodes, key=lambda node: hashlib.blake2b(node.name.encode() + b"\0" + key, digest_size=8).digest())
