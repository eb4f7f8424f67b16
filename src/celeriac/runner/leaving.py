"""What a runner does between the end of a task and its report to the supervisor, whatever the task has left behind.

Called by every kind of runner. A task's process may not be what it was: the task may have forked and come back twice, or
closed the standard streams that the next task prints to. What can't be reported becomes that task's failure.
"""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING, Any

from celeriac.environment import Environment
from celeriac.execution import give_up
from celeriac.outcome import BatchExecution, BatchOutcome, Execution, Outcome
from celeriac.runner.protocol import Kind, encode_frame

if TYPE_CHECKING:
    from celeriac.runner.channel import Channel

__all__ = ["send_batch_outcome", "send_outcome", "sendable"]

#: What encoding an outcome may raise.
_UNSENDABLE = (TypeError, ValueError, OverflowError, RecursionError)


def send_outcome(channel: Channel, environment: Environment, execution: Execution, outcome: Outcome) -> None:
    """Report the end of an execution to the supervisor."""
    _see_to_process(channel)
    try:
        channel.send(Kind.OUTCOME, outcome)
    except _UNSENDABLE as exc:  # a header of a continuation, for instance
        channel.send(Kind.OUTCOME, give_up(environment, execution, exc))


def send_batch_outcome(
    channel: Channel, environment: Environment, batch: BatchExecution, outcomes: list[Outcome]
) -> None:
    """Report the ends of a batch's calls; one that can't be reported is that call's failure alone."""
    _see_to_process(channel)
    try:
        channel.send(Kind.BATCH_OUTCOME, BatchOutcome(batch.serial, batch.slot, outcomes))
    except _UNSENDABLE:
        outcomes = [sendable(environment, *each) for each in zip(batch.executions, outcomes, strict=True)]
        channel.send(Kind.BATCH_OUTCOME, BatchOutcome(batch.serial, batch.slot, outcomes))


def sendable(environment: Environment, execution: Execution, outcome: Outcome) -> Outcome:
    """The outcome, or a failure in its place if it can't travel: text in it may be no Unicode."""
    try:
        encode_frame(Kind.OUTCOME, outcome)
    except _UNSENDABLE as exc:
        return give_up(environment, execution, exc)
    return outcome


def _see_to_process(channel: Channel) -> None:
    if os.getpid() != channel.pid:
        os._exit(0)  # the task has forked and its child came back, too: the parent alone reports
    if getattr(sys.stdout, "closed", False) or getattr(sys.stderr, "closed", False):
        _open_streams_again()


def _open_streams_again() -> None:
    for name in ("stdout", "stderr"):
        if getattr(getattr(sys, name), "closed", False):
            setattr(sys, name, _open_again(name))


def _open_again(name: str) -> IO[Any]:
    """A stream for one that a task has closed: where the other one goes, else nowhere."""
    other = sys.stderr if name == "stdout" else sys.stdout
    try:
        return open(os.dup(other.fileno()), "w")
    except (AttributeError, OSError, ValueError):
        return open(os.devnull, "w")
