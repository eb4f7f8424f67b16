"""Sent tasks are recorded (`task_track_enqueued`): which, in which state, and what it means for those that are not."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.results.base import Record
from tests.support.apps import memory_app, run_all, sent


def _tracking(**settings: Any) -> Celeriac:
    app = memory_app(task_track_enqueued=True, **settings)
    app.task(lambda x=0, y=0: x + y, name="add")
    return app


def _record(app: Celeriac, task_id: str) -> Record | None:
    return app.backend.get([task_id])[0]  # type: ignore[union-attr]


def test_a_sent_task_is_known() -> None:
    app = _tracking()
    result = app.send_task("add", (1, 2))
    assert (result.state, result.exists(), result.ready()) == ("PENDING", True, False)
    assert app.AsyncResult("never-sent").state == "UNKNOWN"
    run_all(app)
    assert (result.state, result.get(timeout=5)) == ("SUCCESS", 3)
    result.forget()
    assert result.state == "UNKNOWN"


def test_a_sent_task_is_known_to_a_store_that_is_not_the_brokers() -> None:
    app = _tracking(backend=f"memory://{uuid.uuid4().hex}")
    assert (app.send_task("add").exists(), len(sent(app))) == (True, 1)


def test_nothing_is_recorded_unless_it_is_wanted() -> None:
    app = memory_app()
    result = app.send_task("add", (1, 2))
    assert (result.state, result.exists()) == ("PENDING", False)


def test_a_task_without_a_result_is_not_recorded() -> None:
    app = _tracking()
    result = app.tasks["add"].apply_async(ignore_result=True)
    assert (result.exists(), result.state) == (False, "PENDING")


def test_a_record_lives_as_long_as_a_result_would() -> None:
    app = _tracking(result_expires=100)
    result = app.send_task("add", countdown=1000)
    record = _record(app, result.id)
    assert record is not None
    assert record.expires_at == pytest.approx(time.time() + 1100, abs=20)
    assert _record(_tracking(result_expires=None), "x") is None


def test_a_task_that_is_sent_again_keeps_its_state() -> None:
    app = _tracking()
    result = app.send_task("add", (1, 2))
    run_all(app)
    app.send_task("add", (3, 4), task_id=result.id)
    assert app.AsyncResult(result.id).state == "SUCCESS"
    assert len(run_all(app)) == 1


def test_the_record_tells_what_extended_results_tell() -> None:
    app = _tracking(result_extended=True)
    result = app.send_task("add", (1,), queue="q")
    assert (result.name, result.queue, result.args) == ("add", "q", None)


def test_what_follows_a_task_is_known() -> None:
    """The rest of a chain from the start, callbacks once they are sent."""
    app = _tracking()
    add = app.tasks["add"]
    last = add.s(1).set(task_id="last").clone()
    result = add.apply_async((1, 2), link=add.s(5).set(task_id="link"), chain=[last])
    assert (result.state, app.AsyncResult("last").state) == ("PENDING", "PENDING")
    assert app.AsyncResult("link").state == "UNKNOWN"
    seen: list[str] = []
    add.run = lambda x=0, y=0: seen.append(app.AsyncResult("link").state) or x + y
    run_all(app)
    assert seen == ["UNKNOWN", "PENDING", "PENDING"] or seen == ["UNKNOWN", "PENDING", "SUCCESS"]
    assert (app.AsyncResult("link").get(timeout=5), app.AsyncResult("last").get(timeout=5)) == (8, 4)


def test_many_calls_are_recorded() -> None:
    app = _tracking()
    results = app.publish_many([app.tasks["add"].s(number, 0) for number in range(300)])
    assert all(record is not None for record in app.backend.get([result.id for result in results]))  # type: ignore[union-attr]
