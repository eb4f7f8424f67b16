"""Limits that remote control changes while a worker runs, and a rejected task whose message is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import Reject, SoftTimeLimitExceeded
from celeriac.testing.worker import EmbeddedWorker, start_worker
from tests.support.files import eventually


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    url = f"sqlite:///{tmp_path}/control.db"
    app = Celeriac("control", broker=url, backend=url, set_as_current=False)
    yield app
    app.close()


def ask(app: Celeriac, worker: EmbeddedWorker, command: str, **arguments: Any) -> Any:
    """The one answer to a command."""
    send = getattr(app.control, command)
    [answer] = send(**arguments, reply=True, timeout=20, limit=1)
    return answer[worker.node]


def test_b_rate_006_of_an_unknown_task(app: Celeriac) -> None:
    with start_worker(app) as worker:
        answer = ask(app, worker, "rate_limit", task_name="nobody.knows", rate_limit="1/s")
    assert answer == {"error": "unknown task"}


def test_b_rate_005_a_wrong_rate_limit_changes_nothing(app: Celeriac) -> None:
    ran: list[int] = []
    app.task(ran.append, name="some", rate_limit="1/h")
    with start_worker(app) as worker:
        answer = ask(app, worker, "rate_limit", task_name="some", rate_limit="1/fortnight")
        assert "is no rate limit" in answer["error"]
        for number in range(3):
            app.send_task("some", (number,))
        eventually(lambda: app.transport.size("celery").delayed == 2)
    assert len(ran) == 1


@pytest.mark.behaviour("B-CONTROL-021")
def test_a_rate_limit_is_set_and_lifted(app: Celeriac) -> None:
    ran: list[int] = []
    app.task(ran.append, name="some")
    with start_worker(app) as worker:
        assert "ok" in ask(app, worker, "rate_limit", task_name="some", rate_limit="1/h")
        for number in range(3):
            app.send_task("some", (number,))
        eventually(lambda: app.transport.size("celery").delayed == 2)
        assert len(ran) == 1
        assert "ok" in ask(app, worker, "rate_limit", task_name="some", rate_limit=0)
        app.send_task("some", (3,)).get(timeout=20)
    assert len(ran) == 2


def test_b_limit_006_time_limits_are_for_what_starts_afterwards(app: Celeriac) -> None:
    has_begun = threading.Event()

    @app.task(name="some")
    def some(seconds: float) -> str:
        has_begun.set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        return "done"

    with start_worker(app, pool="threads", concurrency=2) as worker:
        before = some.delay(2.0)
        assert has_begun.wait(20)
        assert "ok" in ask(app, worker, "time_limit", task_name="some", soft=0.3)
        after = some.delay(60.0)
        assert isinstance(after.get(timeout=20, propagate=False), SoftTimeLimitExceeded)
        assert before.get(timeout=20) == "done"


def test_b_task_039_a_message_that_is_acknowledged_early_can_not_be_requeued(app: Celeriac) -> None:
    ran: list[int] = []

    @app.task(name="some", acks_late=False)
    def some(number: int) -> None:
        ran.append(number)
        raise Reject("not me", requeue=True)

    @app.task(name="next")
    def after() -> str:
        return "next"

    with start_worker(app):
        some.delay(1)
        eventually(lambda: ran == [1])
        assert after.delay().get(timeout=20) == "next"
        size = app.transport.size("celery")
    assert ran == [1]
    assert (size.ready, size.delayed) == (0, 0)
    assert app.transport.dead_letters() == []
