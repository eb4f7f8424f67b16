"""Queues, exchanges and bindings at RabbitMQ, declared as stock Celery workers declare them, so that both can share them.

The transport calls it for `declare`, the publisher when a queue turns out to be missing or a message is to wait, the consumer
before it consumes. Delays take 28 queues, for which a loaded cluster needs many seconds: workers make them before they say that
they are ready, as stock clients expect, and whoever delays a message does, but not who merely sends one.

What has been declared on a connection is remembered until the connection is lost or a queue is found missing; the definitions
themselves are remembered for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from celeriac.errors import ImproperlyConfigured, QueueNotFound
from celeriac.routing import Exchange, Queue
from celeriac.timing import Deadline
from celeriac.transport import amqp_delay as delay
from celeriac.transport.amqp_channel import ChannelClosed
from celeriac.transport.amqp_connection import Connection
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_request import Request, bind_exchange, bind_queue, declare_queue, define, look_up

__all__ = ["NOT_FOUND", "PRECONDITION", "Topology"]

NOT_FOUND, LOCKED, PRECONDITION = 404, 405, 406


class Topology:
    """What exists at the broker.

    Args:
        link: Where it is declared.
        known: Definitions by name, of queues that were declared or had to be made up.
        consumes: Whether this connection consumes: exclusive queues belong to it.
    """

    def __init__(self, link: Link, known: dict[str, Queue], *, consumes: bool = False) -> None:
        self._link = link
        self.known = known
        self._consumes = consumes
        #: Exchanges whose delayed messages pass Celery's own way: names of topic exchanges beside quorum queues.
        self.delaying_exchanges: set[str] = set()
        #: Queues that were declared, whose delays in Celery's way were not: see `ensure_celery_delay`.
        self._undelayed: dict[str, Queue] = {}
        #: Exchanges of broadcast queues, by name: their messages may reach nobody.
        self.broadcasts = _broadcasts(known.values())
        self._made: set[str] = set()
        self._connection: Connection | None = None

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make queues, their exchanges and bindings exist.

        Raises:
            ImproperlyConfigured: A queue or exchange exists with other properties.
        """
        self.known.update((queue.name, queue) for queue in queues)
        self.broadcasts |= _broadcasts(queues)
        deadline = self._link.deadline()
        for queue in queues:
            if not queue.exclusive:  # who consumes it makes it: it belongs to that connection
                self._declare(queue, deadline)
        if any(queue.queue_arguments.get("x-queue-type") == "quorum" for queue in queues):
            ordinary = [queue for queue in queues if _is_ordinary(queue)]
            self._undelayed |= {queue.name: queue for queue in ordinary}
            self.delaying_exchanges |= {
                each.exchange.name for queue in ordinary for each in queue.all_bindings if each.exchange.type == "topic"
            }

    def _declare(self, queue: Queue, deadline: Deadline) -> None:
        if queue.exclusive and not self._consumes:
            raise QueueNotFound(f"queue {queue.name!r} is exclusive, and the worker that it belongs to is not there")
        requests = define(queue)
        try:
            if requests:
                self._link.ask(*requests, deadline=deadline)
        except ChannelClosed as exc:
            if exc.code in (PRECONDITION, 403):
                raise ImproperlyConfigured(
                    f"queue {queue.name!r} can't be declared as configured: {exc.text}. Delete it at the broker, or"
                    " configure it as it is there"
                ) from exc
            if exc.code == LOCKED:
                raise ImproperlyConfigured(f"queue {queue.name!r} is exclusive and belongs to another worker") from exc
            raise
        self._remember(f"queue {queue.name}")

    def ensure_celery_delay(self) -> None:
        """What stock clients need to delay messages to the quorum queues that were declared, and what is beside them.

        Exchanges that are not direct get delayed keys, too.
        """
        queues = list(self._undelayed.values())
        if not queues:
            return
        self._ensure_chain(self._link.deadline())
        requests = []
        for name, bound in ((queue.name, each) for queue in queues for each in queue.all_bindings):
            exchange = bound.exchange
            if exchange.type == "direct":
                continue
            key = bound.routing_key if bound.routing_key.startswith("#") else f"#.{bound.routing_key}"
            requests.append(bind_exchange(exchange.name, delay.DELIVERY, key))
            if exchange.type != "headers":  # there a second binding, without arguments, would take everything
                requests.append(bind_queue(name, exchange.name, key))
        self._link.ask(*requests)
        for queue in queues:
            if self._undelayed.get(queue.name) is queue:  # other threads declare meanwhile
                del self._undelayed[queue.name]

    def ensure(self, name: str, deadline: Deadline) -> None:
        """Make a queue exist: as it was defined, else as it is, else as Celery makes one that is not configured."""
        if self._has(f"queue {name}"):
            return
        if name not in self.known and self.exists(name, deadline):
            self._remember(f"queue {name}")
            return
        queue = self.known.setdefault(name, Queue(name, Exchange(name), name))
        self._declare(queue, deadline)

    def ensure_present(self, names: set[str]) -> None:
        """Make queues exist that are published to. One that exists is taken as it is: who only sends may not declare."""
        for name in names:
            if self._has(f"queue {name}"):
                continue
            deadline = self._link.deadline()
            if self.exists(name, deadline):
                self._remember(f"queue {name}")
            else:
                self.ensure(name, deadline)

    def ensure_broadcasts(self, names: set[str]) -> None:
        """Make exchanges of broadcast queues exist."""
        for queue in {queue.name: queue for name, queue in self.broadcasts.items() if name in names}.values():
            if not self._has(f"queue {queue.name}"):
                self._declare(queue, self._link.deadline())

    def ensure_delayed(self, name: str, deadline: Deadline) -> None:
        """Make delayed delivery to a queue possible."""
        if self._has(f"delay {name}"):
            return
        self.ensure(name, deadline)
        self._ensure_chain(deadline)
        self._link.ask(delay.queue_binding(name), deadline=deadline)
        self._remember(f"delay {name}")

    def ensure_dead(self, name: str, deadline: Deadline) -> None:
        """Make a queue of dead letters exist."""
        self.ensure_exchange(name, declare_queue(name), deadline)

    def ensure_exchange(self, name: str, request: Request, deadline: Deadline) -> None:
        """Make something exist by this request."""
        if not self._has(f"queue {name}"):
            self._link.ask(request, deadline=deadline)
            self._remember(f"queue {name}")

    def _ensure_chain(self, deadline: Deadline) -> None:
        if self._has("chain"):
            return
        wanted = self._link.place.options.delayed_queue_type
        if not self.exists(delay.ENTRY, deadline):
            try:
                self._make_chain(wanted)
            except ChannelClosed as exc:
                # Somebody has made a part of it with the other queue type.
                if exc.code != PRECONDITION:
                    raise
                other = "classic" if wanted == "quorum" else "quorum"
                self._make_chain(other)
        self._remember("chain")

    def _make_chain(self, queue_type: str) -> None:
        """Once in a broker's life. It may take seconds, as quorum queues do; each step has the usual time."""
        requests = delay.chain_requests(queue_type)
        for start in range(0, len(requests), 8):
            self._link.ask(*requests[start : start + 8])

    def exists(self, name: str, deadline: Deadline | None = None) -> bool:
        """Whether a queue exists; one that belongs to another connection does."""
        try:
            return self.count(name, deadline) is not None
        except ChannelClosed as exc:
            if exc.code == LOCKED:
                return True
            raise

    def count(self, name: str, deadline: Deadline | None = None) -> int | None:
        """How many messages of a queue are ready; None if there is no such queue."""
        answer = self.ask_about(look_up(name), deadline)
        return None if answer is None else int(answer.message_count)

    def ask_about(self, request: Request, deadline: Deadline | None = None) -> Any:
        """The answer to a question about a queue; None if there is no such queue."""
        try:
            return self._link.ask(request, deadline=deadline)[0]
        except ChannelClosed as exc:
            if exc.code == NOT_FOUND:
                return None
            raise

    def forget(self, name: str) -> None:
        """A queue was found missing, or is deleted."""
        self._made -= {f"queue {name}", f"delay {name}"}

    def _has(self, what: str) -> bool:
        connection = self._link.current()
        if connection is not self._connection:  # a broker that was away may have lost what is not durable
            self._connection = connection
            self._made = set()
        return what in self._made

    def _remember(self, what: str) -> None:
        self._has(what)
        self._made.add(what)


def _broadcasts(queues: Iterable[Queue]) -> dict[str, Queue]:
    """Broadcast queues by the names of their exchanges."""
    return {each.exchange.name: queue for queue in queues if queue.is_broadcast for each in queue.all_bindings}


def _is_ordinary(queue: Queue) -> bool:
    """Whether it is declared whole, by whoever knows it."""
    return not (queue.is_broadcast or queue.exclusive or queue.no_declare)
