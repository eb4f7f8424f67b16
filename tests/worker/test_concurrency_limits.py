"""Concurrency limits: for all workers, for each key, for one worker; slots of those that died are free after their lease."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.testing.worker import start_worker
from tests.support.files import eventually
from tests.support.worker import WorkerProcess


class Meter:
    """How many executions run at once, by key, and how many there were at most."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.total = 0
        self._lock = threading.Lock()

    def run(self, key: str, seconds: float = 0.02) -> None:
        with self._lock:
            self.now[key] += 1
            self.total += 1
            self.most[key] = max(self.most[key], self.now[key])
        time.sleep(seconds)
        with self._lock:
            self.now[key] -= 1


@pytest.fixture
def meter() -> Meter:
    return Meter()


def test_no_more_than_the_limit_run_on_all_workers(each_app: Celeriac, meter: Meter) -> None:
    @each_app.task(max_concurrency=3)
    def limited() -> None:
        meter.run("all")

    results = [limited.delay() for _ in range(40)]
    with ExitStack() as workers:
        for _ in range(2):
            workers.enter_context(start_worker(each_app, pool="threads", concurrency=4))
        for result in results:
            result.get(timeout=30)
    assert meter.most["all"] == 3


def test_each_key_has_a_limit_of_its_own(app: Celeriac, meter: Meter) -> None:
    """Also for arguments by position, by name, and by default."""

    @app.task(max_concurrency=1, concurrency_key="tenant:{tenant_id}")
    def limited(number: int, tenant_id: str = "z") -> None:
        meter.run(tenant_id, 0.1 if number == 0 else 0.01)

    results = [limited.delay(number, tenant) for tenant in "ab" for number in range(6)]
    results += [limited.delay(number, tenant_id="c") for number in range(6)]
    results += [limited.delay(number) for number in range(6)]
    with start_worker(app, pool="threads", concurrency=6):
        for result in results:
            result.get(timeout=30)
    assert meter.most == Counter("abcz")


def test_a_key_may_be_a_function(app: Celeriac, meter: Meter) -> None:
    @app.task(max_concurrency=1, concurrency_key=lambda user: user["tenant"])
    def limited(user: dict[str, str]) -> None:
        meter.run(user["tenant"])

    results = [limited.delay({"tenant": tenant, "name": str(number)}) for number in range(5) for tenant in "ab"]
    with start_worker(app, pool="threads", concurrency=4):
        for result in results:
            result.get(timeout=30)
    assert meter.most == Counter("ab")


def test_a_limit_of_one_worker_needs_no_place(app: Celeriac, meter: Meter, tmp_path: Path) -> None:
    app.conf.broker_url = f"filesystem:///{tmp_path}/broker"
    app.conf.result_backend = f"file:///{tmp_path}/results"

    @app.task(max_concurrency_per_worker=2)
    def limited() -> None:
        meter.run("all", 0.05)

    @app.task
    def free() -> str:
        return "free"

    assert app.coordination is None
    results = [limited.delay() for _ in range(10)]
    with start_worker(app, pool="threads", concurrency=4):
        assert free.delay().get(timeout=20) == "free"
        for result in results:
            result.get(timeout=30)
    assert meter.most["all"] == 2


def test_other_tasks_are_not_held_up(app: Celeriac, meter: Meter) -> None:
    """Hundreds of one key wait; they leave room for a task of another kind, and for another key."""
    may_end = threading.Event()

    @app.task(max_concurrency=1, concurrency_key="{key}")
    def limited(key: str) -> str:
        if key == "slow":
            may_end.wait(20)
        return key

    @app.task
    def free() -> str:
        return "free"

    slow = [limited.delay("slow") for _ in range(300)]
    with start_worker(app, pool="threads", concurrency=2):
        assert free.delay().get(timeout=20) == "free"
        assert limited.delay("quick").get(timeout=20) == "quick"
        assert not any(result.ready() for result in slow)
        may_end.set()
        slow[0].get(timeout=20)


def test_a_flood_of_short_tasks_does_not_starve_those_with_limits(app: Celeriac) -> None:
    """The pool has more of them at hand than slots, all the time."""
    is_over = threading.Event()

    @app.task(ignore_result=True)
    def short() -> None: ...

    @app.task(max_concurrency=1)
    def slot(number: int) -> int:
        return number

    @app.task(rate_limit="100/s")
    def rated(number: int) -> int:
        return number

    def flood() -> None:
        while not is_over.wait(0.005):
            if app.transport.size("celery").ready < 2000:
                for _ in range(500):
                    short.delay()

    flooding = threading.Thread(target=flood)
    with start_worker(app, pool="threads", concurrency=2) as worker:
        flooding.start()
        try:
            eventually(lambda: worker._supervisor.pool.done > 2000)
            results = [*(slot.delay(number) for number in range(5)), *(rated.delay(number) for number in range(5))]
            assert [result.get(timeout=20) for result in results] == [*range(5), *range(5)]
        finally:
            is_over.set()
            flooding.join()


