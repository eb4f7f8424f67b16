"""What a runner is told to do and what it answers: one `Execution`, one `Outcome`; or a batch of each.

Both travel as frames between supervisor and runner (msgpack arrays, no pickle). The supervisor makes executions from
deliveries without opening the body; `execution.execute` turns one into an outcome; the committer applies it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from celeriac.message import Message
from celeriac.results.base import Record

__all__ = [
    "INNER", "JOIN", "RUN", "STORED", "SWEEP", "BatchExecution", "BatchOutcome", "ChordStart", "Execution", "Outcome", "Part",
    "Verdict",
]  # fmt: skip


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """The end of a task that is decided already; the runner only writes it down and tells who has to know.

    Attributes:
        state: FAILURE or REVOKED; STORED if the outcome is stored and only its continuations may be missing; JOIN if it
            was the last part of a chord, whose body is to be sent now; SWEEP if it is the note of a chord that is quiet.
        error: Name of the exception class in `celeriac.errors`.
        args: Its arguments.
        action: What becomes of the delivery (`Action` value).
        reason: Why, for a dead letter.
    """

    state: str
    error: str = ""
    args: list[Any] = []
    action: str = "ack"
    reason: str = ""


#: State of a verdict: the outcome is stored, only what follows from it may be missing.
STORED = "STORED"
#: State of a verdict: this was the last part of the chord whose group id is its only argument.
JOIN = "JOIN"
#: State of a verdict: this is no task's message but the note of a chord that nothing happens to.
SWEEP = "SWEEP"
#: The verdicts about what follows an outcome that is stored.
INNER = (STORED, JOIN, SWEEP)
#: No verdict: run the task.
RUN = Verdict(state="")


class Execution(msgspec.Struct, frozen=True, array_like=True):
    """One attempt at one message.

    Attributes:
        serial: Number of this execution in its runner's slot; grows.
        queue: Where the message came from.
        deliveries: How often the message was delivered, this time included.
        verdict: RUN, or the end that is decided already.
    """

    serial: int
    slot: int
    message: Message
    queue: str
    deliveries: int = 1
    verdict: Verdict = RUN


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A part of a chord's header has ended: one of `size` (0: only the store knows), number `index`, of this result.

    Attributes:
        total: Told by a sweep, whoever was to send the body: of so many parts, those that were added among them.
    """

    group_id: str
    index: int
    size: int
    task_id: str
    total: int = 0


class ChordStart(msgspec.Struct, frozen=True, array_like=True):
    """A chord begins: its header has `size` parts, whose ids are in `value`; its body stands in `note` (`chord_notes`)."""

    group_id: str
    size: int
    value: bytes
    expires_at: float | None = None
    note: Record | None = None


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What one execution produced.

    Attributes:
        state: SUCCESS, FAILURE, RETRY, REVOKED, IGNORED or REJECTED.
        record: To be stored, or None.
        more_records: Of other tasks (the rest of a failed chain).
        messages: Continuations, ready to be published.
        action: What becomes of the delivery (`Action` value).
        runtime: Seconds.
        parts: Parts of chords that have ended with it.
        chords: Chords that begin with its messages.
        joined: Chords that are over: their counts may go.
    """

    serial: int
    slot: int
    task: str
    state: str
    record: Record | None = None
    more_records: list[Record] = []
    messages: list[Message] = []
    action: str = "ack"
    reason: str = ""
    until: float | None = None
    runtime: float = 0.0
    parts: list[Part] = []
    chords: list[ChordStart] = []
    joined: list[str] = []


class BatchExecution(msgspec.Struct, frozen=True, array_like=True):
    """Calls of one batch task that are run together: one frame, one number in the slot."""

    serial: int
    slot: int
    executions: list[Execution]


class BatchOutcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of each call of a batch, in order."""

    serial: int
    slot: int
    outcomes: list[Outcome]
