"""RabbitMQ as a broker, by AMQP 0-9-1: `amqp://user:password@host:port/vhost`, several separated by `;`, and `amqps://`.

Opened by `transport.open`. Stock Celery workers and clients can share every queue: the topology and the messages are theirs.
One connection publishes, another consumes, so that a broker that blocks publishers goes on delivering. The parts: `amqp_link`
(connections) → `amqp_topology`, `amqp_publisher`, `amqp_consumer` → `amqp_parking`, `amqp_dead_letters`, `amqp_subscription`.

Invariants: a message is confirmed by the broker before `publish` returns and before its original is acknowledged; leases
live as long as the consuming connection; nothing waits longer than the option `timeout`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.message import Action, ControlMessage, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import ResultStore
from celeriac.routing import Queue
from celeriac.timing import Deadline, call_end, shortened
from celeriac.transport.amqp_channel import ChannelClosed, Letter
from celeriac.transport.amqp_consumer import Consumer
from celeriac.transport.amqp_dead_letters import DeadLetters, queue_for
from celeriac.transport.amqp_field import Properties, encode_properties
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_mailbox import AmqpMailbox, post
from celeriac.transport.amqp_message import own_headers
from celeriac.transport.amqp_parking import Parking
from celeriac.transport.amqp_publisher import MAX_BYTES, Publisher
from celeriac.transport.amqp_request import Request
from celeriac.transport.amqp_session import Entry
from celeriac.transport.amqp_subscription import EXCHANGE, AmqpSubscription, exchange_request
from celeriac.transport.amqp_topology import Topology
from celeriac.transport.amqp_url import Place, parse
from celeriac.transport.base import Box, Capabilities, Commit, Mailbox, QueueSize, Subscription

__all__ = ["AmqpTransport"]

logger = get_logger("celeriac.transport.amqp")


class _Parts:
    """Everything that belongs to this process: a forked child makes its own."""

    def __init__(self, place: Place, known: dict[str, Queue]) -> None:
        self.pid = os.getpid()
        self.publishing = Link(place, "publisher")
        self.consuming = Link(place, "consumer")
        self.topology = Topology(self.publishing, known)
        self.publisher = Publisher(self.publishing, self.topology)
        self.consumer = Consumer(self.consuming, Topology(self.consuming, known, consumes=True))
        self.parking = Parking(self.consumer, self.publisher)
        self.consumer.on_look = self.parking.renew
        self.dead = DeadLetters(self.consuming, self.consumer.topology, self.publisher)
        self.broadcasting = threading.Lock()

    def topology_of(self, queue: str) -> Topology:
        """Where a queue can be asked about: an exclusive one over the connection that consumes it."""
        known = self.topology.known.get(queue)
        return self.consumer.topology if known is not None and known.exclusive else self.topology

    def ensure_delayed(self, queues: Iterable[str], deadline: Deadline) -> None:
        """Make delayed delivery to queues possible."""
        for queue in queues:
            self.topology_of(queue).ensure_delayed(queue, deadline)

    def close(self) -> None:
        """Close both connections."""
        self.consumer.close()
        self.parking.close()
        self.publisher.close()
        self.publishing.close()
        self.consuming.close()


class AmqpTransport:
    """The broker behind an `amqp://` URL. See `transport.base.Transport` for the verbs.

    Args:
        url: As the user wrote it; see `amqp_url` for its options.
        options: `broker_transport_options`.
    """

    # The delay has a limit only where the levels end: beyond 8.5 years a message is put off again.
    capabilities = Capabilities(lease="connection", priorities=255, max_bytes=MAX_BYTES)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._place = parse(url, options or {})
        self.url = self._place.masked
        self._known: dict[str, Queue] = {}
        self._parts_now = _Parts(self._place, self._known)

    @property
    def _parts(self) -> _Parts:
        parts = self._parts_now
        if parts.pid != os.getpid():
            parts.publishing.abandon()
            parts.consuming.abandon()
            parts = self._parts_now = _Parts(self._place, self._known)
        return parts

    # --- publishing

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages; returns when RabbitMQ has confirmed all."""
        self._parts.publisher.publish(messages)

    # --- consuming

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease messages; waits for the first. The length of the lease is the connection's."""
        deadline = Deadline(max(0.0, wait))
        parts = self._parts
        interrupts = parts.consumer.interrupts
        while True:
            entries = parts.consumer.fetch(queues, limit, deadline.left() or 0.0, interrupts)
            far = parts.consumer.take_far()
            if far:
                self._put_off(parts, far)
            if entries or deadline.passed() or parts.consumer.interrupts != interrupts:
                return [_delivery(entry) for entry in entries]

    def _put_off(self, parts: _Parts, far: list[Entry]) -> None:
        """What stock clients sent to be run later waits in the broker from now on, not in a worker."""
        now = time.time()
        letters = []
        for entry in far:
            message, counts = entry.envelope.message, (entry.envelope.deliveries, entry.envelope.starts)
            wait = int((message.eta or now) - now)
            extra = own_headers(*counts) if any(counts) else None
            letters.append(parts.publisher.to_queue(message, entry.queue, wait, extra))
        try:
            parts.ensure_delayed({entry.queue for entry in far}, self._deadline())
            parts.publisher.send(letters)
        except OperationalError:
            parts.consumer.return_far(far)
            raise
        parts.consumer.finish(far)

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries: first the copies of what goes on elsewhere, confirmed, then the acknowledgements."""
        parts = self._parts
        lost: list[Delivery] = []
        ending: list[tuple[Settlement, Entry]] = []
        for settlement in settlements:
            entry = parts.consumer.held(settlement.delivery)
            if entry is None:
                lost.append(settlement.delivery)
            else:
                ending.append((settlement, entry))
        others = [each for each in ending if each[0].action is not Action.ACK]
        returned = [entry for settlement, entry in others if _goes_back(settlement, entry)]
        copies = self._copies(parts, others)
        parts.consumer.stop_listening(at_once=bool(others))
        parts.publisher.send(copies)
        back = {entry.token for entry in returned}
        done = [entry for _, entry in ending if entry.token not in back] if back else [entry for _, entry in ending]
        gone = {entry.token for entry in parts.consumer.finish(done, returned)}
        if not gone:
            return lost
        return lost + [settlement.delivery for settlement, entry in ending if entry.token in gone]

    def _copies(self, parts: _Parts, ending: Iterable[tuple[Settlement, Entry]]) -> list[Letter]:
        now = time.time()
        copies = []
        delayed = set()
        for settlement, entry in ending:
            if _goes_back(settlement, entry):
                continue
            if settlement.action is Action.DEAD_LETTER:
                parts.dead.register(entry.queue)
                copies.append(parts.dead.letter(settlement, entry))
                continue
            wait = int((settlement.until or now) - now) if settlement.action is Action.DEFER else 0
            copies.append(_again(parts.publisher, settlement, entry, wait))
            if wait > 0:
                delayed.add(entry.queue)
        parts.ensure_delayed(delayed, self._deadline())
        return copies

    def _deadline(self) -> Deadline:
        return Deadline(shortened(self._place.options.timeout))

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Nothing to renew: leases live with the connection. Returns those that are lost."""
        held = self._parts.consumer.held
        return [delivery for delivery in deliveries if held(delivery) is None]

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to deliveries of messages that were delivered before.

        A first delivery costs nothing here: if the worker dies with it, the server marks it as redelivered.
        """
        parts = self._parts
        again = [delivery for delivery in deliveries if delivery.redelivered and not delivery.message.defect]
        found = [(entry, delivery) for delivery in again if (entry := parts.consumer.held(delivery)) is not None]
        parts.parking.move([entry for entry, _ in found], [delivery.starts + 1 for _, delivery in found])

    def deliver_early(self) -> None:
        """From now on deliver what a stock client has sent with an ETA, instead of putting it off: whoever moves it wants all."""
        self._parts.consumer.delivers_early = True

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        self._parts.consumer.interrupt()

    def commits_with(self, store: ResultStore) -> bool:
        """Never: AMQP has no store."""
        return False

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Publish and settle, without a record: `commits_with` is never true.

        Raises:
            TypeError: There is a record to store.
        """
        if any(commit.record is not None for commit in commits):
            raise TypeError("amqp:// commits with no result store")
        self.publish([message for commit in commits for message in commit.messages])
        return self.settle([commit.settlement for commit in commits])

    # --- queues

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make queues exist, as stock workers declare them.

        Who sends has an end to keep, and leaves the queues that delay to workers, or to the first message that is delayed.
        """
        topology = self._parts.topology
        topology.declare(queues)
        if call_end.get() is None:
            topology.ensure_celery_delay()

    def delete(self, queue: str) -> int:
        """Remove a queue, and its queue of dead letters if that is empty; returns how many messages were ready."""
        parts = self._parts
        deleted = parts.topology_of(queue).ask_about(Request("queue_delete", {"queue": queue}))
        parts.topology.forget(queue)
        parts.consumer.topology.forget(queue)
        self._known.pop(queue, None)
        dead = queue_for(queue)
        if parts.topology.count(dead) == 0:
            try:
                parts.topology.ask_about(Request("queue_delete", {"queue": dead, "if_empty": True}))
            except ChannelClosed:
                logger.debug("%s is in use and stays", dead)
        return 0 if deleted is None else int(deleted.message_count)

    def purge(self, queue: str) -> int:
        """Delete what is ready. Delayed messages lie in queues that all share: they stay."""
        purged = self._parts.topology_of(queue).ask_about(Request("queue_purge", {"queue": queue}))
        return 0 if purged is None else int(purged.message_count)

    def size(self, queue: str) -> QueueSize:
        """What is ready; of leased and delayed messages AMQP knows only our own."""
        parts = self._parts
        leased, early = parts.consumer.count(queue)
        return QueueSize(ready=parts.topology_of(queue).count(queue) or 0, delayed=early, leased=leased)

    # --- dead letters

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""
        return self._parts.dead.listed(limit, queue)

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them, by its key or its task id."""
        return self._parts.dead.found(key)

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues with counts at zero."""
        return self._parts.dead.replay(keys)

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters."""
        return self._parts.dead.discard(keys)

    # --- topics

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell the present subscribers of a topic."""
        parts = self._parts
        parts.topology.ensure_exchange(EXCHANGE, exchange_request, self._deadline())
        raw = encode_properties(Properties(delivery_mode=1), len(payload))
        parts.publisher.send([Letter(EXCHANGE, topic, raw, payload, is_mandatory=False)])

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics."""
        return AmqpSubscription(self._parts.consuming, topics)

    def post(self, message: ControlMessage, exchange: str, key: str = "") -> None:
        """Send a control message as kombu does."""
        parts = self._parts
        post(parts.publisher, parts.topology, parts.publishing, message, exchange, key)

    def open_mailbox(self, box: Box) -> Mailbox:
        """Receive control messages."""
        return AmqpMailbox(self._parts.consuming, box)

    def close(self) -> None:
        """Close the connections of this process. Leases end."""
        self._parts.close()


def _delivery(entry: Entry) -> Delivery:
    envelope = entry.envelope
    return Delivery(
        message=envelope.message, queue=entry.queue, token=entry.token, deliveries=envelope.deliveries + 1,
        starts=envelope.starts,
    )  # fmt: skip


def _goes_back(settlement: Settlement, entry: Entry) -> bool:
    """Whether the server can simply take it back, to the head of its queue: nothing about it is to be written down."""
    return settlement.action is Action.REQUEUE and not settlement.charged and not entry.is_moved


def _again(publisher: Publisher, settlement: Settlement, entry: Entry, wait: int) -> Letter:
    """The copy of a delivery that comes again, with its counts."""
    delivery = settlement.delivery
    message = delivery.message
    if settlement.action is Action.DEFER:
        message = msgspec.structs.replace(message, eta=settlement.until)
    counts = own_headers(delivery.deliveries, delivery.starts + settlement.charged)
    return publisher.to_queue(message, entry.queue, wait, counts)
