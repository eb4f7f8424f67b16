"""How a fetch that found nothing waits: it is told of the next change of the lists, and takes nothing itself.

The Redis transport has a bell for each thread that waits. Stock clients only push to lists, and a blocking pop would
carry the message into this process, where a kill loses it. So the bell's connection uses CLIENT TRACKING: before the script
that may find the lists empty it reads them, and the server sends this connection one notice when one of them, or the
agenda, changes. Nothing is taken, no change after the reading goes unnoticed, one connection serves any number of
queues, and the server's configuration is left alone. Only what is read so is told of (OPTIN): the script reads keys, too,
that change at the end of each task. From a stock client's push to the fetched message takes well under a
millisecond. Where the server refuses tracking (before Redis 6, some proxies) the bell looks every `polling_interval`.

All idle workers hear of each push, although one of them gets the message. One that came in vain several times in a row
therefore pauses before it listens again, 50 ms at most: in that time others listen, and if all are busy, it comes back.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence

from redis.exceptions import ResponseError

from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.results.redis_connection import Argument, Connection, Script, Server, open_connection, run

__all__ = ["Bell"]

logger = get_logger("celeriac.transport.redis")

#: Pause after the second vain call in a row, doubled with each further one up to the last. In seconds.
FIRST_REST, LAST_REST = 0.001, 0.05
#: A wait that lasted this long makes a vain call no longer one of a row. In seconds.
CALM = 1.0
#: Seconds of idleness after which the connection is asked whether it is alive.
_IDLE = 5.0
#: The next command's keys are to be listened to.
_THE_NEXT = ("CLIENT", "CACHING", "YES")


class Bell:
    """A connection that hears of changes. Used by one thread at a time; any thread may `interrupt`."""

    def __init__(self, server: Server, polling_interval: float) -> None:
        self._server = server
        self._polling_interval = polling_interval
        self._mine, self._yours = socket.socketpair()
        self._mine.setblocking(False)
        self._yours.setblocking(False)
        self.pid = os.getpid()
        self.is_told = True
        self._vain = 0
        self._expects = False
        self._used_at = time.monotonic()
        try:
            self._connection = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Connection:
        settings = self._server.settings
        try:
            connection = open_connection(settings, pushes=True)
            replies = connection.ask([("CLIENT", "TRACKING", "ON", "OPTIN"), _THE_NEXT])
            reply = next((reply for reply in replies if isinstance(reply, Exception)), None)
        except OperationalError as exc:
            connection, reply = open_connection(settings), exc  # fails as well if the server is away
        if isinstance(reply, Exception):
            self.is_told = False
            logger.warning(
                "%s refuses CLIENT TRACKING, so workers look for messages every %g s: %s",
                settings.url, self._polling_interval, reply,
            )  # fmt: skip
        return connection

    def is_usable(self) -> bool:
        """Whether it still works, as far as can be told."""
        if self.pid != os.getpid():
            return False
        if time.monotonic() - self._used_at > _IDLE:
            try:
                return bool(self._connection.ask([("PING",)])[0] == b"PONG")
            except OperationalError:
                return False
        return True

    def run(
        self, script: Script, keys: Sequence[Argument], args: Sequence[Argument], listened: Sequence[Argument] = ()
    ) -> list[bytes | int]:
        """Run a script; the `listened` keys are listened to from just before it, until one of them has changed."""
        ahead = (_THE_NEXT, ("EXISTS", *listened)) if listened and self.is_told else ()
        reply = run(self._connection, script, keys, args, *ahead)
        self._used_at = time.monotonic()
        if isinstance(reply, ResponseError):
            raise self._server.error(reply)
        found: list[bytes | int] = reply
        return found

    def wait(self, timeout: float) -> None:
        """Return when something has changed, on `interrupt`, or after `timeout` seconds."""
        started = time.monotonic()
        if self._vain > 1:
            rest = min(LAST_REST, FIRST_REST * 2.0 ** min(self._vain - 2, 10))
            if self._is_interrupted(min(timeout, rest)):
                return
        left = timeout - (time.monotonic() - started)
        if left > 0:
            if self.is_told:
                self._connection.wait_push(left, self._mine.fileno())
            else:
                self._is_interrupted(min(left, self._polling_interval))
        self._vain = 1 if time.monotonic() - started > CALM else self._vain + 1
        self._expects = False
        self._clear()

    def satisfied(self, *, more: bool) -> None:
        """The call was not in vain; `more`: the next one will not be, either, as far as can be told."""
        self._vain = 0
        self._expects = more

    @property
    def is_hopeful(self) -> bool:
        """Whether the next look is likely to find something. It need not listen: what is taken is a change as well."""
        return self.is_told and (self._expects or self._vain == 1)

    def _is_interrupted(self, timeout: float) -> bool:
        return bool(select.select([self._mine], [], [], max(0.0, timeout))[0])

    def _clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._mine.recv(4096)

    def interrupt(self) -> None:
        """Make a `wait` return at once."""
        with contextlib.suppress(OSError):
            self._yours.send(b"\0")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if hasattr(self, "_connection"):
            self._connection.close()
        self._mine.close()
        self._yours.close()
