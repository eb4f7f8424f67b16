"""Rate limits in a worker: starts keep their distance, nothing else waits, and limits change while it runs."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.rates import CLOSE
from celeriac.testing.worker import EmbeddedWorker, start_worker
from celeriac.worker.gate import Gate
from tests.faults.apps_brokers.limits import most_in_a_second
from tests.faults.apps_brokers.rig import IS_SOAK
from tests.support.files import eventually


class Starts:
    """When executions began."""

    def __init__(self) -> None:
        self.at: list[tuple[str, float]] = []

    def mark(self, name: str) -> None:
        self.at.append((name, time.monotonic()))


@pytest.fixture
def starts() -> Starts:
    return Starts()


def gate_of(worker: EmbeddedWorker) -> Gate:
    return worker._supervisor.gate


def in_loop(worker: EmbeddedWorker, call: Any, *args: Any) -> None:
    """Call something in the worker's event loop, as remote control does."""
    done = threading.Event()

    def run() -> None:
        call(*args)
        done.set()

    worker._supervisor._loop.call_soon_threadsafe(run)
    assert done.wait(10)


def test_b_rate_002_starts_of_a_task_keep_their_distance(app: Celeriac, starts: Starts) -> None:
    """[B-RATE-010]: limited tasks still complete, later."""

    @app.task(rate_limit="300/m")
    def limited(number: int) -> int:
        starts.mark("limited")
        return number

    results = [limited.delay(number) for number in range(8)]
    begin = time.monotonic()
    with start_worker(app, pool="threads", concurrency=4):
        assert [result.get(timeout=20) for result in results] == list(range(8))
    # A function begins a moment after it was let through: never too early, however late others were.
    assert all(at >= begin + number * 0.2 for number, (_, at) in enumerate(starts.at))


@pytest.mark.behaviour("B-RATE-009")
def test_other_tasks_are_not_held_up_behind_limited_ones(app: Celeriac, starts: Starts) -> None:
    """Differs on purpose: what waits for its turn takes no room of the worker. A thousand of them are before the others."""

    @app.task(rate_limit="1/h")
    def seldom() -> None:
        starts.mark("seldom")

    @app.task
    def often(number: int) -> int:
        return number

    for _ in range(1000):
        seldom.delay()
    results = [often.delay(number) for number in range(20)]
    with start_worker(app, pool="threads", concurrency=2):
        assert [result.get(timeout=30) for result in results] == list(range(20))
        assert len(starts.at) == 1
        eventually(lambda: app.transport.size("celery").delayed >= 990)
    assert app.transport.size("celery").leased == 0


def test_b_rate_003_each_task_has_a_limit_of_its_own(app: Celeriac, starts: Starts) -> None:
    """Per type of task; and per worker: two of them start twice as many."""

    @app.task(rate_limit="1/h")
    def one() -> None:
        starts.mark("one")

    @app.task(rate_limit="1/h")
    def two() -> None:
        starts.mark("two")

    for queue in ("a", "b"):
        for task in (one, one, one, two, two, two):
            task.apply_async(queue=queue)
    with start_worker(app, queues=["a"]), start_worker(app, queues=["b"]):
        eventually(lambda: [app.transport.size(queue).delayed for queue in ("a", "b")] == [4, 4])
        eventually(lambda: len(starts.at) == 4)
    assert sorted(name for name, _ in starts.at) == ["one", "one", "two", "two"]


@pytest.mark.parametrize("rate_limit", [None, 0, "", "0/m"])
def test_b_rate_004_no_limit(app: Celeriac, starts: Starts, rate_limit: Any) -> None:
    @app.task(rate_limit=rate_limit)
    def free() -> None:
        starts.mark("free")

    results = [free.delay() for _ in range(10)]
    with start_worker(app):
        for result in results:
            result.get(timeout=10)


@pytest.mark.parametrize("value", ["ten", "10/d", -1, True])
def test_b_rate_005_a_wrong_limit_is_refused(app: Celeriac, value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"task '.*wrong': rate_limit: .* is no rate limit: say"):

        @app.task(rate_limit=value)
        def wrong() -> None: ...

    app.conf.task_default_rate_limit = "ten/s"
    app.task(lambda: None, name="later")
    with (
        pytest.raises(ImproperlyConfigured, match="task 'later': rate_limit: 'ten/s' is no rate limit"),
        start_worker(app),
    ):
        pass


def test_b_rate_005_remote_control_is_told_of_a_wrong_limit(app: Celeriac) -> None:
    app.task(lambda: None, name="some")
    with start_worker(app) as worker, pytest.raises(ValueError, match="'soon' is no rate limit"):
        gate_of(worker).set_rate_limit("some", "soon")


