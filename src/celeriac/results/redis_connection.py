"""Connections to Redis, by redis-py with hiredis, and the pool from which the drivers borrow them.

The Redis transport and store talk to a server through `Server`. Of redis-py it uses the connection objects and not the
clients above them: these cost three times as much per command, and a wait has to listen to an interrupt beside the socket.

Invariants: a connection that failed in any way is closed and never used again; none is used by a process that didn't
open it; every operation has a deadline; whatever goes wrong becomes an `OperationalError` that names the URL without its
password.
"""

from __future__ import annotations

import hashlib
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import hiredis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from celeriac.errors import OperationalError
from celeriac.results.redis_errors import has_failed_over, server_error
from celeriac.results.redis_locate import open_redis
from celeriac.results.redis_url import Settings
from celeriac.timing import call_end, shortened

__all__ = ["Argument", "Connection", "Script", "Server", "open_connection", "run"]

Argument: TypeAlias = str | bytes | int | float
_pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)
#: A connection that was idle this long is looked at before it is used: the server may have closed it. In seconds.
_IDLE = 0.05
#: How long one that was idle for `health_check_interval` may take to answer, in seconds. Short: a silent server costs
#: this and then the timeout of a new connection.
_PING = 1.0
#: How long an event loop may be held up by a server that takes or gives only a part of something, in seconds.
_MOMENT = 0.25


