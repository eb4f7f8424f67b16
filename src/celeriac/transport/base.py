"""The port of brokers: what a transport driver offers, and how drivers are found.

The worker's intake, committer and leases, and clients that publish, call it. Drivers are synchronous, take batches, and
may be called from several threads at once. Every call has a deadline of the driver's own and raises
`OperationalError` (naming the URL without its password) when the broker can't be reached: nothing blocks for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from celeriac.message import ControlMessage, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.routing import Queue

__all__ = [
    "Box", "Capabilities", "Claim", "Commit", "CommitUnderWay", "FetchingTransport", "Mailbox", "QueueSize", "Subscription",
    "TransactionalTransport", "Transport",
]  # fmt: skip


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do. The core reads this and never asks which driver it has.

    Attributes:
        lease: "message" (each has a deadline), "connection" (given back when the connection ends), "worker" or "offset".
        delay: Longest delay the broker keeps by itself, in seconds; 0 if it can't.
        priorities: Number of priority steps that it tells apart; 0 if none.
        urgent: Which priority comes first: "high" (9 before 0) or "low" (0 before 9, as Celery has it on Redis).
        broadcast: Whether `broadcast` reaches other processes.
        dead_letters: Whether dead letters can be listed and replayed.
        counts_starts: Whether `mark_started` is recorded; if not, deliveries are counted instead.
        max_bytes: Largest body it takes; None if there is no limit of its own.
        survives_restart: Whether messages outlive the process that sent them.
        transactional: Whether it is a `TransactionalTransport`: messages can be sent inside the user's own transaction.
        batch: How many messages one `publish` best takes when there are a great many: enough to pay for the wait until the
            broker has them, few enough that they stay in the processor's cache.
        publishes_ahead: Whether it is an `AheadTransport`: many messages can be made while it takes those before them.
        fetches_on_commit: Whether it is a `FetchingTransport`: a commit can bring the next messages.
    """

    lease: str = "message"
    delay: float = float("inf")
    priorities: int = 10
    urgent: str = "high"
    broadcast: bool = True
    dead_letters: bool = True
    counts_starts: bool = True
    max_bytes: int | None = None
    survives_restart: bool = True
    transactional: bool = False
    batch: int = 1000
    publishes_ahead: bool = False
    fetches_on_commit: bool = False


class QueueSize(msgspec.Struct, frozen=True):
    """How many messages of a queue are ready to be fetched, not yet due, and on lease."""

    ready: int
    delayed: int
    leased: int


class Commit(msgspec.Struct, frozen=True):
    """The end of one execution, to be applied as one step: store `record`, publish `messages`, settle."""

    settlement: Settlement
    record: Record | None = None
    messages: Sequence[Message] = ()


class Subscription(Protocol):
    """A listener to topics."""

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        """What was broadcast since the last poll, as (topic, payload); waits up to `wait` seconds for the first."""

    def interrupt(self) -> None:
        """Make a `poll` that waits return at once. May be called from any thread."""

    def close(self) -> None:
        """Stop listening."""


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """Where control messages are to arrive: on brokers that Celery knows, a queue bound to an exchange.

    Attributes:
        name: Of the queue.
        exchange: Its exchange, never durable.
        key: What the box is addressed by; "" if it gets everything that is told to the exchange.
        ttl: Seconds that a message may wait in it, or None.
        expires: Seconds that it outlives its listener, or None.
        durable, exclusive: The queue's flags.
    """

    name: str
    exchange: str
    key: str = ""
    ttl: float | None = 300.0
    expires: float | None = 10.0
    durable: bool = False
    exclusive: bool = True


class Mailbox(Protocol):
    """A box that is open. One thread receives; any may interrupt or close."""

    def receive(self, wait: float) -> list[ControlMessage]:
        """What has arrived; waits up to `wait` seconds for the first. After a failure the next call connects anew."""

    def interrupt(self) -> None:
        """Make a `receive` that waits return at once."""

    def close(self) -> None:
        """Listen no more, and remove the box where it would stay."""


