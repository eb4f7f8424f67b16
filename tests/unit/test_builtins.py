"""The tasks that every app has under Celery's names."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import AsyncResult, Celeriac, current
from celeriac.canvas import builtins
from tests.support.apps import memory_app, run_all

NAMES = [
    "celery.accumulate", "celery.backend_cleanup", "celery.chain", "celery.chord", "celery.chord_unlock", "celery.chunks",
    "celery.group", "celery.map", "celery.starmap",
]  # fmt: skip


@pytest.fixture
def app() -> Celeriac:
    app = memory_app()
    app.task(lambda x, y=0: x + y, name="add")
    app.task(sum, name="total", typing=False)
    return app


def test_b_app_017_nine_built_in_tasks_exist_in_every_finalized_app() -> None:
    for autofinalize in (True, False):
        app = Celeriac("any", set_as_current=False, autofinalize=autofinalize)
        assert app.registered("celery.map") is None
        app.finalize()
        assert set(NAMES) <= set(app.tasks)
        assert all(app.tasks[name].app is app for name in NAMES)


def test_b_app_017_a_task_of_ones_own_under_such_a_name_stays() -> None:
    app = Celeriac("own", set_as_current=False)
    own = app.task(lambda: "mine", name="celery.map", typing=False)
    assert app.tasks["celery.map"] is own
    assert builtins.add_map_task(app) is own


def test_b_app_017_a_group_that_a_message_brings_is_sent(app: Celeriac) -> None:
    ids = ["one", "two"]
    members = [app.signature("add", (1,), {"y": place}, task_id=ids[place]) for place in range(2)]
    result = app.send_task("celery.group", (members, [["whole", None], [[[i, None], None] for i in ids]], "whole", []))
    run_all(app)
    assert result.successful(), result.traceback
    assert [AsyncResult[Any](i, app=app).get(timeout=1) for i in ids] == [1, 2]


def test_b_app_017_a_chord_that_a_message_brings_is_sent(app: Celeriac) -> None:
    header = [app.signature("add", (number,)) for number in (1, 2)]
    body = app.signature("total", (), task_id="sum")
    result = app.send_task("celery.chord", (header, body, [10]))
    run_all(app)
    assert result.successful(), result.traceback
    assert AsyncResult[Any]("sum", app=app).get(timeout=1) == 23


def test_b_app_017_starmap_and_accumulate_give_lists(app: Celeriac) -> None:
    sums = app.send_task("celery.starmap", (), {"task": app.signature("add"), "it": [[1, 2], [3, 4]]})
    kept = app.send_task("celery.accumulate", ("a", "b"))
    run_all(app)
    assert sums.get(timeout=1) == [3, 7]
    assert kept.get(timeout=1) == ["a", "b"]


def test_b_app_017_nobody_runs_a_chain_as_a_task(app: Celeriac) -> None:
    with pytest.raises(NotImplementedError, match=r"celery\.chain is a name for chains"):
        app.tasks["celery.chain"]()


def test_each_is_added_by_a_function_of_celerys_name() -> None:
    added = []
    for name in builtins.__all__:
        if name != "add_builtins":
            app = Celeriac("bare", set_as_current=False)
            added.append(getattr(builtins, name)(app).name)
            current.forget_app(app)
    assert sorted(added) == NAMES
