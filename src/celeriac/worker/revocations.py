"""What a worker knows to be revoked: ids and stamps that it was told, and which messages have to be looked up in the store.

Admission asks `is_revoked` for each message, intake asks `is_doubtful` before it. Ids are kept for three hours, 50,000 at most,
as in Celery; what is forgotten here is still found in the result store. Invariant: a message that may have been revoked while
nobody here was listening is doubtful.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.message import Message
from celeriac.revoking import created_at

__all__ = ["Revocations", "matches_stamps"]

#: Ids that are remembered, and for how many seconds.
MAX_IDS = int(os.environ.get("CELERY_WORKER_REVOKES_MAX", "50000"))
KEPT = float(os.environ.get("CELERY_WORKER_REVOKE_EXPIRES", "10800"))
#: Seconds by which the clocks of clients may go before ours.
SKEW = 60.0


class Revocations:
    """Revoked ids and stamps. Changed by the event loop; `is_doubtful` is read by intake's thread."""

    def __init__(self) -> None:
        self._ids: dict[str, float] = {}
        self.stamps: dict[str, list[Any]] = {}
        #: Revokes up to this moment may not have been heard here; 0 if there were none. Infinite until that is known.
        self.unheard_until = float("inf")
        self._forgotten_until = 0.0

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, ids: Iterable[str], now: float | None = None) -> None:
        """Remember ids."""
        now = time.time() if now is None else now
        for task_id in ids:
            self._ids.pop(task_id, None)
            self._ids[task_id] = now  # the newest is last
        self._forget_old(now)

    def _forget_old(self, now: float) -> None:
        while self._ids:
            oldest = next(iter(self._ids))
            if len(self._ids) <= MAX_IDS and self._ids[oldest] > now - KEPT:
                return
            self._forgotten_until = max(self._forgotten_until, self._ids.pop(oldest))

    def add_stamps(self, headers: Mapping[str, Any]) -> None:
        """Remember stamps: name → value or values."""
        for name, value in headers.items():
            known = self.stamps.setdefault(name, [])
            known += [each for each in _listed(value) if each not in known]

    def ids(self) -> list[str]:
        """The remembered ids, oldest first."""
        return list(self._ids)

    def items(self) -> list[tuple[str, float]]:
        """The remembered ids, oldest first, and when each was revoked."""
        return list(self._ids.items())

    def is_revoked(self, message: Message) -> bool:
        """Whether a message was revoked, as far as was heard here."""
        if message.id in self._ids:
            return True
        return bool(self.stamps) and matches_stamps(message, self.stamps)

    def is_doubtful(self, task_id: str) -> bool:
        """Whether the store has to be asked about a task."""
        until = max(self.unheard_until, self._forgotten_until)
        if until == 0.0:
            return False
        made = created_at(task_id)
        return made is None or made <= until + SKEW


def matches_stamps(message: Message, wanted: Mapping[str, Any]) -> bool:
    """Whether a message bears one of these stamps: any value of any header."""
    stamps = message.headers.get("stamps")
    if not isinstance(stamps, dict):
        return False
    for name, values in wanted.items():
        if name in stamps and any(value in _listed(stamps[name]) for value in _listed(values)):
            return True
    return False


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
