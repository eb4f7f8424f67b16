"""Waiting for many results: `Join` for all of them, `Completed` for each as it comes.

`result_set` uses both, for threads and for coroutines. `result_steps.Pending` keeps each question to the store at a bounded size.
Invariant: a member's value is handed out once all tasks in it have ended, and never twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.errors import TimeoutError
from celeriac.result_ancestors import Ancestors
from celeriac.result_base import meta_of
from celeriac.result_fields import ResultFields
from celeriac.result_steps import Pending, Steps, arun, run, shorter
from celeriac.results.base import Record
from celeriac.timing import Deadline

if TYPE_CHECKING:
    from celeriac.result_set import ResultSet

__all__ = ["Completed", "Join", "flat", "meta_of_result"]


class Join:
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
            self._take(pending.take((yield pending.ask(limit))))
            if pending and ancestors is not None:
                ancestors.look(now=deadline.passed())
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
        here: list[Any] = [each for each in flat(self._set) if not each._leaves() or each._done is not None]
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


def flat(member: Any) -> Iterator[Any]:
    """The results of single tasks in a set."""
    if hasattr(member, "results"):
        for each in member.results:
            yield from flat(each)
    else:
        yield member


def meta_of_result(result: Any) -> dict[str, Any]:
    """The meta of a task that has ended, run here or elsewhere."""
    if result._done is not None:
        return meta_of(result._done, result.app.result_accept)
    return {"status": result.state, "result": result.result, "traceback": result.traceback, "task_id": result.id}
