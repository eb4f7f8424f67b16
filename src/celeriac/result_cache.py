"""Final results that a client remembers, so that asking for them again asks no store: the setting `result_cache_max`.

The app has one if the setting says so; `AsyncResult` looks into it. Invariant: only final records are in it, and a forgotten
result leaves it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from celeriac.results.base import Record

__all__ = ["ResultCache"]


class ResultCache:
    """The records that were used last.

    Args:
        limit: How many; None or 0 is any number.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._records: OrderedDict[str, Record] = OrderedDict()

    def get(self, task_id: str) -> Record | None:
        """The record of a task that has ended, if it is remembered."""
        with self._lock:
            record = self._records.get(task_id)
            if record is not None:
                self._records.move_to_end(task_id)
            return record

    def put(self, record: Record) -> None:
        """Remember a final record."""
        with self._lock:
            self._records[record.id] = record
            self._records.move_to_end(record.id)
            if self._limit and len(self._records) > self._limit:
                self._records.popitem(last=False)

    def forget(self, ids: Iterable[str]) -> None:
        """Remember these no more."""
        with self._lock:
            for task_id in ids:
                self._records.pop(task_id, None)
