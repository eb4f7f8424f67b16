"""Unique tasks: one of equal calls, until it starts, until it is done, or for a time; and what becomes of the second."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from celeriac import Celeriac
from celeriac.errors import (
    DuplicateTaskError,
    EncodeError,
    ImproperlyConfigured,
    OperationalError,
    Reject,
    TaskRevokedError,
)
from celeriac.testing.worker import start_worker
from tests.support.files import eventually
from tests.support.worker import WorkerProcess


class Step:
    """A task's function that waits until it may end, and tells what ran."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.may_end = threading.Event()

    def run(self, what: Any) -> Any:
        self.ran.append(what)
        self.may_end.wait(20)
        return what


@pytest.fixture
def step() -> Step:
    return Step()


def locks(app: Celeriac, task: str, key: str) -> dict[str, float]:
    assert app.coordination is not None
    return app.coordination.holders(f"unique:{task}:{key}")


def test_the_second_of_equal_calls_is_the_first(each_app: Celeriac, step: Step) -> None:
    """Equal by value, however they are written; free again when the result is there."""

    @each_app.task(unique="until_done")
    def only(x: int, y: Any = None) -> Any:
        return step.run(x)

    first = only.delay(1)
    assert [only.delay(1).id, only.delay(x=1).id, only.delay(1, y=None).id] == [first.id] * 3
    assert only.delay(2).id != first.id
    assert only.delay(1, {"a": 1, "b": [2]}).id == only.delay(1, {"b": [2], "a": 1}).id
    with start_worker(each_app, pool="threads", concurrency=3):
        eventually(lambda: len(step.ran) == 3)
        assert only.delay(1).id == first.id, "it still runs"
        step.may_end.set()
        assert first.get(timeout=20) == 1
        again = only.delay(1)
        assert again.id != first.id
        assert again.get(timeout=20) == 1
    assert sorted(step.ran) == [1, 1, 1, 2]


def test_until_it_starts(app: Celeriac, step: Step) -> None:
    @app.task(unique="until_start")
    def only(x: int) -> Any:
        return step.run(x)

    first = only.delay(1)
    assert only.delay(1).id == first.id
    with start_worker(app, pool="threads", concurrency=2):
        eventually(lambda: step.ran == [1])
        second = only.delay(1)
        assert second.id != first.id
        step.may_end.set()
        assert [first.get(timeout=20), second.get(timeout=20)] == [1, 1]


def test_for_a_time_whatever_becomes_of_it(app: Celeriac) -> None:
    @app.task(unique=0.5)
    def only(x: int) -> int:
        return x

    with start_worker(app):
        first = only.delay(1)
        assert first.get(timeout=20) == 1
        assert only.delay(1).id == first.id
        second = eventually(lambda: (found := only.delay(1)).id != first.id and found)
        assert second.get(timeout=20) == 1


def test_a_key_of_ones_own(app: Celeriac) -> None:
    @app.task(unique="until_done", unique_key="user:{user[id]}")
    def only(user: dict[str, Any], note: str = "") -> None: ...

    @app.task(unique="until_done", unique_key=lambda user, **_: user["id"])
    def other(user: dict[str, Any], note: str = "") -> None: ...

    for task in (only, other):
        first = task.delay({"id": 7, "name": "a"})
        assert task.delay({"id": 7, "name": "b"}, note="x").id == first.id
        assert task.delay({"id": 8}).id != first.id


def test_raising(app: Celeriac) -> None:
    @app.task(name="only", unique="until_done", on_conflict="raise")
    def only(x: int) -> None: ...

    first = only.delay(1)
    with pytest.raises(DuplicateTaskError, match=r"only\[.*\] is there already") as caught:
        only.delay(1)
    assert caught.value.task_id == first.id
    with pytest.raises(DuplicateTaskError):
        app.send_task("only", (1,))
    assert app.transport.size("celery").ready == 1


