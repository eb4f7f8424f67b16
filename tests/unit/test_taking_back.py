"""Frames that are taken back from a runner stay taken back, and its slot stays in use. The test is the runner."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from celeriac.message import Delivery, Message
from celeriac.outcome import Outcome
from celeriac.results.base import Record
from celeriac.runner.protocol import Cells, Hello, Kind, RunnerOptions, encode_frame
from celeriac.worker.assignment import Assignment
from celeriac.worker.pool import Pool
from celeriac.worker.process import RunnerProcess


class _Nursery:
    """Hands the runner's ends to the test."""

    can_kill = True
    on_exit: Callable[[int, int], None]

    async def start(self) -> Hello:
        return Hello()

    def spawn(self, process: RunnerProcess) -> None:
        self.sock: socket.socket = process.runner_sock
        self.cells = Cells(process.cells_fd, 1)

    def stop(self) -> None:
        pass


class _Owner:
    def __init__(self) -> None:
        self.ended: list[str] = []

    def on_outcomes(self, ended: list[tuple[Assignment, Outcome]]) -> None:
        self.ended += [assignment.id for assignment, _ in ended]

    def on_crash(self, assignment: Assignment, reason: str) -> None:
        raise AssertionError(reason)

    def on_state(self, record: Record) -> None:
        raise AssertionError(record)

    def on_capacity(self) -> None:
        pass


@asynccontextmanager
async def _pool() -> AsyncIterator[tuple[Pool, _Nursery, _Owner]]:
    nursery, owner = _Nursery(), _Owner()
    pool = Pool(nursery, owner, 1, RunnerOptions("prefork", 1, "test"))
    pool.start()
    nursery.sock.send(encode_frame(Kind.READY, 0))
    await pool.wait_ready()
    try:
        yield pool, nursery, owner
    finally:
        nursery.cells.close()
        pool.close()


def _assignment(number: int) -> Assignment:
    message = Message(id=f"t{number}", headers={"task": "short"}, body=b"")
    return Assignment(Delivery(message=message, queue="celery", token=(number, 1)))


async def _until(predicate: Callable[[], bool]) -> None:
    while not predicate():  # noqa: ASYNC110 -- what the loop does between is what is tested
        await asyncio.sleep(0)


async def _finish(pool: Pool, nursery: _Nursery, serial: int, runtime: float = 0.0001) -> None:
    done = pool.done
    nursery.sock.send(encode_frame(Kind.OUTCOME, Outcome(serial, 0, "short", "SUCCESS", runtime=runtime)))
    await _until(lambda: pool.done > done)


def _recalled(nursery: _Nursery, serials: range) -> list[int]:
    return [serial for serial in serials if nursery.cells.is_recalled(0, serial)]


async def _with_long_task_in_front(pool: Pool, nursery: _Nursery) -> None:
    """The runner has run serial 1 of a short task, and runs 2 for long; 3, 4 and 5 wait behind it."""
    pool.submit([_assignment(1)])
    await _finish(pool, nursery, 1)
    pool.submit(_assignment(number) for number in range(2, 6))
    slot = pool.processes[0].slots[0]
    assert [each.serial for each in slot.held] == [2, 3, 4, 5]
    nursery.cells.begin(0, 2, time.monotonic())


def test_frames_taken_back_twice_stay_taken_back() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, _):
            await _with_long_task_in_front(pool, nursery)
            process = pool.processes[0]
            first = process.take_back(process.slots[0])
            assert [each.id for each in first] == ["t3", "t4", "t5"]
            pool.submit(first)  # its tasks are short as a rule, so the same slot gets them again
            assert [each.serial for each in process.slots[0].held] == [2, 6, 7, 8]
            process.take_back(process.slots[0])
            assert _recalled(nursery, range(1, 12)) == [3, 4, 5, 6, 7, 8], "a frame that was taken back would be run"

    asyncio.run(scenario())


def test_nothing_is_taken_back_while_the_runner_may_be_skipping_what_was() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, _):
            await _with_long_task_in_front(pool, nursery)
            process = pool.processes[0]
            slot = process.slots[0]
            taken = process.take_back(slot)
            nursery.cells.end(0)
            await _finish(pool, nursery, 2)
            pool.submit(taken)
            assert [each.serial for each in slot.held] == [6, 7, 8]
            assert process.take_back(slot) == []
            assert _recalled(nursery, range(1, 12)) == [3, 4, 5]
            nursery.cells.begin(0, 6, time.monotonic())  # past them
            assert [each.serial for each in slot.held] == [6, 7, 8]
            assert len(process.take_back(slot)) == 2
            assert _recalled(nursery, range(1, 12)) == [7, 8]

    asyncio.run(scenario())


def test_slot_that_skips_its_only_frame_is_used_again() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, owner):
            await _with_long_task_in_front(pool, nursery)
            process = pool.processes[0]
            slot = process.slots[0]
            nursery.cells.begin(0, 3, time.monotonic())  # 2 has ended, and 3 begins in the very moment of taking back
            process.take_back(slot)
            await _finish(pool, nursery, 2, runtime=0.5)  # from now on one frame at a time
            assert [each.serial for each in slot.held] == [3]
            nursery.sock.send(encode_frame(Kind.SKIPPED, (0, 3)))
            await _until(lambda: any(each.serial > 5 for each in slot.held))
            assert [each.id for each in slot.held] == ["t3"]
            await _finish(pool, nursery, slot.held[0].serial)
            assert owner.ended == ["t1", "t2", "t3"]

    asyncio.run(asyncio.wait_for(scenario(), 10))
