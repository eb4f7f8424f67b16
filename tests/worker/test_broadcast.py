"""Broadcast queues: each worker that is up gets its own copy of a message, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Broadcast, Celeriac, Queue
from celeriac.coordination.pauses import pause, resume
from celeriac.routing import is_copy
from celeriac.testing.worker import EmbeddedWorker, start_worker
from celeriac.transport.base import QueueSize
from tests.support.files import Ledger, eventually


@pytest.fixture(params=["memory", "sqlite", "filesystem"])
def app(request: pytest.FixtureRequest, tmp_path: Path, ledger: Ledger) -> Iterator[Celeriac]:
    """An app with a broadcast queue; its tasks write down which worker runs them."""
    broker = {
        "memory": f"memory://{tmp_path.name}-{id(ledger)}",
        "sqlite": f"sqlite:///{tmp_path}/tasks.db",
        "filesystem": f"filesystem://{tmp_path}/folder",
    }[request.param]
    app = Celeriac("news", broker=broker, backend=f"sqlite:///{tmp_path}/results.db", set_as_current=False)
    app.conf.task_queues = [Queue("celery"), Broadcast("news")]
    app.conf.task_routes = {"hear": {"queue": "news"}}

    @app.task(name="hear", bind=True)
    def hear(self: Any, word: str) -> str:
        ledger.append(f"{word} {self.request.hostname.partition('@')[0]}")
        return word

    @app.task(name="try", bind=True, max_retries=2, default_retry_delay=0)
    def try_again(self: Any) -> None:
        ledger.append(f"{self.request.retries} {self.request.hostname.partition('@')[0]}")
        if self.request.hostname.startswith("one") and self.request.retries < 2:
            raise self.retry()

    yield app
    app.close()


def heard(ledger: Ledger, *lines: str) -> None:
    """Exactly these lines are written, in any order."""
    ledger.wait_for(len(lines))
    assert sorted(ledger.lines()) == sorted(lines)


def tell(app: Celeriac, worker: EmbeddedWorker, command: str, **arguments: Any) -> Any:
    """The worker's answer to a command."""
    eventually(lambda: app.control.ping([worker.node], timeout=0.2), 20)  # it listens from a moment after its start on
    replies = app.control.broadcast(command, arguments, [worker.node], reply=True, timeout=20, limit=1)
    return replies[0][worker.node]


def copies(worker: EmbeddedWorker) -> list[str]:
    """Names of the worker's copies."""
    return [name for name in worker._supervisor.queues.names if is_copy(name)]


def test_every_worker_runs_it(app: Celeriac, ledger: Ledger) -> None:
    """[B-ROUTE-016] The result is that of whichever worker was last."""
    with start_worker(app, node="one@test"), start_worker(app, node="two@test"):
        result = app.tasks["hear"].delay("first")
        heard(ledger, "first one", "first two")
        assert result.get(timeout=20) == "first"
        app.send_task("hear", ("second",), exchange="news")
        heard(ledger, "first one", "first two", "second one", "second two")


def test_an_id_that_the_caller_chose_runs_on_every_worker_too(app: Celeriac, ledger: Ledger) -> None:
    with start_worker(app, node="one@test"), start_worker(app, node="two@test", queues=["celery"]) as two:
        app.tasks["hear"].apply_async(("x",), task_id="chosen").get(timeout=20)
        tell(app, two, "add_consumer", queue="news")
        app.tasks["hear"].apply_async(("y",), task_id="chosen")
        heard(ledger, "x one", "y one", "y two")


def test_it_may_reach_nobody(app: Celeriac, ledger: Ledger) -> None:
    app.tasks["hear"].delay("lost")
    with start_worker(app, node="late@test"):
        app.tasks["hear"].delay("heard")
        heard(ledger, "heard late")


def test_a_worker_that_leaves_takes_its_copy_along(app: Celeriac, ledger: Ledger) -> None:
    with start_worker(app, node="one@test"):
        with start_worker(app, node="two@test") as two:
            (copy,) = copies(two)
        app.tasks["hear"].delay("x")
        heard(ledger, "x one")
        assert app.transport.size(copy) == QueueSize(0, 0, 0)


def test_a_retry_is_the_workers_own(app: Celeriac, ledger: Ledger) -> None:
    """Differs from stock Celery, where all workers would run it again."""
    with start_worker(app, node="one@test"), start_worker(app, node="two@test"):
        app.send_task("try", queue="news")
        heard(ledger, "0 one", "0 two", "1 one", "2 one")


def test_a_delayed_one_reaches_those_who_were_there(app: Celeriac, ledger: Ledger) -> None:
    with start_worker(app, node="one@test"), start_worker(app, node="two@test"):
        began = time.time()
        app.tasks["hear"].apply_async(("x",), countdown=0.5)
        heard(ledger, "x one", "x two")
        assert time.time() - began >= 0.5


def test_workers_choose_it_by_its_name(app: Celeriac, ledger: Ledger) -> None:
    with (
        start_worker(app, node="one@test", queues=["news"]) as one,
        start_worker(app, node="two@test", queues=["celery"]) as two,
    ):
        assert (len(copies(one)), len(copies(two))) == (1, 0)
        assert one._supervisor.queues.titles == ["news"]
        app.tasks["hear"].delay("x")
        heard(ledger, "x one")


def test_it_is_consumed_and_left_live(app: Celeriac, ledger: Ledger) -> None:
    with start_worker(app, node="one@test"), start_worker(app, node="two@test", queues=["celery"]) as two:
        assert tell(app, two, "add_consumer", queue="news") == {"ok": "add consumer news"}
        assert tell(app, two, "add_consumer", queue="news") == {"ok": "already consuming from 'news'"}
        (listed,) = [each for each in tell(app, two, "active_queues") if each["alias"] == "news"]
        assert listed["exchange"]["type"] == "fanout"
        app.tasks["hear"].delay("both")
        heard(ledger, "both one", "both two")
        (copy,) = copies(two)
        assert tell(app, two, "cancel_consumer", queue="news") == {"ok": "no longer consuming from news"}
        app.tasks["hear"].delay("alone")
        heard(ledger, "both one", "both two", "alone one")
        assert app.transport.size(copy) == QueueSize(0, 0, 0)


def test_a_pause_holds_for_all_copies(app: Celeriac, ledger: Ledger) -> None:
    place = app.coordination
    assert place is not None
    pause(place, ["news"])
    with start_worker(app, node="one@test"), start_worker(app, node="two@test"):
        app.tasks["hear"].delay("later")
        app.send_task("hear", ("now",), queue="celery").get(timeout=20)
        assert [line.split()[0] for line in ledger.lines()] == ["now"]
        resume(place, ["news"])
        assert sorted(ledger.wait_for(3))[:2] == ["later one", "later two"]


def test_a_copy_lives_as_long_as_its_worker(app: Celeriac, ledger: Ledger) -> None:
    """However short the time is after which it would expire."""
    app.conf.task_queues = [Broadcast("news", expires=0.3)]
    with start_worker(app, node="one@test"), start_worker(app, node="two@test"):
        time.sleep(0.7)  # more than that: nothing is awaited, it must not happen
        app.tasks["hear"].delay("x")
        heard(ledger, "x one", "x two")
