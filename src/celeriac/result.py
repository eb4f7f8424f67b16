"""Results to come: `AsyncResult` and its relatives, as Celery documents them.

A result knows its id and its app, and asks the app's result store. Waiting is the store's `wait`, which is told of
changes where it can be. Values are decoded here, in the client.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from celeriac import states
from celeriac.context import running
from celeriac.current import get_current_app
from celeriac.errors import ImproperlyConfigured, TimeoutError
from celeriac.results.base import Record
from celeriac.timing import Deadline
from celeriac.wire.results import decode_result

__all__ = [
    "AsyncResult", "EagerResult", "ResultBase", "allow_join_result", "assert_will_not_block", "result_from_tuple",
]  # fmt: skip

R = TypeVar("R")

_join_allowed: ContextVar[bool] = ContextVar("celeriac_join_allowed", default=False)


class RemoteTraceback(Exception):
    """The worker's traceback, shown as the cause of the exception that `get` raises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def assert_will_not_block() -> None:
    """Raise RuntimeError inside a running task: waiting there for another task can block the worker for ever."""
    context = running.get()
    if context is not None and not context.called_directly and not context.is_eager and not _join_allowed.get():
        raise RuntimeError(
            "Never call result.get() within a task: it can block the worker for ever. "
            "Chain the tasks, or pass disable_sync_subtasks=False if you know that it can't."
        )


