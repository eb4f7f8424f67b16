"""`rpc://` from end to end: a real worker on RabbitMQ, results sent back to the process that asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.server("rabbitmq")

APP = """
import os
from celeriac import Celeriac
app = Celeriac("app", broker=os.environ["BROKER"], backend="rpc://")

@app.task(name="add")
def add(x, y):
    return x + y

@app.task(name="fail")
def fail():
    raise ValueError("no")

@app.task(name="parent")
def parent():
    return add.delay(1, 1).id
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RabbitMQServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server.url


def test_results_come_back_to_the_process_that_sent_the_task(broker: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with (
        Celeriac("client", broker=broker, backend="rpc://", set_as_current=False) as one,
        Celeriac("other", broker=broker, backend="rpc://", set_as_current=False) as other,
        WorkerProcess("app", "-c", "2", cwd=tmp_path, env={"BROKER": broker}) as worker,
    ):
        worker.wait_ready()
        mine = [one.send_task("add", (number, 1)) for number in range(20)]
        theirs = other.send_task("add", (2, 3))
        assert [result.get(timeout=20) for result in mine] == list(range(1, 21))
        assert theirs.get(timeout=20) == 5
        with pytest.raises(ValueError, match="no"):
            one.send_task("fail").get(timeout=20)
        assert one.send_task("parent").get(timeout=20)
        one.close()
        assert one.send_task("add", (1, 2)).get(timeout=20) == 3, (
            "an app that was closed connects anew, with another box"
        )
        assert worker.stop() == 0
