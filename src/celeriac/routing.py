"""Queues, exchanges and bindings, and the pure function that tells where a message goes.

Named as in AMQP and Celery; transports without exchanges resolve them with `binding_matches`. A broadcast queue is one in name
only: every worker has a copy of it, a queue of its own that goes when the worker goes.
"""

from __future__ import annotations

import re
import uuid
from functools import lru_cache
from typing import Any, cast

import msgspec

__all__ = [
    "Broadcast", "Exchange", "Queue", "QueueDefaults", "binding", "binding_matches", "copy_of", "is_copy", "topic_pattern",
    "worker_direct",
]  # fmt: skip

#: How the names of copies begin, as kombu's do.
_COPY = "bcast."
#: Seconds for which a copy outlives the last sign of life of its worker.
COPY_LIFE = 60.0
#: The exchange of queues that belong to one worker each, and how their names end.
_DIRECT_EXCHANGE, _DIRECT_ENDING = "C.dq2", ".dq2"


def _put(struct: msgspec.Struct, **values: Any) -> None:
    """Complete an object that is being made."""
    for name, value in values.items():
        msgspec.structs.force_setattr(struct, name, value)


class Exchange(msgspec.Struct, frozen=True):
    """Where messages enter: they are handed to the queues bound to it.

    Attributes:
        type: "direct" (routing keys equal), "topic" (patterns with `*` and `#`), "fanout" (all) or "headers".
        delivery_mode: 1 or "transient" if messages may be lost in a restart of the broker; None leaves it to the settings.
        passive: It has to exist already (RabbitMQ).
        no_declare: It is never declared.
    """

    name: str = ""
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, Any] = {}
    delivery_mode: int | str | None = None
    passive: bool = False
    no_declare: bool = False

    def __post_init__(self) -> None:
        _put(self, name=self.name or "", type=self.type or "direct", arguments=self.arguments or {})


def _exchange(given: Any) -> Exchange:
    return Exchange(given or "") if given is None or isinstance(given, str) else cast("Exchange", given)


class binding(msgspec.Struct, frozen=True):  # noqa: N801 -- Celery's users know it as `kombu.binding`
    """That a queue gets messages of an exchange.

    Attributes:
        arguments: Of an exchange of type "headers": what a message's headers are compared with.
    """

    exchange: Exchange = Exchange()
    routing_key: str = ""
    arguments: dict[str, Any] = {}
    unbind_arguments: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _put(
            self, exchange=_exchange(self.exchange), routing_key=self.routing_key or "", arguments=self.arguments or {},
            unbind_arguments=self.unbind_arguments or {},
        )  # fmt: skip


class Queue(msgspec.Struct, frozen=True):
    """A queue and its bindings.

    Attributes:
        exchange: The exchange it is bound to, or its name. "" reaches every queue by its name.
        bindings: Further bindings. A list of them may stand in the place of the exchange.
        auto_delete: It goes with its last consumer (RabbitMQ).
        exclusive: It belongs to the worker that declares it, and goes with its connection (RabbitMQ).
        queue_arguments: As the broker knows them, such as `x-queue-type` (RabbitMQ).
        expires: Seconds after which it goes if no worker consumes it. (On brokers without exchanges of their own this is
            true of queues that are bound to one.)
        message_ttl, max_length, max_length_bytes: When messages are dropped (RabbitMQ).
        max_priority: Highest priority that is told apart (RabbitMQ).
        alias: Another name for it in routes and options.
        no_ack: Accepted, and of no effect: a message is acknowledged when its task has ended.
        no_declare: It is never declared.
        is_broadcast: Every worker has a copy of it.
    """

    name: str
    exchange: Exchange = Exchange()
    routing_key: str = ""
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    queue_arguments: dict[str, Any] = {}
    binding_arguments: dict[str, Any] = {}
    max_priority: int | None = None
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    consumer_arguments: dict[str, Any] = {}
    bindings: tuple[binding, ...] = ()
    alias: str | None = None
    no_ack: bool = False
    no_declare: bool = False
    is_broadcast: bool = False

    def __post_init__(self) -> None:
        given: Any = self.exchange
        more = tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else ()
        _put(
            self, exchange=_exchange(None if more else given), bindings=(*(self.bindings or ()), *more),
            routing_key=self.routing_key or "", queue_arguments=self.queue_arguments or {},
            binding_arguments=self.binding_arguments or {}, consumer_arguments=self.consumer_arguments or {},
            auto_delete=self.auto_delete or self.exclusive,
        )  # fmt: skip

    @property
    def is_special(self) -> bool:
        """Whether it is more than its name: nobody could make it up when a message is sent to it."""
        plain = Queue(self.name, self.exchange, self.routing_key, alias=self.alias)
        return self.exchange.type != "direct" or self != plain

    @property
    def all_bindings(self) -> tuple[binding, ...]:
        """Its bindings to exchanges that have a name."""
        own = binding(self.exchange, self.routing_key, self.binding_arguments)
        return tuple(each for each in (own, *self.bindings) if each.exchange.name)

    @property
    def life(self) -> float | None:
        """Seconds that it stays without a consumer; None: for ever."""
        given = self.queue_arguments.get("x-expires")
        if self.expires is not None:
            return float(self.expires)
        return given / 1000 if isinstance(given, int) and given > 0 else None


