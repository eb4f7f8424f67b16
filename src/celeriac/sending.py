"""From a call to messages at the broker: defaults, route, relation to the running task, encoding, publishing.

`prepare` makes the message (also of continuations, in the runner); `publish` hands messages to the transport within the
publish budget, retrying as `task_publish_retry_policy` says. The way of `delay()` ends here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from msgspec import to_builtins
from msgspec.structs import replace

from celeriac import signals
from celeriac.context import Context, running
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.loading import import_object
from celeriac.message import Message
from celeriac.middleware import send_through
from celeriac.options import COPIED, KNOWN, LIMITS, check_limits, check_options, signatures_of, task_id_of
from celeriac.result import AsyncResult
from celeriac.safe_repr import MAX_LENGTH, MAX_LEVELS, saferepr
from celeriac.task import FromSetting
from celeriac.timing import SYSTEM_CLOCK, call_end
from celeriac.wire.messages import CallForm, TaskCall

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.transport.base import AheadTransport, TransactionalTransport

__all__ = ["Ahead", "filled", "form_key", "new_id", "new_ids", "own_fields", "prepare", "publish"]

T = TypeVar("T")

logger = logging.getLogger("celeriac.sending")

#: What is left must be worth an attempt: as long as the longest one took, but no more than this, in seconds. One that took
#: longer has met a silent broker; the next one ends with `publish_timeout`, whatever it waits for.
LONGEST_RESERVE = 0.5
#: Options that say something of a call's limits.
_LIMITING = frozenset({"concurrency_key", "is_named", "limits"})
#: Types of options by which calls are found to be alike.
_PLAIN = frozenset({str, int, float, bool, NoneType})


def new_id() -> str:
    """A UUID version 7: a moment in milliseconds, then 72 random bits.

    Ids that grow with time are neighbours in the index of a result table: storing 100 results touches a few pages there
    instead of 100, which halves what SQLite spends on them.
    """
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """So many of them, of one moment. They ask the system for random bits once."""
    moment, digits = f"{time.time_ns() // 1_000_000:012x}", os.urandom(9 * count).hex()
    head, ids = f"{moment[:8]}-{moment[8:]}-7", []
    for at in range(0, 18 * count, 18):  # a comprehension would be one more call for every delay()
        ids.append(f"{head}{digits[at : at + 3]}-8{digits[at + 3 : at + 6]}-{digits[at + 6 : at + 18]}")  # noqa: PERF401
    return ids


def prepare(
    app: Celeriac,
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    task_id: str | None = None,
    link: Any = None,
    link_error: Any = None,
    shadow: str | None = None,
    task: Any = None,
    options: Mapping[str, Any] | None = None,
    forms: dict[Any, CallForm] | None = None,
) -> tuple[Message, AsyncResult[Any]]:
    """The message of a call and its result to come.

    Args:
        forms: Of a batch of calls made in one context: those that differ in id, arguments and place in the group only
            share what is made of them once.

    Raises:
        TypeError: `args` is not a list or tuple, or an option has the wrong type.
        ValueError: An option has a value that is not allowed, such as a soft time limit above the hard one.
        EncodeError: An argument can't be serialized.
        MessageTooLarge: The body is larger than `message_max_bytes`.
    """
    options = options or {}
    if args.__class__ is not tuple and not isinstance(args, (list, tuple, NoneType)):
        raise TypeError(f"task args must be a list or tuple, not {args!r}")
    task_id = task_id_of(task_id) if task_id else new_ids(1)[0]
    context = running.get()
    key: Any = None
    if not (options or link or link_error or shadow) and (context is None or context.called_directly):
        key, forms = name, app.plain_calls
    elif forms is not None and not (link or link_error or shadow):
        key = form_key(name, options)
    form = forms.get(key) if forms is not None else None
    if form is None:
        call = _call(app, name, args, kwargs, task_id, link, link_error, shadow, task, options)
        conf = app.conf
        form = CallForm(
            call, now=SYSTEM_CLOCK.now(), tz=app.timezone, max_bytes=conf.message_max_bytes, protocol=conf.task_protocol
        )
        args, kwargs = call.args, call.kwargs
        if key is not None and forms is not None and _is_form_of_all(app, form, task):
            forms[key] = form
            form.is_shared = True
    message, result = filled(app, form, task_id, args or (), kwargs or {}, options.get("group_index"))
    if context is not None and options.get("add_to_parent", True):
        _add_to_trail(context, result)
    return message, result


def filled(
    app: Celeriac,
    form: CallForm,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    group_index: int | None = None,
) -> tuple[Message, AsyncResult[Any]]:
    """The message of a call whose form is known, and its result to come."""
    message = form.message(task_id, args, kwargs, group_index)
    if app.middleware:
        message = send_through(app.middleware, message)
    result: AsyncResult[Any] = AsyncResult(task_id, app=app)
    result.ignored = form.call.ignore_result is True
    return message, result


def form_key(name: str, options: Mapping[str, Any]) -> Any:
    """What tells apart the calls of a batch that don't share a form; None for a call that shares none."""
    key: list[Any] = [name, options.get("group_index") is None]
    for option, value in options.items():
        if option not in ("task_id", "group_index"):
            if value.__class__ in _PLAIN:
                key += (option, value.__class__, value)
            elif option == "chord":  # the body, which all parts of a chord share; the form keeps it alive
                key += (option, id(value))
            else:
                return None
    return tuple(key)