class Connection:
    """One connection to the server. Not thread-safe: whoever has borrowed it has it alone."""

    def __init__(self, settings: Settings, inner: Any) -> None:
        self._inner = inner
        self.settings = settings
        self.pid = os.getpid()
        self.used_at = time.monotonic()

    def fileno(self) -> int:
        """For select."""
        number: int = self._inner.fileno()
        return number

    def close(self) -> None:
        """Close the socket."""
        self._inner.disconnect()

    def __del__(self) -> None:
        self.close()  # of a thread that has ended

    def ask(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send commands in one piece; returns their replies, errors among them as they are."""
        self.send(commands)
        return self.receive(len(commands))

    def send(self, commands: Sequence[Sequence[Argument]]) -> None:
        """Send commands whose replies `receive` will bring, or `wait_push` those of subscribing."""
        inner = self._inner
        try:
            self.set_timeout()
            inner.send_packed_command(_packed(commands), check_health=False)
        except (RedisError, OSError) as exc:
            raise self._failed(exc) from exc
        except BaseException:
            self.close()  # interrupted in between: its replies would be taken for those of the next command
            raise

    def set_timeout(self) -> None:
        """Let what follows last no longer than the present call may; each `delay()` comes here."""
        sock, timeout, end = self._inner._sock, self.settings.timeout, call_end.get()
        if sock is not None:  # `shortened`, without a call
            sock.settimeout(timeout if end is None else max(0.005, min(timeout, end - time.monotonic())))

    def receive(self, number: int) -> list[Any]:
        """The replies to so many commands that were sent; errors among them as they are."""
        inner = self._inner
        try:
            replies: list[Any] = []
            for _ in range(number):
                try:
                    replies.append(inner.read_response(disable_decoding=True))
                except ResponseError as exc:
                    replies.append(exc)
        except (RedisError, OSError) as exc:
            raise self._failed(exc) from exc
        except BaseException:
            self.close()  # interrupted in between: its replies would be taken for those of the next command
            raise
        return replies

    def send_at_once(self, command: Sequence[Argument], most: int) -> bool:
        """Send a command whose reply `read_reply` will bring, as an event loop may; False if it has more than `most` bytes."""
        packed = _pack(tuple(command))
        if len(packed) > most:
            return False
        try:
            self._inner._sock.settimeout(min(_MOMENT, self.settings.timeout))
            self._inner.send_packed_command([packed], check_health=False)
        except (RedisError, OSError) as exc:
            raise self._failed(exc) from exc
        return True

    def read_reply(self) -> Any:
        """The reply, of which at least a part has come; errors as they are."""
        try:
            return self._inner.read_response(disable_decoding=True)
        except ResponseError as exc:
            return exc
        except (RedisError, OSError) as exc:
            raise self._failed(exc) from exc

    def wait_push(self, timeout: float, other: int = -1) -> list[Any]:
        """What the server sends unasked; waits up to `timeout` seconds for the first, or until `other` is readable."""
        inner = self._inner
        pushes = []
        try:
            if not inner.can_read(0):
                poller = select.poll()
                poller.register(inner.fileno(), select.POLLIN)
                if other >= 0:
                    poller.register(other, select.POLLIN)
                poller.poll(max(0.0, timeout) * 1000)
            while inner.can_read(0):
                pushes.append(inner.read_response(disable_decoding=True, push_request=True))
        except (RedisError, OSError) as exc:
            raise self._failed(exc) from exc
        return pushes

    def _failed(self, exc: Exception) -> OperationalError:
        self.close()
        return server_error(self.settings.url, exc)

    def is_usable(self) -> bool:
        """Whether an idle connection seems to be alive, as far as its socket tells."""
        if self.pid != os.getpid():
            return False
        try:
            # Nothing was asked, so nothing may come.
            return time.monotonic() - self.used_at < _IDLE or not self._inner.can_read(0)
        except (RedisError, OSError):
            return False

    def answers(self) -> bool:
        """Whether the server answers, if the connection was idle so long that this has to be asked."""
        interval = self.settings.health_check_interval
        if not interval or time.monotonic() - self.used_at < interval:
            return True
        inner = self._inner
        try:
            inner.send_packed_command(_packed([("PING",)]), check_health=False)
            is_here: bool = inner.can_read(shortened(min(_PING, self.settings.timeout)))
            return is_here and bool(inner.read_response(disable_decoding=True) == b"PONG")
        except (RedisError, OSError):
            return False


def open_connection(settings: Settings, *, pushes: bool = False) -> Connection:
    """A connection to the server, logged in.

    Args:
        pushes: Speak RESP3, so that the server may send what was not asked for; `Connection.wait_push` reads it.

    Raises:
        OperationalError: The server can't be reached, or doesn't let us in.
    """
    try:
        return Connection(settings, open_redis(settings, protocol=3 if pushes else 2))
    except (RedisError, OSError) as exc:
        raise server_error(settings.url, exc, "Can't connect to ") from exc


def _packed(commands: Sequence[Sequence[Argument]]) -> list[bytes]:
    if len(commands) == 1:
        return [_pack(tuple(commands[0]))]
    return [b"".join([_pack(tuple(command)) for command in commands])]


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
                if connection.answers():
                    return connection
                self.close()  # the others were idle for longer
            connection.close()

    def acquire_idle(self) -> Connection | None:
        """Borrow one that is open and was used a moment ago; never waits."""
        if self._pid != os.getpid():
            return None
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        interval = self.settings.health_check_interval
        if connection.is_usable() and not (interval and time.monotonic() - connection.used_at >= interval):
            return connection
        connection.close()
        return None

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
        return self._without_errors(replies)

    def begin(self, commands: Sequence[Sequence[Argument]]) -> Callable[[], None]:
        """Send commands of which the server carries out all or none, unless a key has a wrong type; returns what waits for it.

        Raises:
            OperationalError: The server can't be reached or refuses. What is returned raises it, too.
        """
        if len(commands) > 1:
            commands = [("MULTI",), *commands, ("EXEC",)]
        connection = self.acquire()
        connection.send(commands)

        def wait() -> None:
            connection.set_timeout()
            replies = connection.receive(len(commands))
            self.release(connection)
            self._without_errors(replies)
            if len(commands) > 1:
                self._without_errors(replies[-1])

        return wait

    def _without_errors(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise self.error(reply)
        return replies

    def run(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """The reply of a script."""
        connection = self.acquire()
        reply = run(connection, script, keys, args)
        self.release(connection)
        if isinstance(reply, ResponseError):
            raise self.error(reply)
        return reply

    def error(self, reply: ResponseError) -> OperationalError:
        """What an error reply means. After a failover the next call looks for the new master."""
        if has_failed_over(reply):
            self.close()
        return server_error(self.url, reply)

    def close(self) -> None:
        """Close idle connections. Those in use are closed when they are given back to a full pool, or fail."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def run(
    connection: Connection,
    script: Script,
    keys: Sequence[Argument],
    args: Sequence[Argument],
    *ahead: Sequence[Argument],
) -> Any:
    """Run a script on this connection; the reply, or the error as it is. Loads it where the server doesn't know it.

    Args:
        ahead: Commands that go before it in the same packet; an error of theirs counts as the script's.
    """
    *before, reply = connection.ask([*ahead, ("EVALSHA", script.digest, len(keys), *keys, *args)])
    for error in before:
        if isinstance(error, ResponseError):
            return error
    if isinstance(reply, NoScriptError):
        reply = connection.ask([("EVAL", script.source, len(keys), *keys, *args)])[0]
    return reply
