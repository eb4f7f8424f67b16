"""Runs one execution: decode → call → classify → encode, and says what follows from it. One function, `execute`.

The runner calls it for every frame, `Task.apply` calls it in the client: one code path. It never raises for what a task
or a message does wrong; every such end is an `Outcome`. It talks to no broker and no store: the outcome says what to
store, what to send and how to settle.
"""

from __future__ import annotations

import os
import time
import traceback as tracebacks
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac import errors, log, signals, states
from celeriac.canvas.joining import note_of, part_by_headers
from celeriac.canvas.replacing import Replaced
from celeriac.chord_steps import join, later, sweep
from celeriac.context import Context, make_context, running
from celeriac.continuations import (
    NOTHING,
    Sequel,
    after_failure,
    after_replacement,
    after_revocation,
    after_success,
    retry_message,
)  # fmt: skip
from celeriac.environment import Environment
from celeriac.errors import CeleriacError, Ignore, Reject, Retry
from celeriac.exception_info import ExceptionInfo
from celeriac.loading import import_object
from celeriac.log import current_task_info, get_logger
from celeriac.message import Action
from celeriac.middleware import execute_through
from celeriac.outcome import INNER, JOIN, SWEEP, Execution, Outcome, Verdict
from celeriac.recording import clean_text, make_record
from celeriac.results.base import Record
from celeriac.safe_repr import saferepr
from celeriac.task import Task
from celeriac.task_lines import log_end, log_failure, log_success
from celeriac.timing import SYSTEM_CLOCK
from celeriac.wire.messages import decode_body, parse_moment, protocol1_headers

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = [
    "after_exception", "after_return", "conclude", "execute", "give_up", "open_call", "start", "unreadable",
    "with_enqueued",
]  # fmt: skip

logger = get_logger("celeriac.execution")


def execute(environment: Environment, execution: Execution) -> Outcome:
    """Run one execution to its outcome."""
    try:
        outcome = _execute(environment, execution)
        return with_enqueued(environment.app, outcome) if outcome.messages else outcome
    except errors.SoftTimeLimitExceeded:  # a moment late: the runner says what that means
        raise
    except errors.OperationalError as exc:
        return later(execution, exc) if execution.verdict.state in INNER else give_up(environment, execution, exc)
    except Exception as exc:  # neither the task nor its message may end the runner
        return give_up(environment, execution, exc)


def _execute(environment: Environment, execution: Execution) -> Outcome:
    app, message = environment.app, execution.message
    started, name = time.monotonic(), message.task
    try:
        context, headers = open_call(environment, execution)
        early = None if name else _admit_protocol1(app, execution, headers)
    except CeleriacError as exc:
        return unreadable(environment, execution, exc)
    if isinstance(early, Outcome):
        return early
    execution = early or execution
    context.owner = task = app.tasks.get(context.task or "")
    if task is None and not execution.verdict.state:
        verdict = Verdict(states.FAILURE, "NotRegistered", [context.task], Action.DEAD_LETTER.value, "unknown task")
        execution = _with_verdict(execution, verdict)
    if not name and environment.on_limits is not None:
        environment.on_limits(*_limits(context, task))
    token, info = running.set(context), current_task_info.set((context.id or "", context.task or ""))
    try:
        if execution.verdict.state:
            return _apply_verdict(environment, execution, context, task)
        return _run(environment, execution, context, task, started)
    finally:
        running.reset(token)
        current_task_info.reset(info)


def open_call(environment: Environment, execution: Execution) -> tuple[Context, dict[str, Any]]:
    """What a message calls, and its headers.

    Raises:
        CeleriacError: It can't be opened.
    """
    app, message = environment.app, execution.message
    body = decode_body(message, app.accept, app.conf.message_max_unpacked_bytes, app.conf.message_max_depth)
    headers = message.headers
    if not message.task:
        headers = {**protocol1_headers(body), **{key: value for key, value in headers.items() if value}}
    context = make_context(
        execution, body, headers, node=environment.node, is_eager=environment.is_eager,
        store_state=environment.store_state,
    )  # fmt: skip
    return context, headers


