"""Whether what waits at RabbitMQ comes: a watchdog for "connected, but nothing is pushed".

`amqp_consumer` tells it what comes, and asks it when a fetch has waited in vain. Looks at the server are rare: none while
messages come, then one in `patience` seconds. Messages that wait there at two looks in a row, with a consumer open and
none pushed in between, mean that something between the queue and us is broken: the consumers are opened anew, which costs
no lease, and if that does not help, the connection is, unless leases depend on it.

Invariant: renewing in vain becomes rarer, as a queue may have a reason to send us nothing (a single active consumer).
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

__all__ = ["Progress", "Remedy"]

#: Shortest time between two looks, in seconds: what has just come to the queue may be on its way.
BETWEEN = 1.0
#: Longest patience, in seconds.
MAX_PATIENCE = 600.0


class Remedy(enum.Enum):
    """What is to be done."""

    NOTHING = "nothing"
    REOPEN = "reopen the consumers"
    RECONNECT = "reconnect"


class Progress:
    """What one consumer has seen of its queues.

    Args:
        patience: Seconds without any message after which the server is asked; 0 never asks.
    """

    def __init__(self, patience: float) -> None:
        self._patience = self._usual = patience
        self._since = time.monotonic()
        self._suspected_at: float | None = None
        self._renewals = 0

    def moved(self) -> None:
        """Messages have come."""
        self._since = time.monotonic()
        self._suspected_at = None
        self._renewals, self._patience = 0, self._usual

    @property
    def quiet(self) -> float:
        """Seconds since messages have come, or since it was seen that there are none, or since the last remedy."""
        return time.monotonic() - self._since

    def judge(self, count: Callable[[], int]) -> Remedy:
        """What is to be done now.

        Args:
            count: Asks the server how many messages wait for us.
        """
        if not self._usual or self.quiet < self._patience:
            return Remedy.NOTHING
        suspected = self._suspected_at
        if suspected is not None and time.monotonic() - suspected < BETWEEN:
            return Remedy.NOTHING
        if not count():
            self._since, self._suspected_at = time.monotonic(), None
            return Remedy.NOTHING
        if suspected is None:
            self._suspected_at = time.monotonic()
            return Remedy.NOTHING
        self._since, self._suspected_at = time.monotonic(), None
        self._renewals += 1
        self._patience = min(2 * self._patience, MAX_PATIENCE)
        return Remedy.REOPEN if self._renewals == 1 else Remedy.RECONNECT
