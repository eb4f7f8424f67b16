"""One task that waits at the gate: which claims it needs, and what becomes of it if another one has them. No effects.

`gate.Gate` carries out what is decided here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from celeriac import states
from celeriac.coordination.base import Claim
from celeriac.message import Message
from celeriac.outcome import Verdict
from celeriac.task_limits import UNTIL_DONE, UNTIL_START, Mark, TaskLimits, id_name, lock_name, running_name, slot_name
from celeriac.timing import SYSTEM_CLOCK
from celeriac.worker.assignment import Assignment
from celeriac.worker.rate_limits import Horizon

__all__ = ["Lane", "Waiting", "claims_for", "is_sent_twice", "verdict_for"]


class Waiting:
    """A task that waits, or runs with claims.

    Attributes:
        lock: The claim of a unique task, among `claims` until it is taken.
        claims: What it needs, then what it has.
        is_claimed: Whether it has them.
        lane: Name of the lane in which it waits for them; "" if it needs none.
        since: When it came, then when it started.
    """

    __slots__ = ("assignment", "claims", "is_claimed", "lane", "lock", "mark", "since")

    def __init__(self, assignment: Assignment, mark: Mark | None, claims: list[Claim]) -> None:
        self.assignment = assignment
        self.mark = mark
        self.claims = claims
        is_locked = mark is not None and claims and claims[0].name == lock_name(mark.unique)
        self.lock = claims[0] if is_locked else None
        self.is_claimed = False
        self.lane = ""
        self.since = time.monotonic()

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.assignment.task

    def take_lock_by_force(self) -> None:
        """Take the lock from whoever has it, next time."""
        if self.lock is not None:
            lock = self.lock
            self.lock = Claim(name=lock.name, holder=lock.holder, seconds=lock.seconds, replaces=True)
            self.claims[0] = self.lock

    def on_claimed(self) -> list[Claim]:
        """It has what it needs; returns what it gives back at once."""
        self.is_claimed = True
        if self.lock is None or self.mark is None or self.mark.until == UNTIL_DONE:
            return []
        lock, self.lock = self.lock, None
        self.claims = self.claims[1:]
        return [lock] if self.mark.until == UNTIL_START else []  # one of so many seconds ends by itself

    def kept(self, lease: float, until: float | None) -> list[Claim]:
        """The lock of a task that goes on later, at `until`, for as long as its message may wait."""
        if self.lock is None or self.mark is None or self.mark.until != UNTIL_DONE:
            return []
        later = max(0.0, until - SYSTEM_CLOCK.now()) if until is not None else 0.0
        seconds = max(self.mark.ttl, lease) + later
        return [Claim(name=self.lock.name, holder=self.lock.holder, seconds=seconds)]

    @property
    def id_claim(self) -> Claim | None:
        """The claim of its task id, if its caller chose that: another message with the same id does not run meanwhile."""
        name = id_name(self.assignment.id)
        return next((claim for claim in self.claims if claim.name == name), None)


class Lane:
    """Those that wait for the same claims, the oldest first.

    Attributes:
        retry_at: When they are tried again (monotonic).
        usual: For how many seconds such a task usually runs.
    """

    __slots__ = ("horizon", "retry_at", "usual", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.retry_at = 0.0
        self.horizon = Horizon()
        self.usual = 0.1


def claims_for(
    message: Message, mark: Mark | None, limits: TaskLimits | None, lease: float, identity: str, execution: str = ""
) -> list[Claim]:
    """What a task must hold to run, the lock of a unique one first.

    Args:
        identity: Of this worker: a message that is delivered twice counts twice, unless the same worker has both.
        execution: Of this attempt: no other has the same.
    """
    claims: list[Claim] = []
    holder = f"{message.id} {identity}"
    if mark is not None and mark.unique and not (mark.until != UNTIL_DONE and message.headers.get("retries")):
        seconds = lease if mark.until else mark.ends_at - SYSTEM_CLOCK.now()
        if seconds > 0 and (mark.until or not mark.is_held or mark.conflict == "replace"):
            claims.append(Claim(name=lock_name(mark.unique), holder=message.id, seconds=seconds))
        if mark.conflict == "replace" and mark.until == UNTIL_DONE:
            # The one that was replaced may be running by now: it ends first.
            claims.append(Claim(name=running_name(mark.unique), holder=holder, seconds=lease))
    if mark is not None and mark.is_named:
        claims.append(Claim(name=id_name(message.id), holder=execution or holder, seconds=lease))
    if limits is not None and limits.max_concurrency:
        name = slot_name(message.task, mark.key if mark is not None else "")
        claims.append(Claim(name=name, holder=holder, seconds=lease, limit=limits.max_concurrency))
    return claims


def is_sent_twice(waiting: Waiting, answers: Sequence[str]) -> bool:
    """Whether what it could not claim is its own id."""
    own = waiting.id_claim
    return own is not None and any(other and claim is own for claim, other in zip(waiting.claims, answers, strict=True))


def verdict_for(task: str, mark: Mark, other: str) -> Verdict | None:
    """What becomes of a unique task whose lock another one has; None if it waits, or takes it."""
    if mark.conflict == "replace":
        return Verdict(states.REVOKED, "TaskRevokedError", [f"replaced by {other}"]) if mark.is_held else None
    if mark.is_held:
        return None  # the lock had run out, and somebody took it: both were accepted, so one runs after the other
    if mark.conflict == "raise":
        return Verdict(states.FAILURE, "DuplicateTaskError", [task, other])
    return Verdict(states.REVOKED, "TaskRevokedError", [f"{other} is there already"])
