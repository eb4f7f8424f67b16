"""How results are waited for, written once for threads and for coroutines.

A wait is a generator that yields an `Ask` (which ids, how long) and is sent the records that are ready by then; `run`
drives it with the store's own blocking `wait`, `arun` with the `ResultWaiter` of the app. `Pending` cuts large groups
into windows: one question to the store never names more than `WINDOW` of their ids.

Called by `result` and `result_set`. Invariant: an `Ask` with a timeout ends after it, so that the generator can look at
its own deadline.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from celeriac.results.base import Record, ResultStore

__all__ = ["WINDOW", "Ask", "Pending", "Steps", "arun", "run", "shorter"]

T = TypeVar("T")

#: Ids in one question to a store.
WINDOW = 1000
#: Seconds without news after which the ids of the next window are looked at, where there are more than one window holds.
PATIENCE = 0.2


class Ask(msgspec.Struct, frozen=True):
    """Wait for these; None waits as long as it takes."""

    ids: Sequence[str]
    timeout: float | None = None


Steps = Generator[Ask, list[Record], T]


def run(steps: Steps[T], store: ResultStore) -> T:
    """Go through the steps, blocking."""
    try:
        ask = next(steps)
        while True:
            ask = steps.send(store.wait(ask.ids, ask.timeout))
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()


async def arun(steps: Steps[T], waiter: Any) -> T:
    """Go through the steps in a coroutine."""
    try:
        ask = next(steps)
        while True:
            ask = steps.send(await waiter.wait_any(ask.ids, ask.timeout))
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()


class Pending:
    """Ids that are not ready yet, in windows. Those of a window that stays silent go to the end of the queue."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._waiting = dict.fromkeys(ids)
        self._window: list[str] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, limit: float | None) -> Ask:
        """The next question, which takes at most `limit` seconds."""
        self._window = [task_id for task_id in self._window if task_id in self._waiting]
        if not self._window:
            self._window = list(islice(self._waiting, WINDOW))
        is_all = len(self._window) == len(self._waiting)
        return Ask(self._window, limit if is_all else shorter(limit, PATIENCE))

    def take(self, records: Iterable[Record]) -> list[Record]:
        """Note which are ready; returns those that were waited for."""
        mine = [record for record in records if record.id in self._waiting]
        for record in mine:
            del self._waiting[record.id]
        if not mine and len(self._window) < len(self._waiting):
            for task_id in self._window:
                if task_id in self._waiting:  # to the end
                    del self._waiting[task_id]
                    self._waiting[task_id] = None
            self._window = []
        return mine


def shorter(left: float | None, right: float | None) -> float | None:
    """The shorter of two waits, where None is for ever."""
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)
