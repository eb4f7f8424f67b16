"""Shared tasks: tasks of every app, made without naming one."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac, current, shared_task
from tests.support.apps import memory_app, run_all


@pytest.fixture(autouse=True)
def _own_world() -> Iterator[None]:
    """No shared task and no current app of this module outlives its test."""
    before = getattr(current._local, "app", None), current._default, list(current.on_app_finalize)
    yield
    current._local.app, current._default, current.on_app_finalize[:] = before


def test_every_app_has_it_made_before_or_after() -> None:
    """[B-APP-006, B-APP-013]"""
    early, finalized = memory_app("early"), memory_app("finalized")
    finalized.finalize()

    @shared_task(name="shared.add")
    def add(x: int, y: int) -> int:
        return x + y

    late = memory_app("late")
    for app in (early, finalized, late):
        assert app.tasks["shared.add"].app is app
    assert len({id(app.tasks["shared.add"]) for app in (early, finalized, late)}) == 3


def test_it_stands_for_the_current_apps_copy() -> None:
    """[B-APP-013]"""

    @shared_task
    def add(x: int, y: int = 1) -> int:
        """Adds."""
        return x + y

    one, two = memory_app("one"), memory_app("two")
    one.set_current()
    assert add.app is one
    assert add(1) == 2
    assert add.name == f"{__name__}.add"
    assert add.__doc__ == "Adds."
    result = add.delay(2, y=3)
    run_all(one)
    assert result.get(timeout=1) == 5
    two.set_current()
    assert add.app is two
    assert add.s(1).app is two
    assert repr(add) == repr(two.tasks[add.name])
    add.rate_limit = "5/m"
    assert (two.tasks[add.name].rate_limit, one.tasks[add.name].rate_limit) == ("5/m", None)


def test_options_bind_and_coroutines() -> None:
    app = memory_app()
    app.set_current()

    @shared_task(bind=True, max_retries=7, name="bound")
    def bound(self: Any, x: int) -> list[Any]:
        return [self.name, self.max_retries, x]

    @shared_task
    async def coroutine() -> int:
        return 5

    assert bound.apply((1,)).get() == ["bound", 7, 1]
    assert coroutine.apply().get() == 5


def test_its_name_follows_the_app() -> None:
    """[B-APP-019]"""

    class Mine(Celeriac):
        def gen_task_name(self, name: str, module: str) -> str:
            return f"mine.{name}"

    @shared_task
    def add() -> None: ...

    mine, plain = Mine(broker="memory://", set_as_current=False), memory_app()
    assert "mine.add" in mine.tasks
    assert f"{__name__}.add" in plain.tasks


def test_it_pickles_to_its_name() -> None:
    """[B-TASK-070]"""
    app = memory_app()
    app.set_current()

    @shared_task(name="pickled")
    def add() -> None: ...

    assert pickle.loads(pickle.dumps(add)) is app.tasks["pickled"]


def test_twice_is_an_error() -> None:
    """[B-APP-010, B-APP-014]"""
    app = memory_app()

    def add() -> None: ...

    with pytest.raises(TypeError, match="applied twice"):
        shared_task(shared_task(add))
    with pytest.raises(TypeError, match="applied twice"):
        shared_task(name="x")(app.task(add))
    with pytest.raises(TypeError, match="takes one function"):
        shared_task("name")  # type: ignore[call-overload]