def Broadcast(  # noqa: N802 -- Celery's users know it as `kombu.common.Broadcast`
    name: str,
    queue: str | None = None,
    unique: bool = False,
    auto_delete: bool = True,
    exchange: Exchange | None = None,
    alias: str | None = None,
    **options: Any,
) -> Queue:
    """A queue whose messages go to every worker that is up and consumes it.

    Args:
        name: Its name, and that of its exchange.
        queue: Name of one queue that all workers share, unless `unique`. Then a message goes to one of them.
        exchange: Instead of the fanout exchange `name`.
        alias: Another name for it, instead of `name`.
        options: Of `Queue`.
    """
    exchange = exchange or Exchange(name, "fanout")
    if queue and not unique:
        return Queue(queue, exchange, alias=alias or name, auto_delete=auto_delete, **options)
    return Queue(alias or name, exchange, auto_delete=auto_delete, is_broadcast=True, **options)


def copy_of(queue: Queue) -> Queue:
    """A worker's own copy of a broadcast queue.

    It expires instead of going with its last consumer: a worker that is busy consumes nothing for a while.
    """
    return msgspec.structs.replace(
        queue, name=f"{_COPY}{uuid.uuid4()}", alias=queue.name, is_broadcast=False, auto_delete=False,
        expires=queue.expires or COPY_LIFE,
    )  # fmt: skip


def is_copy(name: str) -> bool:
    """Whether a queue of this name is one worker's copy of a broadcast queue."""
    return name.startswith(_COPY)


def worker_direct(node: str | Queue) -> Queue:
    """The queue of one worker, by its node name: `task.apply_async(queue=worker_direct("w1@example.com"))`.

    It is there if the setting `worker_direct` is on. A queue is returned as it is.
    """
    if isinstance(node, Queue):
        return node
    return Queue(f"{node}{_DIRECT_ENDING}", Exchange(_DIRECT_EXCHANGE), node)


class QueueDefaults(msgspec.Struct, frozen=True):
    """What queues have that are not described in full.

    Attributes:
        queue_type: Of queues that `task_queues` does not name: "classic" or "quorum".
        exchange_type: Of their exchanges.
        max_priority: Highest priority of every queue that says none itself; None leaves it to the broker.
    """

    queue_type: str = "classic"
    exchange_type: str = "direct"
    max_priority: int | None = None

    def missing(self, name: str) -> Queue:
        """The queue of this name that nobody has described."""
        return self.typed(Queue(name, Exchange(name, self.exchange_type), name))

    def typed(self, queue: Queue) -> Queue:
        """A queue that nobody has described, complete, and of the type that such queues have."""
        arguments = queue.queue_arguments
        if self.queue_type != "classic" and "x-queue-type" not in arguments:
            queue = msgspec.structs.replace(queue, queue_arguments={**arguments, "x-queue-type": self.queue_type})
        return self.complete(queue)

    def complete(self, queue: Queue) -> Queue:
        """A queue with what it does not say itself."""
        arguments = queue.queue_arguments
        if self.max_priority is None or queue.max_priority is not None or "x-max-priority" in arguments:
            return queue
        return msgspec.structs.replace(queue, queue_arguments={**arguments, "x-max-priority": self.max_priority})


@lru_cache(maxsize=1024)
def topic_pattern(pattern: str) -> re.Pattern[str]:
    """A topic binding as a regular expression over "." and a routing key: `*` is one word, `#` any number of words."""
    parts: list[str] = [""]  # what stands between two "#"; each word brings its dot
    for word in pattern.split("."):
        if word == "#":
            parts.append("")
        else:
            parts[-1] += r"\.[^.]+" if word == "*" else r"\." + re.escape(word)
    if len(parts) == 1:
        return re.compile(parts[0] + r"\Z", re.DOTALL)
    # Where a part fits first is as good as anywhere further on. So it is never looked for again (`?>`), and no key can make
    # a pattern with many "#" take long.
    between = "".join(rf"(?>(?:\.[^.]*)*?{part}(?![^.]))" for part in parts[1:-1])
    return re.compile(rf"{parts[0]}{between}(?:\.[^.]*)*{parts[-1]}\Z", re.DOTALL)


def binding_matches(exchange_type: str, binding_key: str, routing_key: str) -> bool:
    """Whether a message with `routing_key` goes to a queue bound with `binding_key`."""
    if exchange_type == "fanout":
        return True
    if exchange_type == "topic":
        return topic_pattern(binding_key).match("." + routing_key) is not None
    return binding_key == routing_key