@contextlib.contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow waiting for results inside a task for the time of this block."""
    token = _join_allowed.set(True)
    try:
        yield
    finally:
        _join_allowed.reset(token)


class ResultBase:
    """Base of all results."""

    parent: ResultBase | None = None


class AsyncResult(ResultBase, Generic[R]):
    """The result of one task, there or still to come.

    Args:
        id: Task id.
        backend: Result store to ask (default: the app's).
        app: The app (default: the current one).
        parent: Result of the task before it in a chain.
    """

    TimeoutError = TimeoutError

    def __init__(
        self, id: str, backend: Any = None, task_name: str | None = None, app: Any = None, parent: Any = None
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult requires a task id, not None")
        self.id = id
        self.parent = parent
        self.ignored = False
        self._app = app
        self._backend = backend
        self._done: Record | None = None

    # where to ask

    @property
    def app(self) -> Any:
        """The app whose store is asked."""
        return self._app if self._app is not None else get_current_app()

    @property
    def backend(self) -> Any:
        """The result store."""
        store = self._backend if self._backend is not None else self.app.backend
        if store is None:
            raise NotImplementedError("No result backend is configured: set `result_backend` to a URL.")
        return store

    def _record(self) -> Record | None:
        if self._done is None:
            record = self.backend.get([self.id])[0]
            if record is None or not record.is_ready:
                return cast("Record | None", record)
            self._done = record
        return self._done

    # waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        **_compatible: Any,
    ) -> R:
        """Wait for the task to end, and return its value.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.
            propagate: Raise the task's exception; False returns it.
            callback: Called with (task id, value).
            disable_sync_subtasks: Refuse to wait inside a task.

        Raises:
            TimeoutError: The result did not come in time; the task goes on.
            RuntimeError: Called inside a task.
            Exception: Whatever the task raised.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if self.ignored:
            return cast(R, None)
        deadline = Deadline(timeout)
        if propagate and follow_parents and isinstance(self.parent, AsyncResult):
            self.parent.get(timeout=deadline.left(), propagate=True, disable_sync_subtasks=False)
        record = self._done or self._wait(deadline, timeout)
        return self._unpack(record, propagate, callback)

    def _wait(self, deadline: Deadline, timeout: float | None) -> Record:
        found: list[Record] = self.backend.wait([self.id], deadline.left())
        if not found:
            raise TimeoutError(f"Task {self.id} has no result after {timeout} seconds (state: {self.state}).")
        self._done = found[0]
        return found[0]

    def _unpack(self, record: Record, propagate: bool, callback: Callable[[str, Any], Any] | None) -> R:
        value = self._decode(record)
        if propagate and record.state in states.PROPAGATE_STATES:
            _raise(value, record.traceback)
        if callback is not None:
            callback(self.id, value)
        return cast(R, value)

    def _decode(self, record: Record) -> Any:
        return decode_result(record, self.app.result_accept)

    async def aget(self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True) -> R:
        """`get` for coroutines."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if self.ignored:
            return cast(R, None)
        if self._done is None:
            self._done = await self.app.waiter.wait(self.id, timeout)
        return self._unpack(self._done, propagate, None)

    wait = get

    # looking

    @property
    def state(self) -> str:
        """The stored state; PENDING when nothing is stored."""
        record = self._record()
        return states.PENDING if record is None else record.state

    status = state

    @property
    def result(self) -> Any:
        """The value, the exception, or the meta of a custom state; None when nothing is stored."""
        record = self._record()
        return None if record is None else self._decode(record)

    info = result

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether it ended without error."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether anything is stored under this id."""
        return self._record() is not None

    def _field(self, name: str) -> Any:
        record = self._record()
        return None if record is None else getattr(record, name)

    @property
    def traceback(self) -> str | None:
        """The worker's traceback."""
        return cast("str | None", self._field("traceback"))

    @property
    def date_done(self) -> datetime | None:
        """When it ended (UTC)."""
        text = self._field("date_done")
        return datetime.fromisoformat(text) if text else None

    @property
    def children(self) -> list[Any] | None:
        """Results of the tasks it sent."""
        found = self._field("children")
        return None if found is None else [result_from_tuple(child, self._app) for child in found]

    @property
    def name(self) -> str | None:
        """Name of the task (with `result_extended`)."""
        return cast("str | None", self._field("name"))

    @property
    def worker(self) -> str | None:
        """Node that ran it (with `result_extended`)."""
        return cast("str | None", self._field("worker"))

    @property
    def retries(self) -> int | None:
        """How often it was retried (with `result_extended`)."""
        return cast("int | None", self._field("retries"))

    @property
    def queue(self) -> str | None:
        """Queue it came from (with `result_extended`)."""
        return cast("str | None", self._field("queue"))

    @property
    def args(self) -> Any:
        """Positional arguments (with `result_extended`)."""
        return self._value_field("args")

    @property
    def kwargs(self) -> Any:
        """Keyword arguments (with `result_extended`)."""
        return self._value_field("kwargs")

    def _value_field(self, name: str) -> Any:
        record = self._record()
        raw = None if record is None else getattr(record, name)
        if record is None or raw is None:
            return None
        return decode_result(
            Record(
                id=record.id,
                state=states.SUCCESS,
                result=raw,
                content_type=record.content_type,
                content_encoding=record.content_encoding,
            ),
            self.app.result_accept,
        )

    # the rest

    def forget(self) -> None:
        """Delete the result, and those of its parents."""
        self._done = None
        if isinstance(self.parent, AsyncResult):
            self.parent.forget()
        self.backend.forget([self.id])

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """The value if there is one; raises if the task failed."""
        record = self._record()
        if record is None:
            return None
        return self._unpack(record, propagate, callback)

    maybe_reraise = maybe_throw

    def as_tuple(self) -> Any:
        """Plain data from which `result_from_tuple` makes the result again."""
        return (self.id, self.parent.as_tuple() if isinstance(self.parent, AsyncResult) else None), None

    def as_list(self) -> list[str]:
        """Its id and those of its parents."""
        return [self.id, *(self.parent.as_list() if isinstance(self.parent, AsyncResult) else [])]

    @property
    def task_id(self) -> str:
        """Old name of `id`."""
        return self.id

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return self.id == other.id
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __copy__(self) -> AsyncResult[R]:
        return type(self)(self.id, self._backend, app=self._app, parent=self.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, None, None, None, self.parent)


class EagerResult(AsyncResult[R]):
    """The result of a task that was run here by `apply`."""

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None
    ) -> None:
        super().__init__(id)
        self._value = ret_value
        self._state = state
        self._traceback = traceback
        self._name = name

    def get(  # type: ignore[override]  # the documented signature is shorter: there is nothing to wait for
        self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True, **_: Any
    ) -> R:
        """The value; raises the task's exception if it failed and `propagate` is true. Nothing is waited for."""
        if propagate and self._state in states.PROPAGATE_STATES and isinstance(self._value, BaseException):
            raise self._value
        return cast(R, self._value)

    wait = get  # type: ignore[assignment]

    async def aget(self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True) -> R:
        """`get` for coroutines."""
        return self.get(timeout, propagate, disable_sync_subtasks)

    @property
    def state(self) -> str:
        """The final state."""
        return self._state

    status = state

    @property
    def result(self) -> Any:
        """The value or the exception."""
        return self._value

    info = result

    @property
    def traceback(self) -> str | None:
        """Traceback of a failure."""
        return self._traceback

    @property
    def name(self) -> str | None:
        """Name of the task."""
        return self._name

    def ready(self) -> bool:
        """Always true."""
        return True

    def exists(self) -> bool:
        """Always true."""
        return True

    def forget(self) -> None:
        """Nothing is stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Mark it as revoked."""
        self._state = states.REVOKED

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"


def _raise(value: Any, traceback: str | None) -> None:
    if not isinstance(value, BaseException):
        value = Exception(value)
    if traceback:
        value.__cause__ = RemoteTraceback(traceback)
    raise value


def result_from_tuple(r: Any, app: Any = None) -> Any:
    """The result that `as_tuple` described; the older form with a bare id is read too."""
    if isinstance(r, ResultBase):
        return r
    head, members = r
    id, parent = head if isinstance(head, (list, tuple)) else (head, None)
    if members is not None:
        raise ImproperlyConfigured(f"result {id!r} is a group's: read its members one by one")
    return AsyncResult(id, app=app, parent=result_from_tuple(parent, app) if parent else None)