def _admit_protocol1(app: Celeriac, execution: Execution, headers: dict[str, Any]) -> Outcome | Execution | None:
    """The supervisor can't see the moments of protocol 1, which stand in the body: look at them here."""
    now = SYSTEM_CLOCK.now()
    expires = parse_moment(headers.get("expires"), app.timezone)
    eta = parse_moment(headers.get("eta"), app.timezone)
    if execution.verdict.state:
        return None
    if expires is not None and expires <= now:
        return _with_verdict(execution, Verdict(states.REVOKED, "TaskRevokedError", ["expired"]))
    if eta is not None and eta > now:
        name = headers.get("task") or ""
        return Outcome(execution.serial, execution.slot, name, states.PENDING, action=Action.DEFER.value, until=eta)
    return None


def _limits(context: Context, task: Any) -> tuple[float | None, float | None]:
    """Hard and soft time limit: those of the message, else those of the task."""
    hard, soft = context.time_limit, context.soft_time_limit
    if task is None:
        return hard, soft
    return task.time_limit if hard is None else hard, task.soft_time_limit if soft is None else soft


def _run(environment: Environment, execution: Execution, context: Context, task: Any, started: float) -> Outcome:
    start(environment, context, task)
    value: Any
    try:
        task.before_start(context.id, context.args, context.kwargs)
        value = _call(environment, context, task)
    except BaseException as exc:  # user code: every end of it is an outcome, sys.exit() and a cancellation too
        if environment.is_eager and not isinstance(exc, Exception):
            raise  # it is the caller's own program that is to end
        value = exc
        outcome = after_exception(environment, execution, context, task, exc)
    else:
        outcome = after_return(environment, execution, context, task, value, started)
    return conclude(context, task, value, outcome, started)


def start(environment: Environment, context: Context, task: Any) -> None:
    """Tell that a task starts."""
    if signals.task_prerun.receivers:
        signals.task_prerun.send(sender=task, task_id=context.id, task=task, args=context.args, kwargs=context.kwargs)
    if task.track_started and environment.store_state is not None and not _ignores_result(context, task):
        environment.store_state(
            make_record(environment.app, context, states.STARTED, {"pid": os.getpid(), "hostname": environment.node})
        )


def conclude(context: Context, task: Any, value: Any, outcome: Outcome, started: float) -> Outcome:
    """Tell that a task has ended; returns its outcome, with the time that it took."""
    if signals.task_postrun.receivers:
        signals.task_postrun.send(
            sender=task, task_id=context.id, task=task, args=context.args, kwargs=context.kwargs, retval=value,
            state=outcome.state,
        )  # fmt: skip
    if not outcome.runtime:
        outcome = _with_runtime(outcome, time.monotonic() - started)
    if outcome.state == states.SUCCESS and logger.isEnabledFor(20):
        log_success(context, task, value, outcome.runtime)
    return outcome


def _call(environment: Environment, context: Context, task: Any) -> Any:
    mark, middleware = environment.on_user_code, environment.app.middleware
    if mark is not None:
        mark(True)
    try:
        if middleware:
            return execute_through(middleware, context, lambda: _value(environment, context, task))
        return _value(environment, context, task)
    except Exception as exc:
        if not task.autoretry_for:
            raise
        final = task.autoretry(exc)
        if final is exc:
            raise
        raise final from exc
    finally:
        if mark is not None:
            mark(False)


def _value(environment: Environment, context: Context, task: Any) -> Any:
    call = task.run if type(task).__call__ is Task.__call__ else task
    value = call(*(context.args or ()), **(context.kwargs or {}))
    return environment.run_coroutine(value) if isinstance(value, CoroutineType) else value


