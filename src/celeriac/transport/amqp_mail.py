"""Results over RabbitMQ, as Celery's rpc backend sends them: one queue per client, one message per result.

`results.rpc` calls it. The queue is Celery's: named by the client, durable, deleted when its consumer has gone, kept for
`result_expires` at most. Messages go to the default exchange and are not mandatory: a client that has gone needs no result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celeriac.errors import OperationalError
from celeriac.results.rpc import Post
from celeriac.transport.amqp_channel import Channel, Letter, copy_of
from celeriac.transport.amqp_field import Properties, decode_properties, encode_properties
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_publisher import Publisher
from celeriac.transport.amqp_request import consume, declare_queue, prefetch
from celeriac.transport.amqp_topology import Topology
from celeriac.transport.amqp_url import Place, parse

__all__ = ["AmqpMail"]

#: Results that the server sends ahead; the others wait there.
_PREFETCH = 1000
#: Results that are acknowledged at once.
_ACKNOWLEDGED = _PREFETCH // 4


class _Parts:
    """What belongs to this process: a forked child makes its own."""

    def __init__(self, place: Place) -> None:
        self.pid = os.getpid()
        self.sending = Link(place, "results")
        self.receiving = Link(place, "replies")
        self.publisher = Publisher(self.sending, Topology(self.sending, {}))
        self.channel: Channel | None = None
        self.opening = threading.Lock()
        self.receiving_now = threading.Lock()
        self.is_woken = False
        #: What was received and not acknowledged: how many, and the last one's tag.
        self.unacknowledged, self.tag = 0, 0


class AmqpMail:
    """Carries results over one RabbitMQ.

    Args:
        url: The broker's.
        options: `broker_transport_options`.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._place = parse(url, options)
        self.url = self._place.masked
        self._parts_now = _Parts(self._place)

    @property
    def _parts(self) -> _Parts:
        parts = self._parts_now
        if parts.pid != os.getpid():
            parts.sending.abandon()
            parts.receiving.abandon()
            parts = self._parts_now = _Parts(self._place)
        return parts

    def send(self, posts: Sequence[Post]) -> None:
        """Publish results; returns when RabbitMQ has confirmed all."""
        self._parts.publisher.send([_letter(post) for post in posts])

    def listen(self, box: str, expires: float | None, on_arrival: Callable[[], bool]) -> None:
        """Have a queue and consume it."""
        parts = self._parts
        deadline = parts.receiving.deadline()
        if not parts.opening.acquire(timeout=deadline.left() or 0.0):
            raise OperationalError(f"RabbitMQ at {self.url} can't be reached within {deadline.seconds or 0.0:.2g} s")
        try:
            if parts.channel is not None and parts.channel.error is None:
                return
            channel = parts.receiving.channel(deadline)
            channel.on_arrival = on_arrival
            arguments = {"x-expires": int(expires * 1000)} if expires else {}
            channel.ask(
                deadline, declare_queue(box, arguments, auto_delete=True), prefetch(_PREFETCH), consume(box, box)
            )
            parts.channel, parts.unacknowledged = channel, 0
        finally:
            parts.opening.release()

    def wait(self, seconds: float) -> None:
        """Until something comes, or `wake`."""
        parts = self._parts
        if parts.channel is not None:
            parts.channel.wait(seconds, lambda: parts.is_woken)
        parts.is_woken = False

    def receive(self, take_in: Callable[[list[tuple[bytes, str]]], None]) -> None:
        """Hand over what has come. It is acknowledged many at once, or when nothing comes: the broker only counts them."""
        parts = self._parts
        channel = parts.channel
        if channel is None:
            return
        with parts.receiving_now:
            received = []
            while channel.inbox:
                pushed = channel.inbox.popleft()
                parts.tag = pushed.method.delivery_tag
                received.append((pushed.body, decode_properties(pushed.header).content_type or ""))
            if received:
                take_in(received)
                parts.unacknowledged += len(received)
            if parts.unacknowledged and (not received or parts.unacknowledged >= _ACKNOWLEDGED):
                parts.unacknowledged = 0
                channel.acknowledge([(parts.tag, True)])
            if received:
                return
            if channel.error is not None:
                raise copy_of(channel.error)
            elif channel.cancelled:  # the queue was deleted: have it again
                parts.channel = None
                channel.close()

    def wake(self) -> None:
        """Make a `receive` that waits return."""
        parts = self._parts
        parts.is_woken = True
        if parts.channel is not None:
            parts.channel.wake()

    def close(self) -> None:
        """Close both connections."""
        parts = self._parts
        parts.channel = None
        parts.publisher.close()
        parts.sending.close()
        parts.receiving.close()


def _letter(post: Post) -> Letter:
    properties = Properties(
        content_type=post.content_type, content_encoding=post.content_encoding, headers={},
        delivery_mode=2 if post.is_persistent else 1, priority=0, correlation_id=post.task_id,
    )  # fmt: skip
    raw = encode_properties(properties, len(post.body))
    return Letter("", post.box, raw, post.body, id=post.task_id, is_mandatory=False)
