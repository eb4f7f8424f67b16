"""What to do with a message that has just come: one pure function, no effects.

Intake calls `admit` for each delivery and carries out what it says.
"""

from __future__ import annotations

import enum
from collections.abc import Container
from datetime import tzinfo
from typing import Any

import msgspec

from celeriac import states
from celeriac.errors import InvalidTaskError
from celeriac.message import Action, Delivery, Message
from celeriac.options import LIMITS
from celeriac.outcome import RUN, STORED, Verdict
from celeriac.results.base import Record
from celeriac.routing import is_copy
from celeriac.task_limits import is_named
from celeriac.wire.messages import parse_moment

__all__ = ["Admission", "Decision", "Rules", "admit", "early_end"]

#: A message that was leased this many times the allowed starts is poison, although no start was ever recorded.
LEASES_PER_START = 20


class Decision(enum.Enum):
    """What becomes of a delivery."""

    RUN = "run"  #: to a runner, with `verdict`
    DEFER = "defer"  #: back, until `until`
    DEAD = "dead"  #: to the dead letters, with `reason`


class Admission(msgspec.Struct, frozen=True):
    """The decision about one delivery."""

    decision: Decision = Decision.RUN
    verdict: Verdict = RUN
    until: float | None = None
    charged: bool = False
    reason: str = ""


class Rules(msgspec.Struct, frozen=True):
    """What the decision depends on besides the delivery.

    Attributes:
        known: Names of registered tasks.
        revoked: What was revoked (`Revocations`), or None.
        unknown_delay: Seconds after which an unknown task is tried again.
        timezone: Of moments in headers that have none.
        limited: Tasks with limits: being put back often is no sign of poison.
    """

    known: Any
    max_deliveries: int
    unknown_delay: float
    timezone: tzinfo
    limited: frozenset[str] = frozenset()
    revoked: Any = None


_RUN = Admission()


def admit(delivery: Delivery, rules: Rules, now: float, stored: Record | None = None) -> Admission:
    """What to do with `delivery` at `now` (seconds since 1970).

    Args:
        stored: The record that the result store holds of a redelivered task, or of one whose id the caller chose.
    """
    message = delivery.message
    headers = message.headers
    if message.defect:
        return _malformed(delivery, message.defect)
    if not message.id or not isinstance(headers, dict):
        return Admission(Decision.DEAD, reason="malformed message: it has no task id")
    if delivery.starts >= rules.max_deliveries:
        return _poisoned(delivery)
    is_worn = delivery.deliveries > rules.max_deliveries * LEASES_PER_START
    if is_worn and message.task not in rules.limited and LIMITS not in headers:
        return _poisoned(delivery)
    if (
        stored is not None
        and stored.is_ready
        and stored.state != states.REVOKED
        and not is_copy(delivery.queue)  # of a broadcast: that others have run it is no reason
        and (delivery.redelivered or (stored.state == states.SUCCESS and is_named(headers)))
    ):
        return Admission(verdict=Verdict(STORED))
    try:
        verdict = early_end(message, rules, now)
        if verdict is not None:
            return Admission(verdict=verdict)
        if stored is not None and stored.state == states.REVOKED:
            return Admission(verdict=Verdict(states.REVOKED, "TaskRevokedError", ["revoked"]))
        eta = headers.get("eta")
        if eta is not None and (moment := parse_moment(eta, rules.timezone)) is not None and moment > now:
            return Admission(Decision.DEFER, until=moment)
    except InvalidTaskError as exc:
        return _malformed(delivery, str(exc))
    if message.task and message.task not in _as_container(rules.known):
        return _unknown(delivery, rules, now)
    return _RUN


def _malformed(delivery: Delivery, text: str) -> Admission:
    """If it has an id, its task ends as a failure: a runner opens what it can, so that nobody waits for it."""
    reason, message = f"malformed message: {text}", delivery.message
    if not message.id or not isinstance(message.headers, dict):
        return Admission(Decision.DEAD, reason=reason)
    return Admission(verdict=Verdict(states.FAILURE, "InvalidTaskError", [reason], Action.DEAD_LETTER.value, reason))


def early_end(message: Message, rules: Rules, now: float) -> Verdict | None:
    """The end of a message that has expired or was revoked, else None.

    Raises:
        InvalidTaskError: Its moment of expiry is none.
    """
    expires = message.headers.get("expires")
    if expires is not None and (moment := parse_moment(expires, rules.timezone)) is not None and moment <= now:
        return Verdict(states.REVOKED, "TaskRevokedError", ["expired"])
    if rules.revoked is not None and rules.revoked.is_revoked(message):
        return Verdict(states.REVOKED, "TaskRevokedError", ["revoked"])
    return None


def _as_container(known: Any) -> Container[str]:
    container: Container[str] = known
    return container


def _poisoned(delivery: Delivery) -> Admission:
    count = max(delivery.starts, 1)
    reason = f"poisonous: started {count} times in {delivery.deliveries} deliveries and never ended"
    verdict = Verdict(states.FAILURE, "WorkerLostError", [reason], Action.DEAD_LETTER.value, reason)
    return Admission(verdict=verdict)


def _unknown(delivery: Delivery, rules: Rules, now: float) -> Admission:
    """In a rolling deploy another worker may know the task: give it back until its tries are used up."""
    name = delivery.message.task
    if delivery.starts + 1 < rules.max_deliveries:
        return Admission(Decision.DEFER, until=now + rules.unknown_delay, charged=True, reason=f"unknown task {name!r}")
    reason = f"unknown task {name!r}: no worker that took it has it registered"
    return Admission(verdict=Verdict(states.FAILURE, "NotRegistered", [name], Action.DEAD_LETTER.value, reason))
