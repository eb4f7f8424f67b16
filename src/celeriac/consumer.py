"""Receiving messages of one's own: `kombu.Consumer`, `app.amqp.TaskConsumer()`, and what `migrating` goes through queues with.

Workers don't use it. A message is on lease until it is acknowledged, rejected or requeued; what a consumer still holds when it
ends goes back to the head of its queue. Leases last for `task_lease`, and are renewed when the consumer is asked for more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from celeriac.codec import accept_types
from celeriac.config import Settings
from celeriac.errors import CeleriacError
from celeriac.log import get_logger
from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.queue_forms import as_queue
from celeriac.routing import Queue
from celeriac.wire.bodies import open_body

if TYPE_CHECKING:
    from celeriac.broker_connection import Connection

__all__ = ["Consumer", "ReceivedMessage"]

logger = get_logger("celeriac.consumer")

#: Messages that are fetched at once.
BATCH = 100

Callback = Callable[[Any, "ReceivedMessage"], Any]


class ReceivedMessage:
    """A message as callbacks get it.

    Args:
        consumer: Which holds it.
        delivery: What the broker gave.
    """

    def __init__(self, consumer: Consumer, delivery: Delivery) -> None:
        message = delivery.message
        self._consumer = consumer
        self.delivery = delivery
        self.headers = message.headers
        self.body = message.body
        self.content_type = message.content_type
        self.content_encoding = message.content_encoding
        self.delivery_tag = delivery.token
        self.acknowledged = False

    @property
    def message(self) -> Message:
        """The message as transports have it."""
        return self.delivery.message

    @property
    def properties(self) -> dict[str, Any]:
        """Its properties, those of AMQP under their names there."""
        message = self.message
        own = {
            "correlation_id": message.id, "reply_to": message.reply_to, "priority": message.priority or 0,
            "delivery_mode": 1 if message.transient else 2,
        }  # fmt: skip
        return {**own, **message.properties}

    @property
    def delivery_info(self) -> dict[str, Any]:
        """How it came here."""
        message = self.message
        return {
            "exchange": message.exchange, "routing_key": message.routing_key or self.delivery.queue,
            "priority": message.priority or 0, "redelivered": self.delivery.redelivered, "queue": self.delivery.queue,
        }  # fmt: skip

    @cached_property
    def payload(self) -> Any:
        """The body, opened.

        Raises:
            ContentDisallowed: Its content type is not among those that the consumer accepts.
            DecodeError: It can't be read.
        """
        conf = self._consumer.settings
        accept = self._consumer.accept
        return open_body(self.message, accept, conf["message_max_unpacked_bytes"], conf["message_max_depth"])

    def decode(self) -> Any:
        """The same as `payload`."""
        return self.payload

    @cached_property
    def task(self) -> str:
        """Name of the task; "" if it is no task."""
        return self.message.task or self._field("task")

    @cached_property
    def task_id(self) -> str:
        """Its id."""
        named = self.headers.get("id") if self.message.task else self._field("id")
        return str(named or self.message.id)

    def _field(self, name: str) -> str:
        """A field of the body, where protocol 1 has everything."""
        if self.message.task or self.message.defect:
            return ""
        found = self.payload.get(name) if isinstance(self.payload, dict) else None
        return found if isinstance(found, str) else ""

    def ack(self, multiple: bool = False) -> None:
        """It is done with: the broker deletes it."""
        self._end(Action.ACK)

    def reject(self, requeue: bool = False) -> None:
        """It is refused: it becomes a dead letter, or with `requeue` goes back."""
        self._end(Action.REQUEUE if requeue else Action.DEAD_LETTER)

    def requeue(self) -> None:
        """It goes back to the head of its queue."""
        self._end(Action.REQUEUE)

    def _end(self, action: Action) -> None:
        if self.acknowledged:
            raise CeleriacError(f"message {self.message.id!r} was acknowledged, rejected or requeued before")
        self.acknowledged = True
        reason = "rejected by a consumer" if action is Action.DEAD_LETTER else ""
        self._consumer.settle(Settlement(self.delivery, action, reason=reason))

    def __repr__(self) -> str:
        return f"<Message {self.message.id} of {self.delivery.queue}>"


class Consumer:
    """Receives messages of some queues.

    Args:
        channel: The connection.
        queues: Queues, or their names.
        no_ack: Messages are acknowledged as soon as they are received.
        auto_declare: Make queues exist that are given as objects.
        callbacks: Called with (body, message) for each message.
        on_message: Called with the message instead; then no body is opened.
        accept: Content types, or names of serializers, that are opened; by default those of the setting `accept_content`.
        prefetch_count: How many are fetched at once.
        kwargs: kombu's other arguments, which are the driver's business here.

    Example:
        >>> with Consumer(connection, [Queue("mail")], callbacks=[handle]):
        ...     connection.drain_events(timeout=5)
    """

    def __init__(
        self, channel: Connection, queues: Any = None, no_ack: bool = False, auto_declare: bool = True,
        callbacks: Sequence[Callback] | None = None, on_decode_error: Callable[..., Any] | None = None,
        on_message: Callable[[ReceivedMessage], Any] | None = None, accept: Iterable[str] | None = None,
        tag_prefix: str | None = None, prefetch_count: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.connection = channel
        self.callbacks = list(callbacks or ())
        self.no_ack = no_ack
        self.auto_declare = auto_declare
        self.on_message = on_message
        self.on_decode_error = on_decode_error
        self.prefetch_count = prefetch_count or BATCH
        self.settings: Any = channel.settings if channel.settings is not None else Settings()
        self.accept = accept_types(self.settings["accept_content"] if accept is None else accept)
        self._queues: dict[str, Queue] = {}
        self._held: dict[Any, Delivery] = {}
        self._lease: float = self.settings["task_lease"]
        self._renewed = time.monotonic()
        given = [queues] if isinstance(queues, (str, Queue)) or hasattr(queues, "routing_key") else queues
        for queue in given or ():
            self.add_queue(queue)

    @property
    def queues(self) -> list[Queue]:
        """The queues that it consumes."""
        return list(self._queues.values())

    def add_queue(self, queue: Any) -> Queue:
        """Consume one more."""
        found = as_queue(queue)
        if self.auto_declare and not isinstance(queue, str):
            self.connection.driver.declare([found])
        self._queues[found.name] = found
        return found

    def consuming_from(self, queue: Any) -> bool:
        """Whether it consumes a queue."""
        return as_queue(queue).name in self._queues

    def cancel_by_queue(self, queue: Any) -> None:
        """Consume it no more."""
        self._queues.pop(as_queue(queue).name, None)

    def register_callback(self, callback: Callback) -> None:
        """Call this with (body, message), too."""
        self.callbacks.append(callback)

    def consume(self, no_ack: bool | None = None) -> None:
        """Take part in `connection.drain_events()` from now on."""
        self.no_ack = self.no_ack if no_ack is None else no_ack
        if self not in self.connection.consumers:
            self.connection.consumers.append(self)

    def cancel(self) -> None:
        """Receive no more; what is held goes back."""
        if self in self.connection.consumers:
            self.connection.consumers.remove(self)
        self.recover()

    close = cancel

    def purge(self) -> int:
        """Delete what waits in its queues; returns how many messages."""
        return sum(self.connection.driver.purge(name) for name in self._queues)

    def recover(self, requeue: bool = True) -> None:
        """Give back what is held, to the head of its queue."""
        held, self._held = list(self._held.values())[::-1], {}  # each goes before what is there, so the last one first
        for start in range(0, len(held), BATCH):
            self.connection.driver.settle(
                [Settlement(delivery, Action.REQUEUE) for delivery in held[start : start + BATCH]]
            )

    # receiving

    def receive(self, wait: float = 0.0, limit: int | None = None) -> list[ReceivedMessage]:
        """Up to `limit` messages; waits up to `wait` seconds for the first."""
        self.renew()
        if not self._queues:
            return []
        driver = self.connection.driver
        found = driver.fetch(list(self._queues), limit or self.prefetch_count, wait, self._lease)
        if self.no_ack:
            driver.settle([Settlement(delivery) for delivery in found])
        else:
            self._held.update((delivery.token, delivery) for delivery in found)
        messages = [ReceivedMessage(self, delivery) for delivery in found]
        for message in messages:
            message.acknowledged = self.no_ack
        return messages

    def hand_over(self, wait: float = 0.0) -> int:
        """Receive one message and call the callbacks; returns how many there were."""
        for message in self.receive(wait, 1):
            if self.on_message is not None:
                self.on_message(message)
                return 1
            try:
                body = message.payload
            except CeleriacError as exc:
                if self.on_decode_error is None:
                    raise
                self.on_decode_error(message, exc)
                return 1
            for callback in self.callbacks:
                callback(body, message)
            return 1
        return 0

    def renew(self) -> None:
        """Renew leases that have run for a third of their time."""
        now = time.monotonic()
        if now - self._renewed < self._lease / 3:
            return
        self._renewed = now
        held = list(self._held.values())
        for start in range(0, len(held), BATCH):
            for lost in self.connection.driver.extend(held[start : start + BATCH], self._lease):
                self._held.pop(lost.token, None)

    def settle(self, *settlements: Settlement) -> None:
        """End deliveries. One whose lease was lost has gone to somebody else, which is logged."""
        for settlement in settlements:
            self._held.pop(settlement.delivery.token, None)
        for lost in self.connection.driver.settle(settlements):
            logger.warning("message %s of %s was held for too long: others have it, too", lost.message.id, lost.queue)

    def __iter__(self) -> Iterator[Queue]:
        return iter(self.queues)

    def __enter__(self) -> Self:
        self.consume()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<Consumer: {', '.join(self._queues) or 'no queues'}>"
