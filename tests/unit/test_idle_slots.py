"""Which slot gets the next task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from celeriac.runner.protocol import RunnerOptions
from celeriac.worker.idle_slots import IdleSlots
from celeriac.worker.process import ProcessOwner, RunnerProcess


@contextmanager
def _processes(count: int, slots: int) -> Iterator[list[RunnerProcess]]:
    """Without runners behind them."""
    owner = cast("ProcessOwner", None)  # nothing is ever told
    processes = [RunnerProcess(number, RunnerOptions("prefork", slots, "test"), owner) for number in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.passed_on()
            process.close()


def _run(check: Callable[[], None]) -> None:
    async def run() -> None:
        check()

    asyncio.run(run())


def test_a_task_after_another_goes_to_the_runner_that_is_warm() -> None:
    def check() -> None:
        with _processes(3, 1) as processes:
            idle = IdleSlots()
            for process in processes:
                idle.add(process.slots)
            for _ in range(5):
                slot = idle.take()
                assert slot is not None and slot.process is processes[2]
                idle.add([slot])

    _run(check)


def test_tasks_at_once_are_spread_over_processes() -> None:
    def check() -> None:
        with _processes(2, 3) as processes:
            idle = IdleSlots()
            for process in processes:
                idle.add(process.slots)
            taken = [slot for _ in range(6) if (slot := idle.take()) is not None]
            assert [slot.process.number for slot in taken] == [1, 0, 1, 0, 1, 0]
            assert len(set(taken)) == 6
            assert idle.take() is None
            idle.add([taken[1]])  # the process that does least, though the other one worked later
            idle.add([taken[3], taken[0]])
            again = idle.take()
            assert again is not None and again.process is processes[0]

    _run(check)


def test_what_is_going_gets_nothing() -> None:
    def check() -> None:
        with _processes(2, 1) as processes:
            idle = IdleSlots()
            for process in processes:
                idle.add(process.slots)
            processes[1].is_retiring = True
            slot = idle.take()
            assert slot is not None and slot.process is processes[0]
            idle.add([slot])
            idle.drop(processes[0])
            assert idle.take() is None

    _run(check)
