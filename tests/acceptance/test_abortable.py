"""Abortable tasks in real workers: a running task learns that it is to end, whatever it tells meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.contrib.abortable import ABORTED, AbortableAsyncResult, AbortableTask
from celeriac.errors import ImproperlyConfigured
from tests.support.apps import memory_app, run_all
from tests.support.files import eventually
from tests.support.redis_server import RedisServer
from tests.support.worker import WorkerProcess

APP = """
import os, time
from celeriac import Celeriac
from celeriac.contrib.abortable import AbortableTask

app = Celeriac("abortable_app", broker={url!r}, backend={url!r}, task_track_started=True)

@app.task(bind=True, base=AbortableTask)
def count(self, limit):
    for number in range(limit):
        if self.is_aborted():
            return f"aborted after {{number > 0}}"
        self.update_state(state="PROGRESS", meta=number)
        time.sleep(0.02)
    return "all"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/celeriac.db"
    server: RedisServer = request.getfixturevalue("server")
    return server.url()


@pytest.mark.behaviour("B-CONTRIB-001")
def test_a_running_task_ends_when_it_is_asked_to(
    worker_process: Callable[..., WorkerProcess], tmp_path: Path, url: str
) -> None:
    (tmp_path / "abortable_app.py").write_text(APP.format(url=url))
    app = Celeriac("client", broker=url, backend=url, set_as_current=False)
    worker_process("abortable_app", "-c", "1").wait_ready()
    sent = app.send_task("abortable_app.count", (100_000,))
    result: AbortableAsyncResult[str] = AbortableAsyncResult(sent.id, app=app)
    eventually(lambda: result.state == "PROGRESS" and result.info and result.info > 1)
    assert not result.is_aborted()
    result.abort()
    assert result.is_aborted()
    assert result.get(timeout=30) == "aborted after True"
    result.abort()
    assert result.state == "SUCCESS", "what has ended stays as it is"
    app.close()


@pytest.fixture
def app() -> Celeriac:
    app = memory_app()

    @app.task(bind=True, base=AbortableTask, name="look", track_started=True)
    def look(self: Any) -> bool:
        assert self.request.id is not None
        return self.is_aborted()

    return app


@pytest.mark.behaviour("B-CONTRIB-001")
def test_the_state_says_that_a_task_is_to_end(app: Celeriac) -> None:
    result = app.tasks["look"].delay()
    assert isinstance(result, AbortableAsyncResult)
    result.abort()
    assert (result.state, app.AsyncResult(result.id).state) == (ABORTED, ABORTED)


def test_a_task_that_was_aborted_before_it_began_sees_it(app: Celeriac) -> None:
    first, second = app.tasks["look"].delay(), app.tasks["look"].delay()
    first.abort()
    run_all(app)
    assert (first.get(timeout=1), second.get(timeout=1)) == (True, False)


def test_stock_clients_abort_by_the_state_alone(app: Celeriac) -> None:
    result = app.tasks["look"].delay()
    app.tasks["look"].update_state(task_id=result.id, state=ABORTED)
    assert result.is_aborted()


def test_a_store_that_keeps_nothing_is_refused() -> None:
    app = memory_app(backend="rpc://", broker="amqp://localhost:1")
    with pytest.raises(ImproperlyConfigured, match="keeps no results"):
        AbortableAsyncResult("id", app=app).abort()
