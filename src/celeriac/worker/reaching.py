"""Reaches the broker when a worker starts: at once, or as often as the settings allow. Called by the supervisor."""

from __future__ import annotations

import asyncio

from celeriac.config import Settings
from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.timing import backoff
from celeriac.transport.base import Transport
from celeriac.worker.consumed_queues import ConsumedQueues
from celeriac.worker.intake import LONGEST_PAUSE

__all__ = ["reach_broker"]

logger = get_logger("celeriac.worker")


async def reach_broker(transport: Transport, queues: ConsumedQueues, conf: Settings, *, purges: bool) -> None:
    """Declare the queues; with `purges`, empty them.

    Raises:
        OperationalError: The broker can't be reached, and the settings say not to wait for it any longer.
    """
    attempt = 0
    while True:
        try:
            await asyncio.to_thread(_prepare, transport, queues, purges)
            return
        except OperationalError as exc:
            attempt += 1
            limit = conf.broker_connection_max_retries
            if not conf.broker_connection_retry_on_startup or (limit and attempt > limit):
                raise
            pause = backoff(attempt, cap=LONGEST_PAUSE)
            logger.error("the broker can't be reached, trying again in %.1f s: %s", pause, exc)
        await asyncio.sleep(pause)


def _prepare(transport: Transport, queues: ConsumedQueues, purges: bool) -> None:
    queues.declare()
    if purges:
        for name in queues.names:
            logger.warning("purged %d message(s) from %s", transport.purge(name), name)