def test_b_rate_007_limits_can_be_off(app: Celeriac, starts: Starts) -> None:
    app.conf.worker_disable_rate_limits = True

    @app.task(rate_limit="1/h")
    def seldom() -> None:
        starts.mark("seldom")

    results = [seldom.delay() for _ in range(5)]
    with start_worker(app):
        for result in results:
            result.get(timeout=10)


def test_b_rate_008_the_default_is_for_tasks_without_one(app: Celeriac, starts: Starts) -> None:
    app.conf.task_default_rate_limit = "1/h"

    @app.task
    def seldom() -> None:
        starts.mark("seldom")

    @app.task(rate_limit="100/s")
    def often() -> None:
        starts.mark("often")

    for _ in range(3):
        seldom.delay()
    results = [often.delay() for _ in range(5)]
    with start_worker(app):
        for result in results:
            result.get(timeout=10)
        eventually(lambda: ("seldom" in dict(starts.at)) and app.transport.size("celery").delayed == 2)
    assert [name for name, _ in starts.at].count("seldom") == 1


def test_a_limit_changes_while_the_worker_runs(app: Celeriac, starts: Starts) -> None:
    """Lifted, then set on a task that had none."""

    @app.task(rate_limit="1/h")
    def seldom(number: int) -> int:
        starts.mark("seldom")
        return number

    @app.task
    def other(number: int) -> int:
        starts.mark("other")
        return number

    with start_worker(app) as worker:
        seldom.delay(1).get(timeout=10)
        in_loop(worker, gate_of(worker).set_rate_limit, seldom.name, None)
        assert [seldom.delay(number).get(timeout=10) for number in range(3)] == [0, 1, 2]
        other.delay(1).get(timeout=10)
        in_loop(worker, gate_of(worker).set_rate_limit, other.name, "1/h")
        other.delay(2).get(timeout=10)
        other.delay(3)
        eventually(lambda: app.transport.size("celery").delayed == 1)
    assert [name for name, _ in starts.at].count("other") == 2


@pytest.mark.parametrize("place", ["memory", "sqlite"])
def test_one_bucket_for_all_workers(app: Celeriac, starts: Starts, place: str, tmp_path: Path) -> None:
    """Three workers together start no more than the limit says, and use it. For a minute, and with figures, in a soak."""
    rate, count = (100, 6000) if IS_SOAK else (40, 100)
    if place == "sqlite":
        app.conf.coordination_url = f"sqlite:///{tmp_path}/place.db"

    @app.task(rate_limit=f"{rate}/s", rate_limit_scope="cluster")
    def limited() -> None:
        starts.mark("limited")

    results = [limited.delay() for _ in range(count)]
    begin = time.monotonic()
    with ExitStack() as workers:
        for _ in range(3):
            workers.enter_context(start_worker(app, pool="threads", concurrency=2))
        for result in results:
            result.get(timeout=30 + count / rate)
    moments = sorted(at for _, at in starts.at)
    assert all(at >= begin + number / rate - CLOSE for number, at in enumerate(moments))
    if IS_SOAK:
        assert most_in_a_second(moments) <= 110
        assert (count - 1) / (moments[-1] - moments[0]) >= 95


def test_a_shared_limit_needs_a_place(tmp_path: Path) -> None:
    app = Celeriac("limits", broker=f"filesystem:///{tmp_path}/broker", set_as_current=False)
    app.conf.result_backend = None
    app.task(lambda: None, name="limited", rate_limit="1/s", rate_limit_scope="cluster")
    with (
        pytest.raises(
            ImproperlyConfigured, match="task 'limited' with the option rate_limit_scope.*set coordination_url"
        ),
        start_worker(app),
    ):
        pass
    app.close()


def test_a_message_that_is_put_back_often_is_no_poison(app: Celeriac, starts: Starts) -> None:
    """More often than any that is not limited may be delivered."""
    app.conf.task_max_deliveries = 1

    @app.task(rate_limit="1/h")
    def seldom(number: int) -> int:
        starts.mark("seldom")
        return number

    seldom.delay(1)
    second = seldom.delay(2)
    with start_worker(app) as worker:
        eventually(lambda: app.transport.size("celery").delayed == 1)
        eventually(lambda: len(app.transport._broker.entries) == 1)  # the first has been acknowledged
        for _ in range(25):  # each time it comes back too early again
            broker = app.transport._broker
            with broker.changed:
                for entry in broker.entries.values():
                    entry.due_at = 0.0
                    broker.make_ready(entry)
                broker.changed.notify_all()
            eventually(lambda: app.transport.size("celery").delayed == 1)
        in_loop(worker, gate_of(worker).set_rate_limit, seldom.name, None)
        with app.transport._broker.changed:
            for entry in app.transport._broker.entries.values():
                assert entry.deliveries > 20
                app.transport._broker.make_ready(entry)
            app.transport._broker.changed.notify_all()
        assert second.get(timeout=10) == 2
