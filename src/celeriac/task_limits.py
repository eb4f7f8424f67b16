"""The options by which a task is limited: how often, how many at once, only once. What they may be and what they become.

Clients check them when a task is made and write what a worker must know of a call into one header, `LIMITS`; the supervisor
reads `TaskLimits` from the zygote's manifest and `Mark` from headers, and opens no body for it. Names of claims are made
here, so that both sides mean the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.options import LIMITS
from celeriac.rates import parse_rate
from celeriac.safe_repr import saferepr

__all__ = [
    "UNTIL_START", "UNTIL_DONE", "LIMITS", "OPTIONS", "Mark", "TaskLimits", "check_option", "id_name", "is_named",
    "limits_of", "lock_name", "mark_of", "running_name", "slot_name",
]  # fmt: skip

#: Values of the option `unique`: when the next call of its kind may come.
UNTIL_START, UNTIL_DONE = "until_start", "until_done"
_UNTIL = (UNTIL_START, UNTIL_DONE)
_CONFLICTS = ("ignore", "replace", "raise")
_SCOPES = ("worker", "cluster")


class TaskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor has to know of a task's limits.

    Attributes:
        rate: Starts per second; 0 for no limit.
        is_cluster_rate: Whether all workers share them.
        max_concurrency: How many may run at once on all workers, for each key; 0 for no limit.
        max_per_worker: The same on each worker.
        is_unique: Whether there is at most one of equal calls.
    """

    rate: float = 0.0
    is_cluster_rate: bool = False
    max_concurrency: int = 0
    max_per_worker: int = 0
    is_unique: bool = False

    @property
    def shared(self) -> str:
        """The option that needs a place that all workers share; "" if none does."""
        if self.is_unique:
            return "unique"
        if self.max_concurrency:
            return "max_concurrency"
        return 'rate_limit_scope="cluster"' if self.is_cluster_rate else ""


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client tells of one call.

    Attributes:
        key: Which of the task's concurrency limits it is under.
        unique: Name of what only one of may be there; "" if any number may.
        until: "until_start", "until_done", or "" for a number of seconds.
        conflict: What becomes of the later one of two: "ignore", "replace", "raise".
        is_held: Whether the client holds the lock in this task's name.
        ttl: Seconds for which the lock is kept while the message waits.
        ends_at: Moment at which a lock of so many seconds ends.
        is_named: Whether the caller chose the task's id: it is not to run again where its success is stored.
    """

    key: str = ""
    unique: str = ""
    until: str = ""
    conflict: str = "ignore"
    is_held: bool = False
    ttl: float = 0.0
    ends_at: float = 0.0
    is_named: bool = False


def mark_of(headers: Mapping[str, Any]) -> Mark | None:
    """What the client told; None if nothing, or nothing that can be read."""
    found = headers.get(LIMITS)
    if found is None:
        return None
    with contextlib.suppress(msgspec.ValidationError, UnicodeError):  # half a surrogate pair is no text
        return msgspec.convert(found, Mark)
    return None


def slot_name(task: str, key: str) -> str:
    """Name of the claims that are running executions of a task, of one concurrency key."""
    return f"slot:{task}:{key}"


def is_named(headers: Any) -> bool:
    """Whether the caller chose the task's id: where its success is stored, the same one sent again does not run again."""
    mark = headers.get(LIMITS) if isinstance(headers, dict) else None
    return isinstance(mark, dict) and bool(mark.get("is_named"))


def id_name(task_id: str) -> str:
    """Name of the claim of a task id that its caller chose, of which one message runs at a time."""
    return f"id:{task_id}"


def running_name(unique: str) -> str:
    """Name of the claim of a unique call that runs, where one that waits may be replaced meanwhile."""
    return f"running:{unique}"


def lock_name(unique: str) -> str:
    """Name of the claim of a unique call."""
    return f"unique:{unique}"


def _rate(value: Any) -> str:
    try:
        parse_rate(value)
    except ValueError as exc:
        return str(exc)
    return ""


def _whole_number(value: Any) -> str:
    is_fine = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
    return "" if is_fine else f"{saferepr(value, 60)} is no whole number from 1 up"


def _template(value: Any) -> str:
    is_fine = value is None or callable(value) or (isinstance(value, str) and value)
    return "" if is_fine else f"{saferepr(value, 60)} is neither text such as 'tenant:{{tenant_id}}' nor a function"


def _unique(value: Any) -> str:
    if value is None or value is False or value in _UNTIL:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9:
        return ""
    hint = near_match(value, _UNTIL) if isinstance(value, str) else ""
    return f"{saferepr(value, 60)} is neither 'until_start' nor 'until_done' nor a number of seconds.{hint}"


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value in allowed:
            return ""
        hint = near_match(value, allowed) if isinstance(value, str) else ""
        return f"{saferepr(value, 60)} is not one of {', '.join(map(repr, allowed))}.{hint}"

    return check


#: Name of each option, and what says why a value is not allowed ("" if it is).
OPTIONS: dict[str, Callable[[Any], str]] = {
    "rate_limit": _rate,
    "rate_limit_scope": _one_of(*_SCOPES),
    "max_concurrency": _whole_number,
    "max_concurrency_per_worker": _whole_number,
    "concurrency_key": _template,
    "unique": _unique,
    "unique_key": _template,
    "on_conflict": _one_of(*_CONFLICTS),
}


def check_option(task: str, name: str, value: Any) -> None:
    """Check one option.

    Raises:
        ImproperlyConfigured: Its value is not allowed; the message names the task and the option.
    """
    problem = OPTIONS[name](value)
    if problem:
        raise ImproperlyConfigured(f"task {task!r}: {name}: {problem}")


def limits_of(task: Any) -> TaskLimits | None:
    """The limits of a task, checked; None if it has none.

    Raises:
        ImproperlyConfigured: The value of an option is not allowed.
    """
    for name in OPTIONS:
        check_option(task.name, name, getattr(task, name))
    found = TaskLimits(
        rate=parse_rate(task.rate_limit),
        is_cluster_rate=task.rate_limit_scope == "cluster",
        max_concurrency=task.max_concurrency or 0,
        max_per_worker=task.max_concurrency_per_worker or 0,
        is_unique=bool(task.unique),
    )
    return None if found in (TaskLimits(), TaskLimits(is_cluster_rate=True)) else found
