"""Where a message without a queue goes: the bindings of exchanges, for brokers that have no exchanges of their own.

The memory and SQL transports call it. A message that no binding takes is refused (`QueueNotFound`): dropping it
silently, as AMQP does, would lose it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from celeriac.errors import QueueNotFound
from celeriac.message import Message
from celeriac.routing import binding_matches

__all__ = ["Binding", "queues_for"]


class Binding(msgspec.Struct, frozen=True):
    """One queue bound to an exchange."""

    queue: str
    exchange_type: str
    routing_key: str
    arguments: dict[str, Any] = {}


def queues_for(message: Message, bindings: Iterable[Binding]) -> list[str]:
    """Names of the queues that get `message`, given the bindings of its exchange. Each is named once.

    The default exchange "" has no bindings: it reaches the queue whose name is the routing key.

    Raises:
        QueueNotFound: No queue is bound for it.
    """
    if not message.exchange:
        if not message.routing_key:
            raise QueueNotFound(f"Message {message.id!r} names no queue, exchange or routing key: it was not sent.")
        return [message.routing_key]
    found = dict.fromkeys(binding.queue for binding in bindings if _matches(binding, message))
    if not found:
        raise QueueNotFound(
            f"No queue is bound to exchange {message.exchange!r} for routing key {message.routing_key!r}: "
            f"message {message.id!r} was not sent."
        )
    return list(found)


def _matches(binding: Binding, message: Message) -> bool:
    if binding.exchange_type == "headers":
        return _headers_match(binding.arguments, message.headers)
    return binding_matches(binding.exchange_type, binding.routing_key, message.routing_key)


def _headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """AMQP's rule: all arguments are among the headers (`x-match` "any": one is); names with "x-" don't count."""
    wanted = {name: value for name, value in arguments.items() if not name.startswith("x-")}
    hits = (name in headers and (value is None or headers[name] == value) for name, value in wanted.items())
    return any(hits) if arguments.get("x-match") == "any" else all(hits)
