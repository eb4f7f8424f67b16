"""Results to come: states, waiting, errors, what is recorded, and plain forms."""

from __future__ import annotations

import asyncio
import copy
import io
import pickle
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac import AsyncResult, Celeriac, EagerResult, result_from_tuple
from celeriac.errors import IncompleteStream, TaskRevokedError, TimeoutError
from celeriac.results.base import Record
from celeriac.timing import Deadline
from tests.support.apps import memory_app, run_all
from tests.support.flaky import Faults, FlakyStore


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def add(app: Celeriac) -> Any:
    return app.task(lambda x, y: x + y, name="add")


class ShopError(Exception):
    """A class that is importable here."""


def _fail(app: Celeriac, exc: BaseException) -> AsyncResult[Any]:
    def fail() -> None:
        raise exc

    result = app.task(fail, name=f"fail-{id(exc)}").delay()
    run_all(app)
    return result


def test_an_id_is_needed() -> None:
    """[B-RESULT-001]"""
    with pytest.raises(ValueError, match="requires a task id"):
        AsyncResult(None)  # type: ignore[arg-type]


def test_what_nobody_knows_is_pending(app: Celeriac) -> None:
    """[B-RESULT-002, B-RESULT-009, B-RESULT-018]"""
    result = app.AsyncResult("unknown")
    assert (result.state, result.status, result.result, result.info) == ("PENDING", "PENDING", None, None)
    assert (result.ready(), result.successful(), result.failed(), result.exists()) == (False, False, False, False)
    assert (result.traceback, result.date_done, result.children, result.maybe_throw()) == (None, None, None, None)


def test_the_value(app: Celeriac, add: Any) -> None:
    """[B-RESULT-003, B-RESULT-006, B-RESULT-008, B-RESULT-010, B-RESULT-013]"""
    result = add.delay(1, 2)
    run_all(app)
    seen: list[Any] = []
    assert result.get(timeout=1, callback=lambda *given: seen.append(given)) == 3
    assert seen == [(result.id, 3)]
    assert (result.state, result.status, result.result, result.info) == ("SUCCESS", "SUCCESS", 3, 3)
    assert (result.ready(), result.successful(), result.failed(), result.exists()) == (True, True, False, True)
    assert result.date_done is not None
    assert abs(result.date_done - datetime.now(UTC)) < timedelta(minutes=1)
    assert result.wait() == 3


def test_the_error(app: Celeriac) -> None:
    """[B-RESULT-003, B-RESULT-004, B-RESULT-008, B-RESULT-011]. B-RESULT-039 differs on purpose: no setting is needed."""
    result = _fail(app, ShopError("sold out", 3))
    with pytest.raises(ShopError) as caught:
        result.get(timeout=1)
    assert caught.value.args == ("sold out", 3)
    assert "raise exc" in str(caught.value.__cause__)
    assert isinstance(result.get(propagate=False), ShopError)
    assert isinstance(result.result, ShopError)
    assert (result.state, result.ready(), result.successful(), result.failed()) == ("FAILURE", True, False, True)
    assert result.traceback is not None
    assert result.traceback.startswith("Traceback")
    with pytest.raises(ShopError):
        result.maybe_throw()
    assert isinstance(result.maybe_throw(propagate=False), ShopError)


def test_an_error_of_an_unknown_class_keeps_its_name(app: Celeriac) -> None:
    """[B-RESULT-025]"""

    class HiddenError(Exception):
        pass

    result = _fail(app, HiddenError("text"))
    with pytest.raises(Exception, match="text") as caught:
        result.get(timeout=1)
    assert type(caught.value).__name__ == "HiddenError"


def test_a_revoked_task_raises(app: Celeriac) -> None:
    app.backend.store([Record(id="i", state="REVOKED", result=b"null")])  # type: ignore[union-attr]
    with pytest.raises(TaskRevokedError, match="revoked"):
        app.AsyncResult("i").get(timeout=1)


def test_waiting_ends_in_time_and_the_task_goes_on(app: Celeriac, add: Any) -> None:
    """[B-RESULT-005]"""
    result = add.delay(1, 2)
    with pytest.raises(TimeoutError, match=rf"Task {result.id} has no result after 0.01 seconds \(state: PENDING\)"):
        result.get(timeout=0.01)
    with pytest.raises(result.TimeoutError):
        asyncio.run(result.aget(timeout=0.01))
    run_all(app)
    assert result.get(timeout=0) == 3


def test_waiting_ends_when_the_result_comes(app: Celeriac, add: Any) -> None:
    result = add.delay(1, 2)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(result.get(timeout=20)))
    thread.start()
    run_all(app)
    thread.join(20)
    assert got == [3]