def test_a_failed_and_a_retried_task_free_their_slot(app: Celeriac, meter: Meter) -> None:
    @app.task(bind=True, max_concurrency=1, default_retry_delay=3600)
    def limited(self: Any, how: str) -> str:
        if how == "retry":
            raise self.retry(exc=ValueError("later"))
        if how == "fail":
            raise ValueError("no")
        return how

    with start_worker(app, pool="threads", concurrency=2):
        later, bad = limited.delay("retry"), limited.delay("fail")
        assert limited.delay("fine").get(timeout=20) == "fine"
        assert isinstance(bad.get(timeout=20, propagate=False), ValueError)
        assert later.state == "RETRY"


def test_what_waits_for_a_slot_goes_back_at_a_shutdown(app: Celeriac) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    @app.task(max_concurrency=1)
    def limited(name: str) -> str:
        has_begun.set()
        may_end.wait(20)
        return name

    results = [limited.delay(str(number)) for number in range(5)]
    with start_worker(app, pool="threads", concurrency=3) as worker:
        assert has_begun.wait(20)
        stopping = threading.Thread(target=worker.stop)
        eventually(lambda: app.transport.size("celery").leased >= 2)
        stopping.start()
        eventually(lambda: app.transport.size("celery").leased == 1)
        may_end.set()
        stopping.join(20)
    size = app.transport.size("celery")
    assert (size.leased, size.ready + size.delayed) == (0, 4)
    with start_worker(app, pool="threads", concurrency=3):
        assert [result.get(timeout=20) for result in results] == list("01234")


def test_early_acknowledged_tasks_are_limited_too(app: Celeriac, meter: Meter) -> None:
    @app.task(max_concurrency=1, acks_late=False)
    def limited() -> None:
        meter.run("all")

    results = [limited.delay() for _ in range(6)]
    with start_worker(app, pool="threads", concurrency=4):
        for result in results:
            result.get(timeout=20)
    assert meter.most["all"] == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_concurrency": 0}, "max_concurrency: 0 is no whole number from 1 up"),
        ({"max_concurrency": "5"}, "max_concurrency: '5' is no whole number"),
        ({"max_concurrency_per_worker": True}, "max_concurrency_per_worker: True is no whole number"),
        ({"concurrency_key": 5}, "concurrency_key: 5 is neither text"),
        ({"rate_limit_scope": "clutser"}, "rate_limit_scope: 'clutser' is not one of .*Did you mean 'cluster'"),
    ],
)
def test_a_wrong_option_is_an_error_where_the_task_is_made(app: Celeriac, options: Any, problem: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"task 'limited': {problem}"):
        app.task(lambda: None, name="limited", **options)


def test_a_key_of_an_argument_that_is_not_there_is_named(app: Celeriac) -> None:
    @app.task(name="limited", max_concurrency=1, concurrency_key="{tenantid}")
    def limited(tenant_id: str) -> None: ...

    with pytest.raises(ImproperlyConfigured, match="names 'tenantid', which is no argument.*Did you mean 'tenant_id'"):
        limited.delay("a")
    assert app.transport.size("celery").ready == 0


APP = """
import os, time
from celeriac import Celeriac

app = Celeriac("slots", broker={url!r}, backend={url!r}, task_lease=2.0)

@app.task(max_concurrency=1, name="limited", reject_on_worker_lost=False, acks_late={late})
def limited(name, seconds):
    with open({ledger!r}, "a") as file:
        file.write(f"{{name}} {{time.time()}} {{os.getpid()}}\\n")
    time.sleep(seconds)
    return name
"""


@pytest.mark.faults
@pytest.mark.slow
def test_the_slot_of_a_worker_that_was_killed_is_free_after_its_lease(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    """Kill -9 of a whole worker, in the middle of a task that is acknowledged early: nobody else gives the slot back."""
    url, marks = f"sqlite:///{tmp_path}/slots.db", tmp_path / "marks"
    (tmp_path / "slots.py").write_text(APP.format(url=url, ledger=str(marks), late=False))
    app = Celeriac("slots", broker=url, backend=url, set_as_current=False)
    first = worker_process("slots", "-c", "1", "-n", "first@h")
    first.wait_ready()
    app.send_task("limited", ("victim", 600))
    eventually(lambda: marks.exists() and "victim" in marks.read_text())
    second = worker_process("slots", "-c", "1", "-n", "second@h")
    second.wait_ready()
    waits = app.send_task("limited", ("waits", 0))
    eventually(lambda: app.transport.size("celery").leased == 1)
    time.sleep(2.5)  # longer than a lease: it was renewed, so the slot is still taken
    assert "waits" not in marks.read_text()
    first.kill_tree(signal.SIGKILL)
    assert waits.get(timeout=20) == "waits", "the victim would have run for ten minutes"
    app.close()
