"""Makes the record of a task's state: values encoded with `result_serializer`, ready to be stored.

Used where a task runs (the runner, `apply`) and by `update_state`. A value that can't be encoded is that task's failure.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.codec import dumps
from celeriac.context import Context
from celeriac.loading import import_object
from celeriac.result import ResultBase
from celeriac.results.base import Record, fence_of
from celeriac.timing import SYSTEM_CLOCK, iso_now
from celeriac.wire.results import encode_result, exception_form

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["clean_text", "lifetime_of", "make_record"]


def clean_text(text: str) -> str:
    """Text that can be stored: halves of surrogate pairs, which are no characters, become escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def lifetime_of(app: Celeriac, state: str) -> float | None:
    """Seconds for which a result is kept; None or 0 for ever."""
    conf = app.conf
    lifetime: Any = conf.result_expires
    if state == states.FAILURE and conf.value_set_for("result_failure_expires"):
        lifetime = conf.result_failure_expires
    return lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime


def make_record(
    app: Celeriac, context: Context, state: str, value: Any, traceback: str | None = None, *, task_id: str | None = None
) -> Record:
    """The record of `state` for the execution described by `context`.

    Raises:
        EncodeError: `value` can't be serialized.
    """
    conf = app.conf
    if isinstance(value, BaseException) and conf.result_serializer != "pickle":
        value = exception_form(value)
    elif isinstance(value, ResultBase) and hasattr(
        value, "as_tuple"
    ):  # a task that returns a result stands for that result
        value = value.as_tuple()
    content_type, content_encoding, body = encode_result(value, conf.result_serializer)
    is_ready = state in states.READY_STATES
    lifetime = lifetime_of(app, state)
    extended: dict[str, Any] = _extended(context, conf.result_serializer) if conf.result_extended else {}
    return Record(
        id=task_id or context.id or "",
        state=state,
        result=body,
        content_type=content_type,
        content_encoding=content_encoding,
        traceback=None if traceback is None else clean_text(str(traceback)),
        children=[child.as_tuple() for child in context.children or ()],
        date_done=iso_now() if is_ready else None,
        group_id=context.group,
        parent_id=context.parent_id,
        fence=fence_of(context.retries, context.replaced_task_nesting, context.deliveries),
        expires_at=SYSTEM_CLOCK.now() + lifetime if lifetime else None,
        stamps=_stamps(context) if context.stamped_headers else None,
        reply_to=context.reply_to or "",
        **extended,
    )


def _extended(context: Context, serializer: str) -> dict[str, Any]:
    info = context.delivery_info or {}
    args, kwargs, secrets = context.args, context.kwargs, getattr(context.owner, "secrets", None)
    if secrets:
        args, kwargs = import_object("celeriac.hiding:masked", "Secret")(secrets, args or (), kwargs or {})
    return {
        "name": context.task,
        "args": dumps(args, serializer)[2],
        "kwargs": dumps(kwargs, serializer)[2],
        "worker": context.hostname,
        "retries": context.retries,
        "queue": info.get("routing_key"),
    }


def _stamps(context: Context) -> dict[str, Any]:
    return {"stamped_headers": context.stamped_headers, "stamps": context.stamps or {}}
