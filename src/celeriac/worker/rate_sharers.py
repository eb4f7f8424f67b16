"""How many workers share a rate: each puts back so much farther what it can't start, and all together not more than can start.

The gate asks. A worker that has tasks of a rate for all workers says so by a claim in the place that keeps the bucket; one that
has none for a while is not counted any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from celeriac.coordination.base import Claim, Coordination

__all__ = ["RateSharers"]

#: Seconds between two counts, and for how long a worker is counted after it last said that it is there.
COUNT_EVERY, COUNTED_FOR = 2.0, 6.0


class RateSharers:
    """The workers that share rates, by task, as of a moment ago.

    Args:
        place: Where they say that they are there.
        identity: Of this worker.
        tasks: That may come first.
    """

    def __init__(self, place: Coordination | None, identity: str, tasks: Iterable[str]) -> None:
        self._place = place
        self._identity = identity
        self._numbers: dict[str, int] = {}
        self._met = set(tasks)  # since the last count
        self._count_at = 0.0

    def number(self, task: str) -> int:
        """Of workers with this task, this one included."""
        self._met.add(task)
        return self._numbers.get(task, 1)

    def is_due(self) -> bool:
        """Whether it is time for `count`."""
        return self._place is not None and bool(self._met) and time.monotonic() >= self._count_at

    def count(self) -> None:
        """Say that this worker is there, and see who is. Blocks."""
        if self._place is not None:
            tasks, self._met = self._met, set()
            self._count_at = time.monotonic() + COUNT_EVERY
            self._place.acquire([
                Claim(name=_name(task), holder=self._identity, seconds=COUNTED_FOR, limit=0) for task in sorted(tasks)
            ])  # fmt: skip
            self._numbers |= {task: max(1, len(self._place.holders(_name(task)))) for task in tasks}


def _name(task: str) -> str:
    return f"rate:{task}"
