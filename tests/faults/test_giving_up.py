"""How long a worker goes on without its broker: for ever, or as `broker_connection_retry` and its kin say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from tests.support.server import free_port
from tests.support.worker import WorkerProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.server("redis")]

APP = """
from celeriac import Celeriac
app = Celeriac("app")
app.conf.update({settings!r})
@app.task(name="work")
def work(): pass
"""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """Starts a worker with these settings."""

    def starting(url: str, **settings: object) -> WorkerProcess:
        (tmp_path / "app.py").write_text(APP.format(settings={"broker_url": url, "result_backend": None, **settings}))
        return worker_process("app", "-c", "1")

    return starting


def test_a_worker_that_may_not_reconnect_ends(server: RedisServer, start: Callable[..., WorkerProcess]) -> None:
    worker = start(server.url(), broker_connection_retry=False)
    worker.wait_ready()
    server.kill()
    assert worker.wait(20) == 1
    assert "giving up, as broker_connection_retry" in worker.output


def test_a_worker_gives_up_after_so_many_attempts(server: RedisServer, start: Callable[..., WorkerProcess]) -> None:
    worker = start(server.url(), broker_connection_max_retries=3)
    worker.wait_ready()
    server.kill()
    assert worker.wait(20) == 1
    assert worker.output.count("trying again") == 3


def test_a_worker_waits_for_its_broker(server: RedisServer, start: Callable[..., WorkerProcess]) -> None:
    worker = start(server.url())
    worker.wait_ready()
    server.kill()
    worker.wait_output("can't fetch from")
    server.start()
    worker.wait_output("connected to .* again")


def test_a_worker_that_may_not_wait_does_not_start(start: Callable[..., WorkerProcess]) -> None:
    worker = start(f"redis://127.0.0.1:{free_port()}/0", broker_connection_retry_on_startup=False)
    assert worker.wait(20) == 1
    assert "trying again" not in worker.output


def test_a_worker_that_goes_on_to_the_next_broker(server: RedisServer, start: Callable[..., WorkerProcess]) -> None:
    worker = start([f"redis://127.0.0.1:{free_port()}/0", server.url()])
    worker.wait_output(f"going on with redis://127.0.0.1:{server.port}")
    worker.wait_ready()
