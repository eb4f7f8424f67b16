"""Looks which queues are paused, and has intake leave them out. A coroutine of the supervisor; the looks run in a thread.

Invariants: the first look is over before anything is fetched, so a worker that starts respects a pause of yesterday; while
the store can't be reached what was seen last holds.
"""

from __future__ import annotations

import asyncio

from celeriac.coordination.base import Coordination
from celeriac.coordination.pauses import paused
from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.worker.consumed_queues import ConsumedQueues
from celeriac.worker.intake import Intake

__all__ = ["PausedQueues"]

logger = get_logger("celeriac.worker")

#: Seconds between two looks: how long a pause takes to reach a worker.
LOOK = 1.0


class PausedQueues:
    """What a worker knows of pauses."""

    def __init__(self, place: Coordination | None, intake: Intake, queues: ConsumedQueues) -> None:
        self._place = place
        self._intake = intake
        self._queues = queues
        self._names: frozenset[str] = frozenset()
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, then again and again."""
        if self._place is not None:
            await self._look(self._place)
            self._work = asyncio.ensure_future(self._run(self._place))

    def stop(self) -> None:
        """Look no more."""
        if self._work is not None:
            self._work.cancel()

    async def _run(self, place: Coordination) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self._look(place)

    async def _look(self, place: Coordination) -> None:
        try:
            names = self._queues.known_as(frozenset(await asyncio.to_thread(paused, place)))
        except OperationalError as exc:
            logger.debug("paused queues can't be looked up: %s", exc)
            return
        except Exception:  # without this coroutine no pause would be seen any more
            logger.exception("paused queues can't be looked up")
            return
        if names == self._names:
            return
        mine = set(self._intake.queues)
        for name in sorted((names - self._names) & mine):
            logger.warning("queue %s is paused", self._queues.title(name))
        for name in sorted((self._names - names) & mine):
            logger.warning("queue %s goes on", self._queues.title(name))
        self._names = names
        self._intake.leave_out(names)
