"""Where a message without a queue goes: the bindings of exchanges, for brokers that have no exchanges of their own.

The drivers of such brokers call it. A message that no binding takes is refused (`QueueNotFound`): dropping it silently, as AMQP
does, would lose it. A broadcast is for those who are there, so it may reach nobody.

A queue that expires has the moment in the arguments of its bindings. Whoever declares it again puts that off; from then on it
gets nothing, and whoever declares another queue that expires, at the same exchange, removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from celeriac.errors import QueueNotFound
from celeriac.message import Message
from celeriac.routing import Queue, binding_matches

__all__ = ["Binding", "bindings_of", "broadcast_exchanges", "expired", "queues_for"]

#: Name of that moment, in seconds since 1970. As all names with "x-" it is not compared with headers.
_UNTIL = "x-celeriac-until"


class Binding(msgspec.Struct, frozen=True):
    """One queue bound to an exchange."""

    queue: str
    exchange_type: str
    routing_key: str
    arguments: dict[str, Any] = {}

    def is_over(self, now: float) -> bool:
        """Whether the queue has expired."""
        until = self.arguments.get(_UNTIL)
        return isinstance(until, (int, float)) and until <= now


def bindings_of(queue: Queue, now: float) -> list[tuple[str, Binding]]:
    """What is to be written down about a queue that is declared now: exchanges and bindings. Of a broadcast queue nothing."""
    if queue.is_broadcast or queue.no_declare:
        return []
    until = {} if queue.life is None else {_UNTIL: now + queue.life}
    return [
        (each.exchange.name, Binding(queue.name, each.exchange.type, each.routing_key, {**each.arguments, **until}))
        for each in queue.all_bindings
    ]


def broadcast_exchanges(queues: Iterable[Queue]) -> set[str]:
    """Names of the exchanges of broadcast queues."""
    return {each.exchange.name for queue in queues if queue.is_broadcast for each in queue.all_bindings}


def expired(bindings: Iterable[Binding], now: float) -> set[str]:
    """Names of the queues that nobody has declared again in time."""
    return {binding.queue for binding in bindings if binding.is_over(now)}


def queues_for(
    message: Message, bindings: Iterable[Binding], *, now: float = 0.0, is_broadcast: bool = False
) -> list[str]:
    """Names of the queues that get `message`, given the bindings of its exchange. Each is named once.

    The default exchange "" has no bindings: it reaches the queue whose name is the routing key.

    Args:
        now: By the clock by which the bindings were written.
        is_broadcast: There may be none.

    Raises:
        QueueNotFound: No queue is bound for it.
    """
    if not message.exchange:
        if not message.routing_key:
            raise QueueNotFound(f"Message {message.id!r} names no queue, exchange or routing key: it was not sent.")
        return [message.routing_key]
    found = dict.fromkeys(each.queue for each in bindings if _matches(each, message) and not each.is_over(now))
    if not found and not is_broadcast:
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
