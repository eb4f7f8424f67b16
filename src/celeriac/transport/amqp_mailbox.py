"""Control messages at RabbitMQ, declared as kombu declares them: a queue per listener on `….pidbox`, answers by key.

The AMQP transport's `post` and `open_mailbox` call it. The queues are exclusive, so they go with their connection; after a
lost one the next `receive` makes them anew, and what was told meanwhile is missed.
"""

from __future__ import annotations

import threading
from typing import Any

from celeriac.errors import DecodeError
from celeriac.log import get_logger
from celeriac.message import ControlMessage
from celeriac.timing import Deadline
from celeriac.transport.amqp_channel import Channel, Letter, copy_of
from celeriac.transport.amqp_field import Properties, decode_properties, encode_properties
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_publisher import Publisher
from celeriac.transport.amqp_request import Request, bind_queue, consume, declare_exchange, declare_queue
from celeriac.transport.amqp_topology import Topology
from celeriac.transport.base import Box

__all__ = ["AmqpMailbox", "post"]

logger = get_logger("celeriac.transport")


def _exchange_request(exchange: str, key: str) -> Request:
    return declare_exchange(exchange, "direct" if key else "fanout", durable=False)


def post(
    publisher: Publisher, topology: Topology, link: Link, message: ControlMessage, exchange: str, key: str
) -> None:
    """Publish to the exchange; returns when RabbitMQ has confirmed it."""
    topology.ensure_exchange(exchange, _exchange_request(exchange, key), link.deadline())
    properties = Properties(
        content_type=message.content_type, content_encoding=message.content_encoding, headers=message.headers,
        delivery_mode=1 if key else 2, priority=0,
    )  # fmt: skip
    header = encode_properties(properties, len(message.body))
    publisher.send([Letter(exchange, key, header, message.body, is_mandatory=False)])


class AmqpMailbox:
    """A listener with a channel of its own. One thread receives; any may interrupt or close."""

    def __init__(self, link: Link, box: Box) -> None:
        self._link = link
        self._box = box
        self._interrupted = False
        self._closed = False
        self._opening = threading.Lock()
        self._channel: Channel | None = None
        self._open()

    def _open(self) -> Channel:
        with self._opening:
            channel = self._channel
            if channel is not None and channel.error is None and not channel.cancelled:
                return channel
            box, deadline = self._box, self._link.deadline()
            channel = self._link.channel(deadline)
            arguments: dict[str, Any] = {}
            if box.expires:
                arguments["x-expires"] = int(box.expires * 1000)
            if box.ttl:
                arguments["x-message-ttl"] = int(box.ttl * 1000)
            channel.ask(
                deadline,
                _exchange_request(box.exchange, box.key),
                declare_queue(box.name, arguments, durable=box.durable, exclusive=box.exclusive, auto_delete=True),
                bind_queue(box.name, box.exchange, box.key),
                consume(box.name, box.name, no_ack=True),
            )
            self._channel = channel
            return channel

    def receive(self, wait: float) -> list[ControlMessage]:
        """What was sent since the last call."""
        deadline = Deadline(wait)
        while not self._closed:
            channel = self._open()
            if not channel.inbox and not self._interrupted:
                channel.wait(deadline.left() or 0.0, lambda: self._interrupted)
            messages: list[ControlMessage] = []
            if channel.error is not None and not channel.inbox:
                raise copy_of(channel.error)  # something may have been missed: whoever listens has to know
            while channel.inbox:
                pushed = channel.inbox.popleft()
                try:
                    messages.append(_message(decode_properties(pushed.header), pushed.body))
                except DecodeError as exc:
                    logger.warning("control message on %s dropped: %s", pushed.method.exchange, exc)
            if messages or self._interrupted or deadline.passed():
                self._interrupted = False
                return messages
        return []

    def interrupt(self) -> None:
        """Make a `receive` that waits return."""
        self._interrupted = True
        if self._channel is not None:
            self._channel.wake()

    def close(self) -> None:
        """Listen no more: the queue goes with its only consumer."""
        self._closed = True
        self.interrupt()
        if self._channel is not None:
            self._channel.close()


def _message(properties: Properties, body: bytes) -> ControlMessage:
    return ControlMessage(
        body=body, headers=properties.headers or {}, content_type=properties.content_type or "",
        content_encoding=properties.content_encoding or "",
    )  # fmt: skip