def after_return(
    environment: Environment, execution: Execution, context: Context, task: Any, value: Any, started: float
) -> Outcome:
    """What a returned value means: success, with all that follows from it."""
    app = environment.app
    try:
        sequel = after_success(app, context, value)
        record = None
        if not _ignores_result(context, task):
            record = make_record(app, context, states.SUCCESS, value)
    except Exception as exc:  # the value can't be encoded, or a callback can't be sent: that is the task's failure
        return after_exception(environment, execution, context, task, exc)
    _tell_early(environment, context, task, record, "on_success")
    if signals.task_success.receivers:
        signals.task_success.send(sender=task, result=value, runtime=time.monotonic() - started)
    _handle(task.on_success, value, context.id, context.args, context.kwargs)
    _handle(task.after_return, states.SUCCESS, value, context.id, context.args, context.kwargs, None)
    return Outcome(
        execution.serial, execution.slot, context.task or "", states.SUCCESS, record, messages=sequel.messages,
        parts=sequel.parts, chords=sequel.chords,
        runtime=time.monotonic() - started,
    )  # fmt: skip


def after_exception(
    environment: Environment, execution: Execution, context: Context, task: Any, exc: BaseException
) -> Outcome:
    """What an exception means: Ignore, Reject and Retry are the task's own words; any other is a failure."""
    serial, slot, name = execution.serial, execution.slot, context.task or ""
    if isinstance(exc, Replaced):
        return _after_replacement(environment, execution, context, task, exc)
    if isinstance(exc, Ignore):
        return _after_ignore(environment, execution, context)
    if isinstance(exc, Retry):
        return _after_retry(environment, execution, context, task, exc)
    if isinstance(exc, Reject) and exc.requeue:
        log_end(20, log.LOG_REJECTED, context, exc=saferepr(exc.reason), traceback="")
        return Outcome(serial, slot, name, states.REJECTED, action=Action.REQUEUE.value)
    trace = _traceback(exc)
    if isinstance(exc, Reject):
        log_end(40, log.LOG_REJECTED, context, exc=saferepr(exc.reason), traceback=trace)
        text = clean_text(exc.reason[:500]) if isinstance(exc.reason, str) else saferepr(exc.reason, 500)
        outcome = _failure(environment, execution, context, task, exc, trace, Action.DEAD_LETTER, f"rejected: {text}")
    else:
        action = _failure_action(task, exc)
        log_failure(context, task, exc, trace)
        outcome = _failure(environment, execution, context, task, exc, trace, action, saferepr(exc, 500))
    return outcome


def _failure_action(task: Any, exc: BaseException) -> Action:
    """How a failed late-acked message is settled: `acks_on_failure`, `acks_on_timeout`."""
    is_timeout = isinstance(exc, (errors.TimeLimitExceeded, errors.SoftTimeLimitExceeded))
    acks = task.acks_on_timeout if is_timeout else task.acks_on_failure
    if acks is None:
        acks = task.acks_on_failure_or_timeout
    if acks is None or acks:
        return Action.ACK
    return Action.REQUEUE if is_timeout else Action.DEAD_LETTER


def _failure(
    environment: Environment,
    execution: Execution,
    context: Context,
    task: Any,
    exc: BaseException,
    trace: str,
    action: Action,
    reason: str,
) -> Outcome:
    app = environment.app
    if action is Action.REQUEUE:  # it is tried again, so this is no end yet
        return Outcome(execution.serial, execution.slot, context.task or "", states.REJECTED, action=action.value)
    if environment.is_eager:
        environment.error = exc
    try:
        sequel = after_failure(app, context, exc, trace)
    except Exception as problem:  # they are user code; their error must not hide the task's, nor get lost
        logger.exception("the error callbacks can't be sent")
        context.errbacks = None
        sequel = after_failure(app, context, exc, trace)
        action, reason = Action.DEAD_LETTER, f"its error callbacks can't be sent: {saferepr(problem, 300)}"
    record = None
    if not _ignores_result(context, task) or (task is not None and task.store_errors_even_if_ignored):
        record = _record_of_error(app, context, states.FAILURE, exc, trace)
    if task is not None:
        _tell_early(environment, context, task, record, "on_failure")
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=task, task_id=context.id, exception=exc, args=context.args, kwargs=context.kwargs,
                traceback=exc.__traceback__, einfo=trace,
            )  # fmt: skip
        _handle(task.on_failure, exc, context.id, context.args, context.kwargs, trace)
        _handle(task.after_return, states.FAILURE, exc, context.id, context.args, context.kwargs, trace)
    return Outcome(
        execution.serial, execution.slot, context.task or "", states.FAILURE, record, sequel.records, sequel.messages,
        action.value, reason if action is not Action.ACK else "", parts=sequel.parts, chords=sequel.chords,
    )  # fmt: skip


