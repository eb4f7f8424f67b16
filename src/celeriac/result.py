"""Results to come: `AsyncResult` and its relatives, as Celery documents them.

A result knows its id and its app, and asks the app's result store. Waiting is the store's `wait`, which is told of
changes where it can be; how it goes is in `result_steps`, what is stored in `result_fields`, what followed from the task in
`result_tree`. Values are decoded here, in the client. Sets and groups of results are re-exported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container, Iterator
from typing import Any, Generic, TypeVar, cast

from celeriac import states
from celeriac.errors import TimeoutError
from celeriac.group_result import GroupResult
from celeriac.hooks import weak_reference
from celeriac.loading import import_object
from celeriac.log import get_logger
from celeriac.progress import Progress, changes, changes_and_pauses, progress_of
from celeriac.result_ancestors import Ancestors
from celeriac.result_base import (
    RemoteTraceback,
    ResultBase,
    allow_join_result,
    aside,
    assert_will_not_block,
    meta_of,
    raise_error,
)
from celeriac.result_fields import ResultFields
from celeriac.result_set import ResultSet
from celeriac.result_steps import Ask, Steps, arun, run, shorter
from celeriac.result_tree import ResultTree
from celeriac.results.base import Record
from celeriac.timing import Deadline

__all__ = [
    "AsyncResult", "EagerResult", "GroupResult", "RemoteTraceback", "ResultBase", "ResultSet", "allow_join_result",
    "assert_will_not_block", "result_from_tuple",
]  # fmt: skip

logger = get_logger("celeriac.result")

R = TypeVar("R")


class AsyncResult(ResultTree, ResultFields, Generic[R]):
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
        #: Whether the task's result is not kept at all, so that there is nothing to wait for.
        self.ignored = False
        self._app = app
        self._backend = backend
        self._done = None

    def _waiter(self) -> Any:
        if self._backend is None:
            return self.app.waiter
        return import_object("celeriac.waiting:ResultWaiter", "aget")(self._backend)

    # waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: Container[str] = states.EXCEPTION_STATES,  # noqa: N803 -- Celery's documented name
        PROPAGATE_STATES: Container[str] = states.PROPAGATE_STATES,  # noqa: N803
    ) -> R:
        """Wait for the task to end, and return its value.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.
            propagate: Raise the task's exception; False returns it.
            interval: Seconds between two calls of `on_interval`.
            follow_parents: Raise the exception of a task before it in its chain, too.
            callback: Called with (task id, value).
            on_message: Called with the task's meta each time that its state changes.
            on_interval: Called while it waits.
            disable_sync_subtasks: Refuse to wait inside a task.
            EXCEPTION_STATES: Accepted; what a result is stands in the store.
            PROPAGATE_STATES: The states whose exception is raised.

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
        if on_message is not None:
            for record in self._changes(timeout, interval, on_interval):
                self._tell(record, on_message, on_interval)
        steps = self._get_steps(deadline, timeout, propagate and follow_parents, interval, on_interval)
        return self._unpack(run(steps, self.backend), propagate, callback, PROPAGATE_STATES)

    wait = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        *,
        interval: float = 0.5,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> R:
        """`get` for coroutines."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if self.ignored:
            return cast(R, None)
        deadline = Deadline(timeout)
        if on_message is not None:
            found, over = self._changes(timeout, interval, on_interval), object()
            while (record := await aside(next, found, over)) is not over:
                self._tell(record, on_message, on_interval)
        steps = self._get_steps(deadline, timeout, propagate and follow_parents, interval, on_interval)
        return self._unpack(await arun(steps, self._waiter()), propagate, callback)

    def _changes(self, timeout: float | None, interval: float, on_interval: Any) -> Iterator[Record | None]:
        return changes_and_pauses(self.backend, self.id, timeout, None if on_interval is None else interval)

    def _tell(self, record: Record | None, on_message: Callable[[dict[str, Any]], Any], on_interval: Any) -> None:
        if record is None:
            on_interval()
        else:
            on_message(meta_of(record, self.app.result_accept))

    def _get_steps(
        self,
        deadline: Deadline,
        timeout: float | None,
        follow_parents: bool,
        interval: float = 0.5,
        on_interval: Callable[[], Any] | None = None,
    ) -> Steps[Record]:
        ancestors = Ancestors(self) if follow_parents and self.parent is not None else None
        if self._done is None:
            self._done = self._remembered()
        while self._done is None:
            limit = deadline.left()
            if on_interval is not None:
                limit = shorter(limit, interval)
            if ancestors is not None:
                limit = ancestors.limit(limit)
            found = yield Ask([self.id], limit)
            self._done = next((record for record in found if record.id == self.id), None)
            if self._done is not None:
                self._remember(self._done)
            if ancestors is not None and (self._done is None or self._done.state != states.SUCCESS):
                ancestors.look(now=self._done is not None or deadline.passed())
            if self._done is None and deadline.passed():
                raise TimeoutError(f"Task {self.id} has no result after {timeout} seconds (state: {self.state}).")
            if self._done is None and on_interval is not None:
                on_interval()
        return self._done

    def _unpack(
        self,
        record: Record,
        propagate: bool,
        callback: Callable[[str, Any], Any] | None,
        raised: Container[str] = states.PROPAGATE_STATES,
    ) -> R:
        value = self._decode(record)
        if propagate and record.state in raised:
            raise_error(value, record.traceback, self.app.conf.task_remote_tracebacks)
        if callback is not None:
            callback(self.id, value)
        return cast(R, value)

    def _value_now(self, propagate: bool) -> R:
        """The value of one that is known to have ended."""
        return cast(R, None) if self._done is None else self._unpack(self._done, propagate, None)

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """The value if there is one; raises if the task failed."""
        record = self._record()
        return None if record is None else self._unpack(record, propagate, callback)

    maybe_reraise = maybe_throw

    def then(
        self,
        callback: Callable[[AsyncResult[R]], Any],
        on_error: Callable[[Exception], Any] | None = None,
        weak: bool = False,
    ) -> AsyncResult[R]:
        """Call `callback` with this result once the task has ended, well or not.

        It is called in a thread of the app's, one callback after the other, so it should be short.

        Args:
            on_error: Called with what the callback raised, or with the store's error; else it is logged.
            weak: Do not keep `callback` alive: once it has gone, nothing is called.
        """
        found = weak_reference(callback) if weak else lambda: callback
        self._waiter().follow(self._then_steps(found), on_error or _log_callback)
        return self

    def _then_steps(self, found: Callable[[], Any]) -> Steps[None]:
        yield from self._get_steps(Deadline(None), None, False)
        callback = found()
        if callback is not None:
            callback(self)

    def throw(self, exc: BaseException, traceback: str | None = None) -> None:
        """Raise `exc` as this result's error."""
        raise_error(exc, traceback)

    # progress

    def progress(self) -> Progress:
        """How far the task is, as it told with `update_state`."""
        record = self._record()
        return progress_of(self._state_of(record), None if record is None else self._decode(record))

    def follow(self, timeout: float | None = None) -> Iterator[Progress]:
        """The task's progress each time that it changes, until the task has ended or the time is up."""
        for record in changes(self.backend, self.id, timeout):
            if record.is_ready:
                self._done = record
            yield progress_of(record.state, self._decode(record))

    async def afollow(self, timeout: float | None = None) -> AsyncIterator[Progress]:
        """`follow` for coroutines."""
        run_aside = import_object("celeriac.batching:run_aside", "afollow")
        steps = self.follow(timeout)
        while (step := await run_aside(next, steps, None)) is not None:
            yield step

    # the rest

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Keep the task from running, if it waits; see `app.control.revoke`.

        Args:
            terminate: End it if it runs, too.
            signal: The signal for that (default: SIGTERM).
            wait: Wait up to `timeout` seconds (default: 1) until the workers have answered.
        """
        self.app.control.revoke(
            self.id,
            terminate=terminate,
            signal=signal or "SIGTERM",
            reply=wait,
            timeout=1.0 if timeout is None else timeout,
        )

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Revoke all tasks that bear one of these stamps, whoever sent them."""
        self.app.control.revoke_by_stamped_headers(
            headers,
            terminate=terminate,
            signal=signal or "SIGTERM",
            reply=wait,
            timeout=1.0 if timeout is None else timeout,
        )

    def forget(self, *, children: bool = False) -> None:
        """Delete the result, and those of its parents.

        Args:
            children: Those of all tasks that followed from it, too.
        """
        if children:
            for _, node in list(self.iterdeps(intermediate=True))[1:]:
                node.forget()
        self._done = None
        if self.parent is not None:
            cast(Any, self.parent).forget()
        self.backend.forget([self.id])
        if self.app.result_cache is not None:
            self.app.result_cache.forget([self.id])

    def as_tuple(self) -> Any:
        """Plain data from which `result_from_tuple` makes the result again."""
        return (self.id, None if self.parent is None else cast(Any, self.parent).as_tuple()), None

    serializable = as_tuple

    def as_list(self) -> list[str]:
        """Its id and those of its parents."""
        return [self.id, *([] if self.parent is None else cast(Any, self.parent).as_list())]

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

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, disable_sync_subtasks: bool = True, **_: Any
    ) -> R:
        """`get` for coroutines."""
        return self.get(timeout, propagate, disable_sync_subtasks)

    def _record(self) -> Record | None:
        return None

    def _leaves(self) -> list[ResultFields]:
        return []

    def _value_now(self, propagate: bool) -> R:
        return self.get(propagate=propagate)

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

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """The value; raises if the task failed."""
        value = self.get(propagate=propagate)
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def then(
        self,
        callback: Callable[[AsyncResult[R]], Any],
        on_error: Callable[[Exception], Any] | None = None,
        weak: bool = False,
    ) -> EagerResult[R]:
        """Call `callback` with this result, now."""
        try:
            callback(self)
        except Exception as exc:  # user code
            if on_error is None:
                raise
            on_error(exc)
        return self

    def progress(self) -> Progress:
        """That of a task that has ended."""
        return progress_of(self._state, self._value)

    def follow(self, timeout: float | None = None) -> Iterator[Progress]:
        """Its end."""
        yield self.progress()

    def forget(self, *, children: bool = False) -> None:
        """Nothing is stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Mark it as revoked."""
        self._state = states.REVOKED

    def revoke_by_stamped_headers(self, *args: Any, **kwargs: Any) -> None:
        """Mark it as revoked."""
        self._state = states.REVOKED

    def __copy__(self) -> EagerResult[R]:
        return EagerResult(self.id, self._value, self._state, self._traceback, self._name)

    def __reduce__(self) -> tuple[Any, ...]:
        return EagerResult, (self.id, self._value, self._state, self._traceback, self._name)

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"


def _log_callback(exc: Exception) -> None:
    logger.error("a callback of a result raised", exc_info=exc)


def result_from_tuple(r: Any, app: Any = None) -> Any:
    """The result, or the group of results, that `as_tuple` described; the older form with a bare id is read too."""
    if isinstance(r, ResultBase):
        return r
    head, members = r
    id, parent = head if isinstance(head, (list, tuple)) else (head, None)
    found = None if parent is None else result_from_tuple(parent, app)
    if members is None:
        return AsyncResult(id, app=app, parent=found)
    return GroupResult(id, [result_from_tuple(member, app) for member in members], parent=found, app=app)
