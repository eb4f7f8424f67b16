"""Tasks that run in this process, as a worker would run them: `apply` and `task_always_eager`."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from celeriac import Celeriac, EagerResult, Ignore, Reject
from celeriac.errors import EncodeError
from celeriac.results.base import Record
from tests.support.apps import memory_app, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def test_apply_runs_it_here(app: Celeriac) -> None:
    """[B-CALL-029, B-TASK-016]"""

    @app.task(bind=True, name="t")
    def work(self: Any, x: int, y: int = 0) -> list[Any]:
        return [x + y, self.request.is_eager, self.request.called_directly, threading.current_thread().name]

    result = work.apply((1,), {"y": 2}, task_id="mine")
    assert isinstance(result, EagerResult)
    assert (result.id, result.state, result.name) == ("mine", "SUCCESS", "t")
    assert result.get() == [3, True, False, threading.current_thread().name]
    assert sent(app) == []
    assert app.AsyncResult("mine").state == "PENDING"


def test_an_error_is_the_very_exception(app: Celeriac) -> None:
    """[B-CALL-029]"""
    error = ValueError(object())

    def fail() -> None:
        raise error

    task = app.task(fail, name="t")
    result = task.apply()
    assert (result.state, result.result) == ("FAILURE", error)
    assert result.traceback is not None
    assert "raise error" in result.traceback
    with pytest.raises(ValueError) as caught:
        result.get()
    assert caught.value is error
    with pytest.raises(ValueError):
        task.apply(throw=True)


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
def test_ending_the_program_ends_the_program(app: Celeriac, exc: type[BaseException]) -> None:
    """[B-TASK-047]"""

    def leave() -> None:
        raise exc

    with pytest.raises(exc):
        app.task(leave, name="t").apply()
    assert app.current_task is None


def test_everything_can_be_eager() -> None:
    """[B-CALL-030, B-CALL-031]"""
    app = memory_app(task_always_eager=True)
    seen: list[Any] = []

    @app.task(name="t")
    def work(x: Any) -> Any:
        seen.append(x)
        return x

    result = work.apply_async(((1, 2),), countdown=3600, queue="other", priority=3)
    assert isinstance(result, EagerResult)
    assert result.get() == [1, 2]
    assert seen == [[1, 2]], "arguments go through the serializer, as they would on their way to a worker"
    assert work.s(5).delay().get() == 5
    with pytest.raises(EncodeError, match="args"):
        work.delay(object())
    with pytest.raises(TypeError, match="missing 1 required"):
        work.delay()  # type: ignore[call-arg]


def test_coroutines_and_everything_eager() -> None:
    app = memory_app(task_always_eager=True)

    @app.task(name="t")
    async def work(x: int) -> int:
        await asyncio.sleep(0)
        return x

    @app.task(name="sync")
    def sync(x: int) -> int:
        return x

    async def talk() -> list[Any]:
        first, second = await work.adelay(1), await sync.adelay(2)
        return [await first.aget(), await second.aget(), work.delay(3).get()]

    assert asyncio.run(talk()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("setting", "throw", "raises"), [(True, None, True), (False, None, False), (True, False, False)]
)
def test_eager_errors_may_propagate(setting: bool, throw: bool | None, raises: bool) -> None:
    app = memory_app(task_eager_propagates=setting)
    task = app.task(lambda: 1 / 0, name="t")
    if raises:
        with pytest.raises(ZeroDivisionError):
            task.apply(throw=throw)
    else:
        assert task.apply(throw=throw).state == "FAILURE"


def test_what_follows_runs_here_too(app: Celeriac) -> None:
    seen: list[Any] = []
    note = app.task(lambda *args: seen.append(args) or len(seen), name="note")  # type: ignore[func-returns-value]

    @app.task(name="on_error")
    def on_error(request: Any, exc: BaseException, traceback: str) -> None:
        seen.append(repr(exc))

    add = app.task(lambda x, y: x + y, name="add")
    linked = note.s("linked")
    linked.link(note.s("to the link"))
    add.apply((1, 2), link=[linked, note.s("second")])
    add.apply((1, 2), chain=[add.s(100), add.s(10)])
    add.apply((1, "2"), link_error=on_error.s())
    assert seen[:3] == [(3, "linked"), (3, "second"), (1, "to the link")]
    assert seen[3].startswith("TypeError")


def test_a_chain_goes_on_to_its_end(app: Celeriac) -> None:
    seen: list[int] = []
    add = app.task(lambda x, y: seen.append(x + y) or x + y, name="add")  # type: ignore[func-returns-value]
    add.apply((1, 2), chain=[add.s(1000), add.s(100), add.s(10)])
    assert seen == [3, 13, 113, 1113]


@pytest.mark.parametrize(
    ("exc", "state"), [(Ignore(), "IGNORED"), (Reject("no"), "FAILURE"), (Reject("no", requeue=True), "REJECTED")]
)
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_ends_that_a_task_names(exc: Exception, state: str, serializer: str) -> None:
    app = memory_app(result_serializer=serializer, result_accept_content=[serializer])
    runs: list[int] = []

    def end() -> None:
        runs.append(1)
        raise exc

    result = app.task(end, name="t").apply()
    assert (result.state, result.get(propagate=False)) == (state, exc if state == "FAILURE" else None)
    assert len(runs) == (5 if state == "REJECTED" else 1)


def test_states_are_stored_only_if_eager_results_are(app: Celeriac) -> None:
    """[B-RESULT-038]"""

    def work(self: Any) -> int:
        self.update_state(state="PROGRESS", meta=5)
        return 1

    app.task(work, bind=True, name="quiet").apply(task_id="quiet")
    assert "backend" not in app.__dict__, "an eager task must not open the result store"
    loud = app.task(work, bind=True, name="loud", store_eager_result=True)
    seen: list[list[Record]] = []
    store = app.backend.store  # type: ignore[union-attr]
    app.backend.store = lambda records: (seen.append(list(records)), store(records))[1]  # type: ignore[union-attr,method-assign]
    loud.apply(task_id="loud")
    assert [[record.state for record in records] for records in seen] == [["PROGRESS"], ["SUCCESS"]]
    assert app.AsyncResult("quiet").state == "PENDING"
    assert app.AsyncResult("loud").get(timeout=1) == 1


def test_a_wanted_value_comes_whatever_would_be_stored(app: Celeriac) -> None:
    assert app.task(lambda: 5, name="t", ignore_result=True).apply().get() == 5


def test_headers_and_options_reach_the_task(app: Celeriac) -> None:
    @app.task(bind=True)
    def look(self: Any) -> list[Any]:
        return [self.request.headers, self.request.time_limit, self.request.retries]

    assert look.apply(headers={"h": 1}, time_limit=5, retries=2).get() == [{"h": 1}, 5, 2]


def test_a_value_that_can_not_be_encoded_fails_here_too(app: Celeriac) -> None:
    """Differs on purpose: what would fail on a worker fails in a test."""
    with pytest.raises(EncodeError, match="the result of type object"):
        app.task(object, name="t").apply().get()