def _after_replacement(
    environment: Environment, execution: Execution, context: Context, task: Any, exc: Replaced
) -> Outcome:
    try:
        sequel = after_replacement(environment.app, context, exc.signature)
    except Exception as problem:  # what is to take its place can't be sent
        return after_exception(environment, execution, context, task, problem)
    logger.info("Task %s[%s] replaced by %s", context.task, context.id, saferepr(exc.signature, 200))
    return Outcome(
        execution.serial, execution.slot, context.task or "", states.IGNORED, messages=sequel.messages,
        chords=sequel.chords,
    )  # fmt: skip


def _after_ignore(environment: Environment, execution: Execution, context: Context) -> Outcome:
    """It stores nothing, but what waits for it has to end."""
    log_end(20, log.LOG_IGNORED, context)
    error = Ignore(f"{context.task} was ignored")
    sequel = after_revocation(environment.app, context, error)
    return Outcome(
        execution.serial, execution.slot, context.task or "", states.IGNORED, None, sequel.records, parts=sequel.parts
    )


def _after_retry(environment: Environment, execution: Execution, context: Context, task: Any, retry: Retry) -> Outcome:
    app = environment.app
    cause = retry.exc or retry
    trace = _traceback(cause if cause.__traceback__ is not None else retry)  # one that was never raised has none
    try:
        message = retry_message(app, context, retry)
        record = None if _ignores_result(context, task) else _record_of_error(app, context, states.RETRY, cause, trace)
    except Exception as exc:  # the next attempt can't be encoded, or its options are wrong
        reason = f"its retry can't be sent: {saferepr(exc, 300)}"
        return _failure(environment, execution, context, task, exc, _traceback(exc), Action.DEAD_LETTER, reason)
    _tell_early(environment, context, task, record, "on_retry")
    if signals.task_retry.receivers:
        signals.task_retry.send(sender=task, request=context, reason=cause, einfo=trace)
    _handle(task.on_retry, cause, context.id, context.args, context.kwargs, trace)
    log_end(20, log.LOG_RETRY, context, exc=retry, traceback=trace)
    return Outcome(execution.serial, execution.slot, context.task or "", states.RETRY, record, messages=[message])


def _apply_verdict(environment: Environment, execution: Execution, context: Context, task: Any) -> Outcome:
    """Write down an end that was decided before the task could (or again) run."""
    verdict, app = execution.verdict, environment.app
    if verdict.state == "STORED":  # a redelivered message whose outcome is stored: only continuations may be missing
        return _resume(environment, execution, context)
    if verdict.state == JOIN:
        return join(environment.app, execution, context)
    if verdict.state == SWEEP:
        return sweep(environment.app, execution, context)
    exc: BaseException = getattr(errors, verdict.error)(*verdict.args)
    if verdict.state == states.REVOKED:
        record = _record_of_error(app, context, states.REVOKED, exc, None)
        sequel = after_revocation(app, context, exc)
        return Outcome(
            execution.serial, execution.slot, context.task or "", states.REVOKED, record, sequel.records,
            action=verdict.action, parts=sequel.parts,
        )  # fmt: skip
    if (_has_handler(task, "on_success") or _has_handler(task, "on_failure")) and _has_ended(app, context):
        return _resume(environment, execution, context)  # it was a handler that took too long, or crashed
    if verdict.state == states.RETRY:
        try:
            return _after_retry(environment, execution, context, task, task.retry(exc=exc, throw=False))
        except errors.WorkerLostError as final:  # no attempt is left
            exc = final
    trace = ExceptionInfo(exc, "".join(tracebacks.format_exception_only(exc)))
    action = Action(verdict.action)
    if task is not None and isinstance(exc, errors.TimeLimitExceeded):
        action = _failure_action(task, exc)
    log_failure(context, task, exc, None)
    return _failure(environment, execution, context, task, exc, trace, action, verdict.reason)


