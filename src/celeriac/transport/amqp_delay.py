"""Delayed delivery inside RabbitMQ: messages wait in queues whose time to live is a power of two, from level to level.

The topology is Celery's own (exchanges and queues `celery_delayed_27` … `celery_delayed_0`, then the exchange
`celery_delayed_delivery`), so that stock workers and clients share it: the binary digits of the delay, most significant
first, stand before the routing key, and each 1 sends the message through the queue of its level. Celery uses it for topic
exchanges. For every queue, whatever its exchange, we bind the queue itself to the last exchange under an address of ours (28
digits, its name, a mark), which no binding of Celery's matches. Pure functions; `amqp_topology` sends what they make.
"""

from __future__ import annotations

import hashlib
from typing import Any

from celeriac.transport.amqp_request import Request, bind_exchange, bind_queue, declare_exchange, declare_queue

__all__ = ["DELIVERY", "MAX_DELAY", "address", "chain_requests", "delayed_key", "original_route", "queue_binding"]

LEVELS = 28
#: Longest delay that the levels can keep, in whole seconds: eight and a half years.
MAX_DELAY = 2**LEVELS - 1
DELIVERY = "celery_delayed_delivery"
#: Where every delayed message enters.
ENTRY = f"celery_delayed_{LEVELS - 1}"
#: Last word of our addresses.
MARK = "celeriac-queue"
_WORD_LIMIT = 150


def level(number: int) -> str:
    """Name of the exchange, and of the queue, of one level; the one below level 0 delivers."""
    return f"celery_delayed_{number}" if number >= 0 else DELIVERY


def chain_requests(queue_type: str) -> list[Request]:
    """Everything that delayed messages pass, from the end to the beginning: the entry exists only when all else does."""
    requests = [declare_exchange(DELIVERY, "topic")]
    for number in range(LEVELS):
        stars = "*." * (LEVELS - 1 - number)
        here, below = level(number), level(number - 1)
        requests += [
            declare_exchange(here, "topic"),
            bind_exchange(below, here, f"{stars}0.#"),
            declare_queue(here, _arguments(number, queue_type)),
            bind_queue(here, here, f"{stars}1.#"),
        ]
    return requests


def _arguments(number: int, queue_type: str) -> dict[str, Any]:
    arguments = {
        "x-queue-type": queue_type,
        "x-overflow": "reject-publish",
        "x-message-ttl": 2**number * 1000,
        "x-dead-letter-exchange": level(number - 1),
    }
    if queue_type == "quorum":
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments


def delayed_key(seconds: int, key: str) -> str:
    """The routing key with which a message waits this long and then has `key` behind the digits."""
    digits = format(min(max(seconds, 0), MAX_DELAY), f"0{LEVELS}b")
    return ".".join(digits) + "." + key


def address(queue: str) -> str:
    """What stands behind the digits for a message to this queue: its name if that is harmless in a topic, else a hash."""
    words = queue.split(".")
    if len(queue.encode()) > _WORD_LIMIT or "" in words or "*" in words or "#" in words:
        queue = "sha256-" + hashlib.sha256(queue.encode()).hexdigest()
    return f"{queue}.{MARK}"


def queue_binding(queue: str) -> Request:
    """Request that binds a queue to its address. Each digit is one word, so no other queue's address matches."""
    return bind_queue(queue, DELIVERY, "*." * LEVELS + address(queue))


def original_route(exchange: str, routing_key: str, queue: str) -> tuple[str, str]:
    """Exchange and routing key as the sender gave them, for a message that may have been delayed."""
    if not exchange.startswith("celery_delayed_"):
        return exchange, routing_key
    key = routing_key.split(".", LEVELS)[-1]
    return ("", queue) if key.endswith("." + MARK) else (exchange, key)
