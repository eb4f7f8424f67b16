"""Time as an argument: clocks, deadlines, the time that a whole call may take, and back-off. Imports nothing of ours.

`call_end` is how the time of a call reaches the drivers: whoever promises an end sets it for what runs inside, and each wait
down there is `shortened`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Protocol

__all__ = [
    "SYSTEM_CLOCK", "Clock", "Deadline", "LamportClock", "SystemClock", "backoff", "call_end", "iso_now", "jitter", "shortened",
]  # fmt: skip

#: When the call that runs here must have ended, whatever it waits for (monotonic); None if it has no end of its own.
call_end: ContextVar[float | None] = ContextVar("call_end", default=None)
#: Shortest wait, in seconds: one of none at all would fail although what it waits for is there.
_SHORTEST = 0.005


def shortened(seconds: float) -> float:
    """How long a wait of so many seconds may take inside the call that runs here."""
    end = call_end.get()
    return seconds if end is None else max(_SHORTEST, min(seconds, end - time.monotonic()))


class Clock(Protocol):
    """Wall time for schedules, monotonic time for leases and limits."""

    def now(self) -> float:
        """Seconds since 1970 (UTC); may jump."""

    def monotonic(self) -> float:
        """Seconds from an unknown start; never jumps."""


class SystemClock:
    """The machine's clock.

    Attributes:
        now: A function of Python's own: asking it costs no call of ours.
    """

    def __init__(self) -> None:
        self.now: Callable[[], float] = time.time
        self.monotonic: Callable[[], float] = time.monotonic

    def stand_still(self, at: float | None) -> None:
        """Let `now` stand still at a moment, for tests (`celeriac.testing.clock`); None lets it go on."""
        self.now = time.time if at is None else lambda: at


SYSTEM_CLOCK = SystemClock()
_: Clock = SYSTEM_CLOCK  # the type checker's proof that it is one


def iso_now() -> str:
    """This moment as Celery writes it: ISO 8601, UTC, microseconds."""
    global _second
    second, micros = divmod(time.time_ns() // 1000, 1_000_000)
    known, text = _second
    if known != second:
        text = datetime.fromtimestamp(second, UTC).isoformat()
        _second = (second, text)
    return f"{text[:19]}.{micros:06d}{text[19:]}"


#: The last second that `iso_now` has written, and its text: a third of what writing a moment costs.
_second = (-1, "")


def backoff(attempt: int, *, base: float = 0.05, cap: float = 5.0) -> float:
    """Seconds to wait before attempt `attempt` (1, 2, …): exponential, capped, with full jitter's upper half."""
    ceiling: float = min(cap, base * 2.0 ** min(attempt - 1, 30))
    return ceiling * (0.5 + jitter() / 2)


def jitter() -> float:
    """A random number from 0 up to 1. The module `random` would be a twentieth of what `import celeriac` costs."""
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


class Deadline:
    """A moment in monotonic time until which something may be tried."""

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.at = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left (never below 0), or None when there is no deadline."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        """Whether the deadline is over."""
        return self.at is not None and time.monotonic() >= self.at


class LamportClock:
    """A logical clock: orders what workers tell each other. May be used by any thread."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._lock = threading.Lock()

    def forward(self) -> int:
        """Something happens here: the next value."""
        with self._lock:
            self.value += 1
            return self.value

    def adjust(self, other: int) -> int:
        """Something came with another's value: go beyond both."""
        with self._lock:
            self.value = max(self.value, other) + 1
            return self.value
