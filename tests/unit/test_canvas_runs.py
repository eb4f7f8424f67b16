"""Workflows run to their end through the code of runners and committer, in the calling thread."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from celeriac import AsyncResult, Celeriac, GroupResult, Ignore, Reject, chain, chord, group
from celeriac.errors import ChordError, ImproperlyConfigured, NotRegistered
from celeriac.outcome import Part
from celeriac.results.base import Record
from celeriac.worker.chords import Entry, count
from tests.support.apps import memory_app, run_all, sent


class Tasks:
    """Some tasks, and what was called."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.calls: list[Any] = []
        self.add = app.task(lambda x, y=0: x + y, name="add")
        self.echo = app.task(self._echo, name="echo")
        self.total = app.task(sum, name="total", typing=False)
        self.fail = app.task(self._fail, name="fail", typing=False)
        self.note = app.task(lambda *args: self.calls.append(list(args)), name="note", typing=False)

        @app.task(name="on_error")
        def on_error(request: Any, exc: Exception, trace: Any) -> None:
            self.calls.append((request.id, repr(exc)))

        self.on_error = on_error

    def _echo(self, value: Any = None) -> Any:
        self.calls.append(value)
        return value

    def _fail(self, *args: Any) -> None:
        raise ValueError("no")


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def t(app: Celeriac) -> Tasks:
    return Tasks(app)


def value(result: Any) -> Any:
    """What a workflow has given once `run_all` has run it."""
    return result.get(timeout=0.1)


