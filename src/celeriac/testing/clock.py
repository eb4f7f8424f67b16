"""Time that stands still until a test moves it: `with virtual_clock(app) as clock`, for apps on `memory://`.

Tasks that are due in an hour run once `clock.advance(3600)` was called: delays, ETAs, retries, expiry, rates and the lifetime of
results are reckoned by it. What waits does so in real time: `get(timeout=…)`, time limits, a task's own `sleep`. It counts for
this process, so for a client and the workers that `start_worker` runs in it.

Example:
    with virtual_clock(app) as clock, start_worker(app):
        result = remind.apply_async(countdown=3600)
        clock.advance(3600)
        assert result.get(timeout=10) == "reminded"
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from celeriac.errors import ImproperlyConfigured
from celeriac.timing import SYSTEM_CLOCK

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["VirtualClock", "virtual_clock"]


class VirtualClock:
    """The time of one app in this process."""

    def __init__(self, app: Celeriac) -> None:
        self._app = app

    def time(self) -> float:
        """Now, in seconds since 1970."""
        return SYSTEM_CLOCK.now()

    def now(self) -> datetime:
        """Now, in UTC."""
        return datetime.fromtimestamp(SYSTEM_CLOCK.now(), UTC)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once.

        Raises:
            ValueError: They are fewer than none.
        """
        if seconds < 0:
            raise ValueError(f"time passes forwards only, not by {seconds!r} seconds")
        SYSTEM_CLOCK.stand_still(SYSTEM_CLOCK.now() + seconds)
        self._app.transport.interrupt()  # a worker that waits for messages looks again


@contextmanager
def virtual_clock(app: Celeriac, at: datetime | None = None) -> Iterator[VirtualClock]:
    """Let time stand still while the block runs.

    Args:
        at: The moment at which it begins, with a time zone; by default the present one.

    Raises:
        ImproperlyConfigured: The app's broker is not in this process.
    """
    if not app.transport.url.startswith("memory:"):
        raise ImproperlyConfigured(f"time can be moved for memory:// only: {app.transport.url} has a clock of its own")
    SYSTEM_CLOCK.stand_still(time.time() if at is None else at.timestamp())
    try:
        yield VirtualClock(app)
    finally:
        SYSTEM_CLOCK.stand_still(None)
