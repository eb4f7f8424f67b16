"""What is sent after a task: callbacks and the next step of a chain, error callbacks, the next attempt.

All of it is made here, in the runner, as finished messages; the committer publishes them after the outcome is stored.
Ids are fixed when the work-flow is sent, so making them twice gives the same messages.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.context import Context
from celeriac.errors import Retry
from celeriac.loading import import_object
from celeriac.log import get_logger
from celeriac.message import Message
from celeriac.recording import make_record
from celeriac.results.base import Record
from celeriac.sending import prepare
from celeriac.signature import Signature, maybe_signature

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["after_failure", "after_success", "retry_message"]

logger = get_logger("celeriac.continuations")


def after_success(app: Celeriac, context: Context, value: Any) -> list[Message]:
    """Messages of the callbacks, then of the chain's next step."""
    messages = []
    for number, callback in enumerate(context.callbacks or ()):
        messages.append(_message(app, context, maybe_signature(callback, app), (value,), f"link{number}"))
    if context.chain:
        rest = list(context.chain)
        step = maybe_signature(rest.pop(), app)
        messages.append(_message(app, context, step, (value,), "chain", chain=rest))
    return messages


def after_failure(
    app: Celeriac, context: Context, exc: BaseException, trace: str
) -> tuple[list[Message], list[Record]]:
    """Messages of the error callbacks, and records of the chain's steps, which fail with the same error."""
    messages = []
    for number, errback in enumerate(context.errbacks or ()):
        signature = maybe_signature(errback, app)
        task = app.tasks.get(signature.task)
        if task is not None and import_object("celeriac.arguments:takes_request", "link_error")(task):
            _call_errback(signature, context, exc, trace)
        else:
            messages.append(_message(app, context, signature, (context.id,), f"link_error{number}"))
    records = []
    for step in context.chain or ():
        task_id = (maybe_signature(step, app).options or {}).get("task_id")
        if task_id:
            twin = Context(id=task_id, parent_id=context.id, deliveries=context.deliveries, reply_to=context.reply_to)
            records.append(make_record(app, twin, states.FAILURE, exc, trace))
    return messages, records


def retry_message(app: Celeriac, context: Context, retry: Retry) -> Message:
    """The message of the next attempt: same id, `retries` + 1."""
    signature: Signature = retry.sig
    options = dict(signature.options)
    options["parent_id"] = context.id  # as stock workers write it
    options["add_to_parent"] = False  # it is the same task
    task = app.tasks.get(signature.task)
    task_id = options.pop("task_id", context.id)
    return prepare(app, signature.task, signature.args, signature.kwargs, task_id, task=task, options=options)[0]


def _message(
    app: Celeriac, context: Context, signature: Signature, args: tuple[Any, ...], step: str, **more: Any
) -> Message:
    merged_args, merged_kwargs, options = signature.merge(args, None, {})
    # The trail is written below, in every case: `prepare` would do it only while the task runs.
    options = {**options, **more, "parent_id": context.id, "root_id": context.root_id, "add_to_parent": False}
    # A deterministic id, so that a continuation that is made again after a crash is the same task.
    task_id = options.pop("task_id", None) or str(uuid.uuid5(_NAMESPACE, f"{context.id}:{context.retries}:{step}"))
    task = app.tasks.get(signature.task)
    message, result = prepare(app, signature.task, merged_args, merged_kwargs, task_id, task=task, options=options)
    context.children = [*(context.children or ()), result]
    return message


_NAMESPACE = uuid.UUID("6f3b3f0e-8f5c-4a8e-9a2c-5d1f0c7e4b11")


def _call_errback(signature: Signature, context: Context, exc: BaseException, trace: str) -> None:
    try:
        if isinstance(signature, Mapping):
            signature(context, exc, trace)
    except Exception:  # user code: its error must not hide the task's
        logger.exception("error callback %s raised", signature.task)