CASES = {
    "chain": (lambda t: chain(t.add.s(2, 2), t.add.s(4), t.add.s(8)), 16),
    "chain of one": (lambda t: chain(t.add.s(2, 2)), 4),
    "immutable steps": (lambda t: chain(t.add.s(2, 2), t.add.si(1, 1), t.add.s(1)), 3),
    "group": (lambda t: group([t.add.s(i, i) for i in range(4)]), [0, 2, 4, 6]),
    "empty group": (lambda t: group([]), []),
    "group in a group": (lambda t: group(group(t.add.s(1, 1), t.add.s(2, 2)), t.add.s(3, 3)), [2, 4, 6]),
    "group of chains": (lambda t: group(t.add.s(1, 1) | t.add.s(1), t.add.s(2, 2) | t.add.s(2)), [3, 6]),
    "chain into group": (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.si(5, 5)), [3, 10]),
    "chord": (lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()), 6),
    "chord of one": (lambda t: group(t.add.s(1, 1)) | t.echo.s(), [2]),
    "empty chord": (lambda t: chord([], t.echo.s()), []),
    "immutable body": (lambda t: chord([t.add.s(1, 1)], t.add.si(7, 7)), 14),
    "body with a chain": (lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s() | t.add.s(2)), 8),
    "body with a group": (lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | group(t.total.s(), t.echo.s()), [6, [2, 4]]),
    "chord, then a task": (lambda t: chord([t.add.s(1, 1)], t.total.s()) | t.add.s(5), 7),
    "chord, then a group": (lambda t: chord([t.add.s(1, 1)], t.total.s()) | group(t.add.s(1), t.add.s(2)), [3, 4]),
    "chord, then a chord": (
        lambda t: chord([t.add.s(1, 1)], t.total.s()) | chord([t.add.s(1), t.add.s(2)], t.total.s()), 7,
    ),
    "group, then a chord": (
        lambda t: chain(group(t.add.s(1, 1), t.add.s(2, 2)), chord([t.total.s(), t.total.s()], t.total.s())), 12,
    ),
    "groups in a chain": (
        lambda t: chain(t.add.s(1, 1), group(t.add.s(1), t.add.s(2)), t.total.s(), group(t.add.s(1), t.add.s(2)),
                        t.total.s()), 17,
    ),
    "chain in a header": (lambda t: chord([t.add.s(1, 1) | t.add.s(2), t.add.s(5, 5)], t.echo.s()), [4, 10]),
    "group in a header": (lambda t: chord([group(t.add.s(1, 1), t.add.s(2, 2)), t.add.s(3, 3)], t.echo.s()), [2, 4, 6]),
    "chain into a group in a header": (
        lambda t: chord([chain(t.add.s(1, 1), group(t.add.s(2), t.add.s(3))), t.add.s(5, 5)], t.echo.s()), [[4, 5], 10],
    ),
    "chord in a header": (
        lambda t: chord([chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()), t.add.s(5, 5)], t.echo.s()), [6, 10],
    ),
    "chord with a group as body in a header": (
        lambda t: chord([chord([t.add.s(1, 1), t.add.s(2, 2)], group(t.total.s(), t.total.s())), t.add.s(5, 5)],
                        t.echo.s()), [[6, 6], 10],
    ),
    "chord in a body": (lambda t: chord([t.add.s(1, 1)], chord([t.total.s(), t.total.s()], t.total.s())), 4),
    "map": (lambda t: t.add.map([1, 2]), [1, 2]),
    "map with partial arguments": (lambda t: t.add.s(y=5) and t.add.map([1]), [1]),
    "starmap": (lambda t: t.add.starmap([(1, 2), (3, 4)]), [3, 7]),
    "chunks": (lambda t: t.add.chunks([(i, i) for i in range(5)], 2).group(), [[0, 2], [4, 6], [8]]),
    "chunks in a chain": (lambda t: chain(t.add.chunks([(i, i) for i in range(3)], 2).group(), t.echo.s()), [[0, 2], [4]]),
    "a workflow that is called with more": (lambda t: chain(t.add.s(1, 1), t.echo.s()).clone(), 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values(t: Tasks, case: str) -> None:
    """[B-CANVAS-014, B-CANVAS-023, B-CANVAS-030, B-CANVAS-031, B-CANVAS-035, B-CANVAS-037, B-CANVAS-039, B-CANVAS-043,
    B-CANVAS-044, B-CANVAS-045, B-CANVAS-047, B-CANVAS-054, B-CANVAS-055, B-CANVAS-074, B-CANVAS-075, B-CANVAS-077,
    B-CANVAS-078, B-CANVAS-080, B-CANVAS-091]"""
    make, expected = CASES[case]
    result = make(t).apply_async()
    run_all(t.app)
    assert value(result) == expected
    assert make(t).apply().get() == expected
    assert sent(t.app) == []
    t.app.conf.task_always_eager = True
    assert make(t).apply_async().get() == expected


@pytest.mark.parametrize("case", CASES)
def test_values_of_what_has_travelled(t: Tasks, case: str) -> None:
    """[B-CANVAS-089]"""
    make, expected = CASES[case]
    result = t.app.signature(json.loads(json.dumps(make(t)))).apply_async()
    run_all(t.app)
    assert value(result) == expected


def test_arguments_go_to_the_beginning(t: Tasks) -> None:
    results = [
        chain(t.add.s(1), t.add.s(10)).apply_async((5,)),
        group(t.add.s(1), t.add.s(2))(5),
        chord([t.add.s(1), t.add.s(2)], t.echo.s()).apply_async((5,)),
        chain(t.add.s(), t.add.s(10)).apply_async((5,), {"y": 3}),
    ]
    run_all(t.app)
    assert [value(result) for result in results] == [16, [6, 7], [6, 7], 18]


def test_results_know_what_comes_before(t: Tasks) -> None:
    """[B-CANVAS-016, B-CANVAS-020, B-CANVAS-022, B-CANVAS-053, B-CANVAS-056, B-CANVAS-057]"""
    result = chain(t.add.s(1, 1), group(t.add.s(1), t.add.s(2)), t.total.s()).apply_async(task_id="mine")
    run_all(t.app)
    assert (result.id, value(result)) == ("mine", 7)
    header = result.parent
    assert isinstance(header, GroupResult)
    assert value(header) == [3, 4]
    assert (type(header.parent), value(header.parent), header.parent.parent) == (AsyncResult, 2, None)
    many = (t.add.s(1, 1) | group(t.add.s(1), t.add.s(2))).apply_async()
    assert isinstance(many, GroupResult)
    assert isinstance(many.parent, AsyncResult)
    assert chain()() is None
    assert chain().apply_async() is None


def test_children_are_what_was_sent(t: Tasks) -> None:
    """[B-CANVAS-084]"""
    result = chain(t.add.s(1, 1).set(link=[t.echo.s()]), t.add.s(3)).apply_async()
    run_all(t.app)
    linked, following = result.parent.children
    assert value(linked) == 2
    assert following.id == result.id
    many = chain(t.add.s(1, 1), group(t.add.s(1), t.add.s(2))).apply_async()
    run_all(t.app)
    (child,) = many.parent.children
    assert isinstance(child, GroupResult)
    assert child.as_tuple()[1] == many.as_tuple()[1]


def test_links_run_at_the_end(t: Tasks) -> None:
    """[B-CANVAS-027, B-CANVAS-026]"""
    chain(t.add.s(1, 1), t.add.s(1)).apply_async(link=t.note.s("chain"))
    steps = chain(t.add.s(1, 1), t.add.s(2))
    steps.link(chord([t.add.s(1), t.add.s(2)], t.note.s("link")))
    steps.apply_async()
    whole = chord([t.add.s(1, 1)], t.total.s())
    whole.link(t.note.s("chord"))
    whole.apply_async()
    run_all(t.app)
    assert sorted(map(str, t.calls)) == ["[2, 'chord']", "[3, 'chain']", "[[5, 6], 'link']"]


def test_options_go_to_what_runs_first(t: Tasks) -> None:
    """[B-CANVAS-028, B-CANVAS-029, B-CANVAS-071]"""
    chain(t.add.s(1, 1), t.add.s(1)).apply_async(queue="other", priority=3)
    (first,) = sent(t.app, "other")
    assert first.priority == 3
    assert "queue" not in json.loads(first.body)[2]["chain"][0]["options"]
    chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()).apply_async(queue="other", countdown=0.001)
    messages = t.app.transport.fetch(["other"], 10, 5.0, 60.0)
    for delivery in messages:
        assert delivery.message.headers["eta"]
        body = json.loads(delivery.message.body)[2]["chord"]
        assert (body["options"]["queue"], "countdown" in body["options"]) == ("other", False)


