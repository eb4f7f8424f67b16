"""Random workflows give in a real worker what they give when they are evaluated directly in Python.

The oracle (`evaluate`) knows nothing of signatures: it follows the documented meaning of chain, group and chord. What a
task returns depends on its number and on everything it was called with, so that a value that is lost, repeated or out of
order shows. Workflows with tasks that fail have to end, too, every task of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac import AsyncResult, Celeriac, chain, chord, group
from celeriac.testing.worker import start_worker

#: ("task", number), ("fail", number), ("chain", [...]), ("group", [...]) or ("chord", [...], body).
Plan = tuple[Any, ...]


class Failed(Exception):
    """A task of the plan fails."""


def digest(value: Any, number: int) -> int:
    return zlib.crc32(repr((value, number)).encode())


def evaluate(plan: Plan, value: Any) -> Any:
    kind, inner = plan[0], plan[1]
    if kind == "task":
        return digest(value, inner)
    if kind == "fail":
        raise Failed
    if kind == "chain":
        for step in inner:
            value = evaluate(step, value)
        return value
    parts = flat(inner)
    values = [evaluate(part, value) for part in parts]
    return values if kind == "group" else evaluate(plan[2], values)


def flat(members: list[Plan]) -> list[Plan]:
    """Groups in a group are one group."""
    found: list[Plan] = []
    for member in members:
        found += flat(member[1]) if member[0] == "group" else [member]
    return found


def compose(app: Celeriac, plan: Plan) -> Any:
    kind, inner = plan[0], plan[1]
    if kind in ("task", "fail"):
        return app.tasks[kind].s(inner)
    members = [compose(app, each) for each in inner]
    if kind == "chain":
        return chain(*members)
    return group(members) if kind == "group" else chord(members, compose(app, plan[2]))


def plans(*leaves: str, width: int = 5) -> st.SearchStrategy[Plan]:
    leaf = st.tuples(st.sampled_from(leaves), st.integers(0, 99))

    def larger(smaller: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
        several = st.lists(smaller, min_size=2, max_size=width)
        return st.one_of(
            st.tuples(st.just("chain"), several), st.tuples(st.just("group"), several),
            st.tuples(st.just("chord"), several, smaller),
        )  # fmt: skip

    return st.recursive(leaf, larger, max_leaves=25)


@pytest.fixture(scope="module", params=["solo", "threads"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celeriac]:
    path: Path = tmp_path_factory.mktemp("workflows") / "tasks.db"
    url = f"sqlite:///{path}?synchronous=NORMAL"
    with Celeriac("workflows", broker=url, backend=url, set_as_current=False) as app:

        @app.task(name="task")
        def task(value: Any, number: int = 0) -> int:
            return digest(value, number)

        @app.task(name="fail")
        def fail(value: Any, number: int = 0) -> None:
            raise Failed

        with start_worker(app, pool=request.param, concurrency=1 if request.param == "solo" else 4):
            yield app


SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SETTINGS
@given(plan=plans("task"))
def test_a_worker_agrees_with_python(app: Celeriac, plan: Plan) -> None:
    """[B-CANVAS-074, B-CANVAS-091]"""
    expected = evaluate(plan, 0)
    assert compose(app, plan).apply_async((0,)).get(timeout=30) == expected
    assert compose(app, plan).apply((0,)).get() == expected


@SETTINGS
@given(plan=plans("task", "task", "task", "task", "fail"))
def test_a_workflow_always_ends(app: Celeriac, plan: Plan) -> None:
    result = compose(app, plan).apply_async((0,))
    try:
        expected = evaluate(plan, 0)
    except Failed:
        expected = Failed
    for leaf in leaves(result):
        leaf.get(timeout=30, propagate=False, follow_parents=False)
    if expected is Failed:
        with pytest.raises(Exception, match="Failed|raised|^$"):
            result.get(timeout=30)
    else:
        assert result.get(timeout=30) == expected


@pytest.mark.parametrize("depth", [1, 6])
def test_wide_and_deep(app: Celeriac, depth: int) -> None:
    plan: Plan = ("chord", [("task", number) for number in range(40)], ("task", 1))
    for number in range(depth):
        plan = ("chord", [plan, ("chain", [("task", number), ("group", [("task", 1), ("task", 2)])])], ("task", number))
    assert compose(app, plan).apply_async((0,)).get(timeout=30) == evaluate(plan, 0)


def leaves(result: Any) -> Iterator[AsyncResult[Any]]:
    """The results of all tasks of a workflow."""
    while result is not None:
        if isinstance(result, AsyncResult):
            yield result
        else:
            for member in result.results:
                yield from leaves(member)
        result = result.parent
