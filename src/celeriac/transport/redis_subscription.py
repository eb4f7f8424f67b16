"""Listening to topics on Redis by PUB/SUB: what `RedisTransport.subscribe` returns.

A topic is an exchange or `exchange/routing.key`, so that stock Celery's fan-out channels are topics as well; one with `*`
is a pattern. Nothing is kept for absent ones: what is sent while the connection is away is missed, as with stock Celery.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Sequence

from celeriac.errors import OperationalError
from celeriac.results.redis_connection import Connection, Server, open_connection
from celeriac.transport.redis_keys import Keys

__all__ = ["RedisSubscription"]


class RedisSubscription:
    """A listener. One thread polls it; any may interrupt or close."""

    def __init__(self, server: Server, keys: Keys, topics: Sequence[str]) -> None:
        self._server = server
        self._keys = keys
        self._topics = list(topics)
        self._mine, self._yours = socket.socketpair()
        self._mine.setblocking(False)
        self._yours.setblocking(False)
        self._letters: list[tuple[str, bytes]] = []
        self._closed = False
        self._polling = threading.Lock()
        self._connection: Connection | None = None
        try:
            self._connection = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Connection:
        connection = open_connection(self._server.settings)
        channels = {topic: self._keys.channel(topic) for topic in self._topics}
        commands = [("PSUBSCRIBE" if "*" in topic else "SUBSCRIBE", channel) for topic, channel in channels.items()]
        connection.send(commands)
        confirmed, deadline = 0, time.monotonic() + connection.settings.timeout
        while confirmed < len(commands):
            confirmed += self._sort(connection.wait_push(deadline - time.monotonic()))
            if time.monotonic() > deadline:
                connection.close()
                raise OperationalError(f"{self._server.url}: no answer in time")
        return connection

    def _sort(self, pushes: Sequence[list[bytes]]) -> int:
        """Keep messages; returns how many subscriptions were confirmed."""
        confirmed = 0
        for push in pushes:
            if push[0] in (b"message", b"pmessage"):
                channel = push[-2].decode(errors="replace")
                self._letters.append((channel.removeprefix(self._keys.channel_prefix), push[-1]))
            elif push[0] in (b"subscribe", b"psubscribe"):
                confirmed += 1
        return confirmed

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was sent since the last poll; waits for the first. After a failure the next poll connects anew."""
        with self._polling:
            if self._closed:
                return []
            if self._connection is None:
                self._connection = self._connect()
            try:
                if not self._letters:
                    self._sort(self._connection.wait_push(wait, self._mine.fileno()))
            except OperationalError:
                self._connection = None
                raise
            with contextlib.suppress(BlockingIOError):
                self._mine.recv(4096)
            letters, self._letters = self._letters, []
            return letters

    def interrupt(self) -> None:
        """Make a poll that waits return."""
        with contextlib.suppress(OSError):
            self._yours.send(b"\0")

    def close(self) -> None:
        """Stop listening."""
        if self._closed:
            return
        self._closed = True
        self.interrupt()
        with self._polling:  # nothing is closed under a poll
            if self._connection is not None:
                self._connection.close()
            self._mine.close()
            self._yours.close()