def test_a_failed_step_ends_the_chain(t: Tasks) -> None:
    """[B-CANVAS-024, B-CANVAS-025, B-CANVAS-026]"""
    steps = chain(t.add.s(1, 1), t.fail.s(), t.echo.s(), group(t.echo.s(), t.echo.s()), t.echo.s())
    result = steps.on_error(t.on_error.s()).apply_async()
    run_all(t.app)
    with pytest.raises(ValueError, match="no"):
        value(result)
    assert result.state == "FAILURE"
    assert [part.state for part in result.parent.results] == ["FAILURE"] * 2
    failed = result.parent.parent.parent
    assert t.calls == [(failed.id, "ValueError('no')")]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_failed_part_fails_the_body(t: Tasks, place: int) -> None:
    """[B-CANVAS-058, B-CANVAS-059, B-CANVAS-060, B-CANVAS-066]"""
    parts = [t.add.s(1, 1), t.add.s(2, 2), t.add.s(3, 3)]
    parts[place] = t.fail.s()
    result = chord(parts, t.echo.s().on_error(t.on_error.s()) | t.echo.s()).apply_async()
    run_all(t.app)
    failed = result.parent.parent.results[place]
    assert [part.state for part in result.parent.parent.results].count("SUCCESS") == 2
    assert result.state == result.parent.state == "FAILURE"
    assert isinstance(result.result, ChordError)
    assert str(result.result) == f"Dependency {failed.id} raised ValueError('no')"
    with pytest.raises((ValueError, ChordError), match="no"):
        value(result)
    assert t.calls == [(result.id, repr(result.result))]


def test_error_callbacks_of_the_header(t: Tasks) -> None:
    """[B-CANVAS-061, B-CANVAS-062]"""
    t.app.conf.task_allow_error_cb_on_chord_header = True
    whole = chord([t.fail.s(1), t.fail.s(2)], t.echo.s())
    whole.link_error(t.on_error.s())
    result = whole.apply_async()
    run_all(t.app)
    assert [id for id, _ in t.calls] == [*(part.id for part in result.parent.results), result.id]


def test_an_error_callback_of_one_argument_is_a_task(t: Tasks) -> None:
    """[B-CANVAS-065]"""
    result = chord([t.fail.s()], t.echo.s().on_error(t.note.s()), app=t.app).apply_async()
    note = t.app.task(lambda failed_id: t.calls.append(failed_id), name="noted")
    chord([t.fail.s()], t.echo.s().on_error(note.s())).apply_async(task_id="body")
    run_all(t.app)
    assert "body" in t.calls
    assert result.state == "FAILURE"


