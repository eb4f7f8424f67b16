"""Calls the methods of `Request` classes of the user's own (`Task.Request`): in the supervisor, as Celery documents it.

A worker whose app has such a class imports the app in its supervisor, too. The methods are told of ends; they decide nothing.
Invariant: what they raise is logged and disturbs nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.errors import CeleriacError, ImproperlyConfigured
from celeriac.exception_info import ExceptionInfo
from celeriac.loading import import_object
from celeriac.log import get_logger
from celeriac.message import Delivery
from celeriac.outcome import Outcome
from celeriac.results.base import Record
from celeriac.wire.results import decode_result
from celeriac.worker.assignment import Assignment
from celeriac.worker.request import Request

if TYPE_CHECKING:
    from celeriac.worker.supervisor import Supervisor

__all__ = ["RequestHooks"]

logger = get_logger("celeriac.worker.request")


class RequestHooks:
    """The request classes of one worker's tasks."""

    def __init__(self, worker: Supervisor) -> None:
        self._worker = worker
        self._classes: dict[str, type[Request]] = {}  # those of the user's own, by task

    def find(self) -> None:
        """Find the classes of all tasks.

        Raises:
            ImproperlyConfigured: One is none.
        """
        app = self._worker.app
        tasks = {} if app is None else app.tasks
        found = {name: _class_of(task) for name, task in tasks.items()}
        self._classes = {name: kind for name, kind in found.items() if kind is not Request}

    def request(self, delivery: Delivery) -> Request:
        """The request of a message."""
        app, name = self._worker.app, delivery.message.task
        kind = self._classes.get(name, Request)
        return kind(delivery, self._worker.node, None if app is None else app.tasks.get(name), app)

    def timed_out(self, assignment: Assignment, limit: float | None, *, soft: bool) -> None:
        """A running task, or a batch of them, has passed a time limit."""
        if assignment.task in self._classes:
            for member in assignment.members:
                _call(self.request(member.delivery).on_timeout, soft, limit)

    def ended(self, assignment: Assignment, outcome: Outcome) -> None:
        """An execution has come to an outcome."""
        if assignment.task not in self._classes:
            return
        request = self.request(assignment.delivery)
        if outcome.state == states.FAILURE:
            _call(request.on_failure, self._error_in(outcome.record))
        elif outcome.state == states.RETRY:
            _call(request.on_retry, self._error_in(outcome.record))

    def _error_in(self, record: Record | None) -> ExceptionInfo:
        """The error of a record, opened as a client of this app would."""
        if record is None:
            return ExceptionInfo(CeleriacError("the error is not known here: it is not stored"), "")
        try:
            error = decode_result(record, self._worker.app.result_accept)
        except CeleriacError as exc:
            error = exc
        return ExceptionInfo(error, record.traceback or "")


def _class_of(task: Any) -> type[Request]:
    given = task.Request
    found = import_object(given, f"Request of task {task.name!r}") if isinstance(given, str) else given
    if not isinstance(found, type) or not issubclass(found, Request):
        raise ImproperlyConfigured(
            f"Request of task {task.name!r} is {given!r}, which is no subclass of celeriac.worker.request.Request"
        )
    return found


def _call(method: Callable[..., Any], *args: Any) -> None:
    try:
        method(*args)
    except Exception:  # user code
        logger.exception("%s raised", getattr(method, "__qualname__", method))
