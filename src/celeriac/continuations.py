"""What follows the end of a task: callbacks, the next step of a chain, a chord's body, error callbacks, the next attempt.

All of it is made here, in the runner, as finished messages and records; the committer applies it after the outcome is
stored. Ids are fixed when the workflow is sent, or follow from the id of the task that has ended, so making a sequel
twice gives the same messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.canvas.composing import is_group
from celeriac.canvas.eager import apply
from celeriac.canvas.freezing import SameIds, assign
from celeriac.canvas.joining import all_tasks, body_of, is_over, part_of, read_header
from celeriac.canvas.launching import NOWHERE, Place, end_id, ends, launch, place_of
from celeriac.canvas.normalizing import follow, has_chord, is_chain, is_chord, normalize
from celeriac.canvas.replacing import replacement
from celeriac.canvas.stores import header_record
from celeriac.context import Context
from celeriac.errors import ChordError, OperationalError, Retry
from celeriac.loading import import_object
from celeriac.log import get_logger
from celeriac.message import Message
from celeriac.outcome import ChordStart, Part
from celeriac.recording import make_record
from celeriac.results.base import Record
from celeriac.sending import prepare
from celeriac.signature import Signature, maybe_signature

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = [
    "NOTHING", "Sequel", "after_failure", "after_join", "after_replacement", "after_revocation", "after_success",
    "fail_now", "retry_message",
]  # fmt: skip

logger = get_logger("celeriac.continuations")


class Sequel:
    """What follows the end of a task.

    Attributes:
        messages: To be published.
        records: Of other tasks, which end with this one.
        parts: Parts of chords that have ended with it.
        chords: Chords that begin with the messages.
    """

    __slots__ = ("chords", "messages", "parts", "records")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.records: list[Record] = []
        self.parts: list[Part] = []
        self.chords: list[ChordStart] = []

    def add(self, items: Iterator[Message | ChordStart]) -> None:
        """Take in what a launch gives."""
        for item in items:
            if isinstance(item, ChordStart):
                self.chords.append(item)
            else:
                self.messages.append(item)


#: For the many tasks that nothing follows.
NOTHING = Sequel()


def after_success(app: Celeriac, context: Context, value: Any) -> Sequel:
    """The callbacks, the chain's next step, the chord that this is a part of."""
    if not (context.callbacks or context.steps or context.chord):
        return NOTHING
    sequel = Sequel()
    for number, callback in enumerate(context.callbacks or ()):
        _start(app, context, sequel, callback, (value,), f"link{number}")
    if context.steps:
        _start(app, context, sequel, context.steps[-1], (value,), "chain", context.steps[:-1])
    if context.chord:
        _end_part(app, sequel, Place(context.group, context.group_index, context.chord), context.id or "")
    return sequel


def after_failure(app: Celeriac, context: Context, exc: BaseException, trace: str) -> Sequel:
    """The error callbacks, and the end of the chain's other steps, which fail with the same error."""
    if not (context.errbacks or context.steps or context.chord):
        return NOTHING
    sequel = Sequel()
    _call_errbacks(app, context, sequel, context.errbacks, exc, trace)
    _end_rest(app, context, sequel, states.FAILURE, exc, trace)
    return sequel


def after_revocation(app: Celeriac, context: Context, exc: BaseException) -> Sequel:
    """The end of a chain's other steps, which are revoked with it."""
    if not (context.steps or context.chord):
        return NOTHING
    sequel = Sequel()
    _end_rest(app, context, sequel, states.REVOKED, exc, None)
    return sequel


def after_replacement(app: Celeriac, context: Context, signature: Signature) -> Sequel:
    """What takes the place of the task."""
    sequel = Sequel()
    tree, place, options = replacement(app, context, signature)
    sequel.add(launch(app, tree, options=options, place=place if place.chord or place.group_id else NOWHERE))
    return sequel


def after_join(app: Celeriac, context: Context, group_id: str) -> Sequel:
    """The body of the chord whose last part this was; if a part has failed, the end of the body."""
    sequel = Sequel()
    body = body_of(app, context, group_id)
    header = header_record(app, group_id) if app.conf.result_extended else None
    is_repeated = context.deliveries > 1
    if is_repeated and app.AsyncResult(end_id(body)).ready():
        return NOTHING
    try:
        values = read_header(app, group_id)
        if values is None and (is_repeated or is_over(app, group_id)):  # its counts are gone
            return NOTHING
        if values is None:
            raise ChordError(f"the header of chord {group_id} is not in the result store any more")
        _start(app, context, sequel, body, (values,), f"body{group_id}")
    except OperationalError:  # the store is away: another time
        raise
    except Exception as exc:  # a value can't be decoded, or the body not be sent: that is the body's failure
        sequel = Sequel()
        error = exc if isinstance(exc, ChordError) else ChordError(f"{type(exc).__name__}: {exc}")
        fail_body(app, context, sequel, body, error)
    if header is not None:
        sequel.records.append(header)
    return sequel