def _resume(environment: Environment, execution: Execution, context: Context) -> Outcome:
    app = environment.app
    done = app.AsyncResult(context.id or "")
    sequel = NOTHING
    if done.state == states.SUCCESS and (context.callbacks or context.steps or context.chord):
        sequel = after_success(app, context, done.result)
    elif done.state == states.FAILURE:
        sequel = after_failure(app, context, done.result, done.traceback or "")
    elif done.state == states.REVOKED:
        sequel = after_revocation(app, context, done.result)
    # Their ids are those of the first time: what has been sent then and has ended is not sent again.
    missing = [message for message in sequel.messages if not app.AsyncResult(message.id).ready()]
    return Outcome(
        execution.serial, execution.slot, context.task or "", done.state, None, sequel.records, missing,
        parts=sequel.parts, chords=sequel.chords if missing else [],
    )  # fmt: skip


def unreadable(environment: Environment, execution: Execution, exc: Exception) -> Outcome:
    """A body that can't be opened: the message is kept as a dead letter, and its task ends as a failure."""
    message, app = execution.message, environment.app
    if execution.verdict.state == SWEEP:
        logger.error("the note of chord %s can't be read: %s", message.headers.get("group"), _text(exc))
        return Outcome(execution.serial, execution.slot, message.task, SWEEP)
    if execution.verdict.state == JOIN and (note := note_of(app, message)) is not None:
        return _execute(environment, msgspec.structs.replace(execution, message=note))
    context = Context(
        id=message.id, task=message.task, retries=0, deliveries=execution.deliveries, reply_to=message.reply_to
    )
    reason = f"{type(exc).__name__}: {_text(exc)}"
    logger.error("Task %s[%s] to the dead letters: %s", message.task, message.id, reason)
    record = _record_of_error(app, context, states.FAILURE, exc, reason) if message.id else None
    sequel = _end_of_what_waits(app, execution, exc, reason)
    return Outcome(
        execution.serial, execution.slot, message.task, states.FAILURE, record, sequel.records,
        action=Action.DEAD_LETTER.value, reason=reason, parts=sequel.parts,
    )  # fmt: skip


def _end_of_what_waits(app: Celeriac, execution: Execution, exc: Exception, reason: str) -> Sequel:
    """What a message's chain and chord have to know of its end, as far as its body can be read."""
    if execution.verdict.state == JOIN:
        return NOTHING
    try:
        body = decode_body(
            execution.message, app.accept, app.conf.message_max_unpacked_bytes, app.conf.message_max_depth
        )
        context = make_context(
            execution, body, execution.message.headers, node="", is_eager=False, store_state=None
        )  # fmt: skip
        context.errbacks = None
        return after_failure(app, context, exc, reason)
    except Exception:  # what failed is in the log already: now what the headers say has to do
        sequel = Sequel()
        sequel.parts += part_by_headers(app, execution.message)
        return sequel


def give_up(environment: Environment, execution: Execution, exc: Exception) -> Outcome:
    """Something failed that is neither the task's function nor its message, such as a hook: kept and recorded.

    Runners call it, too, for an outcome that can't be sent.
    """
    message = execution.message
    context = Context(id=message.id, task=message.task, deliveries=execution.deliveries, reply_to=message.reply_to)
    log_end(40, log.LOG_INTERNAL_ERROR, context, exc=saferepr(exc), traceback=_traceback(exc))
    if signals.task_internal_error.receivers:
        signals.task_internal_error.send(
            sender=None, task_id=message.id, args=None, kwargs=None, request=context, exception=exc,
            traceback=exc.__traceback__, einfo=_traceback(exc),
        )  # fmt: skip
    return unreadable(environment, execution, exc)


