"""Random workflows give in a real worker what they give when they are evaluated directly in Python.

The oracle (`tests/support/workflows.evaluate`) knows nothing of signatures. Workflows with tasks that fail have to end, too,
every task of them. CELERIAC_TEST_SOAK=1 makes it many more workflows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac import Celeriac
from celeriac.testing.worker import start_worker
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer
from tests.support.workflows import Failed, Plan, add_tasks, compose, evaluate, leaves

# The worker's threads use `random` while plans are drawn; the plans do not.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

#: Deepest nesting and widest composite.
DEPTH, WIDTH = 6, 40


def plans(*leaves: str) -> st.SearchStrategy[Plan]:
    leaf = st.tuples(st.sampled_from(leaves), st.integers(0, 99))

    def larger(smaller: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
        several = st.lists(smaller, min_size=2, max_size=5) | st.lists(leaf, min_size=2, max_size=WIDTH)
        return st.one_of(
            st.tuples(st.just("chain"), several), st.tuples(st.just("group"), several),
            st.tuples(st.just("chord"), several, smaller),
        )  # fmt: skip

    return st.recursive(leaf, larger, max_leaves=40).filter(lambda plan: depth(plan) <= DEPTH)


def depth(plan: Plan) -> int:
    """How deep composites are nested."""
    if plan[0] not in ("chain", "group", "chord"):
        return 0
    return 1 + max(depth(each) for each in (*plan[1], *plan[2:]))


@contextmanager
def _sqlite(folder: Path) -> Iterator[tuple[str, str]]:
    yield (f"sqlite:///{folder}/tasks.db?synchronous=NORMAL",) * 2


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, str]]:
    with RedisServer(folder / "redis") as server:
        yield (server.url(),) * 2


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[tuple[str, str]]:
    with RabbitMQServer(folder / "rabbitmq") as broker, RedisServer(folder / "redis") as store:
        yield broker.url, store.url()


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, str]]:
    with open_folder() as place, PostgresServer(place / "server") as server:
        yield server.url, f"db+{server.url}"


PLACES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "sqlite-solo": (_sqlite, "solo"),
    "sqlite": (_sqlite, "threads"),
    "redis": (_redis, "threads"),
    "rabbitmq": (_rabbitmq, "threads"),
    "postgres": (_postgres, "threads"),
}


@pytest.fixture(scope="module", params=PLACES)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celeriac]:
    place, pool = PLACES[request.param]
    with (
        place(tmp_path_factory.mktemp("workflows")) as (broker, store),
        Celeriac("workflows", broker=broker, backend=store, set_as_current=False) as app,
    ):
        add_tasks(app)
        with start_worker(app, pool=pool, concurrency=1 if pool == "solo" else 4):
            yield app


SETTINGS = settings(
    max_examples=400 if os.environ.get("CELERIAC_TEST_SOAK") else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@SETTINGS
@given(plan=plans("task", "task", "retry"))
def test_a_worker_agrees_with_python(app: Celeriac, plan: Plan) -> None:
    """[B-CANVAS-074, B-CANVAS-091]"""
    expected = evaluate(plan, 0)
    assert compose(app, plan).apply_async((0,)).get(timeout=60) == expected
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
        leaf.get(timeout=60, propagate=False, follow_parents=False)
    if expected is Failed:
        with pytest.raises(Exception, match="Failed|raised|^$|^[0-9]+$"):
            result.get(timeout=60)
    else:
        assert result.get(timeout=60) == expected


@pytest.mark.parametrize("depth", [1, DEPTH])
def test_wide_and_deep(app: Celeriac, depth: int) -> None:
    plan: Plan = ("chord", [("task", number) for number in range(WIDTH)], ("task", 1))
    for number in range(depth):
        plan = ("chord", [plan, ("chain", [("task", number), ("group", [("task", 1), ("task", 2)])])], ("task", number))
    assert compose(app, plan).apply_async((0,)).get(timeout=60) == evaluate(plan, 0)
