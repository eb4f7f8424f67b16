"""Watches running tasks: soft and hard time limits, starts to be charged, frames that wait behind a long task.

Reads from the shared cells what each slot runs and since when; a running task is never asked. `Watch.tick` is called by
the supervisor a few dozen times a second while anything runs.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

from celeriac.config import Settings
from celeriac.log import get_logger
from celeriac.worker.assignment import Assignment
from celeriac.worker.pool import Pool
from celeriac.worker.process import RunnerProcess, Slot

__all__ = ["Limit", "Watch", "passed_limit"]

logger = get_logger("celeriac.worker.limits")

#: Seconds between two looks while anything runs.
TICK = 0.02
#: A task that has run this long is charged a start at the broker, so that it counts although the whole worker should die.
CHARGE_AFTER = 0.1
#: Frames that wait behind a task that has run this long are taken back.
TAKE_BACK_AFTER = 0.01
#: Seconds that neighbours of a task past its hard limit get to end before their process is killed.
NEIGHBOUR_GRACE = 3.0


class Limit(enum.Enum):
    """Which limit a task has passed."""

    NONE = "none"
    SOFT = "soft"
    HARD = "hard"


def passed_limit(runtime: float, soft: float | None, hard: float | None) -> Limit:
    """The strongest limit that a runtime has passed."""
    if hard is not None and runtime >= hard:
        return Limit.HARD
    if soft is not None and runtime >= soft:
        return Limit.SOFT
    return Limit.NONE


class Watch:
    """Looks at what runs.

    Args:
        on_hard_limit: Called with an assignment that is past its hard limit and was taken from its slot.
        on_started: Called with assignments whose start is to be charged.
        on_soft_limit: Called with an assignment that is past its soft limit, the limit, and `soft=True`.
        conf: Its limits of the memory of runners.
    """

    def __init__(
        self,
        pool: Pool,
        on_hard_limit: Callable[[Assignment], None],
        on_started: Callable[[list[Assignment]], None],
        on_soft_limit: Callable[..., None],
        conf: Settings,
    ) -> None:
        self._pool = pool
        self._on_hard_limit = on_hard_limit
        self._on_started = on_started
        self._on_soft_limit = on_soft_limit
        self._memory_limit = 1024 * (conf.worker_hard_memory_per_child or 0)
        self._memory_for_good = 1024 * (conf.worker_max_memory_per_child or 0)
        self._ticks = 0

    def tick(self) -> None:
        """One look at everything that runs."""
        now = time.monotonic()
        self._ticks += 1
        started: list[Assignment] = []
        for process in list(self._pool.processes):
            if process.is_over:
                continue
            if process.kill_at is not None and (now >= process.kill_at or not process.load):
                process.kill("neighbour of a task past its time limit")
                continue
            for slot in process.slots:
                assignment, since = slot.running()
                if assignment is not None:
                    self._look(process, slot, assignment, now - since, started)
            if self._memory_limit and self._ticks % 5 == 0 and process.load:
                self._check_memory(process)
        if started:
            self._on_started(started)
        if self._memory_for_good:
            self._recycle(self._memory_for_good)

    def _look(
        self, process: RunnerProcess, slot: Slot, assignment: Assignment, runtime: float, started: list[Assignment]
    ) -> None:
        if runtime > TAKE_BACK_AFTER:
            slot.is_blocked = True
            if len(slot.held) > 1:
                self._pool.take_back_waiting(slot)
        if runtime > CHARGE_AFTER and not assignment.is_marked:
            assignment.is_marked = True
            started.append(assignment)
        limit = passed_limit(runtime, assignment.soft, assignment.hard)
        if limit is Limit.HARD:
            self._end_hard(process, slot, assignment)
        elif limit is Limit.SOFT and not assignment.is_soft_limited:
            process.limit_softly(slot, assignment)
            self._on_soft_limit(assignment, assignment.soft, soft=True)

    def _end_hard(self, process: RunnerProcess, slot: Slot, assignment: Assignment) -> None:
        """Settle the task as failed and get rid of its process: at once if it is alone, else after its neighbours."""
        self._pool.take_back_waiting(slot)
        slot.held.remove(assignment)
        self._pool.replace(process)
        if process.load:
            process.kill_at = process.kill_at or time.monotonic() + NEIGHBOUR_GRACE
        else:
            process.kill("at its task's hard time limit")
        self._on_hard_limit(assignment)

    def _check_memory(self, process: RunnerProcess) -> None:
        used = process.rss()
        if self._memory_limit and used > self._memory_limit:
            process.reason = f"for using {used >> 20} MiB of memory, more than {self._memory_limit >> 20} MiB"
            process.signal(9)

    def _recycle(self, limit: int) -> None:
        """Replace runners that have grown too large, each after its task."""
        for process in list(self._pool.processes):
            if process.is_ready and not process.is_retiring and process.rss() > limit:
                logger.info("runner %d is over worker_max_memory_per_child: replaced after its task", process.pid)
                self._pool.replace(process)