def _record_of_error(app: Celeriac, context: Context, state: str, exc: BaseException, trace: str | None) -> Record:
    """The record of an error; one that can't be encoded is recorded as its text."""
    try:
        return make_record(app, context, state, exc, trace)
    except Exception as problem:  # an exception is user code, too: its parts may be anything
        stand_in = CeleriacError(f"{type(exc).__name__}: {saferepr(exc)} (not serializable: {saferepr(problem)})")
        return make_record(app, context, state, stand_in, trace)


def _ignores_result(context: Context, task: Any) -> bool:
    if context.chord:
        return False  # the body of the chord gets it
    if context.ignore_result is not None:
        return bool(context.ignore_result)
    return bool(task is not None and task.ignore_result)


def _tell_early(environment: Environment, context: Context, task: Any, record: Record | None, handler: str) -> None:
    """Celery stores the outcome before its handlers run, so here, too, they and everybody else see it.

    What has to follow waits for the end of the handlers: should one crash the runner, the message comes again, and only
    that is made up for. A result that is sent instead of kept would be sent twice.
    """
    context.record = record
    if record is None or environment.store_state is None or environment.app.mailbox is not None:
        return
    if _has_handler(task, handler):
        environment.store_state(record)


def with_enqueued(app: Celeriac, outcome: Outcome) -> Outcome:
    """With `task_track_enqueued`: the records of what follows a task are stored, too."""
    if outcome.state == states.RETRY or not app.conf.task_track_enqueued:
        return outcome
    record_of = import_object("celeriac.enqueued:enqueued_record", "task_track_enqueued")
    found = [record for message in outcome.messages if (record := record_of(app, message)) is not None]
    return msgspec.structs.replace(outcome, more_records=[*outcome.more_records, *found])


def _has_handler(task: Any, name: str) -> bool:
    """Whether a task has this handler, or `after_return`."""
    if task is None:
        return False
    kind, own = type(task), task.__dict__
    return (
        getattr(kind, name) is not getattr(Task, name)
        or kind.after_return is not Task.after_return
        or name in own
        or "after_return" in own
    )


def _has_ended(app: Celeriac, context: Context) -> bool:
    """Whether the outcome of this very execution is stored."""
    record = app.backend.get([context.id or ""])[0] if app.backend is not None else None
    return record is not None and record.is_ready and tuple(record.fence) == (context.retries, context.deliveries)


def _handle(handler: Callable[..., Any], *args: Any) -> None:
    """Call a handler of the task; its own error is logged and changes nothing."""
    try:
        handler(*args)
    except Exception:  # user code
        logger.exception("%s raised", getattr(handler, "__qualname__", handler))


def _traceback(exc: BaseException) -> ExceptionInfo:
    """The traceback as text, without the frames of this module: users look for theirs."""
    try:
        trace = exc.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        text = "".join(tracebacks.format_exception(type(exc), exc, trace))
    except Exception:  # an exception whose text raises
        text = f"{type(exc).__name__} (its text can't be shown)\n" + "".join(tracebacks.format_tb(exc.__traceback__))
    return ExceptionInfo(exc, text)


def _text(exc: BaseException) -> str:
    try:
        return clean_text(str(exc)[:500])
    except Exception:  # user code
        return "(its text can't be shown)"


def _with_verdict(execution: Execution, verdict: Verdict) -> Execution:
    return Execution(
        execution.serial, execution.slot, execution.message, execution.queue, execution.deliveries, verdict
    )


def _with_runtime(outcome: Outcome, runtime: float) -> Outcome:
    return Outcome(
        outcome.serial, outcome.slot, outcome.task, outcome.state, outcome.record, outcome.more_records,
        outcome.messages, outcome.action, outcome.reason, outcome.until, runtime, outcome.parts, outcome.chords,
        outcome.joined,
    )  # fmt: skip
