"""Batch tasks in a worker: what gathers, when it runs, and that each call of a batch keeps an end of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from itertools import chain as chained
from typing import Any

import pytest

from celeriac import Call, Celeriac, Ignore, Reject, chain, chord
from celeriac.errors import ImproperlyConfigured, TaskRevokedError
from celeriac.message import Action, Message, Settlement
from celeriac.testing.worker import EmbeddedWorker, start_worker
from tests.support.files import eventually

LONG = 3600  # seconds: a batch that is flushed was full


@pytest.fixture(params=["threads", "solo"])
def pool(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


def gathered(worker: EmbeddedWorker, count: int) -> None:
    """Wait until so many calls are gathering."""
    eventually(lambda: len(worker._supervisor.gathering.assignments()) == count)


def doubling(app: Celeriac, **options: Any) -> tuple[Any, list[list[int]]]:
    """A task that doubles numbers, and the batches that it was given."""
    batches: list[list[int]] = []

    @app.task(name="double", **options)
    def double(calls: list[Call[[int]]]) -> list[int]:
        batches.append([call.args[0] for call in calls])
        return [call.args[0] * 2 for call in calls]

    return double, batches


def test_b_contrib_005_a_batch_runs_as_soon_as_it_is_full(each_app: Celeriac, pool: str) -> None:
    double, batches = doubling(each_app, batch=5, batch_wait=LONG)
    results = [double.delay(number) for number in range(10)]
    with start_worker(each_app, pool=pool, concurrency=1):
        assert [result.get(timeout=20) for result in results] == [number * 2 for number in range(10)]
    assert batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_b_contrib_005_a_batch_runs_when_its_time_has_come(app: Celeriac, pool: str) -> None:
    double, batches = doubling(app, batch=100, batch_wait=0.1)
    with start_worker(app, pool=pool, concurrency=1):
        assert [result.get(timeout=20) for result in [double.delay(1), double.delay(2)]] == [2, 4]
    assert sorted(chained.from_iterable(batches)) == [1, 2]


def test_without_a_wait_a_batch_is_what_is_there(app: Celeriac) -> None:
    double, batches = doubling(app, batch=100, batch_wait=0)
    results = [double.delay(number) for number in range(50)]
    with start_worker(app, pool="threads", concurrency=1):
        assert sum(result.get(timeout=20) for result in results) == 2450
    assert sorted(chained.from_iterable(batches)) == list(range(50))


def test_each_call_of_a_batch_ends_in_its_own_way(app: Celeriac, pool: str) -> None:
    failed: list[str] = []

    @app.task(batch=6, batch_wait=LONG, max_retries=0)
    def mixed(calls: list[Call[[str]]]) -> list[Any]:
        for call in calls:
            if call.args == ("fail",):
                call.fail(LookupError("it"))
            elif call.args == ("retry",):
                call.retry(exc=KeyError("again"))  # no attempt is left
        found: dict[str, Any] = {"raise": ValueError("bad"), "ignore": Ignore(), "reject": Reject("no", requeue=False)}
        return [found.get(call.args[0], call.args[0]) for call in calls]

    @app.task
    def note(task_id: str) -> None:
        failed.append(task_id)

    @app.task
    def add(x: str, y: str) -> str:
        return x + y

    names = ("good", "fail", "retry", "raise", "ignore", "reject")
    with start_worker(app, pool=pool, concurrency=1):
        results = {name: mixed.apply_async((name,), link_error=note.s()) for name in names}
        assert results["good"].get(timeout=20) == "good"
        errors = {name: results[name].get(timeout=20, propagate=False) for name in ("fail", "retry", "raise", "reject")}
        assert {name: type(error) for name, error in errors.items()} == {
            "fail": LookupError, "retry": KeyError, "raise": ValueError, "reject": Reject,
        }  # fmt: skip
        eventually(lambda: len(failed) == 4)
        linked = [mixed.apply_async((name,), link=add.s("!")) for name in names]
        eventually(lambda: linked[0].children)
        assert linked[0].children[0].get(timeout=20) == "good!"
    assert results["ignore"].state == "PENDING"
    assert set(failed[:4]) == {results[name].id for name in errors}
    assert {letter.reason for letter in app.transport.dead_letters()} == {"rejected: no"}


def test_a_call_that_is_retried_runs_again_and_the_others_do_not(app: Celeriac) -> None:
    seen: list[tuple[int, int]] = []

    @app.task(batch=3, batch_wait=0.1, autoretry_for=(OSError,), retry_kwargs={"countdown": 0})
    def flaky(calls: list[Call[[int]]]) -> list[Any]:
        seen.extend((call.args[0], call.request.retries) for call in calls)
        first = {1: OSError("busy")}
        for call in calls:
            if call.args[0] == 2 and not call.request.retries:
                call.retry(countdown=0)
        return [first.get(call.args[0], call.args[0]) if not call.request.retries else "again" for call in calls]

    with start_worker(app, pool="threads", concurrency=1):
        results = [flaky.delay(number) for number in range(3)]
        assert [result.get(timeout=20) for result in results] == [0, "again", "again"]
    assert sorted(seen) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ValueError("all of it"), "all of it"),
        ([1], "returned 1 results for 2 calls"),
        ("ab", "has to return a list of results, or None"),
        (SystemExit(3), "3"),
    ],
)
def test_what_a_batch_raises_is_the_end_of_all_its_calls(app: Celeriac, value: Any, text: str) -> None:
    @app.task(batch=2, batch_wait=LONG)
    def bad(calls: list[Call[...]]) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    with start_worker(app, pool="threads", concurrency=1):
        results = [bad.delay(), bad.delay()]
        for result in results:
            error = result.get(timeout=20, propagate=False)
            assert text in str(error), repr(error)
            assert result.state == "FAILURE"


def test_retry_of_the_task_retries_every_call_of_the_batch(app: Celeriac) -> None:
    attempts: list[list[int]] = []

    @app.task(bind=True, batch=2, batch_wait=LONG)
    def again(self: Any, calls: list[Call[[int]]]) -> None:
        attempts.append([call.request.retries for call in calls])
        if not calls[0].request.retries:
            raise self.retry(countdown=0, exc=ValueError("not yet"))

    with start_worker(app, pool="threads", concurrency=1):
        results = [again.delay(1), again.delay(2)]
        assert [result.get(timeout=20) for result in results] == [None, None]
    assert attempts == [[0, 0], [1, 1]]


def test_a_batch_coroutine_gives_what_gather_returns(app: Celeriac) -> None:
    async def one(call: Call[...]) -> int:
        await asyncio.sleep(0)
        if call.args[0] == 1:
            raise LookupError("one")
        return int(call.args[0])

    @app.task(batch=3, batch_wait=LONG)
    async def together(calls: list[Call[[int]]]) -> list[int | BaseException]:
        return await asyncio.gather(*map(one, calls), return_exceptions=True)

    with start_worker(app, pool="threads", concurrency=1):
        results = [together.delay(number) for number in range(3)]
        found = [result.get(timeout=20, propagate=False) for result in results]
    assert (found[0], type(found[1]), found[2]) == (0, LookupError, 2)


def test_calls_of_batch_tasks_are_parts_of_workflows(app: Celeriac, pool: str) -> None:
    double, batches = doubling(app, batch=4, batch_wait=0.1)
    total = app.task(lambda numbers: sum(numbers), name="total")
    with start_worker(app, pool=pool, concurrency=1):
        assert chord([double.s(number) for number in range(9)])(total.s()).get(timeout=20) == 72
        assert chain(double.s(1), double.s(), double.s())().get(timeout=20) == 8
    assert max(map(len, batches)) <= 4


def test_handlers_and_states_are_those_of_each_call(app: Celeriac) -> None:
    told: list[tuple[str, Any]] = []
    go_on = threading.Event()

    class Base(app.Task):  # type: ignore[name-defined, misc]
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            told.append(("before", args[0]))
            if args[0] == 3:
                raise ValueError("not this one")

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            told.append(("success", (retval, self.request.id == task_id)))

        def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("failure", args[0]))

    @app.task(batch=3, batch_wait=LONG, base=Base, track_started=True)
    def each(calls: list[Call[[int]]]) -> list[int]:
        for call in calls:
            call.update_state("PROGRESS", {"at": call.args[0]})
        go_on.wait(20)
        return [call.args[0] for call in calls]

    with start_worker(app, pool="threads", concurrency=1):
        results = [each.delay(number) for number in (1, 2, 3)]
        eventually(lambda: [result.info for result in results[:2]] == [{"at": 1}, {"at": 2}])
        go_on.set()
        assert [result.get(timeout=20) for result in results[:2]] == [1, 2]
        with pytest.raises(ValueError, match="not this one"):
            results[2].get(timeout=20)
    assert [value for what, value in told if what == "before"] == [1, 2, 3]
    assert [value for what, value in told if what == "success"] == [(1, True), (2, True)]
    assert ("failure", 3) in told


def test_a_call_that_can_not_be_opened_ends_alone(app: Celeriac) -> None:
    double, batches = doubling(app, batch=3, batch_wait=LONG)
    with start_worker(app, pool="threads", concurrency=1):
        results = [double.delay(1), double.apply_async((2,), serializer="pickle"), double.delay(3)]
        assert [results[0].get(timeout=20), results[2].get(timeout=20)] == [2, 6]
        assert "x-python-serialize" in str(results[1].get(timeout=20, propagate=False))
    assert batches == [[1, 3]]


def test_a_call_whose_outcome_can_not_travel_ends_alone(app: Celeriac, pool: str) -> None:
    """What follows one of them has a name that is no Unicode, which JSON can write but no header can."""
    doubling(app, batch=2, batch_wait=LONG)
    good = app.send_task("double", (1,))
    embed = '{"callbacks": [{"task": "a\\udcef", "args": [], "kwargs": {}, "options": {}}]}'
    app.transport.publish([
        Message(id="bad", headers={"task": "double", "id": "bad"}, body=f"[[2], {{}}, {embed}]".encode(), queue="celery")
    ])  # fmt: skip
    with start_worker(app, pool=pool, concurrency=1):
        assert good.get(timeout=20) == 2
        eventually(lambda: app.transport.dead_letters())
    (letter,) = app.transport.dead_letters()
    assert (letter.message.id, "surrogates" in letter.reason) == ("bad", True)


def test_what_is_revoked_while_it_gathers_takes_no_part(app: Celeriac) -> None:
    double, batches = doubling(app, batch=3, batch_wait=LONG)
    with start_worker(app, pool="threads", concurrency=1) as worker:
        results = [double.delay(1), double.delay(2)]
        gathered(worker, 2)
        app.control.revoke(results[0].id)
        eventually(lambda: results[0].id in worker._supervisor.control.revocations.ids())
        results.append(double.delay(3))
        assert [result.get(timeout=20) for result in results[1:]] == [4, 6]
        with pytest.raises(TaskRevokedError):
            results[0].get(timeout=20)
    assert batches == [[2, 3]]


def test_shutdown_gives_back_what_gathers_uncharged(each_app: Celeriac) -> None:
    double, batches = doubling(each_app, batch=3, batch_wait=LONG)
    with start_worker(each_app, pool="threads", concurrency=1) as worker:
        for number in range(2):
            double.delay(number)
        gathered(worker, 2)
    assert batches == []
    deliveries = each_app.transport.fetch(["celery"], 10, 5.0, 30.0)
    assert [delivery.starts for delivery in deliveries] == [0, 0]
    each_app.transport.settle([Settlement(delivery, Action.REQUEUE) for delivery in deliveries])


def test_shutdown_runs_what_gathers_and_is_acknowledged_already(app: Celeriac) -> None:
    double, batches = doubling(app, batch=3, batch_wait=LONG, acks_late=False)
    with start_worker(app, pool="threads", concurrency=1) as worker:
        results = [double.delay(number) for number in range(2)]
        gathered(worker, 2)
    assert [result.get(timeout=20) for result in results] == [0, 2]
    assert sorted(chained.from_iterable(batches)) == [0, 1]


def test_other_tasks_of_the_queue_do_not_gather(app: Celeriac) -> None:
    double, batches = doubling(app, batch=5, batch_wait=LONG)
    plain = app.task(lambda number: number, name="plain")
    results = [(double if number % 2 else plain).delay(number) for number in range(10)]
    with start_worker(app, pool="threads", concurrency=1):
        assert [result.get(timeout=20) for result in results] == [0, 2, 2, 6, 4, 10, 6, 14, 8, 18]
    assert batches == [[1, 3, 5, 7, 9]]


def test_limits_count_calls(app: Celeriac) -> None:
    double, batches = doubling(app, batch=10, batch_wait=0.1, max_concurrency=2)
    results = [double.delay(number) for number in range(6)]
    with start_worker(app, pool="threads", concurrency=1):
        assert [result.get(timeout=30) for result in results] == [number * 2 for number in range(6)]
    assert max(map(len, batches)) <= 2


def test_a_call_in_this_process_is_a_batch_of_one(app: Celeriac) -> None:
    double, batches = doubling(app, batch=10)
    assert double(1) == 2
    assert double.apply((2,)).get() == 4
    app.conf.task_always_eager = True
    assert double.delay(3).get() == 6
    assert batches == [[1], [2], [3]]


def test_a_class_may_be_a_batch_task(app: Celeriac) -> None:
    class Doubling(app.Task):  # type: ignore[name-defined, misc]
        name = "doubling"
        batch = 2
        batch_wait = LONG

        def run(self, calls: list[Call[[int]]]) -> list[int]:
            return [call.args[0] * 2 + len(calls) for call in calls]

    task = app.register_task(Doubling())
    with start_worker(app, pool="threads", concurrency=1):
        assert [result.get(timeout=20) for result in [task.delay(1), task.delay(2)]] == [4, 6]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": 0}, "batch: 0 is no whole number from 1 up"),
        ({"batch": "100"}, "batch: '100' is no whole number"),
        ({"batch": True}, "batch: True is no whole number"),
        ({"batch_wait": 2.0}, "batch_wait has a meaning only beside batch"),
        ({"batch": 2, "batch_wait": "2s"}, "batch_wait: '2s' is no number of seconds from 0 to 3600"),
        ({"batch": 2, "batch_wait": -1}, "batch_wait: -1 is no number"),
        ({"batch": 2, "pydantic": True}, "can't be pydantic"),
    ],
)
def test_wrong_options_are_told_when_the_task_is_made(app: Celeriac, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"task 'wrong': {text}|task 'wrong': batch: .*{text}"):
        app.task(lambda calls: None, name="wrong", **options)


def test_a_function_of_the_wrong_shape_is_told_when_the_task_is_made(app: Celeriac) -> None:
    with pytest.raises(ImproperlyConfigured, match="called with one argument, the list of calls"):
        app.task(lambda x, y: None, name="wrong", batch=2)


def test_a_task_that_takes_no_calls_can_not_be_annotated_to_a_batch(app: Celeriac) -> None:
    app.conf.task_annotations = {"plain": {"batch": 10}}
    app.task(lambda x: None, name="plain")
    with pytest.raises(ImproperlyConfigured, match="its function takes no list of calls"), start_worker(app):
        raise AssertionError("the worker has started")


def test_keys_of_limits_are_made_of_what_a_call_is_given(app: Celeriac) -> None:
    double, batches = doubling(app, batch=10, batch_wait=0, unique="until_done", unique_key="{args[0]}")
    first, second, other = double.delay(1), double.delay(1), double.delay(2)
    assert first.id == second.id != other.id
    with start_worker(app, pool="threads", concurrency=1):
        assert [first.get(timeout=20), other.get(timeout=20)] == [2, 4]
    assert sorted(chained.from_iterable(batches)) == [1, 2]
