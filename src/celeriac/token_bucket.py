"""A token bucket with a queue beside it, as kombu documents it: for programs that limit a rate of their own.

Rate limits of tasks are `rates`, which any driver can store; nothing of ours uses this.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["TokenBucket"]


class TokenBucket:
    """Holds tokens that come back with time.

    Args:
        fill_rate: Tokens that come in a second.
        capacity: Tokens that it holds at most, and has at the beginning.
        clock: Tells the time in seconds.
    """

    def __init__(self, fill_rate: float, capacity: float = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.fill_rate = float(fill_rate)
        self.capacity = float(capacity)
        self.contents: deque[Any] = deque()
        self._tokens = self.capacity
        self._clock = clock
        self._counted_at = clock()

    def can_consume(self, tokens: int = 1) -> bool:
        """Take so many tokens; False, and nothing is taken, if there are fewer."""
        if tokens > self._count():
            return False
        self._tokens -= tokens
        return True

    def expected_time(self, tokens: int = 1) -> float:
        """Seconds until there are so many tokens."""
        return max(0.0, tokens - self._count()) / self.fill_rate

    def _count(self) -> float:
        now = self._clock()
        self._tokens = min(self.capacity, self._tokens + self.fill_rate * (now - self._counted_at))
        self._counted_at = now
        return self._tokens

    def add(self, item: Any) -> None:
        """Put something into the queue, to be fetched by whoever has a token."""
        self.contents.append(item)

    def pop(self) -> Any:
        """Take the first thing out of the queue."""
        return self.contents.popleft()

    def clear_pending(self) -> None:
        """Empty the queue."""
        self.contents.clear()
