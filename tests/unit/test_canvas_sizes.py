"""How large the messages of workflows are: linear in the number of their tasks, and what follows a chord is carried flat."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celeriac, chain, chord, group
from celeriac.canvas.carrying import carried, opened
from celeriac.canvas.freezing import assign
from celeriac.canvas.launching import end_id
from celeriac.canvas.normalizing import normalize
from tests.support.apps import memory_app


@pytest.fixture
def app() -> Celeriac:
    app = memory_app()
    app.task(lambda *args: args, name="a", typing=False)
    return app


def a(app: Celeriac) -> Any:
    return app.tasks["a"].s()


def nested(app: Celeriac, depth: int) -> Any:
    return chord([nested(app, depth - 1), nested(app, depth - 1)], a(app)) if depth else a(app)


SHAPES: dict[str, Callable[[Celeriac, int], Any]] = {
    "chain": lambda app, size: chain(*(a(app) for _ in range(size))),
    "chain of chords": lambda app, size: chain(*(chord([a(app), a(app)], a(app)) for _ in range(size))),
    "chain in a header": lambda app, size: chord([chain(*(a(app) for _ in range(size))), a(app)], a(app)),
    "chain as a body": lambda app, size: chord([a(app), a(app)], chain(*(a(app) for _ in range(size)))),
    "groups in a chain": lambda app, size: chain(
        *(each for _ in range(size) for each in (group(a(app), a(app)), a(app)))
    ),
    "chords in headers": lambda app, size: nested(app, size // 2),
}


def largest(app: Celeriac, workflow: Any) -> int:
    """Bytes of the largest body that a client sends for it."""
    workflow.apply_async()
    deliveries = app.transport.fetch(["celery"], 10_000, 0, 30)
    assert deliveries
    return max(len(delivery.message.body) for delivery in deliveries)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_message_grows_linearly(app: Celeriac, shape: str) -> None:
    make = SHAPES[shape]
    small, double, fourfold = (largest(app, make(app, size)) for size in (4, 8, 16))
    assert fourfold - double <= 2.02 * (double - small) + 20, (small, double, fourfold)


@pytest.mark.parametrize("size", [10, 1000])
def test_members_of_a_group_do_not_grow_with_it(app: Celeriac, size: int) -> None:
    assert largest(app, group(a(app) for _ in range(size))) == largest(app, a(app))


def test_what_follows_a_chord_is_carried_flat(app: Celeriac) -> None:
    workflow = normalize(chain(*(chord([a(app), a(app)], a(app)) for _ in range(4))))
    assign(workflow, app)
    body = json.loads(json.dumps(carried(workflow.body, 2)))
    assert body["task"] == "a"
    assert body["chord_size"] == 2
    steps = body["options"]["chain"]
    assert [step["task"] for step in steps] == ["celery.chord"] * 3
    assert all(step["kwargs"]["body"]["task"] == "a" for step in steps)
    assert "reply_to" not in body["options"]


@pytest.mark.parametrize("end", ["task", "group", "chord"])
def test_what_is_carried_is_the_same_workflow(app: Celeriac, end: str) -> None:
    last = {"task": a(app), "group": group(a(app), a(app)), "chord": chord([a(app)] * 2, a(app))}[end]
    for steps in range(4):
        workflow = normalize(chord([a(app), a(app)], a(app)) | chain(*([chord([a(app)] * 2, a(app))] * steps), last))
        assign(workflow, app)
        body = workflow.body
        again = normalize(opened(app.signature(json.loads(json.dumps(carried(body, 2))))))
        ids = [_ids(body), _ids(again)]
        assert ids[0] == ids[1]
        assert end_id(again) == end_id(body)


def _ids(value: Any) -> list[str]:
    """The ids in a workflow, in order."""
    if isinstance(value, dict):
        own = [value["options"]["task_id"]] if "task_id" in value.get("options", {}) and "kwargs" in value else []
        kind = value.get("subtask_type")
        return (own if kind is None else []) + [found for key in ("kwargs",) for found in _inner(value[key])]
    return []


def _inner(kwargs: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for key in ("tasks", "header", "body"):
        each = kwargs.get(key)
        for one in each if isinstance(each, list) else [each] if each else []:
            found += _ids(one)
    return found
