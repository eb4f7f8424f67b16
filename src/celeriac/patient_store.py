"""A result store that tries again, for clients: the setting `result_backend_always_retry`, or how SQL servers are read.

Results read through it: what fails because the store can't be reached is repeated after pauses that double, as the settings
`result_backend_…_retries…` say. Workers need it not: they repeat what they write as long as it takes.

Invariant: a `wait` never takes longer than its timeout, but for the attempt that is under way when it passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from celeriac.errors import OperationalError
from celeriac.results.base import Record, ResultStore, StoreCapabilities
from celeriac.timing import Deadline, jitter

__all__ = ["PatientStore"]

T = TypeVar("T")


class PatientStore:
    """The verbs of clients, repeated while the store can't be reached.

    Args:
        store: The store itself.
        settings: The app's.
    """

    def __init__(self, store: ResultStore, settings: Mapping[str, Any]) -> None:
        self._store = store
        self._first = settings["result_backend_base_sleep_between_retries_ms"] / 1000
        self._longest = settings["result_backend_max_sleep_between_retries_ms"] / 1000
        self._retries: float = settings["result_backend_max_retries"]
        if not settings["result_backend_always_retry"]:  # it is the store that asks for it
            self._retries = min(self._retries, store.capabilities.retries)

    @property
    def capabilities(self) -> StoreCapabilities:
        """What the store can do."""
        return self._store.capabilities

    @property
    def url(self) -> str:
        """Where it is, with secrets masked."""
        return self._store.url

    def _repeat(self, attempt: Callable[[], T], deadline: Deadline) -> T:
        failed = 0
        while True:
            try:
                return attempt()
            except OperationalError:
                failed += 1
                if failed > self._retries or deadline.passed():
                    raise
            pause = min(self._longest, self._first * 2 ** min(failed - 1, 30)) * (0.5 + jitter() / 2)
            left = deadline.left()
            time.sleep(pause if left is None else min(pause, left))

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order."""
        return self._repeat(lambda: self._store.get(ids), Deadline(None))

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until some are ready, and return these."""
        deadline = Deadline(timeout)
        return self._repeat(lambda: self._store.wait(ids, deadline.left()), deadline)

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""
        self._repeat(lambda: self._store.forget(ids), Deadline(None))

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple."""
        self._repeat(lambda: self._store.save_group(group_id, value, expires_at), Deadline(None))

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""
        return self._repeat(lambda: self._store.get_group(group_id), Deadline(None))

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""
        self._repeat(lambda: self._store.forget_group(group_id), Deadline(None))
