"""A delivery on its way through this worker: from admission until its outcome is handed to the committer.

In the pool several of one batch task may be a `Batch`: one place in a slot, one frame, and an outcome for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celeriac.message import Delivery
from celeriac.outcome import RUN, Verdict
from celeriac.results.base import Fence, fence_of

__all__ = ["Assignment", "Batch"]


class Assignment:
    """One delivery and what the supervisor knows of its execution.

    Attributes:
        task: Name of the task.
        verdict: RUN, or the end that is decided already.
        hard, soft: Time limits in seconds, or None.
        is_acked: Settled before it started (early ack).
        is_decided: It began here, and the verdict is how it ended: it must not begin again.
        serial: Number of its frame in its slot; 0 while it waits.
        is_marked: Whether its start is recorded at the broker.
    """

    __slots__ = (
        "delivery", "hard", "is_acked", "is_decided", "is_late", "is_marked", "is_soft_limited", "may_requeue", "serial", "soft",
        "task", "verdict",
    )  # fmt: skip

    def __init__(
        self,
        delivery: Delivery,
        verdict: Verdict = RUN,
        hard: float | None = None,
        soft: float | None = None,
        *,
        is_late: bool = True,
        may_requeue: bool = True,
    ) -> None:
        self.delivery = delivery
        self.task = delivery.message.task
        self.verdict = verdict
        self.hard = hard
        self.soft = soft
        self.is_late = is_late
        self.may_requeue = may_requeue
        self.is_acked = False
        self.is_decided = False
        self.serial = 0
        self.is_marked = False
        self.is_soft_limited = False

    @property
    def is_bound(self) -> bool:
        """Whether it has to end here. Other workers can have the rest."""
        return self.is_acked or self.is_decided

    @property
    def fence(self) -> Fence:
        """What orders its record among those of other executions."""
        numbers = [self.delivery.message.headers.get(name) for name in ("retries", "replaced_task_nesting")]
        retries, nesting = (number if isinstance(number, int) and number < 2**31 else 0 for number in numbers)
        return fence_of(retries, nesting, self.delivery.deliveries)

    @property
    def id(self) -> str:
        """Task id."""
        return self.delivery.message.id

    @property
    def members(self) -> Sequence[Assignment]:
        """The deliveries that run as one: itself, or the calls of a batch."""
        return (self,)


class Batch(Assignment):
    """Calls of one batch task that run together. Its time limits are the shortest of theirs; the rest is the first one's."""

    __slots__ = ("_members",)

    def __init__(self, members: Sequence[Assignment]) -> None:
        first = members[0]
        super().__init__(first.delivery, hard=_least(m.hard for m in members), soft=_least(m.soft for m in members))
        self._members = list(members)

    @property
    def members(self) -> Sequence[Assignment]:
        """Its calls."""
        return self._members

    @property
    def id(self) -> str:
        """For log lines: the first call's id, and how many are with it."""
        return f"{self.delivery.message.id} and {len(self._members) - 1} more"

    def without(self, left_out: Iterable[Assignment]) -> Assignment | None:
        """What is left for a runner when these are taken out; None if nothing is."""
        ids = {id(each) for each in left_out}
        left = [member for member in self._members if id(member) not in ids]
        return None if not left else left[0] if len(left) == 1 else Batch(left)


def _least(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