def _is_form_of_all(app: Celeriac, form: CallForm, task: Any) -> bool:
    """Whether it holds for every call with the same name and options: no argument and no moment has changed anything."""
    own_way = task is not None and (
        task.pydantic or task.has_shadow_name or task.unique or task.concurrency_key or task.secrets
    )
    is_usual = app.conf.task_repr_maxlevels == MAX_LEVELS and app.repr_sizes is None
    return form.is_lasting and app.router.is_static and is_usual and not own_way


def _call(
    app: Celeriac,
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    task_id: str,
    link: Any,
    link_error: Any,
    shadow: str | None,
    task: Any,
    options: Mapping[str, Any],
) -> TaskCall:
    """All about a call: its route, its options, what it inherits from the task that makes it."""
    if options:
        check_options(options)
    route = app.router.route(options.get("route_name") or name, args, kwargs, options, task)
    if route.options:  # what the task sets itself ranks above its route, as its queue does
        own = {key: value for key, value in route.options.items() if task is None or not task.sets(key)}
        options = {**own, **options}
    context = running.get()
    if options or link or link_error:
        fields = _fields(app, task, options, link, link_error, context)
    else:
        fields = app.plain_fields(task)
        if context is not None and not context.called_directly:
            fields = {**fields, **_relation(app, context, options)}
    if task is not None and task.pydantic and fields["serializer"] != "pickle":
        args, kwargs = import_object("celeriac.modeling:dump_models", "pydantic")(args, kwargs)
    if task is not None and task.has_shadow_name and not (shadow or options.get("shadow")):
        shadow = task.shadow_name(args, kwargs, options)
    if task is not None and task.secrets:
        hidden = import_object("celeriac.hiding:texts_of", "Secret")(task.secrets, args or (), kwargs or {})
        fields = {**fields, **{name: fields.get(name) or text for name, text in hidden.items()}}
    levels, sizes = app.conf.task_repr_maxlevels, app.repr_sizes
    if levels != MAX_LEVELS or sizes is not None:
        longest, longest_named = sizes or (MAX_LENGTH, MAX_LENGTH)
        texts = {
            "argsrepr": saferepr(args or (), longest, levels),
            "kwargsrepr": saferepr(kwargs or {}, longest_named, levels),
        }
        fields = {**fields, **{each: fields.get(each) or text for each, text in texts.items()}}
    has_limits = task is not None and (task.unique or task.concurrency_key is not None)
    limits = (
        _limits(task if has_limits else None, args, kwargs, options)
        if has_limits or not _LIMITING.isdisjoint(options)
        else None
    )
    if limits:
        fields = {**fields, "headers": {**(fields.get("headers") or {}), LIMITS: limits}}
    return TaskCall(
        task=name,
        id=task_id,
        args=args or (),
        kwargs=kwargs or {},
        queue=route.queue,
        exchange=route.exchange,
        routing_key=route.routing_key,
        shadow=shadow or options.get("shadow") or None,
        **fields,
    )


