"""Time that a test moves: what is due later, expires or is retried goes by it, and nothing waits in real time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured, TaskRevokedError
from celeriac.testing.clock import VirtualClock, virtual_clock
from celeriac.testing.worker import start_worker
from celeriac.timing import SYSTEM_CLOCK
from tests.support.apps import memory_app
from tests.support.files import eventually

DAY = 86400.0
START = datetime(2031, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def app() -> Iterator[Celeriac]:
    url = f"memory://{uuid.uuid4().hex}"
    with Celeriac("clocked", broker=url, backend=url, set_as_current=False) as app:
        app.task(lambda word="": word, name="say")
        yield app


@pytest.fixture
def clock(app: Celeriac) -> Iterator[VirtualClock]:
    with virtual_clock(app, START) as clock:
        yield clock


def size(app: Celeriac) -> tuple[int, int, int]:
    found = app.transport.size("celery")
    return found.ready, found.delayed, found.leased


def test_what_is_due_later_runs_when_time_has_come(app: Celeriac, clock: VirtualClock) -> None:
    with start_worker(app):
        later = app.send_task("say", ("later",), countdown=DAY)
        sooner = app.send_task("say", ("sooner",), eta=START + timedelta(hours=1))
        assert app.send_task("say", ("now",)).get(timeout=20) == "now"
        assert size(app) == (0, 2, 0)
        clock.advance(3600)
        assert sooner.get(timeout=20) == "sooner"
        clock.advance(DAY - 3601)
        assert app.send_task("say", ("now",)).get(timeout=20) == "now"
        assert (later.state, size(app)[1]) == ("PENDING", 1)
        clock.advance(1)
        assert later.get(timeout=20) == "later"


def test_delays_count_from_the_moment_that_the_clock_shows(app: Celeriac, clock: VirtualClock) -> None:
    clock.advance(DAY)
    result = app.send_task("say", ("x",), countdown=60)
    with start_worker(app):
        app.send_task("say").get(timeout=20)
        assert size(app)[1] == 1
        clock.advance(60)
        assert result.get(timeout=20) == "x"


def test_what_has_expired_is_not_run(app: Celeriac, clock: VirtualClock) -> None:
    result, fine = app.send_task("say", expires=60), app.send_task("say", expires=61)
    clock.advance(60)
    with start_worker(app):
        with pytest.raises(TaskRevokedError, match="expired"):
            result.get(timeout=20)
        assert fine.get(timeout=20) == ""


def test_retries_come_when_they_are_due(app: Celeriac, clock: VirtualClock) -> None:
    tries: list[datetime] = []

    @app.task(name="again", bind=True, default_retry_delay=180, max_retries=2)
    def again(self: Any) -> int:
        tries.append(clock.now())
        if len(tries) < 3:
            raise self.retry()
        return len(tries)

    result = again.delay()
    with start_worker(app):
        for _ in range(2):
            eventually(lambda: size(app) == (0, 1, 0), 20)
            clock.advance(180)
        assert result.get(timeout=20) == 3
    assert tries == [START, START + timedelta(seconds=180), START + timedelta(seconds=360)]


def test_a_rate_goes_by_it(app: Celeriac, clock: VirtualClock) -> None:
    started: list[int] = []
    slow = app.task(started.append, name="slow", rate_limit="1/h", typing=False)
    with start_worker(app):
        results = [slow.delay(number) for number in range(2)]
        eventually(lambda: len(started) == 1, 20)
        clock.advance(3600)
        eventually(lambda: len(started) == 2, 20)
        for result in results:
            result.get(timeout=20)


def test_results_are_forgotten_in_time(app: Celeriac, clock: VirtualClock) -> None:
    with start_worker(app):
        result = app.send_task("say")
        result.get(timeout=20)
    clock.advance(DAY - 1)
    assert app.AsyncResult(result.id).exists()
    clock.advance(2)
    assert not app.AsyncResult(result.id).exists()


def test_afterwards_time_goes_on(app: Celeriac) -> None:
    with virtual_clock(app, START) as clock:
        assert (clock.now(), clock.time(), SYSTEM_CLOCK.now()) == (START, START.timestamp(), START.timestamp())
        with pytest.raises(ValueError, match="forwards only"):
            clock.advance(-1)
    assert SYSTEM_CLOCK.now() < START.timestamp()


def test_a_broker_with_a_clock_of_its_own_is_refused() -> None:
    app = memory_app(broker="sqlite:///x.db")
    with pytest.raises(ImproperlyConfigured, match=r"memory:// only: sqlite:///x\.db has a clock"), virtual_clock(app):
        pass
