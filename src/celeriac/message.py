"""What travels: a message with readable headers and an opaque body, and what a broker makes of it on the way back.

Everything here is frozen data. `wire/messages.py` builds messages in Celery's format; transports carry them; the
supervisor reads headers only; the runner opens the body.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

__all__ = [
    "Action",
    "CommonHeaders",
    "ControlMessage",
    "DeadLetter",
    "Delivery",
    "Message",
    "Settlement",
    "SharedHeaders",
]


class CommonHeaders(msgspec.Struct, frozen=True, eq=False):
    """What the headers of many messages have in common. Compared by identity, so that drivers can remember its encoded form.

    Attributes:
        values: All headers, in order. Never changed.
        own: Names of those that every message fills in for itself.
    """

    values: dict[str, Any]
    own: tuple[str, ...]


class SharedHeaders(dict[str, Any]):
    """Headers that are `common` but for those it calls `own`. Never changed otherwise: any copy is a plain dict."""

    __slots__ = ("common",)

    common: CommonHeaders


class Message(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One task message (Celery's task protocol 2, or 1 when `headers` has no "task").

    Attributes:
        id: Task id; the same as the property `correlation_id`.
        headers: The table of protocol 2, plain JSON-like values.
        body: Serialized, possibly compressed bytes; opened by the runner only.
        queue: Name of the queue it goes to. Empty: the transport routes by `exchange` and `routing_key`.
        exchange: As Celery would name it; "" is the default exchange, whose routing key is the queue's name.
        priority: 0 to 255, higher is sooner; None counts as 0.
        eta: Not to be delivered before this moment (seconds since 1970), or None.
        expires_at: Worthless from this moment on (seconds since 1970), or None.
        reply_to: Where an rpc result goes.
        transient: True if the broker may lose it in a restart (delivery mode 1).
        properties: Further properties that the caller gave, passed on as they are.
        defect: Why a message that came from a broker can't be read; "" for a good one.
    """

    id: str
    headers: dict[str, Any]
    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    priority: int | None = None
    eta: float | None = None
    expires_at: float | None = None
    reply_to: str = ""
    transient: bool = False
    properties: dict[str, Any] = {}
    defect: str = ""

    @property
    def task(self) -> str:
        """Name of the task, or "" (protocol 1 keeps it in the body)."""
        name = self.headers.get("task")
        return name if isinstance(name, str) else ""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message on lease to one worker.

    Attributes:
        queue: The queue it was taken from.
        token: The driver's handle on this lease; a new lease of the same message has another one.
        deadline: Monotonic time (`time.monotonic()`) when the lease ends unless extended; inf if the connection holds it.
        deliveries: How often it was leased, this time included (1 = first).
        starts: How many executions of it began before this lease and were charged.
    """

    message: Message
    queue: str
    token: Any
    deadline: float = float("inf")
    deliveries: int = 1
    starts: int = 0

    @property
    def redelivered(self) -> bool:
        """Whether an earlier lease of it has ended without a settlement by ack."""
        return self.deliveries > 1


class Action(enum.Enum):
    """What becomes of a delivery."""

    ACK = "ack"  #: done: delete it
    REQUEUE = "requeue"  #: back to the head of its queue
    DEFER = "defer"  #: back, not to be delivered before `until`
    DEAD_LETTER = "dead-letter"  #: kept aside with `reason`


class Settlement(msgspec.Struct, frozen=True):
    """How one delivery ends.

    Attributes:
        reason: Why, for a dead letter.
        until: Moment (seconds since 1970) for DEFER.
        charged: For REQUEUE and DEFER: whether this delivery counts as a start. An interrupted one does not.
    """

    delivery: Delivery
    action: Action = Action.ACK
    reason: str = ""
    until: float | None = None
    charged: bool = False


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was put aside.

    Attributes:
        key: The driver's handle, as text; what `celeriac dead show KEY` takes.
        died_at: When (seconds since 1970).
    """

    key: str
    message: Message
    queue: str
    reason: str
    died_at: float
    deliveries: int
    starts: int


class ControlMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A command to workers, or the answer of one: a few readable headers and a body. Nothing is kept for absent ones.

    Attributes:
        headers: Celery's: `clock` and `expires` of a command, `ticket` and `clock` of an answer.
    """

    body: bytes
    headers: dict[str, Any] = {}
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