def _limits(task: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Any:
    """The header about the limits of a call: its keys, which a worker can't see without opening the body. None for none.

    Args:
        task: The task, if it has limits.
    """
    is_named = bool(options.get("is_named"))
    limits = options.get("limits")  # a retry keeps those of the first attempt
    if not limits and task is not None:
        mark_for = import_object("celeriac.limit_keys:mark_for", "limits")
        limits = to_builtins(mark_for(task, args or (), kwargs or {}, is_named=is_named))
    elif not limits and is_named:
        limits = {"is_named": True}
    if options.get("concurrency_key"):  # by a caller who has not the task, or who knows better
        key = import_object("celeriac.limit_keys:short", "concurrency_key")(options["concurrency_key"])
        limits = {**(limits or {}), "key": key}
    return limits


def own_fields(app: Celeriac, task: Any) -> dict[str, Any]:
    """The fields of a call that has no options: those of the task, or of the settings for a task that is not here.

    Raises:
        ValueError: The task's soft time limit is above its hard one.
    """
    conf = app.conf
    if task is None:
        fields = {
            "serializer": conf.task_serializer,
            "compression": conf.task_compression,
            "priority": conf.task_default_priority,
            "delivery_mode": conf.task_default_delivery_mode,
            "expires": None,
            "ignore_result": None,
        }
    else:
        limits = type(task).time_limit, type(task).soft_time_limit
        if not any(isinstance(limit, FromSetting) for limit in limits):  # what settings say is the worker's business
            check_limits(*limits)
        fields = {name: getattr(task, name) for name in ("serializer", "compression", "priority", "expires")}
        fields["delivery_mode"] = task.delivery_mode or conf.task_default_delivery_mode
        fields["ignore_result"] = bool(task.ignore_result)
    return {**fields, "origin": app.origin, "reply_to": app.oid}


def _fields(
    app: Celeriac, task: Any, options: Mapping[str, Any], link: Any, link_error: Any, context: Context | None
) -> dict[str, Any]:
    """The fields of a call with options."""
    fields = {**app.plain_fields(task)}
    if context is not None and not context.called_directly:
        fields.update(_relation(app, context, options))
    fields.update({option: options[option] for option in COPIED if options.get(option) is not None})
    callbacks = link if link is not None else options.get("link")
    errbacks = link_error if link_error is not None else options.get("link_error")
    if callbacks:
        fields["callbacks"] = signatures_of("link", callbacks)
    if errbacks:
        fields["errbacks"] = signatures_of("link_error", errbacks)
    extra = {key: value for key, value in options.items() if key not in KNOWN}
    if options.get("stamped_headers"):
        names = options["stamped_headers"]
        fields["stamps"] = {
            **(options.get("stamps") or {}),
            **{name: extra.pop(name) for name in names if name in extra},
        }
    if extra:
        fields["properties"] = extra
    return fields


def _relation(app: Celeriac, context: Context, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a call made inside a task inherits from it."""
    found: dict[str, Any] = {"root_id": context.root_id or context.id, "parent_id": context.id}
    if app.conf.task_inherit_parent_priority and context.delivery_info and options.get("priority") is None:
        inherited = context.delivery_info.get("priority")
        if inherited is not None:
            found["priority"] = inherited
    return found


def _add_to_trail(context: Context, result: AsyncResult[Any]) -> None:
    task = context.get("owner")
    if not context.called_directly and (task is None or task.trail):
        context.children = [*(context.children or ()), result]


def publish(app: Celeriac, messages: Sequence[Message], options: Mapping[str, Any] | None = None) -> None:
    """Hand messages to the broker; returns once it has them.

    Tries again as `retry_policy` says, but never longer than `publish_timeout` in all. With the option `connection` they
    are part of the transaction of that connection instead.

    Raises:
        OperationalError: The broker can't be reached.
    """
    if signals.before_task_publish.receivers:
        messages = [_private(message) for message in messages]
        _tell(signals.before_task_publish, messages)
    started = time.monotonic()
    end = started + ((options and options.get("timeout")) or app.conf.publish_timeout)
    token = call_end.set(end)
    try:
        if options and options.get("connection") is not None:
            _publish_in(app, messages, options["connection"])
        else:
            _hand_over(app, messages)
    except OperationalError as exc:
        _publish_again(app, messages, options or {}, exc, started, end)
    finally:
        call_end.reset(token)
    if signals.after_task_publish.receivers:
        _tell(signals.after_task_publish, messages)


class Ahead:
    """Publishes many messages in pieces: where the broker can do it, one is on its way while the next is made.

    A context manager; its end waits for the last piece.

    Args:
        options: Of the calls, as `publish` takes them.
    """

    def __init__(self, app: Celeriac, options: Mapping[str, Any] | None = None) -> None:
        self._app = app
        self._options = options or {}
        self._end: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._wait()

    def publish(self, messages: Sequence[Message]) -> None:
        """Wait until the broker has the piece before this one, then send this one.

        Raises:
            OperationalError: The broker can't be reached; what it has confirmed stays sent.
        """
        self._wait()
        app, options = self._app, self._options
        is_watched = signals.before_task_publish.receivers or signals.after_task_publish.receivers
        has_more_to_do = is_watched or app.undeclared or app.mailbox is not None or app.conf.task_track_enqueued
        if has_more_to_do or options.get("connection") is not None or not app.transport.capabilities.publishes_ahead:
            publish(app, messages, options)
            return
        begin = partial(cast("AheadTransport", app.transport).begin_publish, messages)
        end = _tried(app, messages, options, begin)
        self._end = None if end is None else partial(_tried, app, messages, options, end)

    def _wait(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end()


def _tried(app: Celeriac, messages: Sequence[Message], options: Mapping[str, Any], step: Callable[[], T]) -> T | None:
    """What this step of publishing returns; None if it failed and all of it was done again.

    `publish` has the same in one step: each `delay()` goes there, and saves the call.
    """
    started = time.monotonic()
    end = started + (options.get("timeout") or app.conf.publish_timeout)
    token = call_end.set(end)
    try:
        return step()
    except OperationalError as exc:
        _publish_again(app, messages, options, exc, started, end)
        return None
    finally:
        call_end.reset(token)


def _hand_over(app: Celeriac, messages: Sequence[Message]) -> None:
    """One attempt."""
    if app.mailbox is not None and running.get() is None:  # inside a task nobody reads results, so none are collected
        app.mailbox.listen()
    transport = app.transport
    undeclared = app.undeclared
    if undeclared:
        transport.declare(undeclared)  # several threads may do it at once, and others add queues meanwhile
        app.undeclared = [queue for queue in app.undeclared if queue not in undeclared]
    if app.conf.task_track_enqueued:
        import_object("celeriac.enqueued:publish_recorded", "task_track_enqueued")(app, messages)
    else:
        transport.publish(messages)


def _publish_in(app: Celeriac, messages: Sequence[Message], connection: Any) -> None:
    """Send inside the user's own transaction, or over a `Connection`. Never tried again: what went wrong is his business.

    Raises:
        ImproperlyConfigured: The broker is no database, or the connection is none of it.
    """
    transport = app.transport
    if isinstance(connection, import_object("celeriac.broker_connection:Connection", "connection")):
        connection.driver.publish(messages)  # one to a broker, as kombu has them
        return
    if not transport.capabilities.transactional:
        raise ImproperlyConfigured(
            f"connection= sends a task inside a transaction of the broker's database, and {transport.url} is none: use a"
            " PostgreSQL, MySQL or SQLite broker, or leave it out."
        )
    if app.mailbox is not None and running.get() is None:
        app.mailbox.listen()
    cast("TransactionalTransport", transport).publish_in(connection, messages)


def _publish_again(
    app: Celeriac,
    messages: Sequence[Message],
    options: Mapping[str, Any],
    error: OperationalError,
    started: float,
    end: float,
) -> None:
    conf = app.conf
    wanted = False if options.get("connection") is not None else options.get("retry")
    if not (conf.task_publish_retry if wanted is None else wanted):
        raise error
    policy = {**conf.task_publish_retry_policy, **(options.get("retry_policy") or {})}
    longest = time.monotonic() - started
    pause, attempt, limit = float(policy.get("interval_start") or 0), 0, policy.get("max_retries")
    while (limit is None or attempt < limit) and time.monotonic() + pause + min(longest, LONGEST_RESERVE) < end:
        attempt += 1
        time.sleep(pause)
        pause = min(pause + policy.get("interval_step", 0.2), policy.get("interval_max", 1))
        began = time.monotonic()
        try:
            _hand_over(app, messages)
            return
        except OperationalError as exc:
            error = exc
        longest = max(longest, time.monotonic() - began)
    raise error


def _private(message: Message) -> Message:
    """The message with tables of its own, which receivers may change."""
    headers = {name: copy(value) for name, value in message.headers.items()}
    return replace(message, headers=headers, properties={**message.properties})


def _tell(signal: Any, messages: Sequence[Message]) -> None:
    for message in messages:
        extra: dict[str, Any] = {"properties": message.properties, "declare": [], "retry_policy": None}
        signal.send(
            sender=message.task,
            body=message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            headers=message.headers,
            **(extra if signal is signals.before_task_publish else {}),
        )
