"""Helpers for tests that run tasks on workers: they wait until something is so, and say what is not."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac, GroupResult
from celeriac.contrib.testing.manager import Manager, Sentinel
from celeriac.errors import TimeoutError
from celeriac.testing.worker import start_worker
from tests.support.apps import memory_app, run_all

#: Pauses of tests: none that is worth the name.
QUICK: dict[str, Any] = {"interval_start": 0, "interval_step": 0.001, "interval_max": 0.01}


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with memory_app(task_track_started=True) as app:
        yield app


@pytest.fixture
def manager(app: Celeriac) -> Manager:
    return Manager(app, block_timeout=0.01, stdout=io.StringIO(), stderr=io.StringIO())


class After:
    """Raises KeyError so many times, then gives a value."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, value: int = 5) -> int:
        self.left -= 1
        if self.left >= 0:
            raise KeyError(self.left)
        return value


def said(stream: Any) -> str:
    return str(stream.getvalue())


def test_it_asks_until_it_is_so(manager: Manager) -> None:
    told: list[Any] = []
    assert manager.wait_for(After(2), KeyError, "fun", (7,), emit_warning=True, **QUICK) == 7
    assert "Waiting for fun: KeyError(1) (attempt 1" in said(manager.stderr)
    errback = lambda exc, pauses, attempt: told.append((attempt, next(pauses)))  # noqa: E731
    assert manager.retry_over_time(After(1), KeyError, errback=errback, **QUICK) == 5
    assert told == [(1, 0)]
    with pytest.raises(KeyError):
        manager.wait_for(After(9), KeyError, max_retries=2, **QUICK)
    with pytest.raises(ZeroDivisionError):
        manager.wait_for(lambda: 1 / 0, KeyError)


def test_what_is_not_to_happen_does_not(manager: Manager) -> None:
    manager.ensure_not_for_a_while(After(99), KeyError, max_retries=3, **QUICK)
    with pytest.raises(AssertionError, match="a mail should not have happened, and gave 5"):
        manager.ensure_not_for_a_while(After(2), KeyError, "a mail", max_retries=3, **QUICK)
    assert manager.true_or_raise(lambda: 3) == 3
    with pytest.raises(Sentinel):
        manager.true_or_raise(lambda: 0)


def test_results_are_joined_and_missing_ones_named(app: Celeriac, manager: Manager) -> None:
    add = app.task(lambda x: 10 // x, name="add")
    results = [add.delay(1), add.delay(0)]
    assert manager.missing_results(results) == [result.id for result in results]
    with pytest.raises(AssertionError, match=f"no results of {results[0].id}"):
        manager.join(app.ResultSet(results), max_retries=1)
    assert said(manager.stdout).startswith(f"!Still waiting for 2 of 2 results: {results[0].id}")
    run_all(app)
    first, second = manager.join(results)
    assert first == 10 and isinstance(second, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        manager.join(results, propagate=True)
    assert manager.join(results[0]) == [10]
    assert Manager(app, no_join=True).join(results) is None


def test_the_error_of_a_task_is_none_of_waiting(app: Celeriac, manager: Manager) -> None:
    @app.task(name="late")
    def late() -> None:
        raise TimeoutError("of its own")

    result = late.delay()
    run_all(app)
    with pytest.raises(TimeoutError, match="of its own"):
        manager.join(result, propagate=True)
    assert said(manager.stdout) == ""


def test_tasks_of_a_worker_are_waited_for(app: Celeriac, manager: Manager) -> None:
    go_on, begun = threading.Event(), threading.Event()

    @app.task(name="wait")
    def wait() -> int:
        begun.set()
        assert go_on.wait(30)
        return 3

    policy = {**QUICK, "interval": 0.3, "max_retries": 50}
    with start_worker(app, pool="threads", concurrency=1, perform_ping_check=False):
        first, second = wait.delay(), wait.delay()
        try:
            assert begun.wait(30)
            manager.assert_accepted(first.id, **policy)
            manager.assert_received([first], **policy)
            manager.assert_received(GroupResult("group", [first], app=app), **policy)
            assert manager.query_task_states([first.id])["active"] == {first.id}
            assert [first.id in answer for _, answer in manager.query_tasks([first.id])] == [True]
            assert not manager.is_accepted([first.id, second.id], timeout=0.3)
            manager.assert_result_tasks_in_progress_or_completed([first], **policy)
            with pytest.raises(Sentinel):
                manager.assert_result_tasks_in_progress_or_completed(second, max_retries=1, **QUICK)
        finally:
            go_on.set()
        assert manager.wait_for(lambda: manager.join([first, second]), AssertionError, **QUICK) == [3, 3]
        assert manager.is_accepted([first.id, second.id], timeout=0.3)
        manager.assert_result_tasks_in_progress_or_completed([first, second], **policy)


def test_queues_are_emptied(app: Celeriac, manager: Manager) -> None:
    app.send_task("t")
    manager.wait_until_idle()
    assert app.transport.size("celery").ready == 0
    manager.remark("begins", "+")
    assert said(manager.stdout) == "+begins\n"
