"""A worker inside the program: `start_worker` with the memory and SQLite drivers, and what it leaves behind."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac, signals
from celeriac.errors import ImproperlyConfigured, SoftTimeLimitExceeded
from celeriac.testing.worker import start_worker
from tests.support.files import eventually


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    url = f"memory://{request.node.name}" if request.param == "memory" else f"sqlite:///{tmp_path / 'tasks.db'}"
    with Celeriac("embedded", broker=url, backend=url, set_as_current=False) as app:
        yield app


def own_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("celeriac", "slot", "runner"))}


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_tasks_run_in_this_process_and_end_with_the_block(app: Celeriac, pool: str) -> None:
    seen: list[int] = []

    @app.task
    def note(x: int) -> int:
        seen.append(x)
        return x * 2

    before = own_threads()
    with start_worker(app, pool=pool, concurrency=3) as worker:
        results = [note.delay(number) for number in range(20)]
        assert [result.get(timeout=20) for result in results] == [number * 2 for number in range(20)]
        assert "@" in worker.node
    assert sorted(seen) == list(range(20))
    eventually(lambda: own_threads() <= before)
    late = note.delay(99)
    assert app.transport.size("celery").ready == 1
    assert late.state == "PENDING"


def test_threads_run_at_the_same_time(app: Celeriac) -> None:
    together = threading.Barrier(3)

    @app.task
    def meet() -> bool:
        together.wait(20)
        return True

    with start_worker(app, pool="threads", concurrency=3):
        assert [result.get(timeout=20) for result in [meet.delay() for _ in range(3)]] == [True] * 3


def test_a_task_that_runs_may_end_and_the_rest_goes_back(app: Celeriac) -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    ran: list[str] = []

    @app.task
    def step(name: str) -> str:
        ran.append(name)
        has_begun.set()
        may_end.wait(20)
        return name

    with start_worker(app) as worker:
        first, second = step.delay("first"), step.delay("second")
        assert has_begun.wait(20)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        eventually(lambda: worker._supervisor.is_stopping)
        eventually(lambda: app.transport.size("celery").ready == 1)
        may_end.set()
        stopping.join(20)
    assert ran == ["first"]
    assert (first.get(timeout=5), second.state) == ("first", "PENDING")
    with start_worker(app):
        assert second.get(timeout=20) == "second"


def test_a_task_that_does_not_end_is_given_back_and_named_an_error(app: Celeriac) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    @app.task
    def stuck() -> None:
        has_begun.set()
        may_end.wait(30)

    with pytest.raises(RuntimeError, match="a task still runs"), start_worker(app, shutdown_timeout=0.2):
        stuck.delay()
        assert has_begun.wait(20)
    assert app.transport.size("celery").ready == 1
    may_end.set()
    eventually(lambda: not any(name.startswith("slot") for name in own_threads()))


def test_soft_limits_work_and_hard_limits_are_refused(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    never = threading.Event()

    @app.task(soft_time_limit=0.1)
    def soft() -> None:
        while not never.wait(0.01):
            pass

    @app.task(time_limit=0.01)
    def hard() -> str:
        never.wait(0.1)
        return "ended by itself"

    with start_worker(app):
        with pytest.raises(SoftTimeLimitExceeded):
            soft.delay().get(timeout=20)
        assert [hard.delay().get(timeout=20), hard.delay().get(timeout=20)] == ["ended by itself"] * 2
    said = [record.message for record in caplog.records if "hard time limits" in record.message]
    assert said == [f"hard time limits can't be applied in the worker's own process: {hard.name} runs without one"]


def test_sys_exit_in_a_task_is_its_failure(app: Celeriac) -> None:
    @app.task
    def leave() -> None:
        sys.exit(3)

    @app.task
    def stay() -> str:
        return "here"

    with start_worker(app):
        result = leave.delay()
        assert repr(result.get(timeout=20, propagate=False)) == "SystemExit(3)"
        assert result.failed()
        assert stay.delay().get(timeout=20) == "here"


def test_ping_check_and_chosen_queues(app: Celeriac) -> None:
    @app.task
    def here() -> int:
        return os.getpid()

    with start_worker(app, perform_ping_check=True, queues=["celery", "other"]):
        assert here.apply_async(queue="other").get(timeout=20) == os.getpid()


def test_processes_are_forked_from_an_app_that_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "embedded_tasks.py").write_text(
        "import os\nfrom celeriac import Celeriac\n"
        f"app = Celeriac('embedded_tasks', broker='sqlite:///{tmp_path}/t.db', backend='sqlite:///{tmp_path}/t.db')\n"
        "@app.task\ndef where(): return os.getpid()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with start_worker("embedded_tasks", pool="prefork") as worker:
        module = sys.modules["embedded_tasks"]
        assert module.where.delay().get(timeout=30) != os.getpid()
        assert worker.node.startswith("embedded")
    module.app.close()


def test_bad_input_is_one_clear_line(app: Celeriac) -> None:
    with pytest.raises(ImproperlyConfigured, match="Did you mean 'threads'"), start_worker(app, pool="thread"):
        pass
    with pytest.raises(ImproperlyConfigured, match="needs the name of the app"), start_worker(app, pool="prefork"):
        pass
    app.conf.task_create_missing_queues = False
    with pytest.raises(ImproperlyConfigured, match="queue 'nope'"), start_worker(app, queues=["nope"]):
        pass


@pytest.mark.behaviour("B-TEST-010")
def test_an_embedded_worker_sends_no_heartbeats(app: Celeriac) -> None:
    heard: list[object] = []

    def hear(sender: object, **_: object) -> None:
        heard.append(sender)

    task = app.task(lambda: 1, name="one")
    signals.heartbeat_sent.connect(hear)
    try:
        with start_worker(app):
            assert task.delay().get(timeout=20) == 1
    finally:
        signals.heartbeat_sent.disconnect(hear)
    assert heard == []
