"""The commands that revoke: `revoke`, `terminate`, `revoke_by_stamped_headers`.

Run in the event loop. The set of revoked ids and the pool are changed at once, before anything is awaited; then REVOKED is
stored for those that don't run here, as stock workers do, for a stock client stores nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from celeriac import states
from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.message import Message
from celeriac.outcome import Verdict
from celeriac.revoking import store_revoked
from celeriac.worker.assignment import Assignment
from celeriac.worker.control_state import ControlState, command_table, error, ok
from celeriac.worker.revocations import matches_stamps
from celeriac.worker.termination import discard_waiting, running, signal_number, terminate

__all__ = ["COMMANDS"]

logger = get_logger("celeriac.worker.control")


async def revoke(state: ControlState, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Any:
    ids = [task_id] if isinstance(task_id, str) else task_id
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        return error("task_id is an id, or a list of ids")
    wanted = set(ids)
    if not terminate:
        await _revoke(state, wanted)
        return ok(f"tasks {wanted} flagged as revoked")
    number = signal_number(signal)
    found = _held(state, lambda message: message.id in wanted)
    state.revocations.add(wanted)
    hit = _end(state, lambda message: message.id in wanted, number)
    await _revoke(state, wanted, {assignment.id for assignment in hit})
    return ok(f"terminate: {', '.join(found) or 'tasks unknown'}")


async def terminate_(state: ControlState, signal: Any, task_id: Any, **_: Any) -> Any:
    return await revoke(state, task_id, terminate=True, signal=signal)


terminate_.__name__ = "terminate"


async def revoke_by_stamped_headers(
    state: ControlState, headers: Any, terminate: bool = False, signal: Any = None, **_: Any
) -> Any:
    if isinstance(headers, list) and all(isinstance(each, str) and "=" in each for each in headers):
        headers = dict(each.split("=", 1) for each in headers)
    if not isinstance(headers, Mapping):
        return error("headers is an object, or a list of name=value")

    def is_meant(message: Message) -> bool:
        return matches_stamps(message, headers)

    state.revocations.add_stamps(headers)
    if not terminate:
        _discard(state, is_meant)
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    number = signal_number(signal)
    hit = _end(state, is_meant, number)
    ids = {assignment.id for assignment in hit}
    state.revocations.add(ids)
    _discard(state, is_meant)
    return ok(f"headers {headers} revoked" if hit else f"headers {headers} were not terminated")


async def _revoke(state: ControlState, ids: set[str], ended: Collection[str] = ()) -> None:
    state.revocations.add(ids)
    _discard(state, lambda message: message.id in ids)
    worker = state.worker
    active = {member.id for _, _, assignment, _ in running(worker.pool) for member in assignment.members}
    waiting = [task_id for task_id in ids if task_id not in active and task_id not in ended]
    try:
        if worker.store is not None:
            await asyncio.to_thread(store_revoked, worker.store, waiting, worker.conf.result_expires)
    except OperationalError as exc:
        logger.warning("%d revoked task(s) are not marked so in the result store: %s", len(waiting), exc)
    await asyncio.to_thread(state.save)


def _discard(state: ControlState, is_meant: Callable[[Message], bool]) -> None:
    for assignment in discard_waiting(state.worker.pool, is_meant):
        state.worker.announcer.revoked(assignment.delivery)


def _held(state: ControlState, is_meant: Callable[[Message], bool]) -> list[str]:
    pool = state.worker.pool
    held = [*pool.held_assignments(), *pool.waiting(), *state.worker.gathering.assignments()]
    return [assignment.id for assignment in held if is_meant(assignment.delivery.message)]


def _end(state: ControlState, is_meant: Callable[[Message], bool], number: int) -> list[Assignment]:
    pool = state.worker.pool
    if not state.worker.nursery.can_kill:
        runs = [member for _, _, assignment, _ in running(pool) for member in assignment.members]
        if any(is_meant(each.delivery.message) for each in runs):
            raise NotImplementedError("a task that runs in the worker's own process (pool solo) can't be terminated")
        return []

    def on_terminated(assignment: Assignment) -> None:
        state.worker.end_as(assignment, Verdict(states.REVOKED, "TaskRevokedError", ["terminated"]))
        state.worker.announcer.revoked(assignment.delivery, terminated=True, signum=number)

    return terminate(pool, is_meant, number, on_terminated)


COMMANDS = command_table(
    "control",
    {
        revoke: (
            "Revoke tasks by id.",
            {"args": [("task_id", str)], "variadic": "task_id", "signature": "[id1 [id2 [… [idN]]]]"},
        ),
        terminate_: (
            "Revoke tasks by id, and end those that run.",
            {
                "args": [("signal", str), ("task_id", str)],
                "variadic": "task_id",
                "signature": "<signal> [id1 [id2 [… [idN]]]]",
            },
        ),
        revoke_by_stamped_headers: (
            "Revoke tasks that bear one of these stamps.",
            {"args": [("headers", str)], "variadic": "headers", "signature": "[key1=value1 [key2=value2 …]]"},
        ),
    },
)
