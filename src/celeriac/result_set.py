"""Many results at once: `ResultSet`, which waits for, reads and forgets its members in batches.

Members are results of single tasks, run here or elsewhere, or further sets and groups. How it waits is written once, in
`result_joining`, for threads and coroutines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

from celeriac import states
from celeriac.current import get_current_app
from celeriac.hooks import weak_reference
from celeriac.log import get_logger
from celeriac.result_base import ResultBase, assert_will_not_block
from celeriac.result_fields import ResultFields, read_ahead
from celeriac.result_joining import Completed, Join, flat, meta_of_result
from celeriac.result_steps import WINDOW, Pending, Steps, arun, run
from celeriac.results.base import Record

__all__ = ["ResultSet"]

logger = get_logger("celeriac.result_set")
S = TypeVar("S", bound="ResultSet")


class ResultSet(ResultBase):
    """A collection of results.

    Args:
        results: Its members.
        app: The app whose store is asked (default: that of the members, else the current one).
    """

    #: The app of all sets of this class; `app.ResultSet` is a class of that app.
    bound_app: Any = None

    def __init__(self, results: Iterable[Any], app: Any = None, ready_barrier: Any = None, **_compatible: Any) -> None:
        self.results: list[Any] = list(results)
        self._app = app if app is not None else self.bound_app

    @property
    def app(self) -> Any:
        """The app whose store is asked."""
        if self._app is not None:
            return self._app
        return self.results[0].app if self.results else get_current_app()

    @property
    def backend(self) -> Any:
        """The result store."""
        leaf = next(iter(self._leaves()), None)
        if leaf is not None:
            return leaf.backend
        return self.app.reader

    @property
    def supports_native_join(self) -> bool:
        """Whether many results can be waited for at once: every store can."""
        return True

    def _leaves(self) -> list[ResultFields]:
        """The results of single tasks that it consists of, but those that are here already or not kept."""
        return [leaf for member in self.results for leaf in member._leaves()]

    def _waiter(self) -> Any:
        leaf: Any = next(iter(self._leaves()), None)
        return self.app.waiter if leaf is None else leaf._waiter()

    def _value_now(self, propagate: bool) -> list[Any]:
        return [member._value_now(propagate) for member in self.results]

    # members

    def add(self, result: Any) -> None:
        """Add a result, unless it is a member."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Remove a result, given as such or by its id.

        Raises:
            KeyError: It is no member.
        """
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Remove a result if it is a member."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add all that are no members yet."""
        known = {member.id for member in self.results}
        for result in results:
            if result.id not in known:
                known.add(result.id)
                self.results.append(result)

    def clear(self) -> None:
        """Remove all members."""
        self.results.clear()

    # states

    def _states(self) -> list[list[str]]:
        """The states of each member's tasks, read in batches."""
        records = read_ahead(self._leaves())
        return [_states_of(member, records) for member in self.results]

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(state in states.READY_STATES for member in self._states() for state in member)

    def waiting(self) -> bool:
        """Whether any has not ended."""
        return not self.ready()

    def successful(self) -> bool:
        """Whether all ended without error."""
        return all(state == states.SUCCESS for member in self._states() for state in member)

    def failed(self) -> bool:
        """Whether any ended with an error."""
        return any(state == states.FAILURE for member in self._states() for state in member)

    def completed_count(self) -> int:
        """How many members ended without error."""
        return sum(all(state == states.SUCCESS for state in member) for member in self._states())

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise if any task failed; else call `callback` for each member that has a value."""
        leaves = self._leaves()
        read_ahead(leaves)
        for member in self.results:
            if all(leaf._done is not None for leaf in member._leaves()):
                value = member._value_now(propagate)
                if callback is not None:
                    callback(member.id, value)

    maybe_reraise = maybe_throw

    # waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait for all, and return their values in order.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.
            propagate: Raise the exception of the first that fails; False puts exceptions into the list.
            interval: Seconds between two calls of `on_interval`.
            callback: Called with (task id, value) of each as it ends.
            on_message: Called with the meta of each as it ends.
            disable_sync_subtasks: Refuse to wait inside a task.

        Raises:
            TimeoutError: Not all came in time.
        """
        return self.join_native(
            timeout, propagate, interval, callback, no_ack, on_message, on_interval, disable_sync_subtasks
        )

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """`get` in the order of the members: callbacks are called, and errors are raised, in this order."""
        if disable_sync_subtasks:
            assert_will_not_block()
        return self._run(Join(self, timeout, propagate, interval, callback, on_message, on_interval, in_order=True))

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """`get`: callbacks are called, and errors are raised, as tasks end."""
        if disable_sync_subtasks:
            assert_will_not_block()
        return self._run(Join(self, timeout, propagate, interval, callback, on_message, on_interval))

    def _run(self, join: Join) -> list[Any]:
        return run(join.steps(), self.backend) if self._leaves() else join.at_once()

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        *,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        in_order: bool = False,
    ) -> list[Any]:
        """`get` for coroutines."""
        if disable_sync_subtasks:
            assert_will_not_block()
        join = Join(self, timeout, propagate, 0.5, callback, on_message, None, in_order=in_order)
        return await arun(join.steps(), self._waiter()) if self._leaves() else join.at_once()

    ajoin_native = aget

    async def ajoin(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        *,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
    ) -> list[Any]:
        """`join` for coroutines."""
        return await self.aget(
            timeout, propagate, disable_sync_subtasks, callback=callback, on_message=on_message, in_order=True
        )

    def as_completed(self, timeout: float | None = None) -> Completed:
        """The results of its tasks, as they end: `for result in …`, or `async for result in …`.

        Raises:
            TimeoutError: Not all came in time.
        """
        return Completed(self, timeout)

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pairs of id and meta of its tasks, as they end."""
        for result in Completed(self, timeout, interval, on_interval):
            meta = meta_of_result(result)
            if on_message is not None:
                on_message(meta)
            yield result.id, meta

    async def aiter_native(self, timeout: float | None = None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """`iter_native` for coroutines."""
        async for result in Completed(self, timeout):
            yield result.id, meta_of_result(result)

    def iterate(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Iterator[Any]:
        """The values of its tasks, as they end."""
        for result in Completed(self, timeout):
            yield result._value_now(propagate)

    def then(
        self: S, callback: Callable[[S], Any], on_error: Callable[[Exception], Any] | None = None, weak: bool = False
    ) -> S:
        """Call `callback` with this set once all have ended; see `AsyncResult.then`."""
        if self._leaves():
            found = weak_reference(callback) if weak else lambda: callback
            self._waiter().follow(self._then_steps(found), on_error or _log_callback)
        else:
            callback(self)
        return self

    def _then_steps(self, found: Callable[[], Any]) -> Steps[None]:
        pending = Pending(leaf.id for leaf in self._leaves() if leaf._done is None)
        while pending:
            pending.take((yield pending.ask(None)))
        callback = found()
        if callback is not None:
            callback(self)

    # the rest

    def forget(self) -> None:
        """Delete the results of all, and of their parents."""
        leaves: list[Any] = self._leaves()
        ids = list(dict.fromkeys(task_id for leaf in leaves for task_id in leaf.as_list()))
        for leaf in leaves:
            leaf._done = None
        for start in range(0, len(ids), WINDOW):
            self.backend.forget(ids[start : start + WINDOW])
        if self.app.result_cache is not None:
            self.app.result_cache.forget(ids)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Keep those that wait from running, with one command for all; see `app.control.revoke`.

        Args:
            terminate: End those that run, too.
            signal: The signal for that (default: SIGTERM).
            wait: Wait up to `timeout` seconds until the workers have answered.
        """
        ids = []
        for member in flat(self):
            if not member._leaves() and not member.ignored:
                member.revoke()  # it was run here
            elif member._done is None:
                ids.append(member.id)
        if ids:
            options: dict[str, Any] = {"reply": True, "timeout": timeout} if wait else {}
            self.app.control.revoke(ids, terminate=terminate, signal=signal or "SIGTERM", **options)

    def as_list(self) -> list[str]:
        """The ids of all tasks in it, and of their parents."""
        return [task_id for member in self.results for task_id in member.as_list()]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        return self.results == other.results if isinstance(other, ResultSet) else NotImplemented

    __hash__ = ResultBase.__hash__

    def __repr__(self) -> str:
        shown = ", ".join(str(member.id) for member in self.results[:10])
        return f"<{type(self).__name__}: [{shown}{', …' if len(self.results) > 10 else ''}]>"


def _states_of(member: Any, records: dict[str, Record | None]) -> list[str]:
    if isinstance(member, ResultSet):
        return [state for each in member.results for state in _states_of(each, records)]
    if not member._leaves():
        return [states.PENDING if member.ignored else member.state]
    return [member._state_of(records[member.id])]


def _log_callback(exc: Exception) -> None:
    logger.error("a callback of a set of results raised", exc_info=exc)
