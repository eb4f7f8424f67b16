"""Coordination inside one process, for `memory://NAME`: all that name the same URL share it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from celeriac.coordination.base import Changes, RowCoordination, Rows
from celeriac.timing import SYSTEM_CLOCK

__all__ = ["MemoryCoordination"]

T = TypeVar("T")

_lock = threading.Lock()
_places: dict[str, dict[str, dict[str, float]]] = {}


class MemoryCoordination(RowCoordination):
    """Rows in a dict. Ended ones go when their name is used again."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url.partition("?")[0]
        with _lock:
            self._rows = _places.setdefault(self.url, {})

    def change(self, names: Sequence[str], work: Callable[[Rows, float], tuple[T, Changes]]) -> T:
        """One step under the lock."""
        with _lock:
            answer, changes = work({name: self._rows.get(name, {}) for name in names}, SYSTEM_CLOCK.now())
            for (name, holder), at in changes.items():
                held = self._rows.setdefault(name, {})
                if at is None:
                    held.pop(holder, None)
                else:
                    held[holder] = at
                if not held:
                    del self._rows[name]
            return answer

    def close(self) -> None:
        """There is nothing to close."""
