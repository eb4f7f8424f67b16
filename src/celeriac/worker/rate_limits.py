"""The rate limits of a worker's tasks: their buckets, and how far into the future those that wait are put.

The gate asks; remote control changes limits while the worker runs. Decisions are `rates.take`; this keeps its state.
"""

from __future__ import annotations

from collections.abc import Mapping

from celeriac.rates import Taken, interval_of, parse_rate, take, tolerance_of
from celeriac.task_limits import TaskLimits
from celeriac.timing import jitter

__all__ = ["Appetite", "Horizon", "RateLimits"]

#: What can start within so many seconds waits in the worker, on lease; the rest waits at the broker.
AHEAD = 1.0
#: Most messages of one task that wait in the worker.
MOST_AHEAD = 256
#: Messages that are fetched at once before any has come that has no rate.
BITE = 32
#: After putting back nothing is fetched for so many times as long as that took, and for so many seconds at most: what waits here
#: lasts no longer.
PAUSE, LONGEST_PAUSE = 3, AHEAD
#: Longest time for which a message is put back at once, in seconds: another worker may have its turn earlier, and limits
#: may be raised meanwhile.
FARTHEST = 60.0


class Horizon:
    """When messages that are put back come again: one after the other, as fast as they can be used."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at = 0.0

    def next(self, now: float, interval: float, soonest: float) -> float:
        """The moment for one more, `interval` seconds after the one before; at least `soonest` seconds from now."""
        self._at = max(self._at, now + soonest) + interval
        if self._at > now + FARTHEST:
            self._at = now + FARTHEST
            return now + FARTHEST * (0.75 + jitter() / 4)
        return self._at


class Appetite:
    """How much to fetch where tasks have rates: what is put back for its rate was fetched for nothing, but others come behind it.

    A bite, and as many more as have come that had no rate. After some were put back comes a pause, so that putting back takes a
    quarter of the time at most. Where it costs little that is as good as none; where it is work for the broker (RabbitMQ), what
    may start is not held up by it.
    """

    __slots__ = ("_next", "_others", "_spent")

    def __init__(self) -> None:
        self._others = 0
        self._spent = 0.0
        self._next = 0.0

    def came(self, others: int) -> None:
        """So many have come that have no rate."""
        self._others += others

    def put_back(self) -> None:
        """One was put back."""
        self._others = 0

    def bite(self, wanted: int, spent: float, now: float) -> tuple[int, float]:
        """How many to fetch, and seconds after which to ask again (0.0: not needed).

        Args:
            wanted: How many could be used.
            spent: Seconds that putting back has taken in all.
        """
        if spent > self._spent:
            self._next = min(max(self._next, now) + PAUSE * (spent - self._spent), now + LONGEST_PAUSE)
            self._spent = spent
        return (min(wanted, BITE + self._others), 0.0) if now >= self._next else (0, self._next - now)


class RateLimits:
    """Rates by task, and the buckets of those that are this worker's alone.

    Args:
        limits: Of the tasks that have any.
        is_off: Whether `worker_disable_rate_limits` is set.
    """

    def __init__(self, limits: Mapping[str, TaskLimits], *, is_off: bool = False) -> None:
        self._intervals: dict[str, float] = {}
        self._cluster: set[str] = set()
        self._changed: set[str] = set()
        self._buckets: dict[str, float] = {}
        self._is_off = is_off
        self.learn(limits)

    def learn(self, limits: Mapping[str, TaskLimits]) -> None:
        """Take limits over, but for those that were changed by hand."""
        for name, each in limits.items():
            if name not in self._changed and each.rate:
                self._intervals[name] = interval_of(each.rate)
            if each.is_cluster_rate:
                self._cluster.add(name)

    @property
    def are_any(self) -> bool:
        """Whether any task has a limit."""
        return bool(self._intervals) and not self._is_off

    def interval(self, task: str) -> float:
        """Seconds between two starts; 0.0 if there is no limit."""
        return 0.0 if self._is_off else self._intervals.get(task, 0.0)

    def is_cluster(self, task: str) -> bool:
        """Whether all workers share the limit."""
        return task in self._cluster

    def set(self, task: str, rate_limit: object) -> None:
        """Change a limit from now on; None, "" or 0 lift it.

        Raises:
            ValueError: It is no rate limit.
        """
        rate = parse_rate(rate_limit)
        self._changed.add(task)
        if rate:
            self._intervals[task] = interval_of(rate)
        else:
            self._intervals.pop(task, None)

    def room(self, task: str) -> int:
        """How many messages of a task may wait in the worker; at least one."""
        interval = self.interval(task)
        return MOST_AHEAD if not interval else max(1, min(MOST_AHEAD, int(AHEAD / interval)))

    def take(self, task: str, now: float, wanted: int) -> Taken:
        """Up to `wanted` starts from this worker's bucket."""
        interval = self.interval(task)
        taken = take(self._buckets.get(task, 0.0), now, interval, tolerance_of(interval), wanted)
        self._buckets[task] = taken.next_at
        return taken

    def wait(self, task: str, now: float) -> float:
        """Seconds until this worker's bucket gives one."""
        return self.take(task, now, 0).wait if task in self._buckets else 0.0
