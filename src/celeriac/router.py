"""Decides which queue or exchange a task goes to: call options, task attributes, `task_routes`, default queue.

Pure apart from user-written router functions. Layer 2; the app owns one `Router`, built from its settings.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, QueueNotFound, near_match
from celeriac.routing import Exchange, Queue

__all__ = ["Route", "Router", "as_exchange", "as_queue", "queues_from_setting"]

_EXCHANGE_TYPES = ("direct", "topic", "fanout", "headers")


class Route(msgspec.Struct, frozen=True):
    """Where a message goes, and options that the route adds to the call."""

    queue: str
    exchange: str
    routing_key: str
    options: dict[str, Any] = {}


def as_exchange(value: Any) -> Exchange:
    """Our Exchange from one of ours, a name, or any object with kombu's attributes."""
    if isinstance(value, Exchange):
        return value
    if value is None or isinstance(value, str):
        return Exchange(value or "")
    kind = getattr(value, "type", "direct") or "direct"
    if kind not in _EXCHANGE_TYPES:
        raise ImproperlyConfigured(
            f"exchange type {kind!r} is unknown; allowed are {', '.join(_EXCHANGE_TYPES)}.{near_match(kind, _EXCHANGE_TYPES)}"
        )
    return Exchange(
        value.name or "",
        kind,
        getattr(value, "durable", True),
        getattr(value, "auto_delete", False),
        dict(getattr(value, "arguments", None) or {}),
        getattr(value, "delivery_mode", None),
    )


def as_queue(value: Any, *, name: str = "", default_exchange: str = "", default_type: str = "direct") -> Queue:
    """Our Queue from one of ours, a name, a dict of options, or any object with kombu's attributes."""
    if isinstance(value, Queue):
        return value
    if isinstance(value, str):
        return Queue(value, Exchange(default_exchange, default_type), value)
    if isinstance(value, Mapping):
        exchange = value.get("exchange", default_exchange or name)
        kind = value.get("exchange_type", default_type)
        exchange = Exchange(exchange, kind) if isinstance(exchange, str) else as_exchange(exchange)
        return Queue(
            name,
            exchange,
            value.get("routing_key", value.get("binding_key", name)),
            queue_arguments=dict(value.get("queue_arguments") or {}),
            max_priority=value.get("max_priority"),
        )
    return Queue(
        value.name,
        as_exchange(getattr(value, "exchange", None)),
        getattr(value, "routing_key", None) or value.name,
        getattr(value, "durable", True),
        getattr(value, "exclusive", False),
        getattr(value, "auto_delete", False),
        dict(getattr(value, "queue_arguments", None) or {}),
        dict(getattr(value, "binding_arguments", None) or {}),
        getattr(value, "max_priority", None),
    )


def queues_from_setting(setting: Any, default: Queue) -> dict[str, Queue]:
    """`task_queues` as a mapping by name; the default queue alone where nothing is set."""
    if not setting:
        return {default.name: default}
    items: Iterable[tuple[str, Any]]
    items = setting.items() if isinstance(setting, Mapping) else ((getattr(q, "name", q), q) for q in setting)
    queues = {}
    for name, value in items:
        exchange = default.exchange
        queues[name] = as_queue(value, name=name, default_exchange=exchange.name, default_type=exchange.type)
    return queues


