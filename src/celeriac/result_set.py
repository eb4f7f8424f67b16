"""Many results at once: `ResultSet`, which waits for, reads and forgets its members in batches.

Members are results of single tasks, run here or elsewhere, or further sets and groups. How it waits is written once, in
`_join_steps`, for threads and coroutines; `result_steps.Pending` keeps each question to the store at a bounded size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from celeriac import states
from celeriac.current import get_current_app
from celeriac.errors import TimeoutError
from celeriac.log import get_logger
from celeriac.result_ancestors import Ancestors
from celeriac.result_base import ResultBase, assert_will_not_block, meta_of
from celeriac.result_fields import ResultFields, read_ahead
from celeriac.result_steps import WINDOW, Pending, Steps, arun, run, shorter
from celeriac.results.base import Record
from celeriac.timing import Deadline

__all__ = ["Completed", "ResultSet"]

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
        return self._run(_Join(self, timeout, propagate, interval, callback, on_message, on_interval, in_order=True))

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
        return self._run(_Join(self, timeout, propagate, interval, callback, on_message, on_interval))

    def _run(self, join: _Join) -> list[Any]:
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
        join = _Join(self, timeout, propagate, 0.5, callback, on_message, None, in_order=in_order)
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
            meta = _meta(result)
            if on_message is not None:
                on_message(meta)
            yield result.id, meta

    async def aiter_native(self, timeout: float | None = None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """`iter_native` for coroutines."""
        async for result in Completed(self, timeout):
            yield result.id, _meta(result)

    def iterate(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Iterator[Any]:
        """The values of its tasks, as they end."""
        for result in Completed(self, timeout):
            yield result._value_now(propagate)

    def then(
        self: S, callback: Callable[[S], Any], on_error: Callable[[Exception], Any] | None = None, weak: bool = False
    ) -> S:
        """Call `callback` with this set once all have ended; see `AsyncResult.then`."""
        if self._leaves():
            self._waiter().follow(self._then_steps(callback), on_error or _log_callback)
        else:
            callback(self)
        return self

    def _then_steps(self: S, callback: Callable[[S], Any]) -> Steps[None]:
        pending = Pending(leaf.id for leaf in self._leaves() if leaf._done is None)
        while pending:
            pending.take((yield pending.ask(None)))
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


class _Join:
    """One wait for all members of a set."""

    def __init__(
        self,
        results: ResultSet,
        timeout: float | None,
        propagate: bool,
        interval: float,
        callback: Callable[[str, Any], Any] | None,
        on_message: Callable[[dict[str, Any]], Any] | None,
        on_interval: Callable[[], Any] | None,
        *,
        in_order: bool = False,
    ) -> None:
        self._members: Sequence[Any] = list(results.results)
        self._set = results
        self._timeout = timeout
        self._propagate = propagate
        self._interval = interval if on_interval is not None else None
        self._callback = callback
        self._on_message = on_message
        self._on_interval = on_interval
        self._in_order = in_order
        self._values: list[Any] = [None] * len(self._members)
        #: Tasks of each member that have not ended; the members that each task is part of.
        self._open: list[int] = [0] * len(self._members)
        self._owners: dict[str, list[tuple[int, ResultFields]]] = defaultdict(list)
        self._next = 0  # the first member without a value, if they are wanted in order

    def at_once(self) -> list[Any]:
        """The values of members that are all here already."""
        self._begin()
        return self._values

    def steps(self) -> Steps[list[Any]]:
        """Wait for all; what the set comes after in a chain is watched, too."""
        self._begin()
        deadline, pending = Deadline(self._timeout), Pending(self._owners)
        ancestors = Ancestors(self._set) if self._propagate and self._set.parent is not None else None
        while pending:
            limit = shorter(deadline.left(), self._interval)
            if ancestors is not None:
                limit = ancestors.limit(limit)
            found = yield pending.ask(limit, () if ancestors is None else ancestors.ids)
            self._take(pending.take(found))
            if pending and ancestors is not None:
                ancestors.take(found)
                if not found:
                    ancestors.look()
            if pending and deadline.passed():
                raise TimeoutError(
                    f"{len(self._owners) - len(pending)} of {len(self._owners)} results came within {self._timeout}"
                    f" seconds."
                )
            if pending and self._on_interval is not None:
                self._on_interval()
        return self._values

    def _begin(self) -> None:
        for number, member in enumerate(self._members):
            for leaf in member._leaves():
                if leaf._done is None:
                    self._open[number] += 1
                    self._owners[leaf.id].append((number, leaf))
        self._finish([number for number, count in enumerate(self._open) if not count])

    def _take(self, records: Iterable[Record]) -> None:
        ended = []
        for record in records:
            for number, leaf in self._owners[record.id]:
                leaf._done = record
                self._open[number] -= 1
                if not self._open[number]:
                    ended.append(number)
            if self._on_message is not None:
                self._on_message(meta_of(record, self._set.app.result_accept))
        self._finish(sorted(ended))

    def _finish(self, numbers: list[int]) -> None:
        if self._in_order:
            numbers = []
            while self._next < len(self._members) and not self._open[self._next]:
                numbers.append(self._next)
                self._next += 1
        for number in numbers:
            member = self._members[number]
            self._values[number] = value = member._value_now(self._propagate)
            if self._callback is not None:
                self._callback(member.id, value)


class Completed:
    """The tasks of a set as they end; iterate over it, with or without `async`."""

    def __init__(
        self,
        results: ResultSet,
        timeout: float | None,
        interval: float = 0.5,
        on_interval: Callable[[], Any] | None = None,
    ) -> None:
        self._set = results
        self._timeout = timeout
        self._interval = interval if on_interval is not None else None
        self._on_interval = on_interval

    def _begin(self) -> tuple[list[Any], dict[str, list[ResultFields]]]:
        """What is here already, and the others by id."""
        here: list[Any] = [each for each in _flat(self._set) if not each._leaves() or each._done is not None]
        missing: dict[str, list[ResultFields]] = defaultdict(list)
        for leaf in self._set._leaves():
            if leaf._done is None:
                missing[leaf.id].append(leaf)
        return here, missing

    def __iter__(self) -> Iterator[Any]:
        here, missing = self._begin()
        yield from here
        pending, deadline = Pending(missing), Deadline(self._timeout)
        while pending:
            records = run(self._next(pending, deadline), self._set.backend)
            yield from _take(records, missing)

    async def __aiter__(self) -> AsyncIterator[Any]:
        here, missing = self._begin()
        for result in here:
            yield result
        pending, deadline = Pending(missing), Deadline(self._timeout)
        waiter = self._set._waiter() if missing else None
        while pending:
            for result in _take(await arun(self._next(pending, deadline), waiter), missing):
                yield result

    def _next(self, pending: Pending, deadline: Deadline) -> Steps[list[Record]]:
        while True:
            records = pending.take((yield pending.ask(shorter(deadline.left(), self._interval))))
            if records:
                return records
            if deadline.passed():
                raise TimeoutError(f"{len(pending)} results are missing after {self._timeout} seconds.")
            if self._on_interval is not None:
                self._on_interval()


def _take(records: Iterable[Record], missing: dict[str, list[ResultFields]]) -> list[ResultFields]:
    ended = []
    for record in records:
        for leaf in missing[record.id]:
            leaf._done = record
        ended.append(missing[record.id][0])
    return ended


def _flat(member: Any) -> Iterator[Any]:
    """The results of single tasks in a set."""
    if isinstance(member, ResultSet):
        for each in member.results:
            yield from _flat(each)
    else:
        yield member


def _states_of(member: Any, records: dict[str, Record | None]) -> list[str]:
    if isinstance(member, ResultSet):
        return [state for each in member.results for state in _states_of(each, records)]
    if not member._leaves():
        return [states.PENDING if member.ignored else member.state]
    return [member._state_of(records[member.id])]


def _meta(result: Any) -> dict[str, Any]:
    if result._done is not None:
        return meta_of(result._done, result.app.result_accept)
    return {"status": result.state, "result": result.result, "traceback": result.traceback, "task_id": result.id}


def _log_callback(exc: Exception) -> None:
    logger.error("a callback of a set of results raised", exc_info=exc)