@pytest.mark.parametrize(("make", "state"), [
    (lambda t: t.app.signature("unknown"), "FAILURE"),
    (lambda t: t.app.task(_ignore, name="ignore").s(), "PENDING"),
    (lambda t: t.app.task(_reject, name="reject").s(), "FAILURE"),
    (lambda t: chain(t.add.s(1, 1), t.fail.s(), t.echo.s()), "FAILURE"),
    (lambda t: chain(t.add.s(1, 1), t.app.signature("unknown"), t.echo.s()), "FAILURE"),
    (lambda t: chord([t.fail.s(), t.add.s(1, 1)], t.echo.s()), "FAILURE"),
    (lambda t: chain(t.fail.s(), group(t.echo.s(), t.echo.s())), "FAILURE"),
    (lambda t: t.add.s("a", 1), "FAILURE"),
])  # fmt: skip
def test_a_part_that_can_not_end_well_ends_the_chord(t: Tasks, make: Any, state: str) -> None:
    """[B-CANVAS-058, B-CANVAS-088]"""
    result = chord([t.add.s(1, 1), make(t)], t.echo.s()).apply_async()
    inner = chord([chord([make(t)], t.echo.s()), t.add.s(1, 1)], chain(t.echo.s(), t.echo.s())).apply_async()
    while any(outcome.action == "defer" for outcome in run_all(t.app)):
        pass
    assert result.parent.results[1].state == state
    assert (result.state, type(result.result)) == ("FAILURE", ChordError)
    assert (inner.state, type(inner.result)) == ("FAILURE", ChordError)
    assert inner.parent.state == "FAILURE"
    assert None not in t.calls


def _ignore() -> None:
    raise Ignore


def _reject() -> None:
    raise Reject("no reason")


def test_an_unsent_body_is_the_bodys_failure(t: Tasks) -> None:
    result = chord([t.add.s(1, 1)], t.echo.s().set(serializer="json", queue="no such")).apply_async()
    t.app.conf.message_max_bytes = 10
    run_all(t.app)
    assert (result.state, type(result.result)) == ("FAILURE", ChordError)
    assert "MessageTooLarge" in str(result.result)


def test_parts_keep_their_results(t: Tasks) -> None:
    """[B-CANVAS-070]"""
    quiet = t.app.task(lambda: 5, name="quiet", ignore_result=True)
    result = chord([quiet.s(), quiet.s().set(ignore_result=True)], t.echo.s()).apply_async()
    run_all(t.app)
    assert value(result) == [5, 5]


def test_a_chord_needs_a_store_that_counts() -> None:
    """[B-CANVAS-068, B-CANVAS-069]"""
    for url, broker, text in (
        ("disabled://", "memory://no-store", "set `result_backend`"),
        ("rpc://", "amqp://localhost:1", "a chord needs a result backend that can count its parts"),
    ):
        app = memory_app(backend=url, broker=broker)
        t = Tasks(app)
        for whole in (chord([t.add.s(1, 1)], t.echo.s()), chain(t.add.s(1, 1), group(t.add.s(1)) | t.echo.s())):
            with pytest.raises(NotImplementedError, match=text):
                whole.apply_async()


def test_a_retry_keeps_what_follows(t: Tasks) -> None:
    """[B-CANVAS-083]"""

    @t.app.task(bind=True, name="again")
    def again(self: Any, x: int) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return x

    result = chord([again.s(1) | again.s(), again.s(2)], again.s() if False else t.total.s()).apply_async()
    steps = chain(again.s(3).set(link=[t.note.s()]), again.s(), group(again.s(), t.echo.s())).apply_async()
    run_all(t.app)
    assert value(result) == 3
    assert value(steps) == [3, 3]
    assert t.calls.count([3]) == 1


def test_replace(t: Tasks) -> None:
    """[B-TASK, B-CANVAS-083]"""
    made = {
        "task": lambda x: t.add.s(x, 1),
        "chain": lambda x: t.add.s(x, 1) | t.add.s(1),
        "group": lambda x: group(t.add.s(x, 1), t.add.s(x, 2)),
        "chord": lambda x: chord([t.add.s(x, 1), t.add.s(x, 2)], t.total.s()),
        "chain into group": lambda x: chain(t.add.s(x, 1), group(t.add.s(1), t.add.s(2))),
    }

    @t.app.task(bind=True, name="instead")
    def instead(self: Any, x: int, kind: str) -> Any:
        return self.replace(made[kind](x))

    expected = {"task": 2, "chain": 3, "group": [2, 3], "chord": 5, "chain into group": [3, 4]}
    for kind, found in expected.items():
        plain = instead.delay(1, kind)
        linked = instead.s(1, kind).set(link=[t.note.s(kind)]).apply_async()
        inner = chord([instead.s(1, kind), t.add.s(5, 5)], t.echo.s()).apply_async()
        steps = chain(instead.s(1, kind), t.echo.s(), t.echo.s()).apply_async()
        run_all(t.app)
        assert value(plain) == value(linked) == value(steps) == found
        assert value(inner) == [found, 10]
        assert t.calls.count([found, kind]) == 1
        assert instead.apply((1, kind)).get() == found


