"""What comes before a result in its chain, looked at once in a while as long as the result is waited for.

If a step fails, the later ones never run. Workers write the failure down for each of them, so the result itself tells it;
where nobody did, `get` raises the step's own error here instead of waiting for ever. Being told of each step that succeeds
would wake the client for every one: half a millisecond of CPU in a chain of a hundred.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from celeriac import states
from celeriac.result_base import raise_error
from celeriac.result_fields import ResultFields, read_ahead
from celeriac.result_steps import shorter

__all__ = ["Ancestors"]

#: Seconds between two looks; more where a look takes long, of which they are `SHARE` times as much.
LOOK, SHARE = 1.0, 20


class Ancestors:
    """The parents of a result, nearest first, and the members of those that are groups."""

    def __init__(self, result: Any) -> None:
        self._tasks: list[ResultFields] = []
        self._pause = LOOK
        self._looked_at = time.monotonic()
        node = result.parent
        while node is not None:
            self._tasks += node._leaves()
            node = node.parent

    def limit(self, left: float | None) -> float | None:
        """How long a wait may take: until the next look."""
        return shorter(left, max(0.0, self._looked_at + self._pause - time.monotonic()))

    def look(self, *, now: bool) -> None:
        """Ask the store which have failed, if it is time for it, or `now`.

        Raises:
            Exception: What one of them raised.
        """
        began = time.monotonic()
        if not now and began < self._looked_at + self._pause:
            return
        read_ahead(self._tasks)
        self._looked_at = time.monotonic()
        self._pause = max(LOOK, SHARE * (self._looked_at - began))
        _raise_first(self._tasks)


def _raise_first(tasks: Iterable[ResultFields]) -> None:
    """The one that failed first is the cause of the others."""
    failed = [(task, task._done) for task in tasks if task._done and task._done.state in states.PROPAGATE_STATES]
    if failed:
        task, record = min(failed, key=lambda pair: pair[1].date_done or "")
        raise_error(task._decode(record), record.traceback, task.app.conf.task_remote_tracebacks)
