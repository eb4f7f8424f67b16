"""Several brokers for one setting: the first that works is used until it fails, then the next one.

Made by `transport.open` when `broker_url` names several and their driver doesn't go through a list itself (RabbitMQ,
Sentinel and Redis Cluster do). All are of one kind. A call that finds its broker unreachable goes on to the next at once; it ends
with the error of the last one when each has been tried. What was leased from a broker that was left is not settled at the
next one unless that is a copy of it: its lease runs out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.message import ControlMessage, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import ResultStore
from celeriac.routing import Queue
from celeriac.timing import call_end
from celeriac.transport.base import (
    Box,
    Capabilities,
    Claim,
    Commit,
    CommitUnderWay,
    FetchingTransport,
    Mailbox,
    QueueSize,
    Subscription,
    TransactionalTransport,
    Transport,
)

__all__ = ["FailoverTransport"]

T = TypeVar("T")

logger = get_logger("celeriac.transport.failover")


class FailoverTransport:
    """One broker out of several. See `transport.base.Transport` for the verbs.

    Args:
        brokers: Transports by URL.
        order: URLs in the order in which they are tried, without end.
    """

    def __init__(self, brokers: Mapping[str, Transport], order: Iterator[str]) -> None:
        self._brokers = dict(brokers)
        self._order = order
        self._turn = threading.Lock()
        self._current = self._brokers[next(order)]
        self._all_fetch = all(broker.capabilities.fetches_on_commit for broker in self._brokers.values())
        self._queues: dict[str, Queue] = {}
        #: Transports at which those queues are declared, by identity.
        self._prepared: set[int] = set()

    @property
    def brokers(self) -> list[Transport]:
        """All of them, as configured."""
        return list(self._brokers.values())

    @property
    def capabilities(self) -> Capabilities:
        """What the broker in use can do, and of what the way of commits depends on, what all can. Nothing is sent ahead."""
        return msgspec.structs.replace(
            self._current.capabilities, fetches_on_commit=self._all_fetch, publishes_ahead=False
        )

    @property
    def url(self) -> str:
        """Where the broker in use is."""
        return self._current.url

    def _call(self, verb: Callable[[Transport], T]) -> T:
        """Do something at the broker in use, else at the next, until each had its turn."""
        for remaining in range(len(self._brokers), 0, -1):
            transport = self._current
            try:
                return self._call_one(transport, verb, remaining)
            except OperationalError as exc:
                self._move_on(transport, exc)
                if remaining == 1:
                    raise
        raise AssertionError("unreachable")

    def _call_one(self, transport: Transport, verb: Callable[[Transport], T], remaining: int) -> T:
        """At one of them: it may take its share of the time that the whole call has."""
        end, now = call_end.get(), time.monotonic()
        token = call_end.set(None if end is None else now + max(0.0, end - now) / remaining)
        try:
            if id(transport) not in self._prepared and self._queues:
                transport.declare(list(self._queues.values()))
            self._prepared.add(id(transport))
            return verb(transport)
        finally:
            call_end.reset(token)

    def _move_on(self, failed: Transport, error: OperationalError) -> None:
        with self._turn:
            if self._current is failed:
                self._current = self._brokers[next(self._order)]
                self._prepared.discard(id(self._current))
                if self._current is not failed:
                    logger.warning("%s; going on with %s", error, self._current.url)

    # publishing

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand messages to the first broker that takes them. One that failed half-way may have taken some, too."""
        self._call(lambda transport: transport.publish(messages))

    def publish_in(self, connection: Any, messages: Sequence[Message]) -> None:
        """Insert messages through the user's connection, to whichever database that leads."""
        cast("TransactionalTransport", self._current).publish_in(connection, messages)

    # consuming

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages."""
        return self._call(lambda transport: transport.fetch(queues, limit, wait, lease))

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries. Returns those that the broker in use doesn't know."""
        return self._call(lambda transport: transport.settle(settlements))

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Lease them for longer. Returns those that the broker in use doesn't know."""
        return self._call(lambda transport: transport.extend(deliveries, lease))

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery."""
        self._call(lambda transport: transport.mark_started(deliveries))

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        for transport in self._brokers.values():
            transport.interrupt()

    def commits_with(self, store: ResultStore) -> bool:
        """Whether each of them can write to this store in the same step."""
        return all(transport.commits_with(store) for transport in self._brokers.values())

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Store, publish and settle as one step."""
        return self._call(lambda transport: transport.commit(commits))

    def commit_and_fetch(self, commits: Sequence[Commit], claim: Claim) -> tuple[list[Delivery], list[Delivery]]:
        """The same, and lease messages."""
        return self._call(lambda transport: cast("FetchingTransport", transport).commit_and_fetch(commits, claim))

    def begin_commit(self, commits: Sequence[Commit], claim: Claim | None) -> CommitUnderWay | None:
        """The same without waiting. If it fails, the commit that is tried instead finds another broker."""
        if id(self._current) not in self._prepared:
            return None
        return cast("FetchingTransport", self._current).begin_commit(commits, claim)

    # queues

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make queues exist, also at brokers that are used later."""
        self._queues.update((queue.name, queue) for queue in queues)
        self._call(lambda transport: transport.declare(queues))

    def delete(self, queue: str) -> int:
        """Remove a queue."""
        self._queues.pop(queue, None)
        return self._call(lambda transport: transport.delete(queue))

    def purge(self, queue: str) -> int:
        """Delete what is not on lease."""
        return self._call(lambda transport: transport.purge(queue))

    def size(self, queue: str) -> QueueSize:
        """How many messages the queue holds."""
        return self._call(lambda transport: transport.size(queue))

    # dead letters

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return self._call(lambda transport: transport.dead_letters(limit, queue))

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them."""
        return self._call(lambda transport: transport.dead_letter(key))

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues."""
        return self._call(lambda transport: transport.replay(keys))

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._call(lambda transport: transport.discard(keys))

    # topics

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell the subscribers of a topic."""
        self._call(lambda transport: transport.broadcast(topic, payload))

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics at the broker in use; who loses that subscription makes another."""
        return self._call(lambda transport: transport.subscribe(topics))

    def post(self, message: ControlMessage, exchange: str, key: str = "") -> None:
        """Send a control message."""
        self._call(lambda transport: transport.post(message, exchange, key))

    def open_mailbox(self, box: Box) -> Mailbox:
        """Receive control messages at the broker in use; who loses that mailbox makes another."""
        return self._call(lambda transport: transport.open_mailbox(box))

    def close(self) -> None:
        """Close the connections to all."""
        for transport in self._brokers.values():
            transport.close()