def test_replace_refuses_what_it_can_not_put_there(t: Tasks) -> None:
    @t.app.task(bind=True, name="instead")
    def instead(self: Any, sig: Any) -> Any:
        return self.replace(self.app.signature(sig))

    results = [instead.delay(chain(app=t.app)), instead.delay(t.add.s(1).set(chord=t.echo.s()))]
    run_all(t.app)
    assert [type(result.result) for result in results] == [ImproperlyConfigured] * 2
    assert "empty chain" in str(results[0].result)


def test_an_unknown_task_in_a_chain_is_that_steps_failure(t: Tasks) -> None:
    """[B-CANVAS-088]"""
    result = chain(t.app.signature("unknown"), t.app.signature("add", args=(1,)), app=t.app).apply_async()
    run_all(t.app)
    assert isinstance(result.result, NotRegistered)
    known = chain(t.app.signature("add", args=(1, 1)), t.app.signature("add", args=(1,))).apply_async()
    run_all(t.app)
    assert value(known) == 3


def test_the_same_signature_may_be_used_often(t: Tasks) -> None:
    one = t.add.s(1, 1)
    whole = chord([one, one, one | t.add.s(1)], t.echo.s())
    before = json.dumps(whole)
    results = [whole.apply_async(), whole.apply_async()]
    run_all(t.app)
    assert [value(result) for result in results] == [[2, 2, 3]] * 2
    assert json.dumps(whole) == before


def test_a_generator_is_sent_once(t: Tasks) -> None:
    """[B-CANVAS-046]"""
    many = group(t.add.s(i, i) for i in range(1200))
    result = many()
    run_all(t.app)
    assert value(result) == [2 * i for i in range(1200)]
    with pytest.raises(ValueError, match="used up"):
        many()


def test_what_a_task_sends_is_its_child(t: Tasks) -> None:
    @t.app.task(name="parent")
    def parent() -> None:
        chain(t.add.s(1, 1), t.add.s(2)).delay()

    result = parent.delay()
    run_all(t.app)
    (child,) = result.children
    assert value(child) == 4
    assert child.parent is not None


def test_eager_errors(t: Tasks) -> None:
    """[B-CANVAS-091]"""
    result = chain(t.add.s(1, 1), t.fail.s(), t.echo.s()).apply()
    assert result.state == "FAILURE"
    with pytest.raises(ValueError, match="no"):
        result.get()
    result = chord([t.fail.s(), t.add.s(1, 1)], t.echo.s().on_error(t.on_error.s())).apply(task_id="body")
    assert (result.id, result.state, type(result.result)) == ("body", "FAILURE", ChordError)
    assert [id for id, _ in t.calls] == ["body"]


def test_what_replaces_a_task_is_newer_than_its_states(t: Tasks) -> None:
    @t.app.task(bind=True, name="instead", track_started=True, max_retries=5)
    def instead(self: Any, x: int) -> Any:
        self.update_state(state="PROGRESS", meta={"done": 1})
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.replace(t.add.s(x, 1))

    result = instead.delay(1)
    run_all(t.app)
    assert value(result) == 2


def test_signatures_and_what_is_given_later(t: Tasks) -> None:
    """[B-CANVAS-001, B-CANVAS-002, B-CANVAS-005, B-CANVAS-006, B-CANVAS-008, B-CANVAS-011, B-CANVAS-012]"""
    sub = t.app.task(lambda x, y, countdown=0: x - y + countdown, name="sub")
    assert t.app.signature("sub", (2, 2)) == sub.s(2, 2) == sub.signature((2, 2))
    assert sub.signature((2,), {"y": 3}, countdown=10).options == sub.s(2, y=3).set(countdown=10).options
    assert (sub.s(2, countdown=1).options, sub.s(2, countdown=1).kwargs) == ({}, {"countdown": 1})
    assert sub.s(10)(30) == 20
    results = [
        sub.s(10).delay(30), sub.s(10, countdown=1).delay(30, countdown=2), sub.si(3, 1).delay(5, countdown=7),
        sub.s(1, 1).delay(countdown=5),
    ]  # fmt: skip
    run_all(t.app)
    assert [value(result) for result in results] == [20, 22, 2, 5]
    assert sub.s(1, 1).set(priority=3).clone(priority=5).options == {"priority": 5}


