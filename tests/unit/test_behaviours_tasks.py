"""What Celery documents of tasks in workflows: what a task knows of its place, and what takes its place."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celeriac, chain, chord, group
from celeriac.errors import ImproperlyConfigured
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    app = memory_app()
    app.task(lambda x, y=0: x + y, name="add")
    app.task(lambda value=None: value, name="echo")
    return app


def add(app: Celeriac, *args: int) -> Any:
    return app.signature("add", args=args)


def echo(app: Celeriac, *args: Any) -> Any:
    return app.signature("echo", args=args)


def value(app: Celeriac, workflow: Any) -> Any:
    result = workflow.apply_async()
    run_all(app)
    return result.get(timeout=1)


def instead_of(app: Celeriac, make: Any) -> Any:
    """A signature of a task that puts what `make` makes into its place."""

    @app.task(bind=True, name="instead")
    def instead(self: Any, value: int) -> Any:
        self.replace(make(value))
        raise AssertionError("nothing after replace() runs")

    return instead


@pytest.mark.behaviour("B-TASK-024")
def test_a_task_knows_its_group_its_chord_and_what_follows_in_its_chain(app: Celeriac) -> None:
    seen: dict[str, tuple[Any, ...]] = {}

    @app.task(bind=True, name="look")
    def look(self: Any, where: str, *_: Any) -> str:
        request = self.request
        seen[where] = (request.group, request.group_index, request.chord, request.chain)
        return where

    one = look.s("alone").apply_async()
    members = group(look.s("first"), look.s("second")).apply_async()
    steps = chain(look.si("step"), look.si("last")).apply_async()
    whole = chord([look.si("part")], look.si("body")).apply_async()
    run_all(app)
    assert one.get(timeout=1) == "alone"
    assert seen["alone"] == (None, None, None, None)
    assert seen["first"][:3] == (members.id, 0, None)
    assert seen["second"][:3] == (members.id, 1, None)
    [following] = seen["step"][3]
    assert (following["task"], following["args"], steps.get(timeout=1)) == ("look", ["last"], "last")
    assert not seen["last"][3]
    part_group, part_index, body, _ = seen["part"]
    assert part_group is not None
    assert (part_index, body["task"], body["options"]["task_id"]) == (0, "look", whole.id)
    assert seen["body"][2] is None


@pytest.mark.behaviour("B-TASK-025")
def test_replacements_are_counted(app: Celeriac) -> None:
    counts: list[int] = []

    @app.task(bind=True, name="onion")
    def onion(self: Any, layers: int) -> Any:
        counts.append(self.request.replaced_task_nesting)
        return self.replace(onion.s(layers - 1)) if layers else "core"

    assert value(app, onion.s(3)) == "core"
    assert counts == [0, 1, 2, 3]


@pytest.mark.behaviour("B-TASK-057")
def test_what_replaces_a_task_has_its_id(app: Celeriac) -> None:
    instead = instead_of(app, lambda value: add(app, value, 10))
    result = instead.delay(1)
    outcomes = run_all(app)
    assert [outcome.state for outcome in outcomes] == ["IGNORED", "SUCCESS"], "the replaced task ends without a result"
    assert (app.AsyncResult(result.id).get(timeout=1), result.state) == (11, "SUCCESS")


@pytest.mark.behaviour("B-TASK-058")
def test_a_group_that_replaces_a_task_gives_the_list_of_its_results(app: Celeriac) -> None:
    instead = instead_of(app, lambda value: group(add(app, value, 1), add(app, value, 2)))
    result = instead.delay(1)
    run_all(app)
    assert app.AsyncResult(result.id).get(timeout=1) == [2, 3]


@pytest.mark.behaviour("B-TASK-059")
def test_a_chain_goes_on_after_what_replaced_its_step(app: Celeriac) -> None:
    instead = instead_of(app, lambda value: add(app, value, 10) | add(app, 100))
    assert value(app, chain(add(app, 1, 1), instead.s(), add(app, 1000), echo(app))) == 1112


@pytest.mark.behaviour("B-TASK-060")
def test_what_replaces_a_member_keeps_its_place(app: Celeriac) -> None:
    seen: list[tuple[Any, Any]] = []

    @app.task(bind=True, name="placed")
    def placed(self: Any, value: int) -> int:
        seen.append((self.request.group, self.request.group_index))
        return value * 10

    instead = instead_of(app, lambda value: placed.s(value))
    members = group(add(app, 1, 1), instead.s(3), add(app, 4, 4)).apply_async()
    run_all(app)
    assert members.get(timeout=1) == [2, 30, 8]
    assert seen == [(members.id, 1)]
    assert value(app, chord([add(app, 1, 1), instead.s(3)], echo(app))) == [2, 30]


@pytest.mark.behaviour("B-TASK-061")
def test_a_part_of_another_chord_can_not_replace_a_task(app: Celeriac) -> None:
    result = instead_of(app, lambda value: add(app, value).set(chord=echo(app))).delay(1)
    run_all(app)
    with pytest.raises(ImproperlyConfigured, match="chord"):
        result.get(timeout=1)


@pytest.mark.behaviour("B-TASK-062")
def test_an_empty_chain_can_not_replace_a_task(app: Celeriac) -> None:
    result = instead_of(app, lambda value: chain(app=app)).delay(1)
    run_all(app)
    with pytest.raises(ImproperlyConfigured, match="empty chain"):
        result.get(timeout=1)


@pytest.mark.behaviour("B-TASK-063")
def test_only_a_part_of_a_chord_can_add_to_it(app: Celeriac) -> None:
    @app.task(bind=True, name="grow")
    def grow(self: Any) -> Any:
        return self.add_to_chord(add(app, 1, 1))

    result = grow.delay()
    run_all(app)
    with pytest.raises(ValueError, match="not member of any chord"):
        result.get(timeout=1)


@pytest.mark.behaviour("B-TASK-069")
def test_attributes_about_the_route_are_no_old_style(recwarn: pytest.WarningsRecorder) -> None:
    """Differs on purpose: they say where a task goes, and nobody is told to write it elsewhere."""
    app = memory_app()
    task = app.task(lambda: 1, name="one", queue="mine", priority=3, delivery_mode=1)
    task.delay()
    [message] = sent(app, "mine")
    assert (message.priority, message.transient) == (3, True)
    assert not recwarn.list


@pytest.mark.behaviour("B-TEST-011")
@pytest.mark.parametrize("stores", [False, True])
def test_results_of_eager_tasks_are_stored_only_if_asked_for(stores: bool) -> None:
    app = memory_app(task_always_eager=True, task_store_eager_result=stores)
    result = app.task(lambda: 5, name="five").delay()
    assert result.get() == 5
    assert app.AsyncResult(result.id).exists() is stores
