"""Questions to RabbitMQ as data: which verb of a pika channel, with which arguments.

Made by the parts that know what they want (topology, delay, consumer), carried out by `amqp_channel` in the connection's own
thread. Declarations are those of stock clients, so that a queue that both declare is found equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from celeriac.routing import Exchange, Queue

__all__ = [
    "Request", "bind_exchange", "bind_queue", "cancel", "consume", "declare_exchange", "declare_queue", "define",
    "define_exchange", "look_up", "prefetch",
]  # fmt: skip


class Request(NamedTuple):
    """One call of a pika channel that is answered."""

    verb: str
    arguments: dict[str, Any]


def declare_exchange(
    name: str, kind: str, *, durable: bool = True, auto_delete: bool = False, arguments: Mapping[str, Any] | None = None
) -> Request:
    """Make an exchange exist."""
    wanted = {"exchange": name, "exchange_type": kind, "durable": durable, "auto_delete": auto_delete}
    return Request("exchange_declare", {**wanted, "arguments": dict(arguments or {})})


def declare_queue(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    durable: bool = True,
    exclusive: bool = False,
    auto_delete: bool = False,
) -> Request:
    """Make a queue exist."""
    wanted = {"queue": name, "durable": durable, "exclusive": exclusive, "auto_delete": auto_delete}
    return Request("queue_declare", {**wanted, "arguments": dict(arguments or {})})


def look_up(name: str) -> Request:
    """Ask about a queue; the answer has `message_count`."""
    return Request("queue_declare", {"queue": name, "passive": True})


def bind_queue(queue: str, exchange: str, key: str, arguments: Mapping[str, Any] | None = None) -> Request:
    """Let an exchange hand messages to a queue."""
    return Request(
        "queue_bind", {"queue": queue, "exchange": exchange, "routing_key": key, "arguments": dict(arguments or {})}
    )


def bind_exchange(destination: str, source: str, key: str) -> Request:
    """Let an exchange hand messages to another."""
    return Request("exchange_bind", {"destination": destination, "source": source, "routing_key": key})


def prefetch(count: int) -> Request:
    """How many unsettled messages each consumer that is opened from now on may have."""
    return Request("basic_qos", {"prefetch_count": count})


def consume(queue: str, tag: str, *, no_ack: bool = False, arguments: Mapping[str, Any] | None = None) -> Request:
    """Have a queue's messages pushed."""
    wanted = {"queue": queue, "consumer_tag": tag, "auto_ack": no_ack}
    return Request("basic_consume", {**wanted, "arguments": dict(arguments)} if arguments else wanted)


def cancel(tag: str) -> Request:
    """End a consumer. What it was sent and has not taken goes back."""
    return Request("basic_cancel", {"consumer_tag": tag})


def define(queue: Queue) -> list[Request]:
    """Declare a queue with its exchanges and its bindings, as kombu does; of a broadcast queue the exchange alone."""
    if queue.no_declare:
        return []
    requests = [request for each in queue.all_bindings for request in define_exchange(each.exchange)]
    if queue.is_broadcast:
        return requests
    requests.append(
        declare_queue(
            queue.name,
            _arguments(queue),
            durable=queue.durable,
            exclusive=queue.exclusive,
            auto_delete=queue.auto_delete,
        )
    )
    requests += [
        bind_queue(queue.name, each.exchange.name, each.routing_key, each.arguments) for each in queue.all_bindings
    ]
    return requests


def define_exchange(exchange: Exchange) -> list[Request]:
    """Declare an exchange, unless it is the server's own."""
    if exchange.no_declare or exchange.name.startswith("amq."):
        return []
    if exchange.passive:
        return [Request("exchange_declare", {"exchange": exchange.name, "passive": True})]
    flags = {"durable": exchange.durable, "auto_delete": exchange.auto_delete}
    return [declare_exchange(exchange.name, exchange.type, arguments=exchange.arguments, **flags)]


def _arguments(queue: Queue) -> dict[str, Any]:
    """A queue's arguments; its properties rank above them, as for kombu."""
    milliseconds = {"x-expires": queue.expires, "x-message-ttl": queue.message_ttl}
    numbers = {
        "x-max-length": queue.max_length, "x-max-length-bytes": queue.max_length_bytes, "x-max-priority": queue.max_priority,
    }  # fmt: skip
    return {
        **queue.queue_arguments,
        **{name: int(value) for name, value in numbers.items() if value is not None},
        **{name: int(value * 1000) for name, value in milliseconds.items() if value is not None},
    }