def test_replacing_one_that_waits(each_app: Celeriac, step: Step) -> None:
    step.may_end.set()

    @each_app.task(unique="until_done", unique_key="{x}", on_conflict="replace")
    def only(x: int, version: int) -> Any:
        return step.run(version)

    results = [only.delay(1, version) for version in range(4)]
    with start_worker(each_app, pool="threads", concurrency=2):
        assert results[-1].get(timeout=20) == 3
        for result in results[:-1]:
            with pytest.raises(TaskRevokedError, match=f"replaced by {results[-1].id}"):
                result.get(timeout=20)
    assert step.ran == [3]


def test_replacing_one_that_runs_waits_for_its_end(app: Celeriac, step: Step) -> None:
    @app.task(unique="until_done", unique_key="{x}", on_conflict="replace")
    def only(x: int, version: int) -> Any:
        return step.run(version)

    with start_worker(app, pool="threads", concurrency=2):
        first = only.delay(1, 1)
        eventually(lambda: step.ran == [1])
        second, third = only.delay(1, 2), only.delay(1, 3)
        assert isinstance(second.get(timeout=20, propagate=False), TaskRevokedError)
        assert step.ran == [1]
        step.may_end.set()
        assert [first.get(timeout=20), third.get(timeout=20)] == [1, 3]


def test_replacing_within_a_time(app: Celeriac, step: Step) -> None:
    step.may_end.set()

    @app.task(unique=30, on_conflict="replace", unique_key="same")
    def only(version: int) -> Any:
        return step.run(version)

    first, second = only.delay(1), only.delay(2)
    with start_worker(app):
        assert second.get(timeout=20) == 2
        assert isinstance(first.get(timeout=20, propagate=False), TaskRevokedError)


def test_a_hundred_at_once_are_one(each_app: Celeriac) -> None:
    @each_app.task(unique="until_done")
    def only() -> None: ...

    with ThreadPoolExecutor(16) as threads:
        ids = set(threads.map(lambda _: only.delay().id, range(100)))
    assert len(ids) == 1
    assert each_app.transport.size("celery").ready == 1


def test_a_retry_keeps_the_lock(app: Celeriac, step: Step) -> None:
    step.may_end.set()

    @app.task(bind=True, unique="until_done", default_retry_delay=0.5)
    def only(self: Any, x: int) -> Any:
        step.run(self.request.retries)
        if self.request.retries < 2:
            raise self.retry(args=(x + 1,))
        return x

    with start_worker(app):
        first = only.delay(1)
        eventually(lambda: first.state == "RETRY")
        assert only.delay(1).id == first.id
        assert first.get(timeout=20) == 3
        second = only.delay(1)
        assert second.id != first.id
        second.get(timeout=20)


@pytest.mark.parametrize("how", ["fail", "expire", "reject", "soft limit"])
def test_every_end_frees_the_lock(app: Celeriac, how: str) -> None:
    @app.task(
        bind=True, unique="until_done", soft_time_limit=0.2 if how == "soft limit" else None, throws=(ValueError,)
    )
    def only(self: Any) -> None:
        if how == "fail":
            raise ValueError("no")
        if how == "reject":
            raise Reject("no", requeue=False)
        for _ in range(100):
            time.sleep(0.05)

    first = only.apply_async(expires=0.05) if how == "expire" else only.delay()
    if how == "expire":
        time.sleep(0.1)
    with start_worker(app, pool="threads"):
        first.get(timeout=20, propagate=False)
        assert first.state in ("FAILURE", "REVOKED")
        assert eventually(lambda: only.delay().id != first.id)


def test_a_message_that_was_not_sent_leaves_no_lock(app: Celeriac, tmp_path: Path) -> None:
    app.conf.coordination_url = "memory://elsewhere"
    app.conf.broker_url = f"sqlite:///{tmp_path}/no/such/folder/b.db"
    app.conf.publish_timeout = 0.5

    @app.task(name="only", unique="until_done", unique_key="k")
    def only() -> None: ...

    with pytest.raises(OperationalError):
        only.delay()
    assert locks(app, "only", "k") == {}


