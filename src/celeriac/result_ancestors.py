"""What comes before a result in its chain, watched while the result is waited for.

If a step fails, the later ones never run: `get` raises the step's own error instead of waiting for ever. Single tasks
are waited for together with the result itself; members of groups, of which there may be many, are looked at once in a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from celeriac import states
from celeriac.result_base import raise_error
from celeriac.result_fields import ResultFields, read_ahead
from celeriac.result_steps import shorter
from celeriac.results.base import Record

__all__ = ["Ancestors"]

#: Seconds between two looks at the members of groups; more where a look takes long, of which they are `SHARE` times as much.
LOOK, SHARE = 1.0, 20


class Ancestors:
    """The parents of a result, nearest first.

    Attributes:
        groups: Those that are groups.
    """

    def __init__(self, result: Any) -> None:
        self._tasks: list[ResultFields] = []
        self._pause = LOOK
        self._looked_at = time.monotonic()
        self.groups: list[Any] = []
        node = result.parent
        while node is not None:
            if isinstance(node, ResultFields):
                self._tasks += node._leaves()
            else:
                self.groups.append(node)
            node = node.parent

    @property
    def ids(self) -> list[str]:
        """The tasks that are worth waiting for."""
        return [task.id for task in self._tasks if task._done is None]

    def limit(self, left: float | None) -> float | None:
        """How long a wait may take: not at all if one has failed already, until the next look if there are groups."""
        if any(task._done and task._done.state in states.PROPAGATE_STATES for task in self._tasks):
            return 0.0
        return shorter(left, max(0.0, self._looked_at + self._pause - time.monotonic())) if self.groups else left

    def take(self, found: Iterable[Record]) -> None:
        """Note what has ended.

        Raises:
            Exception: What one of them raised.
        """
        records = {record.id: record for record in found}
        for task in self._tasks:
            task._done = task._done or records.get(task.id)
        self._raise_first(self._tasks)

    def look(self, *, now: bool) -> None:
        """Ask the store for all that may have failed, if it is time for it, or `now`.

        Raises:
            Exception: What one of them raised.
        """
        began = time.monotonic()
        if not now and began < self._looked_at + self._pause:
            return
        members = [leaf for group in self.groups for leaf in group._leaves()]
        read_ahead([*self._tasks, *members])
        self._looked_at = time.monotonic()
        self._pause = max(LOOK, SHARE * (self._looked_at - began))
        self._raise_first([*self._tasks, *members])

    @staticmethod
    def _raise_first(tasks: Iterable[ResultFields]) -> None:
        """The one that failed first is the cause of the others."""
        failed = [(task, task._done) for task in tasks if task._done and task._done.state in states.PROPAGATE_STATES]
        if failed:
            task, record = min(failed, key=lambda pair: pair[1].date_done or "")
            raise_error(task._decode(record), record.traceback, task.app.conf.task_remote_tracebacks)
