"""Coroutine functions as tasks, and calling tasks from coroutines."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from celeriac import Celeriac, SoftTimeLimitExceeded
from celeriac.errors import EncodeError
from celeriac.event_loop import EventLoop
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def test_coroutine_functions_are_tasks_and_see_their_own_request(app: Celeriac) -> None:
    @app.task(bind=True)
    async def work(self: Any, x: int) -> list[Any]:
        await asyncio.sleep(0)
        inner = await asyncio.gather(_id_of(self), _id_of(self))
        return [self.request.id, *inner, x]

    results = [work.apply_async((number,), task_id=f"id-{number}") for number in range(3)]
    run_all(app)
    assert [r.get(timeout=1) for r in results] == [[f"id-{n}", f"id-{n}", f"id-{n}", n] for n in range(3)]


async def _id_of(task: Any) -> str:
    await asyncio.sleep(0)
    return str(task.request.id)


def test_a_coroutine_that_fails_fails_the_task(app: Celeriac) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise LookupError("async")

    app.task(work, name="t")
    result = app.send_task("t")
    run_all(app)
    with pytest.raises(LookupError, match="async"):
        result.get(timeout=1)


def test_a_soft_limit_is_raised_in_a_coroutine_that_waits(app: Celeriac) -> None:
    """[B-LIMIT-001]"""
    loop = EventLoop()
    seen: list[str] = []

    async def patient() -> str:
        asyncio.get_running_loop().call_soon(lambda: seen.append(str(loop.limit_softly())))
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            seen.append("limited")
            await asyncio.sleep(0)
        return "cleaned up"

    assert loop.run(patient()) == "cleaned up"
    assert seen == ["True", "limited"]
    with pytest.raises(SoftTimeLimitExceeded):
        loop.run(_wait_for_ever(loop))
    assert loop.run(_one()) == 1
    assert loop.limit_softly() is False
    loop.close()


async def _wait_for_ever(loop: Any) -> None:
    asyncio.get_running_loop().call_soon(loop.limit_softly)
    await asyncio.Event().wait()


async def _one() -> int:
    return 1


def test_sending_and_waiting_as_a_coroutine(app: Celeriac) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    async def talk() -> list[int]:
        results = await asyncio.gather(
            *(add.adelay(n, n) for n in range(10)), add.aapply_async((1, 2), task_id="given")
        )
        await asyncio.to_thread(run_all, app)
        return [await result.aget(timeout=5) for result in results]

    assert asyncio.run(talk()) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 3]
    assert asyncio.run(talk())[:2] == [0, 2]


def test_several_event_loops_may_send_at_the_same_time(app: Celeriac) -> None:
    add = app.task(lambda x: x, name="t")

    async def send_many() -> None:
        await asyncio.gather(*(add.adelay(n) for n in range(50)))

    threads = [threading.Thread(target=lambda: asyncio.run(send_many())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent(app)) + len(sent(app)) == 150


def test_a_coroutine_gets_the_error_of_its_own_call_only(app: Celeriac) -> None:
    task = app.task(lambda x: x, name="t")

    async def talk() -> list[Any]:
        calls = task.adelay(1), task.aapply_async((2,), headers={"bad": object()}), task.adelay(3)
        return list(await asyncio.gather(*calls, return_exceptions=True))

    first, second, third = asyncio.run(talk())
    assert isinstance(second, EncodeError)
    assert "header 'bad' (object) is not plain data" in str(second)
    assert [outcome.state for outcome in run_all(app)] == ["SUCCESS", "SUCCESS"]
    assert (first.get(timeout=1), third.get(timeout=1)) == (1, 3)