def test_a_shutdown_keeps_the_lock_of_what_goes_back(app: Celeriac, step: Step) -> None:
    @app.task(name="only", unique="until_done", unique_key="{x}", max_concurrency=1)
    def only(x: int) -> Any:
        return step.run(x)

    first, second = only.delay(1), only.delay(2)
    with start_worker(app, pool="threads", concurrency=2) as worker:
        eventually(lambda: step.ran == [1])
        eventually(lambda: app.transport.size("celery").leased == 2)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        eventually(lambda: app.transport.size("celery").leased == 1)
        step.may_end.set()
        stopping.join(20)
    assert first.get(timeout=5) == 1
    assert locks(app, "only", "1") == {}
    [(holder, until)] = locks(app, "only", "2").items()
    assert holder == second.id
    assert until > time.time() + 80_000, "as long as its message may wait"


def test_what_follows_in_a_workflow_is_looked_at_when_it_comes(app: Celeriac, step: Step) -> None:
    """A link is sent by the worker, which takes no lock for it: the task that has it is there already, so it is dropped."""

    @app.task(unique="until_done", unique_key="same")
    def only(x: Any = None) -> Any:
        return step.run(x)

    @app.task
    def plain() -> int:
        return 5

    with start_worker(app, pool="threads", concurrency=2):
        first = only.delay(1)
        eventually(lambda: step.ran == [1])
        linked = plain.apply_async(link=only.si(2).set(task_id="linked"))
        assert linked.get(timeout=20) == 5
        dropped = app.AsyncResult("linked")
        assert isinstance(dropped.get(timeout=20, propagate=False), TaskRevokedError)
        step.may_end.set()
        assert first.get(timeout=20) == 1
        free = plain.apply_async(link=only.si(3).set(task_id="free"))
        free.get(timeout=20)
        assert app.AsyncResult("free").get(timeout=20) == 3


def test_coroutines_are_unique_too(app: Celeriac) -> None:
    @app.task(name="only", unique="until_done")
    def only(x: int) -> None: ...

    async def twice() -> set[str]:
        results = await asyncio.gather(*(only.adelay(1) for _ in range(5)), app.asend_task("only", (1,)))
        return {result.id for result in results}

    assert len(asyncio.run(twice())) == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"unique": "until_don"}, "unique: 'until_don' is neither .*Did you mean 'until_done'"),
        ({"unique": -1}, "unique: -1 is neither"),
        ({"unique": True}, "unique: True is neither"),
        ({"unique": 5, "on_conflict": "drop"}, "on_conflict: 'drop' is not one of 'ignore', 'replace', 'raise'"),
        ({"unique": 5, "unique_key": ""}, "unique_key: '' is neither text"),
    ],
)
def test_a_wrong_option_is_an_error_where_the_task_is_made(app: Celeriac, options: Any, problem: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"task 'only': {problem}"):
        app.task(lambda: None, name="only", **options)


def test_arguments_that_json_can_not_hold_need_a_key(app: Celeriac) -> None:
    @app.task(name="only", unique="until_done", serializer="pickle")
    def only(x: Any) -> None: ...

    with pytest.raises(EncodeError, match="only is unique by its arguments.*or give unique_key"):
        only.delay({1, 2})


def test_unique_tasks_need_a_place(app: Celeriac, tmp_path: Path) -> None:
    app.conf.update(broker_url=f"filesystem:///{tmp_path}", result_backend=None)
    only = app.task(lambda: None, name="only", unique="until_done")
    with pytest.raises(
        ImproperlyConfigured, match="task 'only' with the option unique needs a place.*coordination_url"
    ):
        only.delay()
    with (
        pytest.raises(ImproperlyConfigured, match="task 'only' with the option unique needs a place"),
        start_worker(app),
    ):
        pass


