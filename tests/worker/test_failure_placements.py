"""Every way for a task not to succeed, at every place of a workflow: what the caller, the body and the callbacks see.

The table in docs/workflows.md says it in words. `BAD` are the ways, the tests are the places.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celeriac import AsyncResult, Celeriac, Reject, chain, chord, group
from celeriac.errors import ChordError, EncodeError, NotRegistered, TaskRevokedError
from celeriac.testing.worker import start_worker
from tests.support.files import eventually
from tests.support.redis_server import RedisServer


class Bad(NamedTuple):
    """A way not to succeed: the task, the options of its call, and how it ends."""

    task: str
    error: type[Exception]
    state: str = "FAILURE"
    options: dict[str, Any] = {}


BAD = {
    "raises": Bad("fail", ValueError),
    "unregistered": Bad("nowhere", NotRegistered),
    "rejected": Bad("reject", Reject),
    "result not encodable": Bad("odd", EncodeError),
    "replaced by one that raises": Bad("replaced", ValueError),
    "expired": Bad("plain", TaskRevokedError, "REVOKED", {"expires": -1}),
    "revoked": Bad("plain", TaskRevokedError, "REVOKED"),
}


class Bench:
    """An app with a worker, and what its tasks have been called with."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.called: list[tuple[str, Any]] = []
        self.lock = threading.Lock()
        self._names = itertools.count()
        app.task(lambda *values: values[0], name="add")
        # Of one argument, so that they are tasks of their own as error callbacks, too.
        app.task(lambda value: value, name="plain")
        app.task(_fail, name="fail")
        app.task(lambda value: object(), name="odd")
        app.task(_reject, name="reject")
        app.task(_replaced, name="replaced", bind=True)
        app.task(self._note, name="note")
        app.task(self._on_error, name="on_error")
        app.conf.task_unknown_delay = 0.01

    def _note(self, value: Any, mark: str) -> Any:
        with self.lock:
            self.called.append((mark, value))
        return value

    def _on_error(self, request: Any, exc: Any, trace: Any) -> None:
        with self.lock:
            self.called.append(("error", request.id))

    def good(self) -> Any:
        return self.app.signature("add", (1,))

    def bad(self, bad: Bad) -> Any:
        """The call that does not succeed, with its id."""
        call = self.app.signature(bad.task, (1,), immutable=True, **bad.options)
        call.freeze()
        if bad is BAD["revoked"]:
            task_id = call.options["task_id"]
            assert self.app.control.revoke(task_id, reply=True, limit=1, timeout=20)
        return call

    def marked(self) -> tuple[Any, str]:
        """A call that is noted under a mark of its own."""
        mark = f"mark{next(self._names)}"
        return self.app.signature("note", (), {"mark": mark}), mark

    def calls(self, mark: str) -> list[Any]:
        with self.lock:
            return [value for name, value in self.called if name == mark]

    def errors_of(self, *ids: str) -> list[str]:
        with self.lock:
            return [value for name, value in self.called if name == "error" and value in ids]

    def on_error(self) -> Any:
        return self.app.signature("on_error")

    def wait(self, *results: Any) -> None:
        """Until all of these have ended."""
        for result in results:
            eventually(result.ready, 30)


def _fail(value: Any) -> None:
    raise ValueError("no")


def _reject(value: Any) -> None:
    raise Reject("no")


def _replaced(task: Any, value: Any) -> Any:
    return task.replace(task.app.signature("fail", (value,)))


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    with RedisServer(folder) as server:
        yield server.url()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("placements")
    if request.param == "sqlite":
        yield from _run(f"sqlite:///{folder}/tasks.db?synchronous=NORMAL")
    else:
        with _redis(folder) as url:
            yield from _run(url)


def _run(url: str) -> Iterator[Bench]:
    with Celeriac("placements", broker=url, backend=url, set_as_current=False) as app:
        bench = Bench(app)
        with start_worker(app, pool="threads", concurrency=3):
            yield bench


