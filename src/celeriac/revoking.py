"""Revoking as a stored fact: REVOKED records in the result store, and when the last of them was written.

`control.revoke` writes them, also for tasks that no worker has seen yet, and so does a worker that hears of a revoke by a
stock client. A worker reads the moment of the last revoke when it starts to listen: only messages that are older than that
have to be looked up, so that without revokes a task costs nothing. A task that has ended is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from celeriac import states
from celeriac.errors import TaskRevokedError
from celeriac.results.base import Record, ResultStore
from celeriac.timing import iso_now
from celeriac.wire.results import encode_result, exception_form

__all__ = ["created_at", "last_revoke", "store_revoked"]

#: Under this id stands when the last revoke was.
_LAST = "celeriac-last-revoke"
#: States of tasks that can still be kept from running.
_OPEN = frozenset({states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED})
#: Ids that are written at once.
_STEP = 1000


def store_revoked(store: ResultStore, ids: Sequence[str], result_expires: Any) -> None:
    """Store REVOKED for those tasks that wait, and when that was.

    Args:
        result_expires: The setting: how long records are kept.

    Raises:
        OperationalError: The store can't be reached.
    """
    if not store.capabilities.persistent or not ids:
        return
    expires_at = _moment_after(result_expires)
    for start in range(0, len(ids), _STEP):
        some = list(dict.fromkeys(ids[start : start + _STEP]))
        found = store.get(some)
        store.store(
            [
                _revoked(task_id, record, expires_at)
                for task_id, record in zip(some, found, strict=True)
                if record is None or record.state in _OPEN
            ]
        )
    now = time.time()
    store.store(
        [Record(id=_LAST, state="NOTED", result=msgspec.json.encode(now), fence=(int(now), 0), expires_at=expires_at)]
    )


def _revoked(task_id: str, found: Record | None, expires_at: float | None) -> Record:
    content_type, encoding, body = encode_result(exception_form(TaskRevokedError("revoked")), "json")
    # With the fence of what is stored it replaces that, and is replaced by whatever a later execution says.
    return Record(
        id=task_id, state=states.REVOKED, result=body, content_type=content_type, content_encoding=encoding,
        date_done=iso_now(), fence=(0, 0) if found is None else found.fence, expires_at=expires_at,
    )  # fmt: skip


def _moment_after(expires: Any) -> float | None:
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    return time.time() + seconds if seconds else None


def last_revoke(store: ResultStore) -> float | None:
    """When the last revoke was (seconds since 1970), or None."""
    record = store.get([_LAST])[0]
    if record is None:
        return None
    try:
        return float(msgspec.json.decode(record.result))
    except (msgspec.MsgspecError, TypeError, ValueError):
        return time.time()  # somebody else wrote it: in doubt everything is looked up


def created_at(task_id: str) -> float | None:
    """When an id of ours (a UUID of version 7) was made; None for others."""
    if len(task_id) != 36 or task_id[14] != "7":
        return None
    try:
        return int(task_id[:8] + task_id[9:13], 16) / 1000
    except ValueError:
        return None
