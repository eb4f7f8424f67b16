"""Questions to RabbitMQ as data: which verb of a pika channel, with which arguments.

Made by the parts that know what they want (topology, delay, consumer), carried out by `amqp_channel` in the connection's own
thread. Declarations are those of stock clients, so that a queue that both declare is found equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from celeriac.routing import Queue

__all__ = [
    "Request", "bind_exchange", "bind_queue", "cancel", "consume", "declare_exchange", "declare_queue", "define", "look_up",
    "prefetch",
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


def consume(queue: str, tag: str, *, no_ack: bool = False) -> Request:
    """Have a queue's messages pushed."""
    return Request("basic_consume", {"queue": queue, "consumer_tag": tag, "auto_ack": no_ack})


def cancel(tag: str) -> Request:
    """End a consumer. What it was sent and has not taken goes back."""
    return Request("basic_cancel", {"consumer_tag": tag})


def define(queue: Queue) -> list[Request]:
    """Declare a queue with its exchange and its binding, as kombu does."""
    exchange = queue.exchange
    arguments = dict(queue.queue_arguments)
    if queue.max_priority is not None:
        arguments["x-max-priority"] = int(queue.max_priority)
    if queue.expires is not None:
        arguments["x-expires"] = int(queue.expires * 1000)
    if queue.message_ttl is not None:
        arguments["x-message-ttl"] = int(queue.message_ttl * 1000)
    requests = [
        declare_queue(
            queue.name, arguments, durable=queue.durable, exclusive=queue.exclusive, auto_delete=queue.auto_delete
        )
    ]
    if not exchange.name:
        return requests
    if not exchange.name.startswith("amq."):
        flags = {"durable": exchange.durable, "auto_delete": exchange.auto_delete}
        requests.insert(0, declare_exchange(exchange.name, exchange.type, arguments=exchange.arguments, **flags))
    requests.append(bind_queue(queue.name, exchange.name, queue.routing_key, queue.binding_arguments))
    return requests
