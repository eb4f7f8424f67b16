"""One broker to read from and another to write to: `broker_read_url` and `broker_write_url` of a worker.

Made by `transport.open` where the two differ. They may be two addresses of one broker, or two brokers between which something
forwards. What continues a task goes to where clients send; everything about what was fetched stays where that came from.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from celeriac.errors import CeleriacError
from celeriac.message import ControlMessage, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import ResultStore
from celeriac.routing import Queue, is_copy
from celeriac.transport.base import Box, Capabilities, Commit, Mailbox, QueueSize, Subscription, Transport

__all__ = ["SplitTransport"]


class SplitTransport:
    """Two brokers as one. See `transport.base.Transport` for the verbs."""

    def __init__(self, reading: Transport, writing: Transport) -> None:
        self._reading = reading
        self._writing = writing

    @property
    def capabilities(self) -> Capabilities:
        """What the one can do that is read from, except what takes both, and sending ahead."""
        return msgspec.structs.replace(self._reading.capabilities, fetches_on_commit=False, publishes_ahead=False)

    @property
    def url(self) -> str:
        """Where messages are read."""
        return self._reading.url

    # written

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand messages to the broker that is written to."""
        self._writing.publish(messages)

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell subscribers."""
        self._writing.broadcast(topic, payload)

    def post(self, message: ControlMessage, exchange: str, key: str = "") -> None:
        """Send a control message."""
        self._writing.post(message, exchange, key)

    # both

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make queues exist at both: what is sent has to go somewhere. Exclusive ones and copies are read only."""
        self._reading.declare(queues)
        self._writing.declare([queue for queue in queues if not (queue.exclusive or is_copy(queue.name))])

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        self._reading.interrupt()
        self._writing.interrupt()

    def delete(self, queue: str) -> int:
        """Remove a queue; returns how many messages went that could have been read."""
        deleted = self._reading.delete(queue)
        self._writing.delete(queue)
        return deleted

    def close(self) -> None:
        """Close the connections to both."""
        self._reading.close()
        self._writing.close()

    # read

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages."""
        return self._reading.fetch(queues, limit, wait, lease)

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries."""
        return self._reading.settle(settlements)

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Lease them for longer."""
        return self._reading.extend(deliveries, lease)

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery."""
        self._reading.mark_started(deliveries)

    def commits_with(self, store: ResultStore) -> bool:
        """Never: what is sent goes elsewhere."""
        return False

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Never called, since `commits_with` is false.

        Raises:
            CeleriacError: Always.
        """
        raise CeleriacError("two brokers commit with no result store: store, publish and settle one after the other")

    def purge(self, queue: str) -> int:
        """Delete what is not on lease."""
        return self._reading.purge(queue)

    def size(self, queue: str) -> QueueSize:
        """How many messages can be read."""
        return self._reading.size(queue)

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return self._reading.dead_letters(limit, queue)

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them."""
        return self._reading.dead_letter(key)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues."""
        return self._reading.replay(keys)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._reading.discard(keys)

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics."""
        return self._reading.subscribe(topics)

    def open_mailbox(self, box: Box) -> Mailbox:
        """Receive control messages."""
        return self._reading.open_mailbox(box)
