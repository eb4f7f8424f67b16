"""Runs one execution: decode → call → classify → encode, and says what follows from it. One function, `execute`.

The runner calls it for every frame, `Task.apply` calls it in the client: one code path. It never raises for what a task
or a message does wrong; every such end is an `Outcome`. It talks to no broker and no store: the outcome says what to
store, what to send and how to settle.
"""

from __future__ import annotations

import inspect
import os
import time
import traceback as tracebacks
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from celeriac import errors, signals, states
from celeriac.context import Context, running
from celeriac.continuations import after_failure, after_success, retry_message
from celeriac.errors import CeleriacError, DecodeError, Ignore, InvalidTaskError, Reject, Retry
from celeriac.loading import import_object
from celeriac.log import current_task_info, get_logger
from celeriac.message import Action
from celeriac.outcome import Execution, Outcome, Verdict
from celeriac.recording import make_record
from celeriac.results.base import Record
from celeriac.safe_repr import saferepr
from celeriac.task import Task
from celeriac.wire.messages import TaskBody, decode_body, protocol1_headers, timelimits

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Environment", "execute", "make_context"]

logger = get_logger("celeriac.task")


class Environment:
    """Where executions run: the app, the node's name, a way to store states while a task runs, and an event loop.

    Args:
        store_state: Called with a Record; None drops states.
        on_user_code: Called with True before the task's function and with False after it, so that a soft time limit is
            raised only inside it.
    """

    def __init__(
        self,
        app: Celeriac,
        node: str = "",
        store_state: Callable[[Record], None] | None = None,
        on_user_code: Callable[[bool], None] | None = None,
        *,
        is_eager: bool = False,
    ) -> None:
        self.app = app
        self.node = node
        self.store_state = store_state
        self.on_user_code = on_user_code
        self.is_eager = is_eager
        self._loop: Any = None

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run an `async def` task to its end on the loop kept here."""
        if self._loop is None:
            self._loop = import_object("celeriac.event_loop:EventLoop", "async task")()
        return self._loop.run(coroutine)

    def close(self) -> None:
        """Close the event loop."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


def execute(environment: Environment, execution: Execution) -> Outcome:
    """Run one execution to its outcome."""
    app, message = environment.app, execution.message
    started = time.monotonic()
    try:
        body = decode_body(message, app.accept, app.conf.message_max_unpacked_bytes)
    except (DecodeError, InvalidTaskError) as exc:
        return _unreadable(environment, execution, exc)
    headers = message.headers if message.task else {**protocol1_headers(body), **message.headers}
    context = make_context(execution, body, headers, environment)
    task = app.tasks.get(context.task or "")
    if execution.verdict.state:
        return _apply_verdict(environment, execution, context, task)
    if task is None:
        verdict = Verdict(states.FAILURE, "NotRegistered", [context.task], Action.DEAD_LETTER.value, "unknown task")
        return _apply_verdict(environment, _with_verdict(execution, verdict), context, None)
    context.owner = task
    token, info = running.set(context), current_task_info.set((context.id or "", context.task or ""))
    try:
        return _run(environment, execution, context, task, started)
    finally:
        running.reset(token)
        current_task_info.reset(info)


def make_context(execution: Execution, body: TaskBody, headers: dict[str, Any], environment: Environment) -> Context:
    """`Task.request` of this execution."""
    message = execution.message
    custom = {key: value for key, value in headers.items() if key not in _PROTOCOL_HEADERS}
    return Context(
        id=headers.get("id") or message.id,
        task=headers.get("task"),
        args=body.args,
        kwargs=body.kwargs,
        retries=headers.get("retries") or 0,
        is_eager=environment.is_eager,
        called_directly=False,
        eta=headers.get("eta"),
        expires=headers.get("expires"),
        hostname=environment.node,
        delivery_info={
            "exchange": message.exchange,
            "routing_key": message.routing_key or message.queue,
            "priority": message.priority,
            "redelivered": execution.deliveries > 1,
        },
        origin=headers.get("origin"),
        reply_to=message.reply_to,
        correlation_id=message.id,
        timelimit=list(timelimits(headers)),
        callbacks=body.callbacks,
        errbacks=body.errbacks,
        chain=body.chain,
        chord=body.chord,
        group=headers.get("group"),
        group_index=headers.get("group_index"),
        root_id=headers.get("root_id") or headers.get("id") or message.id,
        parent_id=headers.get("parent_id"),
        headers=custom or None,
        properties=message.properties,
        utc=True,
        ignore_result=headers.get("ignore_result"),
        shadow=headers.get("shadow"),
        replaced_task_nesting=headers.get("replaced_task_nesting") or 0,
        stamped_headers=headers.get("stamped_headers"),
        stamps=headers.get("stamps"),
        argsrepr=headers.get("argsrepr"),
        kwargsrepr=headers.get("kwargsrepr"),
        lang=headers.get("lang"),
        deliveries=execution.deliveries,
        store_state=environment.store_state,
    )