APP = """
import os, time
from celeriac import Celeriac

app = Celeriac("uniques", broker={url!r}, backend={url!r}, task_lease=2.0)

@app.task(unique="until_done", unique_key="same", name="only", acks_late={late}, task_reject_on_worker_lost=False)
def only(name, seconds):
    with open({marks!r}, "a") as file:
        file.write(f"{{name}} {{time.time()}}\\n")
    time.sleep(seconds)
    return name
"""


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_the_lock_of_a_worker_that_was_killed(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess], late: bool
) -> None:
    """Acknowledged early: the task is gone, and its lock with its lease. Late: the task runs again, and then it is free."""
    url, marks = f"sqlite:///{tmp_path}/u.db", tmp_path / "marks"
    (tmp_path / "uniques.py").write_text(APP.format(url=url, marks=str(marks), late=late))
    app = Celeriac("uniques", broker=url, backend=url, set_as_current=False)
    only = app.task(lambda name, seconds: None, name="only", unique="until_done", unique_key="same")
    worker = worker_process("uniques", "-c", "1")
    worker.wait_ready()
    victim = only.delay("victim", 4)
    eventually(lambda: marks.exists() and "victim" in marks.read_text())
    assert only.delay("second", 0).id == victim.id
    worker.kill_tree(signal.SIGKILL)
    if not late:
        second = eventually(lambda: (found := only.delay("second", 0)).id != victim.id and found)
        worker_process("uniques", "-c", "1", "-n", "other@h").wait_ready()
        assert second.get(timeout=20) == "second"
    else:
        worker_process("uniques", "-c", "1", "-n", "other@h").wait_ready()
        assert victim.get(timeout=20) == "victim"
        assert marks.read_text().count("victim") == 2
        assert only.delay("second", 0).get(timeout=20) == "second"
    app.close()


def test_an_id_that_is_sent_twice_runs_once(each_app: Celeriac, step: Step) -> None:
    """While its record lives; one that failed may be sent again."""
    step.may_end.set()

    @each_app.task
    def some(x: int) -> Any:
        if x < 0:
            raise ValueError(x)
        return step.run(x)

    with start_worker(each_app):
        assert some.apply_async((1,), task_id="chosen").get(timeout=20) == 1
        again = some.apply_async((2,), task_id="chosen")
        some.delay(3).get(timeout=20)
        eventually(lambda: each_app.transport.size("celery").leased == 0)
        assert again.get(timeout=20) == 1
        assert isinstance(some.apply_async((-1,), task_id="bad").get(timeout=20, propagate=False), ValueError)
        each_app.send_task(some.name, (4,), task_id="bad")
        assert eventually(lambda: each_app.AsyncResult("bad").state == "SUCCESS")
    assert step.ran == [1, 3, 4]


def test_an_id_that_is_sent_twice_at_once_runs_once(each_app: Celeriac, step: Step) -> None:
    """The second one comes while the first runs, when nothing can be stored of it yet."""

    @each_app.task
    def some(x: int) -> Any:
        return step.run(x)

    first, second = (some.apply_async((number,), task_id="chosen") for number in (1, 1))
    with start_worker(each_app, pool="threads", concurrency=4):
        eventually(
            lambda: each_app.transport.size("celery").delayed == 1, 20
        )  # it was put back, and will be looked at again
        other = some.delay(2)
        eventually(lambda: len(step.ran) == 2, 20)
        step.may_end.set()
        assert (first.get(timeout=20), second.get(timeout=20), other.get(timeout=20)) == (1, 1, 2)
        eventually(lambda: sum(msgspec.structs.astuple(each_app.transport.size("celery"))) == 0, 20)
    assert sorted(step.ran) == [1, 2]
    assert each_app.coordination is not None
    assert list(each_app.coordination.holders("id:chosen")) != [], (
        "kept for as long as somebody may have just fetched it"
    )


def test_an_id_of_one_that_failed_is_free_at_once(app: Celeriac, step: Step) -> None:
    @app.task
    def fail() -> None:
        raise ValueError

    with start_worker(app):
        for _ in range(2):
            fail.apply_async(task_id="chosen").get(timeout=20, propagate=False)
            app.AsyncResult("chosen").forget()
    assert app.coordination is not None
    assert app.coordination.holders("id:chosen") == {}