class Transport(Protocol):
    """One kind of broker."""

    @property
    def capabilities(self) -> Capabilities:
        """What this broker can do."""

    @property
    def url(self) -> str:
        """Where it is, with secrets masked."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand messages to the broker; returns once it has all of them for good.

        A message with an `eta` is not delivered before it. One with an empty `queue` goes to each queue whose binding
        matches its exchange and routing key.

        Raises:
            OperationalError: The broker can't be reached or refuses; some of the messages may have been taken.
            MessageTooLarge: A body is larger than the broker takes; none was sent.
        """

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        """Lease up to `limit` messages for `lease` seconds; waits up to `wait` seconds for the first.

        Higher priority first, then older first; among queues in turn. Leases that have run out are taken over.
        A stored message that can't be read comes with `defect` set.
        """

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        """End deliveries. Returns those whose lease another worker has taken: nothing was done to them."""

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Lease them for `lease` seconds from now. Returns those that are lost."""

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        """Charge a start to each delivery now, so that it counts although the whole worker should die."""

    def interrupt(self) -> None:
        """Make every `fetch` that waits return at once. May be called from any thread."""

    def commits_with(self, store: ResultStore) -> bool:
        """Whether `commit` can write to this store in the same step."""

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        """Store, publish and settle as one atomic step. Returns deliveries whose lease was lost: nothing of theirs was done.

        Called only where `commits_with` is true.
        """

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make queues and their bindings exist. May be repeated."""

    def delete(self, queue: str) -> int:
        """Remove a queue; returns how many messages went with it."""

    def purge(self, queue: str) -> int:
        """Delete all messages that are not on lease; returns how many."""

    def size(self, queue: str) -> QueueSize:
        """How many messages the queue holds."""

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        """Dead letters, newest first."""

    def dead_letter(self, key: str) -> DeadLetter | None:
        """One of them, by its key or its task id."""

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues with counts at zero; returns how many there were."""

    def discard(self, keys: Sequence[str]) -> int:
        """Delete dead letters; returns how many there were."""

    def broadcast(self, topic: str, payload: bytes) -> None:
        """Tell all present subscribers of `topic`. Nothing is kept for absent ones."""

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        """Listen to topics from now on."""

    def post(self, message: ControlMessage, exchange: str, key: str = "") -> None:
        """Send a control message to every box of an exchange, or with a `key` to those boxes that have it.

        Drivers of brokers that Celery knows write it as Celery does; `transport.mailbox.TopicMail` does it for the others.
        """

    def open_mailbox(self, box: Box) -> Mailbox:
        """Receive control messages from now on."""

    def close(self) -> None:
        """Release connections. The object may be used again afterwards and then connects anew."""


class TransactionalTransport(Transport, Protocol):
    """A broker that is a database: what its capability `transactional` promises."""

    def publish_in(self, connection: Any, messages: Sequence[Message]) -> None:
        """Insert messages through the user's connection: they exist if and only if its transaction commits.

        Args:
            connection: A SQLAlchemy Session or Connection, or a DB-API connection, on the broker's database. It is
                neither committed nor rolled back here.
            messages: As for `publish`.

        Raises:
            ImproperlyConfigured: It is no such connection.
            OperationalError: The database refuses; the user's transaction may have to be rolled back.
        """


class RecordingTransport(Transport, Protocol):
    """A broker that shares its database with a result store: what `commits_with` promises."""

    def publish_recorded(self, messages: Sequence[Message], records: Sequence[Record]) -> None:
        """Store records and publish messages as one step. Messages are published even if their record is refused.

        Called where `commits_with` was true, with records that are not final.
        """


class Claim(NamedTuple):
    """What a commit may fetch, besides what it does.

    Attributes:
        limit: As for `fetch`; what the commits publish counts.
        ready: How many of these may be messages that were ready before: the others are on their way already.
        lease: Seconds.
    """

    queues: Sequence[str]
    limit: int
    ready: int
    lease: float


class AheadTransport(Transport, Protocol):
    """A broker to which messages can be on their way while others are made: what its capability `publishes_ahead` promises."""

    def begin_publish(self, messages: Sequence[Message]) -> Callable[[], None]:
        """Send messages, at least one; returns what waits until the broker has them. Both raise what `publish` does."""


class CommitUnderWay(Protocol):
    """A commit that is sent, and whose answer has yet to come.

    Attributes:
        timeout: For how many seconds to wait for it.
    """

    timeout: float

    def fileno(self) -> int:
        """Readable when it has come."""

    def end(self) -> tuple[list[Delivery], list[Delivery]]:
        """What `commit_and_fetch` returns.

        Raises:
            OperationalError: It may have been carried out or not; it may be tried again.
        """

    def abandon(self) -> None:
        """Wait for it no longer."""


class FetchingTransport(Transport, Protocol):
    """A broker that ends deliveries and leases the next ones in one step: what its capability `fetches_on_commit` promises."""

    def commit_and_fetch(self, commits: Sequence[Commit], claim: Claim) -> tuple[list[Delivery], list[Delivery]]:
        """`commit`, then a `fetch` that doesn't wait and may bring nothing; returns what each of them does.

        Also called without a store, with commits that have no records.
        """

    def begin_commit(self, commits: Sequence[Commit], claim: Claim | None) -> CommitUnderWay | None:
        """The same for an event loop: send it, and wait for nothing; without a claim nothing is fetched.

        Returns:
            What is under way; None if it can't be had without waiting, now or for these commits. Nothing was sent then.
        """


class TransportFactory(Protocol):
    """How a driver is opened: the URL as the user wrote it and `broker_transport_options`."""

    def __call__(self, url: str, options: dict[str, Any]) -> Transport:
        """Open, without connecting yet."""