_PROTOCOL_HEADERS = frozenset({
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
    "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
    "stamps", "compression",
})  # fmt: skip


def _run(environment: Environment, execution: Execution, context: Context, task: Any, started: float) -> Outcome:
    args, kwargs = context.args, context.kwargs
    if signals.task_prerun.receivers:
        signals.task_prerun.send(sender=task, task_id=context.id, task=task, args=args, kwargs=kwargs)
    if task.track_started and environment.store_state is not None and not _ignores_result(context, task):
        environment.store_state(
            make_record(environment.app, context, states.STARTED, {"pid": os.getpid(), "hostname": environment.node})
        )
    try:
        task.before_start(context.id, args, kwargs)
        value = _call(environment, task, args, kwargs)
    except Exception as exc:  # user code: every end of it is an outcome
        outcome = _after_exception(environment, execution, context, task, exc)
    else:
        outcome = _after_return(environment, execution, context, task, value)
    if signals.task_postrun.receivers:
        signals.task_postrun.send(
            sender=task, task_id=context.id, task=task, args=args, kwargs=kwargs, retval=None, state=outcome.state
        )
    runtime = time.monotonic() - started
    if outcome.state == states.SUCCESS and logger.isEnabledFor(20):
        logger.info("succeeded in %.6f s", runtime)
    return _with_runtime(outcome, runtime)


def _call(environment: Environment, task: Any, args: Any, kwargs: Any) -> Any:
    mark = environment.on_user_code
    if mark is not None:
        mark(True)
    try:
        value = task.run(*args, **kwargs) if type(task).__call__ is Task.__call__ else task(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = environment.run_coroutine(value)
        return value
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


def _after_return(environment: Environment, execution: Execution, context: Context, task: Any, value: Any) -> Outcome:
    app = environment.app
    try:
        messages = after_success(app, context, value)
        record = None
        if not _ignores_result(context, task):
            record = make_record(app, context, states.SUCCESS, value)
    except CeleriacError as exc:  # the value can't be encoded: that is the task's failure
        return _after_exception(environment, execution, context, task, exc)
    if signals.task_success.receivers:
        signals.task_success.send(sender=task, result=value)
    _handle(task.on_success, value, context.id, context.args, context.kwargs)
    _handle(task.after_return, states.SUCCESS, value, context.id, context.args, context.kwargs, None)
    return Outcome(execution.serial, execution.slot, context.task or "", states.SUCCESS, record, messages=messages)


def _after_exception(
    environment: Environment, execution: Execution, context: Context, task: Any, exc: Exception
) -> Outcome:
    """What an exception means: Ignore, Reject and Retry are the task's own words; any other is a failure."""
    serial, slot, name = execution.serial, execution.slot, context.task or ""
    if isinstance(exc, Ignore):
        return Outcome(serial, slot, name, states.IGNORED)
    if isinstance(exc, Retry):
        return _after_retry(environment, execution, context, task, exc)
    if isinstance(exc, Reject) and exc.requeue:
        return Outcome(serial, slot, name, states.REJECTED, action=Action.REQUEUE.value)
    trace = _traceback(exc)
    if isinstance(exc, Reject):
        outcome = _failure(
            environment, execution, context, task, exc, trace, Action.DEAD_LETTER, f"rejected: {exc.reason}"
        )
    else:
        action = _failure_action(task, exc)
        outcome = _failure(
            environment, execution, context, task, exc, trace, action, f"{type(exc).__name__}: {exc}"[:500]
        )
    _log_failure(task, context, exc, trace)
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
    messages, more_records = after_failure(app, context, exc, trace)
    record = None
    if not _ignores_result(context, task) or (task is not None and task.store_errors_even_if_ignored):
        record = _record_of_error(app, context, states.FAILURE, exc, trace)
    if task is not None:
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=task, task_id=context.id, exception=exc, args=context.args, kwargs=context.kwargs,
                traceback=exc.__traceback__, einfo=trace,
            )  # fmt: skip
        _handle(task.on_failure, exc, context.id, context.args, context.kwargs, trace)
        _handle(task.after_return, states.FAILURE, exc, context.id, context.args, context.kwargs, trace)
    return Outcome(
        execution.serial, execution.slot, context.task or "", states.FAILURE, record, more_records, messages,
        action.value, reason if action is not Action.ACK else "",
    )  # fmt: skip


