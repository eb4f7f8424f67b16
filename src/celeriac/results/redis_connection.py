"""Connections to Redis: one socket each, with hiredis as parser, and the pool from which the drivers borrow them.

The Redis transport and store talk to a server through `Server`. It uses hiredis and a plain socket rather than a client
library: a command costs a third of the CPU time, a wait can listen to an interrupt beside the socket, and every
operation has a deadline.

Invariants: a connection that failed in any way is closed and never used again; none is used by a process that didn't
open it; whatever goes wrong becomes an `OperationalError` that names the URL without its password.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import hiredis

from celeriac.errors import OperationalError
from celeriac.results.redis_errors import FAILED_OVER, server_error
from celeriac.results.redis_locate import credentials, locate
from celeriac.results.redis_url import Settings

__all__ = ["Argument", "Connection", "Script", "Server", "open_connection", "run"]

Argument: TypeAlias = str | bytes | int | float
_pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)
_NOTHING = object()  # what the parser says while a reply is incomplete
#: Bytes per read from the socket.
_CHUNK = 65536
#: A connection that was idle this long is looked at before it is used: the server may have closed it. In seconds.
_IDLE = 0.05


class Connection:
    """One socket to the server. Not thread-safe: whoever has borrowed it has it alone."""

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self._socket = sock
        self.settings = settings
        self.pid = os.getpid()
        self.used_at = time.monotonic()
        self._pushes: list[Any] = []
        self._reader: Any = hiredis.Reader(notEnoughData=_NOTHING)

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __del__(self) -> None:
        self.close()  # of a thread that has ended

    def ask(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send commands in one piece; returns their replies, errors among them as they are."""
        try:
            self._socket.sendall(_packed(commands))
            return [self._reply() for _ in commands]
        except (OSError, hiredis.ProtocolError) as exc:
            raise self._failed(exc) from exc
        except BaseException:
            self.close()  # interrupted in between: its replies would be taken for those of the next command
            raise

    def send(self, commands: Sequence[Sequence[Argument]]) -> None:
        """Send commands whose replies `wait_push` will bring (subscribing)."""
        try:
            self._socket.sendall(_packed(commands))
        except OSError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: Exception) -> OperationalError:
        self.close()
        return OperationalError(f"{self.settings.url}: {_why(exc)}")

    def _reply(self) -> Any:
        reader = self._reader
        while True:
            reply = reader.gets()
            if reply is _NOTHING:
                self._feed()
            elif type(reply) is hiredis.PushNotification:
                self._pushes.append(reply)
            else:
                return reply

    def _feed(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._reader.feed(data)

    def take_pushes(self) -> list[Any]:
        """What came unasked and has been read already."""
        pushes, self._pushes = self._pushes, []
        return pushes

    def wait_push(self, timeout: float, other: int = -1) -> list[Any]:
        """What the server sends unasked; waits up to `timeout` seconds for the first, or until `other` is readable.

        On a connection with subscriptions and RESP2, what comes are plain lists.
        """
        self._parse()
        if self._pushes:
            return self.take_pushes()
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        if other >= 0:
            poller.register(other, select.POLLIN)
        try:
            ready = self._is_buffered() or poller.poll(max(0.0, timeout) * 1000)
            if ready is True or any(number == self._socket.fileno() for number, _ in ready):
                self._feed()
                self._parse()
        except (OSError, hiredis.ProtocolError) as exc:
            raise self._failed(exc) from exc
        return self.take_pushes()

    def _parse(self) -> None:
        while (push := self._reader.gets()) is not _NOTHING:
            self._pushes.append(push)

    def _is_buffered(self) -> bool:
        """Whether TLS has decrypted something that the socket no longer shows."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def is_usable(self) -> bool:
        """Whether an idle connection seems to be alive; asks the server when it was idle long."""
        idle = time.monotonic() - self.used_at
        if self.pid != os.getpid():
            return False
        if idle < _IDLE:
            return True
        if select.select([self._socket], [], [], 0)[0]:
            return False  # nothing was asked, so this is the end of the stream
        interval = self.settings.health_check_interval
        if interval and idle > interval:
            try:
                return bool(self.ask([("PING",)])[0] == b"PONG")
            except OperationalError:
                return False
        return True


def connect(settings: Settings, address: tuple[str, int] | str) -> socket.socket:
    """A connected socket, with TLS where it is asked for."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        sock = socket.create_connection(address, settings.connect_timeout)
    try:
        sock.settimeout(settings.connect_timeout)
        if isinstance(address, str):
            sock.connect(address)
        else:
            sock = _prepared(sock, settings, address[0])
        sock.settimeout(settings.timeout)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepared(sock: socket.socket, settings: Settings, host: str) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if settings.keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock if settings.tls is None else tls_context(settings.tls).wrap_socket(sock, server_hostname=host)


def tls_context(options: dict[str, Any]) -> ssl.SSLContext:
    """The TLS context of `ssl_*` options."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    reqs = options["ssl_cert_reqs"]
    checks_name = options.get("ssl_check_hostname", reqs == ssl.CERT_REQUIRED)
    context.check_hostname = str(checks_name).lower() in ("true", "1")
    context.verify_mode = reqs
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context


def open_connection(settings: Settings, *, pushes: bool = False) -> Connection:
    """A connection to the server, logged in.

    Args:
        pushes: Speak RESP3, so that the server may send what was not asked for; `Connection.wait_push` reads it.

    Raises:
        OperationalError: The server can't be reached, or doesn't let us in.
    """
    try:
        connection = Connection(settings, connect(settings, locate(settings, _ask)))
    except OSError as exc:
        raise OperationalError(f"Can't connect to {settings.url}: {_why(exc)}") from exc
    greeting = _greeting(settings, pushes)
    for reply in connection.ask(greeting) if greeting else ():
        if isinstance(reply, hiredis.ReplyError):
            connection.close()
            raise server_error(settings.url, str(reply))
    return connection


def _greeting(settings: Settings, pushes: bool) -> list[tuple[Argument, ...]]:
    user, password = credentials(settings)
    commands: list[tuple[Argument, ...]] = []
    if pushes:
        commands.append(("HELLO", 3, *(("AUTH", user or "default", password) if password else ())))
    elif password:
        commands.append(("AUTH", user, password) if user else ("AUTH", password))
    if settings.db:
        commands.append(("SELECT", settings.db))
    if settings.client_name:
        commands.append(("CLIENT", "SETNAME", settings.client_name))
    return commands


def _ask(settings: Settings, address: tuple[str, int], commands: Sequence[Sequence[Argument]]) -> list[Any]:
    """Ask a sentinel or a node of a cluster, on a connection of its own."""
    connection = Connection(settings, connect(settings, address))
    try:
        return connection.ask(commands)
    finally:
        connection.close()


def _packed(commands: Sequence[Sequence[Argument]]) -> bytes:
    if len(commands) == 1:
        return _pack(tuple(commands[0]))
    return b"".join([_pack(tuple(command)) for command in commands])


def _why(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return str(getattr(exc, "strerror", None) or exc) or type(exc).__name__


class Script:
    """A Lua script by its digest."""

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Server:
    """A Redis server, or whatever is master now behind sentinels or in a cluster: idle connections, and calls.

    May be used by any thread, and after a fork.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """For messages."""
        return self.settings.url

    def acquire(self) -> Connection:
        """Borrow a connection."""
        if self._pid != os.getpid():
            self._forget_parent()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return open_connection(self.settings)
            if connection.is_usable():
                return connection
            connection.close()

    def _forget_parent(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                # Closing our copies of the sockets tells the server nothing: the parent goes on with its own.
                for connection in self._idle:
                    connection.close()
                self._idle = []
                self._pid = os.getpid()

    def release(self, connection: Connection) -> None:
        """Give it back, in working order."""
        connection.used_at = time.monotonic()
        if len(self._idle) < self.settings.max_connections and connection.pid == self._pid:
            self._idle.append(connection)
        else:
            connection.close()

    def call(self, *command: Argument) -> Any:
        """The reply to one command.

        Raises:
            OperationalError: The server can't be reached or refuses.
        """
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The replies to several commands, sent at once. All are carried out, although one should fail."""
        connection = self.acquire()
        replies = connection.ask(commands)
        self.release(connection)
        for reply in replies:
            if type(reply) is hiredis.ReplyError:
                raise self.error(reply)
        return replies

    def transaction(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """The replies to several commands, of which the server carries out all or none, unless a key has a wrong type."""
        replies: list[Any] = self.pipeline([("MULTI",), *commands, ("EXEC",)])[-1]
        for reply in replies:
            if type(reply) is hiredis.ReplyError:
                raise self.error(reply)
        return replies

    def run(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """The reply of a script."""
        connection = self.acquire()
        reply = run(connection, script, keys, args)
        self.release(connection)
        if type(reply) is hiredis.ReplyError:
            raise self.error(reply)
        return reply

    def error(self, reply: hiredis.ReplyError) -> OperationalError:
        """What an error reply means. After a failover the next call looks for the new master."""
        if str(reply).startswith(FAILED_OVER):
            self.close()
        return server_error(self.url, str(reply))

    def close(self) -> None:
        """Close idle connections. Those in use are closed when they are given back to a full pool, or fail."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def run(connection: Connection, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
    """Run a script on this connection; the reply, or the error as it is. Loads it where the server doesn't know it."""
    reply = connection.ask([("EVALSHA", script.digest, len(keys), *keys, *args)])[0]
    if type(reply) is hiredis.ReplyError and str(reply).startswith("NOSCRIPT"):
        reply = connection.ask([("EVAL", script.source, len(keys), *keys, *args)])[0]
    return reply