def test_many_coroutines_wait_with_few_threads(app: Celeriac, add: Any) -> None:
    before = set(threading.enumerate())  # those of other apps, which end soon

    async def wait() -> list[int]:
        results = [await add.adelay(n, n) for n in range(50)]
        waiting = [asyncio.ensure_future(result.aget(timeout=20)) for result in results]
        await asyncio.sleep(0)
        assert sum(each.name == "celeriac-results" for each in set(threading.enumerate()) - before) <= 4
        await asyncio.to_thread(run_all, app)
        return list(await asyncio.gather(*waiting))

    assert asyncio.run(wait()) == [2 * n for n in range(50)]


def test_what_is_recorded_with_extended_results() -> None:
    """[B-RESULT-020]"""
    app = memory_app(result_extended=True)
    app.task(lambda x, y=0: x, name="t")
    plain, extended = memory_app().AsyncResult("i"), app.send_task("t", ({"a": 1},), {"y": 2})
    run_all(app)
    assert (extended.name, extended.args, extended.kwargs) == ("t", [{"a": 1}], {"y": 2})
    assert (extended.worker, extended.retries, extended.queue) == ("unit@test", 0, "celery")
    assert (plain.name, plain.args, plain.worker) == (None, None, None)


@pytest.mark.parametrize(
    ("settings", "state", "lifetime"),
    [
        ({"result_expires": 60}, "SUCCESS", 60),
        ({"result_expires": timedelta(minutes=2)}, "SUCCESS", 120),
        ({"result_expires": None}, "SUCCESS", None),
        ({"result_expires": 0}, "SUCCESS", None),
        ({}, "SUCCESS", 86400),
        ({"result_expires": 60, "result_failure_expires": 5}, "FAILURE", 5),
        ({"result_expires": 60}, "FAILURE", 60),
    ],
)
def test_how_long_a_result_is_kept(settings: dict[str, Any], state: str, lifetime: float | None) -> None:
    """[B-RESULT-021]"""
    app = memory_app(**settings)
    app.task(lambda x: 1 / x, name="t")
    app.send_task("t", (1 if state == "SUCCESS" else 0,))
    before = time.time()
    (outcome,) = run_all(app)
    assert outcome.record is not None
    assert outcome.state == state
    if lifetime is None:
        assert outcome.record.expires_at is None
    else:
        assert outcome.record.expires_at == pytest.approx(before + lifetime, abs=5)


def test_forgetting_deletes_it_and_its_parents(app: Celeriac, add: Any) -> None:
    """[B-RESULT-014]"""
    parent, child = add.delay(1, 1), add.delay(2, 2)
    run_all(app)
    child.parent = parent
    assert (child.get(timeout=1), parent.state) == (4, "SUCCESS")
    child.forget()
    assert (child.state, parent.state) == ("PENDING", "PENDING")


def test_an_error_of_a_parent_is_raised(app: Celeriac, add: Any) -> None:
    """[B-RESULT-012]"""
    failed = _fail(app, ShopError("parent"))
    child = app.AsyncResult("never", parent=failed)
    with pytest.raises(ShopError, match="parent"):
        child.get(timeout=1)


def test_without_a_store_there_is_nothing_to_ask() -> None:
    """[B-RESULT-024 differs on purpose]: the state raises the same clear error as `get`."""
    app = memory_app(backend="disabled://")
    result = app.send_task("t")
    for ask in (result.get, lambda: result.state, result.ready, result.forget, lambda: asyncio.run(result.aget())):
        with pytest.raises(NotImplementedError, match="No result backend is configured: set `result_backend`"):
            ask()


def test_equality_and_texts(app: Celeriac) -> None:
    """[B-RESULT-015]"""
    result = app.AsyncResult("i")
    assert result == app.AsyncResult("i") == "i"
    assert result != app.AsyncResult("j")
    assert result != 5
    assert {result, AsyncResult("i")} == {result}
    assert (str(result), repr(result), result.task_id) == ("i", "<AsyncResult: i>", "i")
    assert copy.copy(result) == result
    assert pickle.loads(pickle.dumps(AsyncResult("i", parent=AsyncResult("p")))).parent == "p"


def test_plain_forms(app: Celeriac) -> None:
    """[B-RESULT-016]"""
    result = app.AsyncResult("c", parent=app.AsyncResult("b", parent=app.AsyncResult("a")))
    form = result.as_tuple()
    assert form == (("c", (("b", (("a", None), None)), None)), None)
    again = result_from_tuple(form, app)
    assert again == result
    assert again.parent == "b"
    assert again.parent.parent == "a"
    assert again.app is app
    assert result.as_list() == ["c", "b", "a"]
    assert result_from_tuple(["c", None], app) == "c"
    assert result_from_tuple(result) is result