def assert_ended(result: Any, bad: Bad, error: type[Exception] | None = None) -> None:
    """It has ended badly: for the caller, and in the store."""
    assert (result.state, type(result.result)) == (bad.state, error or bad.error)


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> Bad:
    return BAD[request.param]


def is_called(bad: Bad) -> bool:
    """Error callbacks are those of failures: what was revoked or has expired calls none."""
    return bad.state == "FAILURE"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_in_a_chain(bench: Bench, bad: Bad, place: int) -> None:
    """[B-CANVAS-024, B-CANVAS-025, B-CANVAS-026, B-CANVAS-027] Those before have run, those after end as it does."""
    steps = [bench.good(), bench.good(), bench.good()]
    steps[place] = bench.bad(bad)
    whole, (callback, mark) = chain(*steps), bench.marked()
    whole.link(callback)
    whole.link_error(bench.on_error())
    result = whole.apply_async()
    results = [result.parent.parent, result.parent, result]
    bench.wait(*results)
    for number, each in enumerate(results):
        if number < place:
            assert each.state == "SUCCESS"
        else:
            assert_ended(each, bad)
    with pytest.raises((bad.error, Exception)):
        result.get(timeout=30)
    assert bench.calls(mark) == []
    assert bench.errors_of(*(each.id for each in results)) == [results[place].id] * is_called(bad)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_in_a_group(bench: Bench, bad: Bad, place: int) -> None:
    """[B-CANVAS-049] The others are not concerned."""
    members = [bench.good(), bench.good(), bench.good()]
    members[place] = bench.bad(bad)
    whole = group(members)
    whole.link_error(bench.on_error())
    result = whole.apply_async()
    bench.wait(*result.results)
    assert [each.state == "SUCCESS" for each in result.results] == [number != place for number in range(3)]
    assert_ended(result.results[place], bad)
    with pytest.raises((bad.error, Exception)):
        result.get(timeout=30)
    assert bench.errors_of(*(each.id for each in result.results)) == [result.results[place].id] * is_called(bad)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_in_the_header_of_a_chord(bench: Bench, bad: Bad, place: int) -> None:
    """[B-CANVAS-058, B-CANVAS-059, B-CANVAS-060] The body does not run and fails; its error callback is called once."""
    parts = [bench.good(), bench.good(), bench.good()]
    parts[place] = bench.bad(bad)
    (body, mark), (callback, after) = bench.marked(), bench.marked()
    body.link(callback)
    body.link_error(bench.on_error())
    result = chord(parts, body).apply_async()
    bench.wait(result)
    failed = result.parent.results[place]
    assert [each.state == "SUCCESS" for each in result.parent.results] == [number != place for number in range(3)]
    assert_ended(failed, bad)
    assert (result.state, type(result.result)) == ("FAILURE", ChordError)
    assert failed.id in str(result.result)
    with pytest.raises((bad.error, ChordError)):
        result.get(timeout=30)
    assert (bench.calls(mark), bench.calls(after), bench.errors_of(result.id)) == ([], [], [result.id])


def test_as_the_body_of_a_chord(bench: Bench, bad: Bad) -> None:
    body, (callback, mark) = bench.bad(bad), bench.marked()
    body.link(callback)
    body.link_error(bench.on_error())
    result = chord([bench.good(), bench.good()], body).apply_async()
    bench.wait(*result.parent.results, result)
    assert [each.state for each in result.parent.results] == ["SUCCESS"] * 2
    assert_ended(result, bad)
    assert bench.calls(mark) == []
    assert bench.errors_of(result.id) == [result.id] * is_called(bad)


def test_in_a_chain_in_a_header(bench: Bench, bad: Bad) -> None:
    (body, mark), (end, after) = bench.marked(), bench.marked()
    body.link_error(bench.on_error())
    part = chain(bench.good(), bench.bad(bad), bench.good())
    result = chord([bench.good(), part], chain(body, end)).apply_async()
    bench.wait(result)
    last = result.parent.parent.results[1]
    assert_ended(last, bad)
    assert_ended(last.parent, bad)
    assert (result.state, type(result.result), result.parent.state) == ("FAILURE", ChordError, "FAILURE")
    assert (bench.calls(mark), bench.calls(after)) == ([], [])
    assert bench.errors_of(result.parent.id, result.id) == [result.id], "the end of the body stands for it"