def fail_body(app: Celeriac, context: Context, sequel: Sequel, body: Signature, error: BaseException) -> None:
    """End the body of a chord, and what was to follow it, because the header has failed."""
    twin = Context(id=end_id(body), task=body.task, root_id=context.root_id, parent_id=context.id)
    twin.update(reply_to=context.reply_to, delivery_info=context.delivery_info)
    _call_errbacks(app, twin, sequel, _errbacks_of(body), error, str(error))
    for task in all_tasks(body):
        sequel.records.append(_record_of(app, context, task, states.FAILURE, error, None))
    for end in ends(body):
        _end_part(app, sequel, place_of(end.options), end.options.get("task_id") or "")


def fail_now(app: Celeriac, context: Context, body: Signature, error: BaseException) -> None:
    """`fail_body` outside of the commit of an outcome, for `celery.chord_unlock`."""
    sequel = Sequel()
    fail_body(app, context, sequel, body, error)
    if app.backend is not None:
        app.backend.store(sequel.records)
    app.publish(sequel.messages)


def retry_message(app: Celeriac, context: Context, retry: Retry) -> Message:
    """The message of the next attempt: same id, `retries` + 1."""
    signature: Signature = retry.sig
    options = dict(signature.options)
    options["parent_id"] = context.id  # as stock workers write it
    options["add_to_parent"] = False  # it is the same task
    task = app.tasks.get(signature.task)
    task_id = options.pop("task_id", context.id)
    return prepare(app, signature.task, signature.args, signature.kwargs, task_id, task=task, options=options)[0]


def _start(
    app: Celeriac,
    context: Context,
    sequel: Sequel,
    step: Any,
    args: tuple[Any, ...],
    name: str,
    rest: Sequence[Any] | None = None,
) -> None:
    """Start a workflow that follows this task, and with `rest` (last to first) what follows that."""
    tree = normalize(maybe_signature(step, app))
    options: dict[str, Any] = {"parent_id": context.id, "root_id": context.root_id}
    if rest and tree.get("subtask_type"):  # as foreign clients may send it; ours make one workflow of it
        for each in reversed(rest):
            tree = follow(tree, normalize(maybe_signature(each, app)))
    elif rest is not None:
        options["chain"] = rest
    if context.is_eager and has_chord(tree):  # nobody counts its parts here
        apply(tree, args, None, {})
        return
    # Deterministic ids, so that what is made again after a crash is the same tasks.
    result = assign(tree, app, SameIds(f"{context.id}:{context.retries}:{name}"))
    sequel.add(launch(app, tree, args, None, options))
    context.children = [*(context.children or ()), result]


def _call_errbacks(
    app: Celeriac, context: Context, sequel: Sequel, errbacks: Any, exc: BaseException, trace: str
) -> None:
    for number, errback in enumerate(errbacks or ()):
        signature = maybe_signature(errback, app)
        task = None if signature.get("subtask_type") else app.tasks.get(signature.task)
        if task is not None and import_object("celeriac.arguments:takes_request", "link_error")(task):
            _call_errback(signature, context, exc, trace)
        else:
            _start(app, context, sequel, signature, (context.id,), f"link_error{number}")


def _call_errback(signature: Signature, context: Context, exc: BaseException, trace: str) -> None:
    try:
        signature(context, exc, trace)
    except Exception:  # user code: its error must not hide the task's
        logger.exception("error callback %s raised", signature.task)


def _errbacks_of(body: Any) -> list[Any]:
    """Error callbacks of what would run first of a body."""
    if is_chain(body):
        return _errbacks_of(maybe_signature(body.tasks[0], body._app))
    if is_group(body):
        return [errback for member in body.tasks for errback in _errbacks_of(maybe_signature(member, body._app))]
    if is_chord(body):
        return _errbacks_of(body.body)
    found = body.options.get("link_error") or []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _end_rest(
    app: Celeriac, context: Context, sequel: Sequel, state: str, exc: BaseException, trace: str | None
) -> None:
    """End what was to follow in the chain, and tell the chord that waits for this task or for the chain's end."""
    if context.chord:
        _end_part(app, sequel, Place(context.group, context.group_index, context.chord), context.id or "")
    for step in context.chain or ():
        for task in all_tasks(maybe_signature(step, app)):
            if task.options.get("task_id"):
                sequel.records.append(_record_of(app, context, task, state, exc, trace))
    if context.chain:
        for end in ends(maybe_signature(context.chain[0], app)):
            _end_part(app, sequel, place_of(end.options), end.options.get("task_id") or "")


def _end_part(app: Celeriac, sequel: Sequel, place: Place, task_id: str) -> None:
    part = part_of(app, place, task_id)
    if part is not None:
        sequel.parts.append(part)


def _record_of(app: Celeriac, context: Context, task: Any, state: str, exc: BaseException, trace: str | None) -> Record:
    options = task.options
    twin = Context(id=options.get("task_id"), task=task.task, parent_id=context.id, deliveries=context.deliveries)
    twin.update(reply_to=context.reply_to, group=options.get("group_id"))
    return make_record(app, twin, state, exc, trace)
