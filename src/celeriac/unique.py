"""Sending unique tasks: takes the lock, then publishes; or says what becomes of a call for which there is one already.

`Task.apply_async` and `send_task` call `send` for tasks with the option `unique`. The lock is a claim in the name of the
task's id. The worker that gets the message takes it over for the time of its lease and gives it back (`worker.gate`), so it
never outlives a worker that was killed; while the message waits it is kept for `task_unique_timeout` at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from celeriac.coordination.base import Claim, Coordination
from celeriac.coordination.open import no_place
from celeriac.errors import DuplicateTaskError, ImproperlyConfigured
from celeriac.message import Message
from celeriac.result import AsyncResult
from celeriac.sending import publish
from celeriac.task_limits import LIMITS, Mark, lock_name, mark_of
from celeriac.timing import SYSTEM_CLOCK

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["send"]


def send(
    app: Celeriac, message: Message, result: AsyncResult[Any], options: Mapping[str, Any] | None
) -> AsyncResult[Any]:
    """Publish the message of a unique call, unless there is one already.

    Returns:
        Its result to come; with `on_conflict="ignore"` that of the call that is there already.

    Raises:
        DuplicateTaskError: There is one already, and `on_conflict` is "raise".
        ImproperlyConfigured: There is no place for locks.
    """
    mark = mark_of(message.headers)
    if mark is None or not mark.unique or (options and options.get("connection") is not None):
        publish(app, (message,), options)  # in a transaction: whether there is a message is not known before it ends
        return result
    place = app.coordination
    if place is None:
        raise ImproperlyConfigured(no_place(app.conf, f"task {message.task!r} with the option unique"))
    now = SYSTEM_CLOCK.now()
    mark = replace(mark, is_held=True, ttl=_ttl(app, message, mark, now))
    lock = Claim(name=lock_name(mark.unique), holder=message.id, seconds=mark.ttl, replaces=mark.conflict == "replace")
    [other] = place.acquire([lock])
    if other:
        return _refused(app, message, mark, other)
    _publish_or_unlock(app, _marked(message, mark), options, place, lock)
    return result


def _ttl(app: Celeriac, message: Message, mark: Mark, now: float) -> float:
    """Seconds for which a lock is kept while its message waits."""
    if not mark.until:
        return max(mark.ends_at - now, 0.001)
    if message.expires_at is not None:
        return max(message.expires_at - now, 0.001)
    return float(app.conf.task_unique_timeout) + max(0.0, (message.eta or now) - now)


def _refused(app: Celeriac, message: Message, mark: Mark, other: str) -> AsyncResult[Any]:
    if mark.conflict == "raise":
        raise DuplicateTaskError(message.task, other)
    return AsyncResult(other, app=app)


def _publish_or_unlock(
    app: Celeriac, message: Message, options: Mapping[str, Any] | None, place: Coordination, lock: Claim
) -> None:
    try:
        publish(app, (message,), options)
    except BaseException:
        place.release([lock])
        raise


def _marked(message: Message, mark: Mark) -> Message:
    return replace(message, headers={**message.headers, LIMITS: msgspec.to_builtins(mark)})