@pytest.mark.parametrize("is_body", [False, True])
def test_in_a_chord_in_a_header(bench: Bench, bad: Bad, is_body: bool) -> None:
    """[B-CANVAS-074] Of the inner chord a part, or its body."""
    (inner_body, inner), (body, outer) = bench.marked(), bench.marked()
    body.link_error(bench.on_error())
    inner_part, end = (bench.good(), bench.bad(bad)) if is_body else (bench.bad(bad), inner_body)
    part = chord([bench.good(), inner_part], end)
    result = chord([part, bench.good()], body).apply_async()
    bench.wait(result)
    inner_result = result.parent.results[0]
    if is_body:
        assert_ended(inner_result, bad)
    else:
        assert (inner_result.state, type(inner_result.result)) == ("FAILURE", ChordError)
        assert_ended(inner_result.parent.results[1], bad)
    assert (result.state, type(result.result)) == ("FAILURE", ChordError)
    assert (bench.calls(inner), bench.calls(outer), bench.errors_of(result.id)) == ([], [], [result.id])


def test_before_a_group_that_becomes_a_header(bench: Bench, bad: Bad) -> None:
    """[B-CANVAS-034] Nothing of what follows it runs; every task of it has ended."""
    (member, mark), (body, after) = bench.marked(), bench.marked()
    result = chain(bench.bad(bad), group(member, bench.good()), body).apply_async()
    bench.wait(result, *result.parent.results, result.parent.parent)
    for each in (result, *result.parent.results, result.parent.parent):
        assert_ended(each, bad)
    assert (bench.calls(mark), bench.calls(after)) == ([], [])


def test_as_a_callback(bench: Bench, bad: Bad) -> None:
    """The task that it was linked to has succeeded, and what follows that runs."""
    first, callback, (then, mark) = bench.good(), bench.bad(bad), bench.marked()
    first.link(callback)
    called = AsyncResult(callback.options["task_id"], app=bench.app)
    result = chain(first, then).apply_async()
    bench.wait(result, called)
    assert (result.parent.state, result.state, bench.calls(mark)) == ("SUCCESS", "SUCCESS", [1])
    assert_ended(called, bad)


def test_as_an_error_callback(bench: Bench, bad: Bad) -> None:
    """[B-CANVAS-067] What has failed stays as it is; other error callbacks are called."""
    first, errback = bench.app.signature("fail", (1,)), bench.bad(bad)
    first.link_error(errback)
    first.link_error(bench.on_error())
    result = chord([bench.good(), first], bench.marked()[0]).apply_async()
    failed = result.parent.results[1]
    called = AsyncResult(errback.options["task_id"], app=bench.app)
    bench.wait(result, called)
    assert (failed.state, type(failed.result)) == ("FAILURE", ValueError)
    assert (result.state, type(result.result)) == ("FAILURE", ChordError)
    assert bench.errors_of(failed.id) == [failed.id]
    assert_ended(called, bad)


def test_error_callbacks_of_every_part(bench: Bench, bad: Bad) -> None:
    """[B-CANVAS-061, B-CANVAS-062] With `task_allow_error_cb_on_chord_header`."""
    bench.app.conf.task_allow_error_cb_on_chord_header = True
    try:
        whole = chord([bench.bad(bad), bench.good(), bench.bad(bad)], bench.marked()[0])
        whole.link_error(bench.on_error())
    finally:
        bench.app.conf.task_allow_error_cb_on_chord_header = False
    result = whole.apply_async()
    bench.wait(result)
    ids = [each.id for each in result.parent.results]
    called = {ids[0], ids[2], result.id} if is_called(bad) else {result.id}
    assert (result.state, type(result.result)) == ("FAILURE", ChordError)
    assert sorted(bench.errors_of(*ids, result.id)) == sorted(called)


@pytest.fixture(autouse=True)
def _nothing_left(bench: Bench) -> Iterator[None]:
    yield
    with bench.lock:
        bench.called.clear()
