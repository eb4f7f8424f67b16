"""A connection that is made when it is needed and replaced when it is lost: one for publishing, one for consuming.

Every part of the driver asks its `Link` for the connection and for answers to single requests. A link connects within the
caller's deadline, going through the endpoints in the order of the failover strategy; it never retries by itself, as its
callers do that. Nothing is left behind by a connection that has ended: its thread and its socket go with it.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from celeriac.errors import OperationalError
from celeriac.timing import Deadline, shortened
from celeriac.transport.amqp_channel import Channel
from celeriac.transport.amqp_connection import Connection
from celeriac.transport.amqp_request import Request
from celeriac.transport.amqp_url import Place

__all__ = ["Link"]


class Link:
    """The way to one broker.

    Args:
        place: Where it is.
        purpose: What the connection is for, as the server shows it.
    """

    def __init__(self, place: Place, purpose: str) -> None:
        self.place = place
        self._purpose = f"celeriac {purpose} {os.getpid()}"
        self._endpoints = place.order()
        self._connecting = threading.Lock()
        self._asking = threading.Lock()
        self._connection: Connection | None = None
        self._questions: Channel | None = None

    def deadline(self) -> Deadline:
        """The end of an operation that begins now."""
        return Deadline(shortened(self.place.options.timeout))

    def current(self) -> Connection | None:
        """The connection, if there is one that works."""
        connection = self._connection
        return connection if connection is not None and connection.error is None else None

    def connection(self, deadline: Deadline) -> Connection:
        """The connection, made anew if it is lost.

        Raises:
            OperationalError: No endpoint can be reached in time.
        """
        found = self.current()
        if found is not None:
            return found
        left = deadline.left()
        if not self._connecting.acquire(timeout=-1 if left is None else left):
            raise self._unreachable(deadline)
        try:
            found = self.current()
            if found is None:
                found = self._connection = self._connect(deadline)
                weakref.finalize(self, found.fail, "connection closed: it was forgotten")
            return found
        finally:
            self._connecting.release()

    def _unreachable(self, deadline: Deadline) -> OperationalError:
        seconds = deadline.seconds or 0.0
        return OperationalError(f"RabbitMQ at {self.place.masked} can't be reached within {seconds:.2g} s")

    def _connect(self, deadline: Deadline) -> Connection:
        """Try each endpoint once, giving each its share of the time that is left."""
        error: OperationalError | None = None
        for remaining in range(len(self.place.endpoints), 0, -1):
            left = deadline.left() or 0.0
            if left <= 0:
                break
            try:
                return Connection(next(self._endpoints), self._purpose, Deadline(left / remaining))
            except OperationalError as exc:
                error = exc
        raise error or self._unreachable(deadline)

    def channel(self, deadline: Deadline, *, confirms: bool = False) -> Channel:
        """A new channel; with `confirms`, for publishing."""
        return self.connection(deadline).channel(deadline, confirms=confirms)

    def ask(self, *requests: Request, deadline: Deadline | None = None) -> list[Any]:
        """Put questions on a channel that is kept for them, and wait for the answers.

        Raises:
            ChannelClosed: The server refuses one of them; those before it are done, those behind it are not.
            OperationalError: It can't be reached.
        """
        deadline = deadline or self.deadline()
        connection = self.connection(deadline)
        with connection.in_time(self._asking, deadline):
            channel = self._questions
            if channel is None or channel.error is not None or channel.connection is not connection:
                channel = self._questions = connection.channel(deadline)
            return channel.ask(deadline, *requests)

    def close(self) -> None:
        """Close the connection, if there is one. The next use makes another."""
        connection, self._connection, self._questions = self._connection, None, None
        if connection is not None and connection.error is None:
            connection.close()

    def abandon(self) -> None:
        """Forget the connection in a forked child: it is the parent's."""
        connection, self._connection, self._questions = self._connection, None, None
        if connection is not None:
            connection.abandon()
