"""Signatures: a call not yet sent, as a dict that travels as it is. Composites have tests of their own."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from celeriac import Celeriac, Signature, Task, current, maybe_signature, signature
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def add(app: Celeriac) -> Task[..., Any]:
    return app.task(lambda x, y=0: x + y, name="add")


def test_its_form_is_the_wires(add: Task[..., Any]) -> None:
    """[B-CANVAS]"""
    made = add.s(1, y=2).set(countdown=5)
    assert json.loads(json.dumps(made)) == {
        "task": "add", "args": [1], "kwargs": {"y": 2}, "options": {"countdown": 5}, "subtask_type": None,
        "immutable": False,
    }  # fmt: skip


def test_made_by_name_task_or_form(app: Celeriac, add: Task[..., Any]) -> None:
    by_name = signature("add", args=(1,), kwargs={"y": 2}, countdown=5, app=app)
    by_task = add.signature((1,), {"y": 2}, countdown=5)
    by_form = signature(json.loads(json.dumps(by_name)), app=app)
    of_task = Signature(add, (1,), {"y": 2}, {"countdown": 5})
    assert by_name == by_task == of_task
    assert by_form.args == (1,)
    assert by_form.apply().get() == by_name.apply().get() == of_task.apply().get() == 3
    assert app.signature("add", (1,)).app is app


def test_a_form_may_leave_out_what_is_default() -> None:
    made = signature({"task": "add"})
    assert (made.args, made.kwargs, made.options, made.immutable, made.subtask_type) == ((), {}, {}, False, None)
    made.options["x"] = 1
    assert signature({"task": "add"}).options == {}


def test_given_arguments_come_in_front_and_given_options_win(add: Task[..., Any]) -> None:
    made = add.s(1, y=2).set(countdown=5, priority=1)
    assert made.merge((9,), {"y": 3, "z": 4}, {"priority": 2}) == (
        (9, 1),
        {"y": 3, "z": 4},
        {"countdown": 5, "priority": 2},
    )
    assert made.merge(None, None, None) == ((1,), {"y": 2}, {"countdown": 5, "priority": 1})
    assert made.args == (1,)


def test_an_immutable_one_ignores_given_arguments_but_not_options(add: Task[..., Any]) -> None:
    made = add.si(1, y=2)
    assert made.immutable
    assert made.merge((9,), {"y": 3}, {"priority": 2}) == ((1,), {"y": 2}, {"priority": 2})
    assert made.merge((9,), None, None, force=True)[0] == (9, 1)
    assert not made.set(immutable=False).immutable


def test_it_is_sent_with_its_options(app: Celeriac, add: Task[..., Any]) -> None:
    result = add.s(2).set(queue="other", task_id="mine").delay(1)
    (message,) = sent(app, "other")
    assert (message.id, result.id, json.loads(message.body)[0]) == ("mine", "mine", [1, 2])


def test_called_it_runs_here(add: Task[..., Any]) -> None:
    assert add.s(2)(1) == 3
    assert add.s(2).apply((1,)).get() == 3


def test_one_of_an_unknown_task_is_sent_by_name(app: Celeriac) -> None:
    signature("far.away", (1,), app=app).apply_async(countdown=0, priority=3)
    (message,) = sent(app)
    assert (message.task, message.priority) == ("far.away", 3)


def test_without_an_app_the_current_one_sends_it(app: Celeriac) -> None:
    before = getattr(current._local, "app", None), current._default
    try:
        app.set_current()
        signature("t").delay()
    finally:
        current._local.app, current._default = before
    assert [message.task for message in sent(app)] == ["t"]


def test_copies_are_independent(add: Task[..., Any]) -> None:
    made = add.s([1], y={"a": 1}).set(headers={"h": 1})
    for twin in (made.clone(), copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert twin == made
        twin.args[0].append(2)
        twin.kwargs["y"]["a"] = 2
        twin.options["headers"]["h"] = 2
    assert made == add.s([1], y={"a": 1}).set(headers={"h": 1})


def test_clone_adds_and_replace_replaces(add: Task[..., Any]) -> None:
    made = add.s(1, y=2).set(countdown=5)
    assert made.clone((9,), {"z": 3}, priority=1) == add.s(9, 1, y=2, z=3).set(countdown=5, priority=1)
    assert made.replace(args=(7,), options={}) == add.s(7, y=2)
    assert made.replace(kwargs={}) == add.s(1).set(countdown=5)


def test_links_are_collected_once(add: Task[..., Any]) -> None:
    callback, errback = add.s(10), add.s(20)
    made = add.s(1)
    assert made.link(callback) is callback
    made.link(callback)
    assert made.on_error(errback) is made
    assert made.link_error(errback) is errback
    assert made.options == {"link": [callback], "link_error": [errback]}
    assert made.flatten_links() == [made, callback]
    single = add.s(1).set(link=callback)
    single.link(errback)
    assert single.options["link"] == [callback, errback]


def test_links_of_a_signature_run(app: Celeriac, add: Task[..., Any]) -> None:
    seen: list[Any] = []
    note = app.task(seen.append, name="note", typing=False)
    made = add.s(1, 2)
    made.link(note.s())
    made.delay()
    run_all(app)
    assert seen == [3]


def test_what_it_knows_of_itself(app: Celeriac, add: Task[..., Any]) -> None:
    made = add.s(1).set(task_id="i", root_id="r", parent_id="p")
    assert (made.task, made.name, made.type, made.id, made.root_id, made.parent_id) == (
        "add",
        "add",
        add,
        "i",
        "r",
        "p",
    )
    assert made.app is app
    assert repr(add.s(1, y="b")) == "add(1, y='b')"
    assert add.s(1).reprcall(9) == "add(9, 1)"


def test_maybe_signature_makes_one_of_a_form_only(app: Celeriac, add: Task[..., Any]) -> None:
    made = add.s(1)
    assert maybe_signature(made) is made
    assert maybe_signature(made, clone=True) is not made
    assert maybe_signature(None) is None
    assert isinstance(maybe_signature(dict(made), app), Signature)
    bare = Signature("add")
    assert maybe_signature(bare, app).app is app


def test_it_takes_part_in_a_message_as_an_argument(app: Celeriac, add: Task[..., Any]) -> None:
    seen: list[Any] = []

    @app.task(name="look")
    def look(what: Any) -> None:
        seen.append(signature(what, app=app).apply().get())

    look.delay(add.s(1, 2))
    run_all(app)
    assert seen == [3]
