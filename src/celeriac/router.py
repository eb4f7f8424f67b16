"""Decides which queue or exchange a task goes to: call options, task attributes, `task_routes`, default queue.

Pure apart from user-written router functions. Layer 2; the app owns one `Router`, built from its settings.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, QueueNotFound, near_match
from celeriac.routing import Exchange, Queue, QueueDefaults, is_copy
from celeriac.safe_repr import saferepr

__all__ = ["Route", "Router", "queue_defaults"]

#: Options that name a destination.
_PLACES = ("queue", "exchange", "exchange_type", "routing_key")


class Route(msgspec.Struct, frozen=True):
    """Where a message goes, and options that the route adds to the call."""

    queue: str
    exchange: str
    routing_key: str
    options: dict[str, Any] = {}


def queue_defaults(conf: Mapping[str, Any]) -> QueueDefaults:
    """What the settings say about queues that are not described in full."""
    return QueueDefaults(
        queue_type=conf["task_create_missing_queue_type"],
        exchange_type=conf["task_create_missing_queue_exchange_type"] or "direct",
        max_priority=conf["task_queue_max_priority"],
    )


class Router:
    """Routes tasks by name.

    Args:
        queues: Known queues by name.
        routes: The setting `task_routes` in any documented form.
        default: Where a task without a route goes.
        create_missing: Whether a queue that is not among `queues` may be named.
        defaults: What queues have that are not described in full.
        on_created: Called with each queue that was not among `queues`.
    """

    def __init__(
        self,
        queues: Mapping[str, Queue],
        routes: Any,
        default: Queue,
        *,
        create_missing: bool = True,
        defaults: QueueDefaults = QueueDefaults(),  # noqa: B008 -- it is frozen
        on_created: Callable[[Queue], None] | None = None,
    ) -> None:
        self.queues: dict[str, Queue] = {name: defaults.complete(queue) for name, queue in queues.items()}
        self._aliases = {queue.alias: queue.name for queue in self.queues.values() if queue.alias}
        self.default = defaults.complete(default)
        self.create_missing = create_missing
        self.defaults = defaults
        self._on_created = on_created
        self._lookups = [_lookup(entry) for entry in _entries(routes)]
        #: Whether calls without options always go the same way.
        self.is_static = all(not is_dynamic for is_dynamic, _fun in self._lookups)
        self._plain: dict[str, Route] = {}

    def route(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task: Any = None) -> Route:
        """Where this call goes.

        Options of the call rank above attributes of the task, and those above `task_routes`. Other keys of a route, such
        as its priority, hold whoever names the destination.

        Raises:
            QueueNotFound: The queue is unknown and missing queues are not created, or no queue is bound so.
            ImproperlyConfigured: A route is neither a queue nor a mapping of options.
        """
        if not options and self.is_static:
            cached = self._plain.get(name)
            if cached is not None:
                return cached
        found = self.look_up(name, args, kwargs, options, task) if self._lookups else {}
        attributes = {key: getattr(task, key, None) for key in _PLACES} if task is not None else {}
        place: dict[str, Any] = {}
        for source in (found, attributes, options):
            place = _replaced(place, source)
        route = self._resolve(place, {key: value for key, value in found.items() if key not in _PLACES})
        if not options and self.is_static:
            self._plain[name] = route
        return route

    @property
    def routes(self) -> tuple[Callable[..., Any], ...]:
        """What is asked in turn: functions of (name, args, kwargs, options, task)."""
        return tuple(fun for _is_dynamic, fun in self._lookups)

    def place(self, options: Mapping[str, Any]) -> Route:
        """Where `queue`, or `exchange` and `routing_key`, lead by themselves. Raises as `route` does."""
        return self._resolve(options, {})

    def look_up(self, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> Mapping[str, Any]:
        """What `task_routes` says of a call; empty if nothing."""
        for _is_dynamic, fun in self._lookups:
            found = fun(name, args, kwargs, options, task)
            if isinstance(found, (str, Queue)) or hasattr(found, "routing_key"):
                return {"queue": found}
            if isinstance(found, Mapping):
                return found
            if found is not None:
                raise ImproperlyConfigured(
                    f"task_routes: the route of {name!r} is {found!r}, neither a queue nor a mapping of options"
                )
        return {}

    def _resolve(self, place: Mapping[str, Any], rest: dict[str, Any]) -> Route:
        exchange, routing_key, queue = place.get("exchange"), place.get("routing_key"), place.get("queue")
        if not (routing_key is None or isinstance(routing_key, str)):
            raise ImproperlyConfigured(f"a routing key is text, not {saferepr(routing_key, 60)}")
        if queue is not None:
            queue = self.queue(queue) if isinstance(queue, str) else self._given(queue)
            if queue.exchange.type == "direct" and not queue.is_broadcast:
                return Route(queue.name, "", queue.name, rest)
            exchange, routing_key = queue.exchange, routing_key or queue.routing_key
        elif not exchange and (not routing_key or routing_key == self.default.routing_key):
            return self._resolve({"queue": self.default}, rest)
        exchange = self._exchange(exchange, place.get("exchange_type"))
        if exchange.type == "direct":
            return self._bound(exchange, routing_key or "", rest)
        if exchange.type == "fanout" and not routing_key:  # it means nothing there, but Redis has a channel for each
            keys = (
                each.routing_key
                for queue in self.queues.values()
                for each in queue.all_bindings
                if each.exchange == exchange
            )
            routing_key = next(keys, "")
        return Route("", exchange.name, routing_key or "", rest)

    def _exchange(self, exchange: Any, kind: str | None) -> Exchange:
        """An exchange with its type, which queues that are bound to it know; the default one if none is named."""
        if not exchange:
            return self.default.exchange
        if not isinstance(exchange, str):
            return exchange if isinstance(exchange, Exchange) else _form("as_exchange")(exchange)
        known = (each.exchange for queue in (self.default, *self.queues.values()) for each in queue.all_bindings)
        if not (kind is None or isinstance(kind, str)):
            raise ImproperlyConfigured(f"an exchange type is text, not {saferepr(kind, 60)}")
        return next((each for each in known if each.name == exchange), Exchange(exchange, kind or "direct"))

    def _bound(self, exchange: Exchange, routing_key: str, rest: dict[str, Any]) -> Route:
        """The queue behind a direct exchange. Queues that only the broker knows are found by name there."""
        bound = [
            queue
            for queue in {queue.name: queue for queue in (self.default, *self.queues.values())}.values()
            if any(each.exchange == exchange and each.routing_key == routing_key for each in queue.all_bindings)
        ]
        if len(bound) == 1 and not bound[0].is_broadcast:
            return Route(bound[0].name, "", bound[0].name, rest)
        if bound:
            return Route("", exchange.name, routing_key, rest)
        if exchange.name == routing_key:  # how a queue that was made by naming it is bound
            return self._resolve({"queue": routing_key}, rest)
        if exchange == self.default.exchange:
            raise QueueNotFound(
                f"No queue of task_queues is bound to exchange {exchange.name!r} with routing key {routing_key!r}."
                + near_match(routing_key, [queue.routing_key for queue in self.queues.values()])
            )
        return Route("", exchange.name, routing_key, rest)

    def queue(self, name: str) -> Queue:
        """The queue of this name or alias, created if that is allowed."""
        found = self.queues.get(name) or self.queues.get(self._aliases.get(name, ""))
        if found is None:
            if name == self.default.name:
                return self.default
            if is_copy(name):  # a retry goes back to the copy it came from
                return Queue(name)
            if not self.create_missing:
                raise QueueNotFound(
                    f"Queue {name!r} is not in task_queues ({', '.join(sorted(self.queues)) or 'empty'})."
                    + near_match(name, self.queues)
                )
            found = self._add(self.defaults.missing(name))
        return found

    def to_declare(self) -> list[Queue]:
        """The queues that a sender has to declare: nobody could make them up, or a message to one of them goes to others, too."""
        places = Counter(
            (each.exchange.name, each.routing_key) for queue in self.queues.values() for each in queue.all_bindings
        )
        return [
            queue
            for queue in self.queues.values()
            if queue.is_special or any(places[each.exchange.name, each.routing_key] > 1 for each in queue.all_bindings)
        ]

    def _given(self, queue: Any) -> Queue:
        """The queue that a call brings as an object."""
        if isinstance(queue, Mapping):
            raise ImproperlyConfigured(
                f"{saferepr(queue, 60)} is no queue: it is neither a name nor an object that has one"
            )
        queue = queue if isinstance(queue, Queue) else _form("as_queue")(queue)
        found = self.queues.get(queue.name)
        return self._add(self.defaults.complete(queue)) if found is None else found

    def add(self, queue: Queue) -> None:
        """Know one more queue, or another one under this name."""
        queue = self.defaults.complete(queue)
        if queue.alias:
            self._aliases[queue.alias] = queue.name
        if queue.name == self.default.name:
            self.default = queue
        self._plain.clear()
        self._add(queue)

    def _add(self, queue: Queue) -> Queue:
        self.queues[queue.name] = queue
        if self._on_created is not None:
            self._on_created(queue)
        return queue


def _form(name: str) -> Any:
    """A function of `queue_forms`. Most programs give queues by name: they need not import it."""
    return getattr(importlib.import_module("celeriac.queue_forms"), name)


def _replaced(place: dict[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """The destination after a source of higher rank: what it names as queue or exchange ends what ranked below."""
    named = {key: source[key] for key in _PLACES if source.get(key) is not None}
    if not named:
        return place
    return named if "queue" in named or "exchange" in named else {**place, **named}


_Lookup = Callable[[str, Any, Any, dict[str, Any], Any], Any]


def _entries(routes: Any) -> list[Any]:
    if routes is None:
        return []
    if not isinstance(routes, (list, tuple)):
        return [routes]
    if routes and all(_is_pair(entry) for entry in routes):  # one table in the form of a list
        return [routes]
    return list(routes)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], (str, re.Pattern))


def _lookup(entry: Any) -> tuple[bool, _Lookup]:
    """(whether the answer may change from call to call, the lookup function) of one entry of `task_routes`."""
    if isinstance(entry, str):
        return _lookup(_import(entry))
    if isinstance(entry, Mapping):
        return False, _map_lookup(list(entry.items()))
    if isinstance(entry, (list, tuple)) and all(_is_pair(pair) for pair in entry):
        return False, _map_lookup([(pattern, route) for pattern, route in entry])
    if isinstance(entry, type):
        return _lookup(entry())
    if hasattr(entry, "route_for_task"):
        return True, lambda name, args, kwargs, options, task: entry.route_for_task(name, args, kwargs)
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
