"""Queues, exchanges and bindings, and the pure function that tells where a message goes.

Named as in AMQP and Celery; transports without exchanges resolve them with `binding_matches`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

__all__ = ["Exchange", "Queue", "QueueDefaults", "binding_matches", "topic_pattern"]


class Exchange(msgspec.Struct, frozen=True):
    """Where messages enter: they are handed to the queues bound to it.

    Attributes:
        type: "direct" (routing keys equal), "topic" (patterns with `*` and `#`), "fanout" (all) or "headers".
    """

    name: str = ""
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, Any] = {}
    delivery_mode: int | str | None = None


class Queue(msgspec.Struct, frozen=True):
    """A queue and its binding to one exchange."""

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

    @property
    def is_special(self) -> bool:
        """Whether it is more than its name: nobody could make it up when a message is sent to it."""
        return self.exchange.type != "direct" or self != Queue(self.name, self.exchange, self.routing_key)


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
        arguments = {} if self.queue_type == "classic" else {"x-queue-type": self.queue_type}
        return self.complete(Queue(name, Exchange(name, self.exchange_type), name, queue_arguments=arguments))

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