def test_a_task_that_returns_a_result_stands_for_it(app: Celeriac, add: Any) -> None:
    outer = app.task(lambda: add.delay(1, 2), name="outer").delay()
    run_all(app)
    inner = result_from_tuple(outer.get(timeout=1), app)
    assert inner.get(timeout=1) == 3


def test_an_eager_result(app: Celeriac) -> None:
    """[B-RESULT-037]"""
    done = EagerResult("i", 5, "SUCCESS")
    assert (done.get(), done.result, done.state, done.ready(), done.successful(), str(done)) == (
        5,
        5,
        "SUCCESS",
        True,
        True,
        "i",
    )
    assert asyncio.run(done.aget()) == 5
    failed = EagerResult("i", ShopError("x"), "FAILURE", "Traceback …")
    assert (failed.failed(), failed.traceback) == (True, "Traceback …")
    assert isinstance(failed.get(propagate=False), ShopError)
    with pytest.raises(ShopError, match="x"):
        failed.get()
    done.revoke()
    assert done.state == "REVOKED"
    assert repr(done) == "<EagerResult: i>"
    done.forget()


def _store(app: Celeriac, task_id: str, state: str, value: bytes = b"null", **fields: Any) -> None:
    app.backend.store([Record(id=task_id, state=state, result=value, **fields)])  # type: ignore[union-attr]


def _tree(app: Celeriac) -> AsyncResult[Any]:
    """a sent b and a group of c and d; d sent e."""
    _store(
        app,
        "a",
        "SUCCESS",
        b"1",
        children=[[["b", None], None], [["g", None], [[["c", None], None], [["d", None], None]]]],
    )
    _store(app, "d", "SUCCESS", b"4", children=[[["e", None], None]])
    for number, task_id in ((2, "b"), (3, "c"), (5, "e")):
        _store(app, task_id, "SUCCESS", b"%d" % number)
    return app.AsyncResult("a")


@pytest.mark.behaviour("B-RESULT-012")
def test_what_followed_from_a_task(app: Celeriac) -> None:
    root = _tree(app)
    assert [(parent and parent.id, node.id) for parent, node in root.iterdeps()] == [
        (None, "a"), ("a", "b"), ("a", "g"), ("g", "c"), ("g", "d"), ("d", "e"),
    ]  # fmt: skip
    collected = [("a", 1), ("b", 2), ("g", [3, 4]), ("c", 3), ("d", 4), ("e", 5)]
    assert [(node.id, value) for node, value in root.collect(timeout=5)] == collected

    async def collect() -> list[Any]:
        return [(node.id, value) async for node, value in root.acollect(timeout=5)]

    assert asyncio.run(collect()) == collected
    assert root.get_leaf() == 5


def test_the_tree_of_a_task_that_has_not_ended(app: Celeriac) -> None:
    """[B-CANVAS-085] `collect` walks by `iterdeps`, but waits for each task first."""
    pending = app.AsyncResult("p")
    for walk in (lambda: list(pending.iterdeps()), lambda: pending.graph, pending.build_graph):
        with pytest.raises(IncompleteStream, match="Task p has not ended"):
            walk()
    assert [node.id for _, node in pending.iterdeps(intermediate=True)] == ["p"]
    assert [node.id for node in pending.build_graph(intermediate=True)] == ["p"]
    with pytest.raises(TimeoutError, match="p"):
        list(pending.collect(intermediate=True, timeout=0.01))


def test_the_graph_of_a_task(app: Celeriac) -> None:
    """[B-CANVAS-086]"""
    graph = _tree(app).graph
    assert [node.id for node in graph] == ["a", "b", "g", "c", "d", "e"]
    assert [node.id for node in graph["a"]] == ["b", "g"]
    written = io.StringIO()
    graph.to_dot(written)
    text = graph.dot()
    assert written.getvalue() == text
    assert text.startswith("digraph results {\n")
    assert '    "d" -> "e";\n' in text
    assert '"a" [label="a\\nSUCCESS"' in text


def test_forgetting_with_all_that_followed(app: Celeriac) -> None:
    _tree(app).forget(children=True)
    assert app.backend.get(list("abcde")) == [None] * 5  # type: ignore[union-attr]