def test_links_are_kept_once(t: Tasks) -> None:
    """[B-CANVAS-013]"""
    one, callback = t.add.s(1, 1), t.note.s()
    assert one.link(callback) is callback
    one.link(t.note.s())
    assert one.on_error(t.note.s()) is one
    assert (len(one.options["link"]), len(one.options["link_error"])) == (1, 1)


def test_a_broken_error_callback_changes_nothing(t: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    """[B-CANVAS-067]"""

    @t.app.task(name="broken")
    def broken(request: Any, exc: Any, trace: Any) -> None:
        raise KeyError("broken")

    result = chain(t.fail.s().on_error(broken.s()), t.echo.s()).apply_async()
    whole = chord([t.fail.s()], t.echo.s().on_error(broken.s())).apply_async()
    run_all(t.app)
    assert (result.state, type(result.parent.result)) == ("FAILURE", ValueError)
    assert (whole.state, type(whole.result)) == ("FAILURE", ChordError)
    assert "error callback broken raised" in caplog.text


def test_handlers_of_parts_do_not_matter(t: Tasks) -> None:
    """[B-CANVAS-076]"""
    base = type("Quiet", (t.app.Task,), {"after_return": lambda self, *args: None})
    quiet = t.app.task(lambda: 1, name="quiet", base=base)
    result = chord([quiet.s(), quiet.s()], t.echo.s()).apply_async()
    run_all(t.app)
    assert value(result) == [1, 1]


def test_the_unlock_task_of_stock_clients(t: Tasks) -> None:
    """[B-CANVAS-072]"""
    t.app.conf.result_chord_retry_interval = 0.01
    parts = [t.add.delay(1, 1), t.add.delay(2, 2)]
    bad = [t.fail.delay(), t.add.delay(2, 2)]
    body, lost = t.echo.s().set(task_id="body"), t.echo.s().on_error(t.on_error.s()).set(task_id="lost")
    for signature, members in ((body, parts), (lost, bad)):
        t.app.send_task("celery.chord_unlock", ("group", signature), {"result": [part.as_tuple() for part in members]})
    while t.app.AsyncResult("body").state == "PENDING" or t.app.AsyncResult("lost").state == "PENDING":
        run_all(t.app)
    assert t.app.AsyncResult("body").get(timeout=1) == [2, 4]
    assert isinstance(t.app.AsyncResult("lost").result, ChordError)
    assert [task_id for task_id, _ in (call for call in t.calls if isinstance(call, tuple))] == ["lost"]


def _broken(task: Any) -> bool:
    raise SystemError("broken")


def test_a_part_that_can_not_be_run_ends_the_chord(t: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(t.note), "track_started", property(_broken), raising=False)
    result = chord([t.add.s(1, 1), t.note.s()], t.echo.s()).apply_async()
    steps = chain(t.note.s(), t.echo.s()).apply_async()
    run_all(t.app)
    assert (result.state, type(result.result)) == ("FAILURE", ChordError)
    assert steps.state == "FAILURE"


def test_coroutines_send_workflows_too(t: Tasks) -> None:
    async def send() -> list[Any]:
        made = [t.add.s(1, 1) | t.add.s(1), group(t.add.s(1, 1)), chord([t.add.s(1, 1)], t.echo.s()), t.add.map([1])]
        return [await each.adelay() for each in made]

    results = asyncio.run(send())
    run_all(t.app)
    assert [value(result) for result in results] == [3, [2], [2], [1]]


def test_of_two_parts_that_see_the_end_one_sends_the_body(t: Tasks) -> None:
    store = t.app.backend
    store.start_chord("group", 2, b'[["group", null], [[["a", null], null], [["b", null], null]]]', None)
    last: list[str] = []

    def end(index: int) -> None:
        entry = Entry(
            record=Record(id="ab"[index], state="SUCCESS", result=b"1"), parts=[Part("group", index, 2, "ab"[index])],
            on_last=lambda group_id: last.append("ab"[index]),
        )  # fmt: skip
        for counted in count(store, [entry]):
            if counted.on_done is not None:
                counted.on_done()

    for index in (0, 1, 0, 1, 0):
        end(index)
    assert last == ["b", "b"]
