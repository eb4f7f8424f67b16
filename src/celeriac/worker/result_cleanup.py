"""Has a runner delete expired results every day at 4, for stores that don't drop them by themselves.

The task is Celery's `celery.backend_cleanup`, and needs no scheduler here: workers send it to themselves. Of all workers one
does it, if they share a place for claims; else each does, which does no harm. Days are those of the app's time zone.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

from celeriac.coordination.base import Claim, Coordination
from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.message import Delivery
from celeriac.outcome import RUN
from celeriac.results.base import ResultStore
from celeriac.sending import new_id
from celeriac.timing import SYSTEM_CLOCK, jitter
from celeriac.wire.messages import TaskCall, encode_call
from celeriac.worker.assignment import Assignment
from celeriac.worker.pool import Pool

__all__ = ["ResultCleanup", "cleanup_day"]

logger = get_logger("celeriac.worker.results")

TASK = "celery.backend_cleanup"
#: Hour of the day, as in Celery.
HOUR = 4
#: Seconds between two looks at the clock.
LOOK = 30.0
#: For how long it is remembered that a day's cleanup was begun, in seconds.
REMEMBERED = 2 * 86400.0


def cleanup_day(now: float, zone: tzinfo) -> str:
    """The day whose cleanup was due last, as ISO date: it begins at 4.

    Args:
        now: Seconds since 1970.
        zone: The app's time zone.
    """
    here = datetime.fromtimestamp(now, UTC).astimezone(zone)
    return (here.date() - timedelta(days=here.hour < HOUR)).isoformat()


class CleanupOwner(Protocol):
    """What it needs of the supervisor."""

    node: str

    @property
    def pool(self) -> Pool:
        """Takes the task."""

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be begun."""


class ResultCleanup:
    """The daily cleanup of one worker.

    Args:
        store: Where results are; None if nowhere.
        place: Where workers agree on who does it.
        expires: Whether results expire at all.
    """

    def __init__(
        self, owner: CleanupOwner, store: ResultStore | None, place: Coordination | None, zone: tzinfo, *, expires: bool
    ) -> None:
        self._owner = owner
        self._is_needed = store is not None and expires and not store.capabilities.drops_expired
        self._place = place
        self._zone = zone
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at the clock from now on. What was due before is not made up for: tomorrow is another day."""
        if self._is_needed:
            self._work = asyncio.ensure_future(self._run(cleanup_day(SYSTEM_CLOCK.now(), self._zone)))

    def stop(self) -> None:
        """Look no more."""
        if self._work is not None:
            self._work.cancel()

    async def _run(self, done: str) -> None:
        while True:
            await asyncio.sleep(LOOK * (0.75 + jitter() / 2))
            day = cleanup_day(SYSTEM_CLOCK.now(), self._zone)
            if day == done or self._owner.is_stopping:
                continue
            try:
                if await asyncio.to_thread(self._is_ours, day):
                    logger.info("expired results are being deleted")
                    self._owner.pool.submit([_assignment()])
                done = day
            except OperationalError as exc:
                logger.debug("who is to delete expired results can't be told, trying again: %s", exc)
            except Exception:  # without this coroutine nothing would be deleted any more
                logger.exception("expired results can't be deleted")

    def _is_ours(self, day: str) -> bool:
        if self._place is None:
            return True
        return not self._place.acquire([Claim(name=f"cleanup:{day}", holder=self._owner.node, seconds=REMEMBERED)])[0]


def _assignment() -> Assignment:
    """A call of the task that never was at the broker: there is nothing to settle."""
    message = encode_call(TaskCall(task=TASK, id=new_id(), ignore_result=True), now=SYSTEM_CLOCK.now())
    assignment = Assignment(Delivery(message=message, queue="", token=object()), RUN)
    assignment.is_acked = True
    return assignment
