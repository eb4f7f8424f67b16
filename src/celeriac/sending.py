"""From a call to messages at the broker: defaults, route, relation to the running task, encoding, publishing.

`prepare` makes the message (also of continuations, in the runner); `publish` hands messages to the transport within the
publish budget, retrying as `task_publish_retry_policy` says. The way of `delay()` ends here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.context import Context, running
from celeriac.errors import OperationalError
from celeriac.message import Message
from celeriac.result import AsyncResult
from celeriac.wire.messages import TaskCall, encode_call

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["new_id", "prepare", "publish"]

logger = logging.getLogger("celeriac.sending")

#: Options of `apply_async` that have a meaning of their own; any other becomes a property of the message.
KNOWN_OPTIONS = frozenset({
    "add_to_parent", "argsrepr", "chain", "chord", "compression", "confirm_timeout", "connection", "countdown",
    "declare", "delivery_mode", "eta", "exchange", "exchange_type", "expires", "group_id", "group_index", "headers",
    "ignore_result", "immediate", "kwargsrepr", "link", "link_error", "mandatory", "parent_id", "priority", "producer",
    "publisher", "queue", "replaced_task_nesting", "reply_to", "result_cls", "retries", "retry", "retry_policy",
    "root_id", "route_name", "router", "routing_key", "serializer", "shadow", "soft_time_limit", "stamped_headers",
    "stamps", "task_id", "task_type", "time_limit", "timeout",
})  # fmt: skip


def new_id() -> str:
    """A random id in the form of a UUID version 4; twice as fast as `uuid.uuid4`."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    h = digits.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


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
) -> tuple[Message, AsyncResult[Any]]:
    """The message of a call and its result to come.

    Raises:
        ValueError: The soft time limit is above the hard one.
        EncodeError: An argument can't be serialized.
        MessageTooLarge: The body is larger than `message_max_bytes`.
    """
    options = options or {}
    route = app.router.route(options.get("route_name") or name, args, kwargs, options, task)  # type: ignore[arg-type]
    if route.options:
        options = {**route.options, **options}
    task_id = task_id or new_id()
    context = running.get()
    if options or link or link_error:
        fields = _fields(app, task, options, link, link_error, context)
    else:
        fields = app.plain_fields(task)
        if context is not None and not context.called_directly:
            fields = {**fields, **_relation(app, context, options)}
    call = TaskCall(
        task=name,
        id=task_id,
        args=args or (),
        kwargs=kwargs or {},
        queue=route.queue,
        exchange=route.exchange,
        routing_key=route.routing_key,
        shadow=shadow
        or (task.shadow_name(args, kwargs, options) if task is not None and task.has_shadow_name else None),
        **fields,
    )
    conf = app.conf
    message = encode_call(
        call, now=time.time(), tz=app.timezone, max_bytes=conf.message_max_bytes, protocol=conf.task_protocol
    )
    result: AsyncResult[Any] = AsyncResult(task_id, app=app)
    result.ignored = fields["ignore_result"] is True
    if context is not None and options.get("add_to_parent", True):
        _add_to_trail(context, result)
    return message, result


def _fields(
    app: Celeriac, task: Any, options: Mapping[str, Any], link: Any, link_error: Any, context: Context | None
) -> dict[str, Any]:
    """The fields of a call with options."""
    fields = {**app.plain_fields(task)}
    if context is not None and not context.called_directly:
        fields.update(_relation(app, context, options))
    hard, soft = options.get("time_limit"), options.get("soft_time_limit")
    if hard is not None and soft is not None and soft > hard:
        raise ValueError(f"soft_time_limit ({soft}) must not be above time_limit ({hard})")
    for option, field in _COPIED.items():
        if options.get(option) is not None:
            fields[field] = options[option]
    fields["callbacks"] = _signatures(link if link is not None else options.get("link"))
    fields["errbacks"] = _signatures(link_error if link_error is not None else options.get("link_error"))
    extra = {key: value for key, value in options.items() if key not in KNOWN_OPTIONS}
    if options.get("stamped_headers"):
        names = options["stamped_headers"]
        fields["stamps"] = {
            **(options.get("stamps") or {}),
            **{name: extra.pop(name) for name in names if name in extra},
        }
    if extra:
        fields["properties"] = extra
    return fields


#: option of `apply_async` → field of TaskCall, where they are passed on as they are
_COPIED = {
    name: name
    for name in (
        "serializer", "compression", "countdown", "eta", "expires", "retries", "time_limit", "soft_time_limit", "chain",
        "chord", "group_id", "group_index", "root_id", "parent_id", "shadow", "reply_to", "ignore_result", "argsrepr",
        "kwargsrepr", "replaced_task_nesting", "stamped_headers", "headers", "delivery_mode", "priority",
    )
    if name != "shadow"
}  # fmt: skip


def _relation(app: Celeriac, context: Context, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a call made inside a task inherits from it."""
    found: dict[str, Any] = {"root_id": context.root_id or context.id, "parent_id": context.id}
    if app.conf.task_inherit_parent_priority and context.delivery_info and options.get("priority") is None:
        found["priority"] = context.delivery_info.get("priority")
    return found


def _add_to_trail(context: Context, result: AsyncResult[Any]) -> None:
    task = context.get("owner")
    if not context.called_directly and (task is None or task.trail):
        context.children = [*(context.children or ()), result]


def _signatures(link: Any) -> list[Any] | None:
    if not link:
        return None
    return list(link) if isinstance(link, (list, tuple)) else [link]


def publish(app: Celeriac, messages: Sequence[Message], options: Mapping[str, Any] | None = None) -> None:
    """Hand messages to the broker; returns once it has them.

    Tries again as `retry_policy` says, but never longer than `publish_timeout` in all.

    Raises:
        OperationalError: The broker can't be reached.
    """
    if signals.before_task_publish.receivers:
        _tell(signals.before_task_publish, messages)
    started = time.monotonic()
    try:
        app.transport.publish(messages)
    except OperationalError as exc:
        _publish_again(app, messages, options or {}, exc, started)
    if signals.after_task_publish.receivers:
        _tell(signals.after_task_publish, messages)


def _publish_again(
    app: Celeriac, messages: Sequence[Message], options: Mapping[str, Any], error: OperationalError, started: float
) -> None:
    conf = app.conf
    if not options.get("retry", conf.task_publish_retry):
        raise error
    policy = {**conf.task_publish_retry_policy, **(options.get("retry_policy") or {})}
    end = started + (options.get("timeout") or conf.publish_timeout)
    longest = time.monotonic() - started  # an attempt that takes as long as the one before must still fit
    pause, attempt, limit = float(policy.get("interval_start") or 0), 0, policy.get("max_retries")
    while (limit is None or attempt < limit) and time.monotonic() + pause + longest < end:
        attempt += 1
        time.sleep(pause)
        pause = min(pause + policy.get("interval_step", 0.2), policy.get("interval_max", 1))
        began = time.monotonic()
        try:
            app.transport.publish(messages)
            return
        except OperationalError as exc:
            error = exc
        longest = max(longest, time.monotonic() - began)
    raise error


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
