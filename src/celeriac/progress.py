"""How far a task is: its states as they change, and the progress that `update_state` tells.

`result.progress()`, `result.follow()`, `get(on_message=…)` and `celeriac result --follow` use it. A store that tells of
every change is asked to; the others are looked at again after pauses that grow.

Invariant: the last record of `changes` is the final one, if there is time enough.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from celeriac import states
from celeriac.result_steps import shorter
from celeriac.results.base import Record, ResultStore
from celeriac.timing import Deadline

__all__ = ["Progress", "changes", "changes_and_pauses", "progress_of"]

#: First and longest pause between two looks, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
#: Names under which tasks tell how far they are, and how much there is to do.
CURRENT, TOTAL = ("current", "done"), ("total", "of")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a task is.

    Attributes:
        state: Its state.
        current: What is done, as the task counts it; None if it doesn't tell.
        total: What there is to do.
        meta: All that the task told with its state, or its value or error at the end.
    """

    state: str
    current: float | None = None
    total: float | None = None
    meta: Any = None

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None if it is not known."""
        if self.state == states.SUCCESS:
            return 1.0
        if self.current is None or not self.total or self.total < 0:
            return None
        return min(1.0, max(0.0, self.current / self.total))

    @property
    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    @property
    def text(self) -> str:
        """What the task says in words: `message` or `status` of its meta."""
        if not isinstance(self.meta, Mapping):
            return ""
        return str(next((self.meta[key] for key in ("message", "status", "text") if self.meta.get(key)), ""))

    def __str__(self) -> str:
        share = self.fraction
        parts = [self.state, "" if share is None else f"{share:.0%}", self.text]
        return " ".join(part for part in parts if part)


def progress_of(state: str, meta: Any) -> Progress:
    """The progress in a state and its meta: a mapping with `current` and `total`, or a number (a fraction)."""
    if state in states.READY_STATES or meta is None:
        return Progress(state=state, meta=meta)
    if _is_number(meta):
        return Progress(state=state, current=meta, total=1.0, meta=meta)
    if not isinstance(meta, Mapping):
        return Progress(state=state, meta=meta)
    return Progress(state=state, current=_first(meta, CURRENT), total=_first(meta, TOTAL), meta=meta)


def _first(meta: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    return next((meta[name] for name in names if _is_number(meta.get(name))), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def changes(store: ResultStore, task_id: str, timeout: float | None) -> Iterator[Record]:
    """The records of a task, each time it has changed, up to the final one; ends after `timeout` seconds."""
    return (record for record in changes_and_pauses(store, task_id, timeout, None) if record is not None)


def changes_and_pauses(
    store: ResultStore, task_id: str, timeout: float | None, interval: float | None
) -> Iterator[Record | None]:
    """The same, with None after every `interval` seconds in which nothing has changed."""
    deadline, known = Deadline(timeout), None
    while True:
        record = _next_change(store, task_id, known, Deadline(shorter(deadline.left(), interval)))
        if record is None:
            if interval is None or deadline.passed():
                return
            yield None
            continue
        yield record
        if record.is_ready:
            return
        known = record


def _next_change(store: ResultStore, task_id: str, known: Record | None, deadline: Deadline) -> Record | None:
    """The record once it differs from the known one; None when the time is up."""
    wait_change = getattr(store, "wait_change", None)
    if wait_change is not None:
        found: Record | None = wait_change(task_id, known, deadline.left())
        return found
    pause = FIRST_PAUSE
    while True:
        record = store.get([task_id])[0]
        if record is not None and record != known:
            return record
        left = deadline.left()
        if left == 0:
            return None
        time.sleep(pause if left is None else min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
