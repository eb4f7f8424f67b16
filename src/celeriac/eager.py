"""`Task.apply`: a task run in this process through the worker's code path.

Arguments are encoded and decoded, the outcome is made by `execution.execute`, retries and continuations run here too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from celeriac import continuations, states
from celeriac.context import Context
from celeriac.continuations import Sequel
from celeriac.environment import Environment
from celeriac.execution import execute
from celeriac.message import Action, Message
from celeriac.outcome import Execution, Outcome
from celeriac.result import EagerResult
from celeriac.sending import prepare
from celeriac.wire.results import decode_result

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["fail_body", "run_eagerly"]


def run_eagerly(
    app: Celeriac,
    task: Any,
    args: Any,
    kwargs: Any,
    task_id: str | None,
    link: Any,
    link_error: Any,
    throw: bool | None,
    options: dict[str, Any],
) -> EagerResult[Any]:
    """Run one call and everything that follows from it."""
    options = {key: value for key, value in options.items() if key not in ("countdown", "eta") and value is not None}
    options["ignore_result"] = False  # the value is wanted here, whatever would be stored
    message, _ = prepare(app, task.name, args, kwargs, task_id, link, link_error, task=task, options=options)
    outcome, error = _run(app, message)
    _run_all(app, outcome.messages)
    result = _as_result(app, message, outcome, error)
    if outcome.record is not None and task.store_eager_result and app.backend is not None:
        app.backend.store([outcome.record])
    if (app.conf.task_eager_propagates if throw is None else throw) and outcome.state in states.PROPAGATE_STATES:
        result.get(disable_sync_subtasks=False)
    return result


def _run_all(app: Celeriac, messages: list[Message]) -> None:
    """Run messages, and what follows from them."""
    followers = deque(messages)
    while followers:
        followers.extend(_run(app, followers.popleft())[0].messages)


def fail_body(app: Celeriac, body: Any, error: BaseException) -> None:
    """Call the error callbacks of a chord's body that does not run."""
    sequel = Sequel()
    continuations.fail_body(app, Context(is_eager=True, called_directly=False), sequel, body, error)
    _run_all(app, sequel.messages)


def _run(app: Celeriac, message: Message) -> tuple[Outcome, BaseException | None]:
    """Run a message, and again while it asks for a retry or to be requeued; returns what the last run raised, too."""
    environment = Environment(app, app.origin, is_eager=True)
    deliveries = 1
    try:
        while True:
            outcome = execute(environment, Execution(0, 0, message, message.queue, deliveries))
            if outcome.state == states.RETRY and outcome.messages:
                message = outcome.messages[0]
            elif outcome.action == Action.REQUEUE.value and deliveries < app.conf.task_max_deliveries:
                deliveries += 1
            else:
                return outcome, environment.error
    finally:
        environment.close()


def _as_result(app: Celeriac, message: Message, outcome: Outcome, error: BaseException | None) -> EagerResult[Any]:
    record = outcome.record
    if outcome.state in states.PROPAGATE_STATES and error is not None:
        value: Any = error  # the very exception, with its traceback: nothing has to travel here
    else:
        value = None if record is None else decode_result(record, app.result_accept)
    trace = None if record is None else record.traceback
    return EagerResult(message.id, value, outcome.state, traceback=trace, name=outcome.task)
