"""The place of limits is away for a while: what needs it waits, all else goes on, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.testing.worker import start_worker
from tests.support.files import eventually
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.server("redis"), pytest.mark.faults]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def test_limited_tasks_wait_for_the_place_and_others_run(app: Celeriac, server: RedisServer) -> None:
    app.conf.update(coordination_url=server.url() + "?socket_timeout=1", task_lease=60.0)
    has_begun, may_end = threading.Event(), threading.Event()

    @app.task(max_concurrency=1)
    def slot(name: str) -> str:
        if name == "first":
            has_begun.set()
            may_end.wait(20)
        return name

    @app.task(rate_limit="20/s", rate_limit_scope="cluster")
    def shared(name: str) -> str:
        return name

    @app.task(rate_limit="20/s")
    def own(name: str) -> str:
        return name

    @app.task
    def free(name: str) -> str:
        return name

    with start_worker(app, pool="threads", concurrency=4):
        first = slot.delay("first")
        assert has_begun.wait(20)
        server.stop()
        waiting = [slot.delay("second"), shared.delay("third")]
        assert free.delay("free").get(timeout=20) == "free"
        assert [own.delay(name).get(timeout=20) for name in "ab"] == ["a", "b"]
        may_end.set()
        assert first.get(timeout=20) == "first", "an outcome does not wait for a claim to be given back"
        # That is given back later: the lease is longer than this test.
        assert not any(result.ready() for result in waiting)
        server.start()
        assert [result.get(timeout=40) for result in waiting] == ["second", "third"]
    eventually(lambda: app.transport.size("celery").leased == 0)
