"""The states a task can be in, as Celery documents them, and their order. Imports nothing of ours."""

from __future__ import annotations

__all__ = [
    "ALL_STATES", "EXCEPTION_STATES", "FAILURE", "IGNORED", "NONE_PRECEDENCE", "PENDING", "PRECEDENCE",
    "PRECEDENCE_LOOKUP", "PROPAGATE_STATES", "READY_STATES", "RECEIVED", "REJECTED", "RETRY", "REVOKED", "STARTED",
    "SUCCESS", "UNKNOWN", "UNREADY_STATES", "precedence", "state",
]  # fmt: skip

PENDING = "PENDING"  #: waiting, or unknown
RECEIVED = "RECEIVED"  #: a worker has the message (events only)
STARTED = "STARTED"  #: running (stored with `track_started`)
SUCCESS = "SUCCESS"  #: returned a value
FAILURE = "FAILURE"  #: raised an exception
REVOKED = "REVOKED"  #: revoked or expired
REJECTED = "REJECTED"  #: rejected (events only)
RETRY = "RETRY"  #: waits for its next attempt
IGNORED = "IGNORED"  #: raised Ignore (never stored)
UNKNOWN = "UNKNOWN"  #: nothing is stored, although sent tasks are recorded (`task_track_enqueued`)

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
ALL_STATES = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

#: From the most to the least final; None stands for any custom state.
PRECEDENCE = [SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING]
PRECEDENCE_LOOKUP = {name: rank for rank, name in enumerate(PRECEDENCE)}
NONE_PRECEDENCE = PRECEDENCE_LOOKUP[None]


def precedence(name: str) -> int:
    """Rank of a state; lower is more final. A custom state ranks between FAILURE and REVOKED."""
    return PRECEDENCE_LOOKUP.get(name, NONE_PRECEDENCE)


class state(str):  # noqa: N801 -- Celery's documented name
    """A state that compares by precedence: `state(PENDING) < state(SUCCESS)`."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
