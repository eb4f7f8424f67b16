"""Where the calls of batch tasks gather, between admission or gate and pool, until their batch is full or its time has come.

All of it belongs to the event loop. Each call stays on lease, and an assignment of its own, until its own outcome is
committed. A call that was started before gathers with no other: if it is the one that kills runners, it kills none of its
neighbours' starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from celeriac.outcome import RUN
from celeriac.runner.protocol import TaskFacts
from celeriac.worker.admission import Rules, early_end
from celeriac.worker.assignment import Assignment, Batch
from celeriac.worker.pool import Pool

__all__ = ["Gathering", "together"]


class Gathering:
    """The batches of one worker that are not full yet.

    Args:
        tasks: Facts of the tasks by name.
        on_batch: Called with calls that are to run together.
    """

    def __init__(self, tasks: Mapping[str, TaskFacts], on_batch: Callable[[list[Assignment]], None]) -> None:
        self._on_batch = on_batch
        self._waiting: dict[str, list[Assignment]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._facts: dict[str, TaskFacts] = {}
        self.learn(tasks)

    def learn(self, tasks: Mapping[str, TaskFacts]) -> None:
        """The app has these tasks now."""
        self._facts = {name: facts for name, facts in tasks.items() if facts.batch is not None and facts.batch > 1}

    def take(self, assignments: Iterable[Assignment]) -> list[Assignment]:
        """Keep those that gather, and pass on what is full; returns the others."""
        if not self._facts:
            return list(assignments)
        others, touched = [], set()
        for assignment in assignments:
            if self._gathers(assignment):
                self._waiting.setdefault(assignment.task, []).append(assignment)
                touched.add(assignment.task)
            else:
                others.append(assignment)
        for task in touched:
            self._look(task)
        return others

    def _gathers(self, assignment: Assignment) -> bool:
        return assignment.task in self._facts and assignment.verdict is RUN and not assignment.delivery.starts

    def _look(self, task: str) -> None:
        facts = self._facts[task]
        size, waiting = facts.batch or 1, self._waiting[task]
        while len(waiting) >= size:
            self._on_batch(waiting[:size])
            del waiting[:size]
            self._stop_timer(task)
        if not waiting:
            del self._waiting[task]
        elif facts.batch_wait == 0:
            self._flush(task)
        elif task not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[task] = loop.call_later(facts.batch_wait, self._flush, task)

    def _flush(self, task: str) -> None:
        self._stop_timer(task)
        waiting = self._waiting.pop(task, None)
        if waiting:
            self._on_batch(waiting)

    def _stop_timer(self, task: str) -> None:
        timer = self._timers.pop(task, None)
        if timer is not None:
            timer.cancel()

    def wanted(self, pool: Pool) -> int:
        """How many more messages pool and batches can use: for these as many again as they have, up to their size.

        No more, and none while something waits for a slot, since what comes may be tasks that other workers could run.
        """
        if pool.ready:
            return pool.wanted()
        return pool.wanted() + sum(
            max(0, min(len(waiting), (self._facts[task].batch or 1) - len(waiting)))
            for task, waiting in self._waiting.items()
            if task in self._facts
        )

    def assignments(self) -> list[Assignment]:
        """What is gathering."""
        return [assignment for waiting in self._waiting.values() for assignment in waiting]

    def forget(self, tokens: Collection[Any]) -> list[Assignment]:
        """Take out those whose leases were lost; returns them."""
        lost = [each for each in self.assignments() if each.delivery.token in tokens and not each.is_acked]
        for assignment in lost:
            self._waiting[assignment.task].remove(assignment)
        return lost

    def release_all(self) -> list[Assignment]:
        """Everything that is gathering, taken out."""
        released = self.assignments()
        for task in list(self._waiting):
            self._stop_timer(task)
        self._waiting.clear()
        return released


def together(calls: list[Assignment], rules: Rules, now: float) -> list[Assignment]:
    """What goes to the pool for calls that have gathered: a batch; apart, those that were revoked or expired meanwhile."""
    running: list[Assignment] = []
    ended: list[Assignment] = []
    for call in calls:
        verdict = early_end(call.delivery.message, rules, now)
        call.verdict = verdict or call.verdict
        (running if verdict is None else ended).append(call)
    return [*ended, *([Batch(running)] if len(running) > 1 else running)]
