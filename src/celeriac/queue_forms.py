"""Queues and exchanges from whatever a user gives: ours, names, dicts of options, objects with kombu's attributes.

The router calls it for `task_queues`, for routes and for the options of calls; a worker for commands. Pure functions. What is
no queue is refused here, in one line that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.routing import Exchange, Queue, binding
from celeriac.safe_repr import saferepr

__all__ = ["as_exchange", "as_queue", "queues_from_setting"]

_EXCHANGE_TYPES = ("direct", "topic", "fanout", "headers")
#: Properties besides name, type, exchange, routing key and bindings.
_EXCHANGE_FIELDS = ("durable", "auto_delete", "arguments", "delivery_mode", "passive", "no_declare")
_QUEUE_FIELDS = (
    "durable", "exclusive", "auto_delete", "queue_arguments", "binding_arguments", "max_priority", "expires", "message_ttl",
    "max_length", "max_length_bytes", "consumer_arguments", "alias", "no_ack", "no_declare",
)  # fmt: skip
#: How kombu names queues that are one worker's alone.
_UNIQUE = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_decoder = msgspec.json.Decoder(Queue)


def as_exchange(value: Any) -> Exchange:
    """Our Exchange from one of ours, a name, or any object with kombu's attributes."""
    if isinstance(value, Exchange):
        return value
    if value is None or isinstance(value, str):
        return Exchange(value or "")
    return _exchange_of(_name_of("exchange", value), lambda name: getattr(value, name, None))


def _exchange_of(name: str, get: Callable[[str], Any]) -> Exchange:
    """An exchange by its name and a look-up of its other properties."""
    kind = get("type") or "direct"
    if kind not in _EXCHANGE_TYPES:
        raise ImproperlyConfigured(
            f"exchange type {saferepr(kind, 60)} is unknown; allowed are {', '.join(_EXCHANGE_TYPES)}."
            f"{near_match(str(kind), _EXCHANGE_TYPES)}"
        )
    rest = {field: value for field in _EXCHANGE_FIELDS if (value := get(field)) is not None}
    return Exchange(name, kind, **rest)


def as_queue(value: Any, *, name: str = "", default_exchange: str = "", default_type: str = "direct") -> Queue:
    """Our Queue from one of ours, a name, a dict of options, or any object with kombu's attributes.

    Raises:
        ImproperlyConfigured: It is none of these, or a property has the wrong type.
    """
    if isinstance(value, Queue):
        return value
    if isinstance(value, str):
        return Queue(value, Exchange(default_exchange, default_type), value)
    if isinstance(value, Mapping):
        return _checked(_queue_of_options(name, value, default_exchange or name, default_type))
    return _checked(_queue_like(value))


def _name_of(what: str, value: Any) -> str:
    name = getattr(value, "name", value)
    if name is not None and not isinstance(name, str):
        raise ImproperlyConfigured(
            f"{saferepr(value, 60)} is no {what}: it is neither a name nor an object that has one"
        )
    return name or ""


def _checked(queue: Queue) -> Queue:
    """A queue whose properties have the right types."""
    try:
        _decoder.decode(msgspec.json.encode(queue))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise ImproperlyConfigured(f"queue {saferepr(queue.name, 60)} can't be as it is described: {exc}") from exc
    return queue


def _queue_of_options(name: str, options: Mapping[str, Any], default_exchange: str, default_type: str) -> Queue:
    """A queue from a dict as Celery knows it: the options of a queue, and of its exchange with `exchange_` before them."""
    exchange = options.get("exchange") or default_exchange
    if isinstance(exchange, str):
        given = {"exchange_type": default_type, **{key: value for key, value in options.items() if value is not None}}
        exchange = _exchange_of(exchange, lambda field: given.get(f"exchange_{field}"))
    rest = {field: options[field] for field in _QUEUE_FIELDS if options.get(field) is not None}
    key = options.get("routing_key") or options.get("binding_key") or name
    return Queue(name, as_exchange(exchange), key, bindings=_bindings_of(options.get("bindings")), **rest)


def _queue_like(value: Any) -> Queue:
    """A queue from an object with kombu's attributes. A broadcast queue is known by the name of its class."""
    name = _name_of("queue", value)
    rest = {field: found for field in _QUEUE_FIELDS if (found := getattr(value, field, None)) is not None}
    exchange, key = as_exchange(getattr(value, "exchange", None)), getattr(value, "routing_key", None) or ""
    bindings = _bindings_of(getattr(value, "bindings", None))
    if any(kind.__name__ == "Broadcast" for kind in type(value).__mro__) and _UNIQUE.search(name):
        rest |= {"alias": None, "is_broadcast": True}
        name = getattr(value, "alias", None) or exchange.name
    return Queue(name, exchange, key, bindings=bindings, **rest)


def _bindings_of(given: Any) -> tuple[binding, ...]:
    """Bindings of ours from any with kombu's attributes, in an order that doesn't change from process to process."""
    if not given:
        return ()
    if not isinstance(given, Iterable) or not all(hasattr(each, "routing_key") for each in given):
        raise ImproperlyConfigured(f"bindings of a queue are a list of `binding`, not {saferepr(given, 60)}")
    made = [
        binding(as_exchange(getattr(each, "exchange", None)), each.routing_key, getattr(each, "arguments", None) or {})
        for each in given
    ]
    return tuple(sorted(made, key=lambda each: (each.exchange.name, str(each.routing_key), repr(each.arguments))))


def queues_from_setting(setting: Any, default: Queue) -> dict[str, Queue]:
    """`task_queues` as a mapping by name; the default queue alone where nothing is set."""
    if not setting:
        return {default.name: default}
    if isinstance(setting, str) or not isinstance(setting, Iterable):
        raise ImproperlyConfigured(f"task_queues is a list or mapping of queues, not {saferepr(setting, 60)}")
    items: Iterable[tuple[Any, Any]]
    items = (
        setting.items() if isinstance(setting, Mapping) else ((getattr(each, "name", each), each) for each in setting)
    )
    queues = {}
    for name, value in items:
        if not isinstance(name, str):  # a list may hold anything
            raise ImproperlyConfigured(f"task_queues: {saferepr(name, 60)} is neither a queue nor the name of one")
        exchange = default.exchange
        queue = as_queue(value, name=name, default_exchange=exchange.name, default_type=exchange.type)
        if not queue.routing_key and queue.exchange.name:  # as Celery binds it, and sends to it
            queue = msgspec.structs.replace(queue, routing_key=default.routing_key)
        queues[queue.name] = queue
    return queues