class Router:
    """Routes tasks by name.

    Args:
        queues: Known queues by name.
        routes: The setting `task_routes` in any documented form.
        default: Where a task without a route goes.
        create_missing: Whether a queue that is not among `queues` may be named.
    """

    def __init__(
        self, queues: Mapping[str, Queue], routes: Any, default: Queue, *, create_missing: bool = True
    ) -> None:
        self.queues = dict(queues)
        self.default = default
        self.create_missing = create_missing
        self._lookups = [_lookup(entry) for entry in _entries(routes)]
        self._is_static = all(not is_dynamic for is_dynamic, _fun in self._lookups)
        self._plain: dict[str, Route] = {}

    def route(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None) -> Route:
        """Where this call goes.

        Raises:
            QueueNotFound: The queue is unknown and missing queues are not created.
        """
        if not options and self._is_static:
            cached = self._plain.get(name)
            if cached is not None:
                return cached
        given = {key: options[key] for key in ("queue", "exchange", "routing_key") if options.get(key) is not None}
        if given:
            return self._resolve(given)
        attributes = {
            key: value
            for key in ("queue", "exchange", "routing_key")
            if task is not None and (value := getattr(task, key, None)) is not None
        }
        chosen = attributes or self._look_up(name, args, kwargs, options, task) or {}
        route = self._resolve(chosen)
        if not options and self._is_static:
            self._plain[name] = route
        return route

    def _look_up(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any) -> dict[str, Any] | None:
        for _is_dynamic, fun in self._lookups:
            found = fun(name, args, kwargs, options, task)
            if found is not None:
                return {"queue": found} if isinstance(found, (str, Queue)) else dict(found)
        return None

    def _resolve(self, chosen: Mapping[str, Any]) -> Route:
        rest = {k: v for k, v in chosen.items() if k not in ("queue", "exchange", "routing_key", "exchange_type")}
        exchange, routing_key = chosen.get("exchange"), chosen.get("routing_key")
        if exchange:
            name = exchange if isinstance(exchange, str) else exchange.name
            return Route("", name, routing_key or "", rest)
        queue = chosen.get("queue")
        if queue is None:
            queue = self.default
        elif isinstance(queue, str):
            queue = self.queue(queue)
        else:
            queue = self.queues.setdefault(queue.name, as_queue(queue))
        if queue.exchange.type == "direct":
            return Route(queue.name, "", queue.name, rest)
        return Route("", queue.exchange.name, routing_key or queue.routing_key, rest)

    def queue(self, name: str) -> Queue:
        """The queue of this name, created if that is allowed."""
        found = self.queues.get(name)
        if found is None:
            if name == self.default.name:
                return self.default
            if not self.create_missing:
                raise QueueNotFound(
                    f"Queue {name!r} is not in task_queues ({', '.join(sorted(self.queues)) or 'empty'})."
                    + near_match(name, self.queues)
                )
            found = self.queues[name] = Queue(name, Exchange(name, self.default.exchange.type), name)
        return found


_Lookup = Callable[[str, Any, Any, dict[str, Any], Any], Any]


def _entries(routes: Any) -> list[Any]:
    if routes is None:
        return []
    if isinstance(routes, (list, tuple)):
        return list(routes)
    return [routes]


def _lookup(entry: Any) -> tuple[bool, _Lookup]:
    """(whether the answer may change from call to call, the lookup function) of one entry of `task_routes`."""
    if isinstance(entry, str):
        return _lookup(_import(entry))
    if isinstance(entry, Mapping):
        return False, _map_lookup(list(entry.items()))
    if isinstance(entry, (list, tuple)):
        return False, _map_lookup([(pattern, route) for pattern, route in entry])
    if hasattr(entry, "route_for_task"):
        return True, lambda name, args, kwargs, options, task: entry.route_for_task(name, args, kwargs)
    if isinstance(entry, type):
        return _lookup(entry())
    if callable(entry):
        return True, lambda name, args, kwargs, options, task: entry(name, args, kwargs, options, task=task)
    raise ImproperlyConfigured(f"task_routes: {entry!r} is neither a mapping, a list of pairs, a function nor its path")


def _map_lookup(pairs: Sequence[tuple[Any, Any]]) -> _Lookup:
    exact = {pattern: route for pattern, route in pairs if isinstance(pattern, str)}
    patterns = [
        (_pattern(pattern), route) for pattern, route in pairs if not isinstance(pattern, str) or "*" in pattern
    ]

    def look_up(name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any) -> Any:
        if name in exact:
            return exact[name]
        return next((route for pattern, route in patterns if pattern.match(name)), None)

    return look_up


def _pattern(value: Any) -> re.Pattern[str]:
    return value if isinstance(value, re.Pattern) else re.compile(fnmatch.translate(value))


def _import(path: str) -> Any:
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f"task_routes: can't import {path!r}: {exc}") from exc