@pytest.mark.behaviour("B-RESULT-017")
def test_a_callback_is_called_at_the_end_of_a_task(app: Celeriac, add: Any) -> None:
    result, called = add.delay(1, 2), threading.Event()
    got: list[Any] = []

    def tell(ended: AsyncResult[Any]) -> None:
        got.append((ended, ended.get()))
        called.set()

    assert result.then(tell) is result
    run_all(app)
    assert called.wait(20)
    assert got == [(result, 3)]


def test_what_a_callback_raises_goes_to_its_error_callback(app: Celeriac) -> None:
    failed, errors, called = _fail(app, ShopError("sold out")), [], threading.Event()

    def tell(exc: Exception) -> None:
        errors.append(exc)
        called.set()

    failed.then(lambda ended: ended.get(), on_error=tell)
    assert called.wait(20)
    assert repr(errors) == "[ShopError('sold out')]"


@pytest.mark.behaviour("B-RESULT-007")
def test_every_state_is_told(app: Celeriac) -> None:
    _store(app, "i", "PROGRESS", b'{"current": 1}', fence=(0, 1))
    seen: list[Any] = []

    def tell(meta: dict[str, Any]) -> None:
        seen.append((meta["status"], meta["result"]))
        if meta["status"] == "PROGRESS":
            _store(app, "i", "SUCCESS", b"5", fence=(0, 1))

    assert app.AsyncResult("i").get(timeout=20, on_message=tell) == 5
    assert seen == [("PROGRESS", {"current": 1}), ("SUCCESS", 5)]


def test_something_is_called_while_it_waits(app: Celeriac) -> None:
    calls: list[int] = []

    def tick() -> None:
        calls.append(1)
        if len(calls) == 3:
            _store(app, "i", "SUCCESS", b"5")

    assert app.AsyncResult("i").get(timeout=20, interval=0.01, on_interval=tick) == 5
    assert len(calls) == 3


@pytest.mark.behaviour("B-RESULT-002")
def test_an_unknown_id_shows_where_sent_tasks_are_recorded() -> None:
    assert memory_app(task_track_enqueued=True).AsyncResult("unknown").state == "UNKNOWN"


def test_an_eager_result_asks_no_store() -> None:
    app = memory_app(backend="disabled://")
    done: EagerResult[int] = EagerResult("i", 5, "SUCCESS", name="t")
    seen: list[Any] = []
    assert done.then(seen.append) is done
    assert (seen, done.children, done.date_done, done.name, done.maybe_throw()) == ([done], None, None, "t", 5)
    assert (app.ResultSet([done]).get(), [value for _, value in done.collect()]) == ([5], [5])
    assert [step.state for step in done.follow()] == ["SUCCESS"]
    assert pickle.loads(pickle.dumps(done)).get() == 5


@pytest.mark.behaviour("B-RESULT-045")
def test_a_client_remembers_results_if_it_is_told_to() -> None:
    def asked(**settings: Any) -> int:
        app = memory_app(**settings)
        for task_id in "abc":
            _store(app, task_id, "SUCCESS", b"1")
            assert app.AsyncResult(task_id).get(timeout=5) == 1
        faults = Faults()
        app.__dict__["backend"] = FlakyStore(app.backend, faults)  # type: ignore[arg-type]
        for task_id in "cba":
            assert (app.AsyncResult(task_id).state, app.AsyncResult(task_id).get(timeout=5)) == ("SUCCESS", 1)
        return faults.count("get") + faults.count("wait")

    assert asked() == 6
    assert asked(result_cache_max=2) == 1  # a is read again, and remembered
    assert asked(result_cache_max=0) == asked(result_cache_max=None) == 0


def test_a_forgotten_result_is_not_remembered() -> None:
    app = memory_app(result_cache_max=0)
    for task_id in "ab":
        _store(app, task_id, "SUCCESS", b"1")
        assert app.AsyncResult(task_id).ready()
    app.AsyncResult("a").forget()
    app.ResultSet([app.AsyncResult("b")]).forget()
    assert (app.AsyncResult("a").state, app.AsyncResult("b").state) == ("PENDING", "PENDING")


def test_the_steps_before_a_result_do_not_wake_who_waits_for_it(app: Celeriac) -> None:
    """They are looked at once in a while: each message about a step that succeeded would cost the client a turn."""
    first = app.AsyncResult("first")
    last = app.AsyncResult("last", parent=app.AsyncResult("middle", parent=first))
    steps = last._get_steps(Deadline(60), 60, follow_parents=True)
    ask = next(steps)
    assert ask.ids == ["last"]
    assert ask.timeout is not None
    assert ask.timeout <= 1.0
    steps.close()
