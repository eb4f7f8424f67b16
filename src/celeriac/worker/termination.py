"""Ends tasks that run or keeps those that wait from starting: what `revoke` does in the pool.

Runs in the supervisor's event loop. Invariant: a signal hits the execution that was meant and no other. What waits behind it
in its slot is taken back first; then the shared cells say what runs, and only then the signal is sent to a process that gets
no further work.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator

from celeriac import states
from celeriac.errors import near_match
from celeriac.log import get_logger
from celeriac.message import Message
from celeriac.outcome import RUN, Verdict
from celeriac.worker.assignment import Assignment, Batch
from celeriac.worker.limits import NEIGHBOUR_GRACE
from celeriac.worker.pool import Pool
from celeriac.worker.process import RunnerProcess, Slot

__all__ = ["REVOKED", "discard_waiting", "running", "signal_number", "terminate"]

logger = get_logger("celeriac.worker.control")

#: The end of a task that was revoked before it ran.
REVOKED = Verdict(states.REVOKED, "TaskRevokedError", ["revoked"])
#: Seconds after which a process that ignores the signal is killed.
GRACE = 3.0


def signal_number(name: str | int | None) -> int:
    """The number of a signal: "SIGTERM", "TERM" or 15.

    Raises:
        ValueError: There is none of that name.
    """
    if name is None:
        return signal.SIGTERM
    known = {each.name: each.value for each in signal.Signals}
    if isinstance(name, int) or name.isdecimal():
        if int(name) in known.values():
            return int(name)
        raise ValueError(f"there is no signal {name}")
    text = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    if text not in known:
        raise ValueError(f"there is no signal {text}.{near_match(text, known)}")
    return known[text]


def running(pool: Pool) -> Iterator[tuple[RunnerProcess, Slot, Assignment, float]]:
    """What runs now, and since when (monotonic seconds)."""
    for process in list(pool.processes):
        if not process.is_over:
            for slot in process.slots:
                assignment, since = slot.running()
                if assignment is not None:
                    yield process, slot, assignment, since


def discard_waiting(pool: Pool, is_meant: Callable[[Message], bool]) -> list[Assignment]:
    """Have tasks that wait in the pool end as REVOKED instead of running; returns those."""
    for process in list(pool.processes):
        for slot in process.slots:
            if len(slot.held) > 1 and any(_meant(each, is_meant) for each in slot.held):
                pool.take_back_waiting(slot)
    waiting = [each for each in pool.waiting() if each.verdict is RUN and is_meant(each.delivery.message)]
    members = [each for each in waiting if each not in pool.ready]
    pool.take_out(members)  # of their batches
    for assignment in waiting:
        assignment.verdict = REVOKED
    pool.submit(members)
    return waiting


def _meant(assignment: Assignment, is_meant: Callable[[Message], bool]) -> list[Assignment]:
    return [member for member in assignment.members if is_meant(member.delivery.message)]


def terminate(
    pool: Pool, is_meant: Callable[[Message], bool], number: int, on_terminated: Callable[[Assignment], None]
) -> list[Assignment]:
    """Kill what runs and is meant; returns the executions that were hit. The others of their batch run again."""
    hit = []
    for process, slot, assignment, _ in list(running(pool)):
        meant = _meant(assignment, is_meant)
        if assignment.verdict is not RUN or not meant:
            continue
        pool.take_back_waiting(slot)
        process.receive_all()  # perhaps it has just ended
        if assignment in slot.held and slot.running()[0] is assignment:
            _end(pool, process, slot, assignment, number)
            for each in meant:
                on_terminated(each)
            hit += meant
            others = assignment.without(meant) if isinstance(assignment, Batch) else None
            pool.submit([others] if others is not None else [], first=True)
    return hit


def _end(pool: Pool, process: RunnerProcess, slot: Slot, assignment: Assignment, number: int) -> None:
    slot.held.remove(assignment)
    pool.replace(process)
    logger.warning("%s[%s] terminated by %s", assignment.task, assignment.id, signal.Signals(number).name)
    if process.load:  # tasks in other slots of it end first
        process.kill_at = process.kill_at or time.monotonic() + NEIGHBOUR_GRACE
        return
    process.reason = f"terminated by {signal.Signals(number).name}"
    process.signal(number)
    if number == signal.SIGKILL:
        return
    # A task that has a handler of its own gets time to end; runners themselves ignore the signals of a shutdown.
    asyncio.get_running_loop().call_later(GRACE if _catches(process.pid, number) else 0.0, process.kill)


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            caught = next(line for line in file if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
    except (OSError, StopIteration, ValueError, IndexError):
        return False
