"""A clock that stands still until the test moves it.

Given to components in place of `timing.SYSTEM_CLOCK`. Threads and coroutines sleep on it; a test waits until they do
(`wait_for_sleepers`), then moves time, so that no moment of a test is left to chance.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from celeriac.timing import Clock

__all__ = ["ManualClock"]


class ManualClock:
    """Implements `timing.Clock`. Safe to use from several threads."""

    def __init__(self, now: float = 1_800_000_000.0, monotonic: float = 1_000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._sleepers = 0

    def now(self) -> float:
        """Wall time, as set."""
        with self._changed:
            return self._now

    def monotonic(self) -> float:
        """Monotonic time, as advanced."""
        with self._changed:
            return self._monotonic

    @property
    def sleepers(self) -> int:
        """How many threads and coroutines sleep on this clock."""
        with self._changed:
            return self._sleepers

    def advance(self, seconds: float) -> Self:
        """Let time pass, on both clocks; wakes sleepers whose time has come."""
        if seconds < 0:
            raise ValueError(
                f"time passes forwards only, not by {seconds!r}; jump_wall_time() sets the wall clock back"
            )
        with self._changed:
            self._now += seconds
            self._monotonic += seconds
            self._changed.notify_all()
        return self

    def jump_wall_time(self, seconds: float) -> Self:
        """Set the wall clock forward or back, as an operator or NTP does; monotonic time goes on as before."""
        with self._changed:
            self._now += seconds
        return self

    def sleep(self, seconds: float, timeout: float | None = 30.0) -> None:
        """Block this thread until the clock was advanced by `seconds`; AssertionError after `timeout` real seconds."""
        with self._changed:
            end = self._monotonic + seconds
            self._sleepers += 1
            self._changed.notify_all()
            try:
                if not self._changed.wait_for(lambda: self._monotonic >= end, timeout):
                    raise AssertionError(f"the clock was not advanced by {seconds} s within {timeout} s")
            finally:
                self._sleepers -= 1

    async def asleep(self, seconds: float) -> None:
        """As `sleep`, for a coroutine."""
        await asyncio.to_thread(self.sleep, seconds)

    def wait_for_sleepers(self, count: int = 1, timeout: float = 30.0) -> None:
        """Block until at least `count` sleep on this clock."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._sleepers >= count, timeout):
                raise AssertionError(f"{self._sleepers} of {count} sleep on the clock after {timeout} s")


_: type[Clock] = ManualClock  # the type checker's proof that it is one
