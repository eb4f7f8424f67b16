"""Leases that outlast the server's `consumer_timeout`, and starts that are counted although the whole worker dies.

RabbitMQ closes a channel on which a message has been unacknowledged for too long (30 minutes by default), and keeps no
count of deliveries in classic queues. For both the driver moves a message that it holds: a copy with its counts goes to a
queue that only one channel ever consumes (`<queue>.running.<id>`), comes back at once as a delivery with an age of zero, and
the original is acknowledged. If that channel is lost, the copy becomes ready again, its time to live there is long over, and
the server puts it back on its real queue.

Invariant: the copy is confirmed and in our hands before the original is acknowledged. What comes to a channel and is not
waited for has its original elsewhere, so it may be dropped; for that a new channel never consumes an old one's queues.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

from celeriac.errors import OperationalError
from celeriac.timing import Deadline
from celeriac.transport.amqp_channel import Channel, Letter, Pushed
from celeriac.transport.amqp_consumer import Consumer
from celeriac.transport.amqp_field import decode_properties, encode_properties
from celeriac.transport.amqp_message import own_headers, to_properties
from celeriac.transport.amqp_publisher import Publisher
from celeriac.transport.amqp_request import Request, consume, declare_queue
from celeriac.transport.amqp_session import Entry

__all__ = ["Parking"]

#: Names a copy, so that it is recognized when it comes back.
MOVE = "x-celeriac-move"
#: A copy waits for its owner this many times longer than the driver's timeout before it returns to its real queue.
PATIENCE = 1.5
#: Milliseconds that a queue without an owner is kept.
EXPIRES = 600_000


class Parking:
    """Moves messages of one consumer to queues of its own."""

    def __init__(self, consumer: Consumer, publisher: Publisher) -> None:
        self._consumer = consumer
        self._publisher = publisher
        self._id = ""  # of the channel
        self._channel: Channel | None = None
        self._queues: set[str] = set()
        self._moving = threading.Lock()

    def move(self, entries: Sequence[Entry], starts: Sequence[int]) -> None:
        """Move entries, noting that they were started so often.

        Raises:
            OperationalError: The broker can't be reached; nothing has changed.
        """
        if not entries:
            return
        deadline = self._consumer.link.deadline()
        with self._consumer.link.connection(deadline).in_time(self._moving, deadline):
            self._move(entries, starts, deadline)

    def _move(self, entries: Sequence[Entry], starts: Sequence[int], deadline: Deadline) -> None:
        channel = self._open({entry.queue for entry in entries}, deadline)
        waiting = {f"{self._id}-{uuid.uuid4().hex}": entry for entry in entries}
        copies = [self._copy(entry, name, count) for (name, entry), count in zip(waiting.items(), starts, strict=True)]
        self._publisher.send(copies)
        self._collect(channel, waiting, deadline)

    def _open(self, queues: set[str], deadline: Deadline) -> Channel:
        channel = self._channel
        if channel is None or channel.error is not None:
            channel = self._channel = self._consumer.link.channel(deadline)
            self._id, self._queues = uuid.uuid4().hex[:12], set()
        requests: list[Request] = []
        for queue in queues - self._queues:
            name = self._name(queue)
            requests += [declare_queue(name, self._arguments(queue)), consume(name, name)]
        if requests:
            channel.ask(deadline, *requests)
            self._queues |= queues
        return channel

    def _name(self, queue: str) -> str:
        return f"{queue}.running.{self._id}"

    def _arguments(self, queue: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-message-ttl": int(self._consumer.link.place.options.timeout * PATIENCE * 1000),
            "x-expires": EXPIRES,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue,
        }
        if self._consumer.link.place.options.delayed_queue_type == "quorum":
            arguments |= {
                "x-queue-type": "quorum", "x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once",
            }  # fmt: skip
        return arguments

    def _copy(self, entry: Entry, name: str, starts: int) -> Letter:
        counts = own_headers(entry.envelope.deliveries + 1, starts)
        properties = to_properties(entry.envelope.message, is_delayed=True, extra={**counts, MOVE: name})
        body = entry.pushed.body
        return Letter("", self._name(entry.queue), encode_properties(properties, len(body)), body)

    def _collect(self, channel: Channel, waiting: dict[str, Entry], deadline: Deadline) -> None:
        """Take the copies, which come in any order, and let go of the originals."""
        while waiting:
            if channel.error is not None:
                raise OperationalError(str(channel.error))
            while channel.inbox:
                self._take(channel, channel.inbox.popleft(), waiting)
            if waiting and deadline.passed():
                raise channel.connection.fail(channel.connection.silence(deadline))
            if waiting:
                channel.wait(deadline.left() or 0.0, bool)

    def _take(self, channel: Channel, pushed: Pushed, waiting: dict[str, Entry]) -> None:
        headers = decode_properties(pushed.header).headers or {}
        entry = waiting.pop(headers.get(MOVE, ""), None)
        tag = pushed.method.delivery_tag
        if entry is None or not self._consumer.move(entry, channel, tag):
            channel.acknowledge([(tag, False)])  # settled meanwhile, or an earlier move that was given up

    def renew(self) -> None:
        """Move what the server has waited for longer than two thirds of its `consumer_timeout`."""
        self._drop_stale()
        timeout = self._consumer.ack_timeout
        if timeout:
            old = self._consumer.old_entries(time.monotonic() - timeout * 2 / 3)
            self.move(old, [entry.envelope.starts for entry in old])

    def _drop_stale(self) -> None:
        """Copies of moves that were given up may come late."""
        channel = self._channel
        if channel is not None and channel.inbox and self._moving.acquire(blocking=False):
            try:
                while channel.inbox:
                    self._take(channel, channel.inbox.popleft(), {})
            finally:
                self._moving.release()

    def close(self) -> None:
        """Forget the channel; it is closed with its connection."""
        self._channel = None
        self._queues = set()