def _after_retry(environment: Environment, execution: Execution, context: Context, task: Any, retry: Retry) -> Outcome:
    app = environment.app
    cause = retry.exc or retry
    trace = _traceback(cause)
    try:
        message = retry_message(app, context, retry)
        record = None if _ignores_result(context, task) else _record_of_error(app, context, states.RETRY, cause, trace)
    except CeleriacError as exc:  # the next attempt's arguments can't be encoded
        return _failure(environment, execution, context, task, exc, _traceback(exc), Action.DEAD_LETTER, str(exc)[:500])
    if signals.task_retry.receivers:
        signals.task_retry.send(sender=task, request=context, reason=cause, einfo=trace)
    _handle(task.on_retry, cause, context.id, context.args, context.kwargs, trace)
    logger.info("retry: %s", retry)
    return Outcome(execution.serial, execution.slot, context.task or "", states.RETRY, record, messages=[message])


def _apply_verdict(environment: Environment, execution: Execution, context: Context, task: Any) -> Outcome:
    """Write down an end that was decided before the task could (or again) run."""
    verdict, app = execution.verdict, environment.app
    if verdict.state == "STORED":  # a redelivered message whose outcome is stored: only continuations may be missing
        return _resume(environment, execution, context)
    exc: BaseException = getattr(errors, verdict.error)(*verdict.args)
    if verdict.state == states.REVOKED:
        record = _record_of_error(app, context, states.REVOKED, exc, None)
        return Outcome(
            execution.serial, execution.slot, context.task or "", states.REVOKED, record, action=verdict.action
        )
    trace = "".join(tracebacks.format_exception_only(exc))
    action = Action(verdict.action)
    if task is not None and isinstance(exc, errors.TimeLimitExceeded):
        action = _failure_action(task, exc)
    logger.error("Task %s[%s] failed: %s", context.task, context.id, exc)
    return _failure(environment, execution, context, task, exc, trace, action, verdict.reason)


def _resume(environment: Environment, execution: Execution, context: Context) -> Outcome:
    app = environment.app
    done = app.AsyncResult(context.id or "")
    messages: list[Any] = []
    if done.state == states.SUCCESS and (context.callbacks or context.chain or context.chord):
        messages = after_success(app, context, done.result)
    elif done.state == states.FAILURE and (context.errbacks or context.chain):
        messages = after_failure(app, context, done.result, done.traceback or "")[0]
    return Outcome(execution.serial, execution.slot, context.task or "", done.state, messages=messages)


def _unreadable(environment: Environment, execution: Execution, exc: CeleriacError) -> Outcome:
    """A body that can't be opened: the message is kept as a dead letter, and its task ends as a failure."""
    message = execution.message
    context = Context(id=message.id, task=message.task, retries=0, deliveries=execution.deliveries)
    logger.error("Task %s[%s]: message can't be read: %s", message.task, message.id, exc)
    record = _record_of_error(environment.app, context, states.FAILURE, exc, str(exc)) if message.id else None
    return Outcome(
        execution.serial, execution.slot, message.task, states.FAILURE, record,
        action=Action.DEAD_LETTER.value, reason=f"{type(exc).__name__}: {exc}",
    )  # fmt: skip


def _record_of_error(app: Celeriac, context: Context, state: str, exc: BaseException, trace: str | None) -> Record:
    """The record of an error; one that can't be encoded is recorded as its text."""
    try:
        return make_record(app, context, state, exc, trace)
    except Exception as problem:  # an exception is user code, too: its parts may be anything
        stand_in = CeleriacError(f"{type(exc).__name__}: {saferepr(exc)} (not serializable: {saferepr(problem)})")
        return make_record(app, context, state, stand_in, trace)


def _ignores_result(context: Context, task: Any) -> bool:
    if context.ignore_result is not None:
        return bool(context.ignore_result)
    return bool(task is not None and task.ignore_result)


def _handle(handler: Callable[..., Any], *args: Any) -> None:
    """Call a handler of the task; its own error is logged and changes nothing."""
    try:
        handler(*args)
    except Exception:  # user code
        logger.exception("%s raised", getattr(handler, "__qualname__", handler))


def _log_failure(task: Any, context: Context, exc: BaseException, trace: str) -> None:
    if isinstance(exc, tuple(task.throws)):
        logger.info("raised expected %s", saferepr(exc))
    else:
        logger.error("raised unexpected %s\n%s", saferepr(exc), trace)


def _traceback(exc: BaseException) -> str:
    """The traceback as text, without the frames of this module: users look for theirs."""
    try:
        trace = exc.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        return "".join(tracebacks.format_exception(type(exc), exc, trace))
    except Exception:  # an exception whose text raises
        return f"{type(exc).__name__} (its text can't be shown)\n" + "".join(tracebacks.format_tb(exc.__traceback__))


def _with_verdict(execution: Execution, verdict: Verdict) -> Execution:
    return Execution(
        execution.serial, execution.slot, execution.message, execution.queue, execution.deliveries, verdict
    )


def _with_runtime(outcome: Outcome, runtime: float) -> Outcome:
    return Outcome(
        outcome.serial, outcome.slot, outcome.task, outcome.state, outcome.record, outcome.more_records,
        outcome.messages, outcome.action, outcome.reason, outcome.until, runtime,
    )  # fmt: skip
