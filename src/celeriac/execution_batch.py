"""Runs the calls of a batch as one: decode each → call the function once → an outcome for each. One function, `execute_batch`.

Runners call it for a batch; a lone call of a batch task goes through `execution.execute` as any other does. What is wrong
with one call, such as a body that can't be opened, is that call's end alone; what the function raises is the end of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from celeriac.batch_call import Call
from celeriac.batch_task import ends
from celeriac.canvas.replacing import Replaced
from celeriac.context import Context, running
from celeriac.errors import CeleriacError, Retry, SoftTimeLimitExceeded
from celeriac.execution import (
    after_exception,
    after_return,
    conclude,
    execute,
    give_up,
    open_call,
    start,
    unreadable,
    with_enqueued,
)
from celeriac.log import current_task_info
from celeriac.middleware import execute_through
from celeriac.outcome import BatchExecution, Execution, Outcome

if TYPE_CHECKING:
    from celeriac.environment import Environment

__all__ = ["execute_batch"]


class _Member:
    """One call on its way through a batch."""

    __slots__ = ("call", "context", "execution", "outcome")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.context = Context()
        self.call: Call[...]
        self.outcome: Outcome | None = None


def execute_batch(environment: Environment, batch: BatchExecution) -> list[Outcome]:
    """Run a batch to the outcomes of its calls, in order."""
    started = time.monotonic()
    task = environment.app.tasks.get(batch.executions[0].message.task)
    if task is None or not hasattr(task, "run_batch"):
        return [execute(environment, execution) for execution in batch.executions]
    members = [_Member(execution) for execution in batch.executions]
    for member in members:
        _in_context(environment, member, partial(_open, environment, member, task))
    taking_part = [member for member in members if member.outcome is None]
    values = _values(environment, task, [member.call for member in taking_part]) if taking_part else []
    for member, value in zip(taking_part, values, strict=True):
        _in_context(environment, member, partial(_end, environment, member, task, value, started))
    return [member.outcome or give_up(environment, member.execution, _no_end()) for member in members]


def _no_end() -> Exception:
    return CeleriacError("it has no outcome")


def _in_context(environment: Environment, member: _Member, step: Callable[[], None]) -> None:
    """Do something about one call as its task's own execution would; its own error ends this call only."""
    context = member.context
    token, info = running.set(context), current_task_info.set((context.id or "", context.task or ""))
    try:
        step()
    except SoftTimeLimitExceeded:  # a moment late: the runner says what that means
        raise
    except Exception as exc:  # a hook of the user's
        member.outcome = give_up(environment, member.execution, exc)
    finally:
        running.reset(token)
        current_task_info.reset(info)


def _open(environment: Environment, member: _Member, task: Any) -> None:
    try:
        context, _ = open_call(environment, member.execution)
    except CeleriacError as exc:
        member.outcome = unreadable(environment, member.execution, exc)
        return
    member.context, context.owner = context, task
    member.call = Call(task, context, context.args or (), context.kwargs or {})
    _in_context(environment, member, partial(_begin, environment, member, task))


def _begin(environment: Environment, member: _Member, task: Any) -> None:
    context, started = member.context, time.monotonic()
    start(environment, context, task)
    try:
        task.before_start(context.id, context.args, context.kwargs)
    except Exception as exc:  # user code
        _end(environment, member, task, exc, started)


def _values(environment: Environment, task: Any, calls: Sequence[Call[...]]) -> list[Any]:
    """What each call returned or raised."""
    context = Context(task=task.name, called_directly=False, hostname=environment.node, owner=task)
    token, info = running.set(context), current_task_info.set((f"{len(calls)} calls", task.name))
    mark, middleware = environment.on_user_code, environment.app.middleware
    try:
        if mark is not None:
            mark(True)
        try:
            value = execute_through(middleware, context, lambda: _called(environment, task, calls))
        finally:
            if mark is not None:
                mark(False)
        return ends(task, calls, value)
    except BaseException as exc:  # user code: every end of it is an outcome, sys.exit() and a cancellation too
        return [_shared_end(call, exc) for call in calls]
    finally:
        running.reset(token)
        current_task_info.reset(info)


def _called(environment: Environment, task: Any, calls: Sequence[Call[...]]) -> Any:
    value = task.run_batch(list(calls))
    return environment.run_coroutine(value) if isinstance(value, CoroutineType) else value


def _shared_end(call: Call[...], exc: BaseException) -> BaseException:
    """What the function raised, as the end of one call."""
    if isinstance(exc, Retry):  # by `self.retry()`: each call has its own number of attempts
        when = exc.when
        moment = {"countdown": when} if isinstance(when, (int, float)) else {"eta": when}
        call.retry(exc=exc.exc, **moment)
        return call.end  # type: ignore[no-any-return]
    return Replaced(exc.signature.clone()) if isinstance(exc, Replaced) else exc


def _end(environment: Environment, member: _Member, task: Any, value: Any, started: float) -> None:
    execution, context = member.execution, member.context
    if isinstance(value, Exception) and task.autoretry_for:
        value = task.autoretry(value)
    if isinstance(value, BaseException):
        outcome = after_exception(environment, execution, context, task, value)
    else:
        outcome = after_return(environment, execution, context, task, value, started)
    outcome = conclude(context, task, value, outcome, started)
    member.outcome = with_enqueued(environment.app, outcome) if outcome.messages else outcome
