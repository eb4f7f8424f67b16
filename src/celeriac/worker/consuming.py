"""Whether this worker takes what waits for it: how long it goes on without a broker, and what readiness says.

The intake's thread reports each fetch here. A worker that is connected and yet is given nothing, although messages of its
queues are ready, is not ready; when it holds nothing it connects anew. Invariant: connections are never closed while
deliveries depend on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from celeriac.config import Settings
from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.transport.base import Transport

__all__ = ["Consuming"]

logger = get_logger("celeriac.worker.consuming")

#: Seconds without a message after which the broker is asked whether some are ready, and between two such looks.
LOOK_EVERY = 10.0
#: A fetch that takes longer, in seconds, is stuck: it waits for 5, and drivers have deadlines.
STUCK = 30.0


class Consuming:
    """What is known about consuming.

    Args:
        conf: Its `broker_connection_retry` and `broker_connection_max_retries`.
        holds: Tells how many deliveries the worker holds.
    """

    def __init__(
        self,
        transport: Transport,
        conf: Settings,
        holds: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._retries = conf.broker_connection_retry
        self._max_retries = conf.broker_connection_max_retries
        self._holds = holds
        self._now = now
        self._error = "not connected yet"
        self._began: float | None = None
        self._look_at = now() + LOOK_EVERY
        self._waiting: set[str] = set()
        self._silent = ""

    # called by the intake's thread

    def begins(self) -> None:
        """A fetch begins."""
        self._began = self._now()

    def fails(self, error: Exception, failures: int) -> bool:
        """A fetch has failed, so many in a row. Returns whether the settings say to give up."""
        self._began, self._error = None, str(error)
        if not isinstance(error, OperationalError):
            return False
        gives_up = not self._retries or bool(self._max_retries and failures > self._max_retries)
        if gives_up:
            logger.critical("giving up, as broker_connection_retry and broker_connection_max_retries say: %s", error)
        return gives_up

    def ends(self, count: int, queues: Sequence[str]) -> None:
        """A fetch from these queues has brought so many messages."""
        self._began, self._error = None, ""
        now = self._now()
        if count:
            if self._silent:
                logger.warning("messages are delivered again")
            self._silent, self._waiting, self._look_at = "", set(), now + LOOK_EVERY
        elif now >= self._look_at:
            self._look(queues)
            self._look_at = self._now() + LOOK_EVERY

    def _look(self, queues: Sequence[str]) -> None:
        """Nothing has come for a while. What was ready at the last look, too, should have come meanwhile."""
        try:
            ready = {queue for queue in queues if self._transport.size(queue).ready}
        except OperationalError as exc:
            logger.debug("can't ask for what is ready: %s", exc)
            return
        stuck, self._waiting = sorted(ready & self._waiting), ready
        if not stuck:
            self._silent = ""
            return
        text = f"messages are ready in {', '.join(stuck)}, but {self._transport.url} delivers none"
        if not self._silent:
            logger.error("%s", text)
        self._silent = text
        if not self._holds():
            logger.warning("connecting to %s anew", self._transport.url)
            self._transport.close()
            self._waiting = set()

    # called by the committer's thread

    def came(self) -> None:
        """Messages have come with a commit."""
        self._waiting, self._look_at = set(), self._now() + LOOK_EVERY

    # called by anyone

    def problem(self) -> str:
        """Why nothing is consumed at present; "" if all is well. What a health check asks, from any thread."""
        began = self._began
        if began is not None and self._now() - began > STUCK:
            return f"a fetch has been stuck for {self._now() - began:.0f} s"
        return self._error or self._silent
