"""`Task.Request`: a class of the user's own, whose methods are called in the worker's main process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured, SoftTimeLimitExceeded, TimeLimitExceeded
from celeriac.testing.worker import start_worker
from tests.support.apps import memory_app
from tests.support.files import Ledger
from tests.support.worker import WorkerProcess

APP = """
import json, os, time
from celeriac import Celeriac, Task
from celeriac.worker.request import Request
from tests.support.files import Ledger

url = "sqlite:///{folder}/q.db"
app = Celeriac("requesting", broker=url, backend=url)
ledger = Ledger("{folder}/ledger")

class Watched(Request):
    def tell(self, *what):
        ledger.append(json.dumps([os.getpid(), self.task.name, self.id, *what]))

    def on_timeout(self, soft, timeout):
        super().on_timeout(soft, timeout)
        self.tell("timeout", soft, timeout)

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        self.tell("failure", type(exc_info.exception).__name__, "Traceback" in exc_info.traceback)

    def on_retry(self, exc_info):
        self.tell("retry", str(exc_info.exception))
        raise ValueError("a method that raises disturbs nobody")

class MyTask(Task):
    Request = "requesting:Watched"

@app.task(base=MyTask)
def fails():
    raise ValueError("no")

@app.task(base=MyTask, time_limit=0.3)
def hangs():
    time.sleep(600)

@app.task(base=MyTask, soft_time_limit=0.2)
def loops():
    while True:
        time.sleep(0.01)

@app.task(base=MyTask, bind=True, default_retry_delay=0)
def retries(self):
    if not self.request.retries:
        self.retry(exc=ValueError("again"))

@app.task
def plain():
    raise ValueError("nobody looks")
"""


@pytest.mark.behaviour("B-TASK-071")
def test_its_methods_are_called_in_the_main_process(
    worker_process: Callable[..., WorkerProcess], tmp_path: Path, ledger: Ledger
) -> None:
    (tmp_path / "requesting.py").write_text(APP.format(folder=tmp_path))
    url = f"sqlite:///{tmp_path}/q.db"
    app = Celeriac("client", broker=url, backend=url, set_as_current=False)
    worker = worker_process("requesting", "-c", "2")
    worker.wait_ready()
    names = ("fails", "hangs", "loops", "retries", "plain")
    results: dict[str, Any] = {name: app.send_task(f"requesting.{name}") for name in names}
    assert isinstance(results["hangs"].get(timeout=30, propagate=False), TimeLimitExceeded)
    assert isinstance(results["loops"].get(timeout=30, propagate=False), SoftTimeLimitExceeded)
    assert results["retries"].get(timeout=30) is None
    results["plain"].get(timeout=30, propagate=False)
    told = [json.loads(line) for line in ledger.wait_for(6)]
    assert {each[0] for each in told} == {worker.pid}
    assert sorted((each[1].removeprefix("requesting."), *each[3:]) for each in told) == [
        ("fails", "failure", "ValueError", True),
        ("hangs", "failure", "TimeLimitExceeded", False),
        ("hangs", "timeout", False, 0.3),
        ("loops", "failure", "SoftTimeLimitExceeded", True),
        ("loops", "timeout", True, 0.2),
        ("retries", "retry", "again"),
    ]
    assert {each[2] for each in told} == {results[name].id for name in names[:4]}
    worker.wait_output("a method that raises disturbs nobody")
    assert worker.stop() == 0


def test_a_class_that_is_none_is_named() -> None:
    app = memory_app()
    app.task(lambda: None, name="one", Request="collections:OrderedDict")
    with (
        pytest.raises(
            ImproperlyConfigured, match=r"Request of task 'one' is 'collections:OrderedDict', which is no sub"
        ),
        start_worker(app),
    ):
        pass
