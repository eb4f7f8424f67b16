"""Listening to topics at RabbitMQ: what `AmqpTransport.subscribe` returns.

One direct exchange carries all topics; a listener has an exclusive queue that the server names and deletes with the
listener's connection. When the connection is lost, the next poll listens anew: what was told meanwhile is missed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from celeriac.timing import Deadline
from celeriac.transport.amqp_channel import Channel
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_request import bind_queue, consume, declare_exchange, declare_queue

__all__ = ["EXCHANGE", "AmqpSubscription", "exchange_request"]

#: Carries all topics; gone with the broker's restart, like its listeners.
EXCHANGE = "celeriac.topics"
#: Payloads that wait for a listener that does not read; older ones are dropped.
_MAX_WAITING = 100_000

exchange_request = declare_exchange(EXCHANGE, "direct", durable=False)


class AmqpSubscription:
    """A listener with a channel of its own. One thread polls it; any may interrupt or close."""

    def __init__(self, link: Link, topics: Sequence[str]) -> None:
        self._link = link
        self._topics = list(topics)
        self._interrupted = False
        self._closed = False
        self._opening = threading.Lock()
        self._channel: Channel | None = None
        self._open()

    def _open(self) -> Channel:
        with self._opening:
            channel = self._channel
            if channel is not None and channel.error is None:
                return channel
            deadline = self._link.deadline()
            channel = self._link.channel(deadline)
            queue = declare_queue("", {"x-max-length": _MAX_WAITING}, durable=False, exclusive=True, auto_delete=True)
            name = channel.ask(deadline, exchange_request, queue)[1].queue
            bindings = [bind_queue(name, EXCHANGE, topic) for topic in self._topics]
            channel.ask(deadline, *bindings, consume(name, name, no_ack=True))
            self._channel = channel
            return channel

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was sent since the last poll; waits for the first."""
        deadline = Deadline(wait)
        while not self._closed:
            channel = self._open()
            if not channel.inbox and not self._interrupted:
                channel.wait(deadline.left() or 0.0, lambda: self._interrupted)
            letters = []
            while channel.inbox:
                pushed = channel.inbox.popleft()
                letters.append((pushed.method.routing_key, pushed.body))
            if letters or self._interrupted or deadline.passed():
                self._interrupted = False
                return letters
        return []

    def interrupt(self) -> None:
        """Make a poll that waits return."""
        self._interrupted = True
        if self._channel is not None:
            self._channel.wake()

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self.interrupt()
        if self._channel is not None:
            self._channel.close()
