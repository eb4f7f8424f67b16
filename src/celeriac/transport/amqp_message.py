"""Messages as AMQP carries them: what a stock client would write, and what a worker can read from anybody.

The publisher calls `to_properties`, the consumer `read`. What AMQP has no place for travels in headers of our own, which
begin with `x-celeriac-` and are taken out on arrival: the moments of a message whose `eta` and `expires` headers don't tell
them, and the counts of a message that was put back as a copy. A message without them is exactly a stock one.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import msgspec

from celeriac.errors import DecodeError
from celeriac.message import Message
from celeriac.transport.amqp_channel import Pushed
from celeriac.transport.amqp_delay import original_route
from celeriac.transport.amqp_field import Properties, decode_properties
from celeriac.wire.moments import as_moment

__all__ = ["Envelope", "own_headers", "read", "to_properties"]

ETA, EXPIRES = "x-celeriac-eta", "x-celeriac-expires"
DELIVERIES, STARTS = "x-celeriac-deliveries", "x-celeriac-starts"
#: What brokers add, and what is ours: none of it is the sender's.
_DEATHS = ("x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange",
           "x-last-death-queue", "x-last-death-reason")  # fmt: skip
_SPECIAL = frozenset({ETA, EXPIRES, DELIVERIES, STARTS, "x-delivery-count", *_DEATHS})
#: RabbitMQ closes the channel on a longer expiration, in milliseconds.
_MAX_EXPIRATION = 2**32 - 1
#: Basic properties that a caller may set besides those that every message has.
_FREE = ("message_id", "timestamp", "type", "user_id", "app_id", "cluster_id")


class Envelope(msgspec.Struct, frozen=True):
    """A message and what its headers told of its life.

    Attributes:
        deliveries: How often it was delivered before, as far as is known.
        starts: How many of these are charged as starts.
    """

    message: Message
    deliveries: int = 0
    starts: int = 0


def to_properties(message: Message, *, is_delayed: bool = False, extra: dict[str, Any] | None = None) -> Properties:
    """The properties of a message.

    Args:
        is_delayed: It will wait in a delay queue, where an `expiration` would end the wait: it is left out.
        extra: Further headers.
    """
    headers = message.headers
    eta, expires_at = message.eta, message.expires_at
    own: dict[str, Any] = {}
    if eta is not None and not _says(headers.get("eta"), eta):
        own[ETA] = eta
    if expires_at is not None and not _says(headers.get("expires"), expires_at):
        own[EXPIRES] = expires_at
    if own or extra:
        headers = {**headers, **own, **(extra or {})}
    free = (
        {name: message.properties[name] for name in _FREE if name in message.properties} if message.properties else {}
    )
    return Properties(
        content_type=message.content_type or None,
        content_encoding=message.content_encoding or None,
        headers=headers,
        delivery_mode=1 if message.transient else 2,
        priority=message.priority or 0,
        correlation_id=message.id if len(message.id) < 64 or len(message.id.encode()) < 256 else None,
        reply_to=message.reply_to,
        expiration=None if expires_at is None or is_delayed else _expiration(expires_at),
        **free,
    )


def _expiration(expires_at: float) -> str | None:
    left = max(0, int((expires_at - time.time()) * 1000))
    return str(left) if left <= _MAX_EXPIRATION else None


def _says(text: Any, moment: float) -> bool:
    """Whether a header names this moment."""
    found = _moment(text)
    return found is not None and abs(found - moment) < 0.001


def _moment(text: Any) -> float | None:
    """Seconds since 1970; None for what is no moment, or names no time zone (which only the worker knows)."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None


def own_headers(deliveries: int, starts: int) -> dict[str, Any]:
    """The headers that keep these counts."""
    return {DELIVERIES: deliveries, STARTS: starts}


def read(pushed: Pushed, queue: str) -> Envelope:
    """The message in what the server sent. Never raises: one that can't be read has `defect` set."""
    try:
        properties = decode_properties(pushed.header)
    except DecodeError as exc:
        return Envelope(Message(id="", headers={}, body=pushed.body, queue=queue, defect=str(exc)))
    headers = properties.headers or {}
    own: dict[str, Any] = {}
    if not _SPECIAL.isdisjoint(headers):
        headers, own = _without_special(headers)
    task_id = headers.get("id")
    exchange, routing_key = original_route(pushed.method.exchange, pushed.method.routing_key, queue)
    message = Message(
        id=task_id if isinstance(task_id, str) else properties.correlation_id or "",
        headers=headers,
        body=pushed.body,
        content_type=properties.content_type or "",
        content_encoding=properties.content_encoding or "utf-8",
        queue=queue,
        exchange=exchange,
        routing_key=routing_key,
        priority=properties.priority,
        eta=as_moment(own[ETA]) if ETA in own else _moment(headers.get("eta")),
        expires_at=as_moment(own[EXPIRES]) if EXPIRES in own else _moment(headers.get("expires")),
        reply_to=properties.reply_to or "",
        transient=properties.delivery_mode == 1,
        properties=_free(properties),
    )
    # Quorum queues count; of classic ones it is only known that it was delivered before.
    returns = _count(own, "x-delivery-count") if "x-delivery-count" in own else int(pushed.method.redelivered)
    return Envelope(message, _count(own, DELIVERIES) + returns, _count(own, STARTS))


def _without_special(headers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sender's headers, and the others. A death is the sender's business unless it happened in a queue of ours."""
    special = _SPECIAL
    where = headers.get("x-first-death-queue")
    if isinstance(where, str) and "celery_delayed_" not in where and ".running." not in where:
        special = special - set(_DEATHS)
    own = {name: value for name, value in headers.items() if name in special}
    return {name: value for name, value in headers.items() if name not in special}, own


def _count(own: dict[str, Any], name: str) -> int:
    value = own.get(name)
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


def _free(properties: Properties) -> dict[str, Any]:
    return {name: value for name in _FREE if (value := getattr(properties, name)) is not None}
