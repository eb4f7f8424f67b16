"""The same workflows on every result store that can count: values in order, and failures that end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, chain, chord, group
from celeriac.errors import ChordError
from celeriac.testing.worker import start_worker
from tests.support.mariadb_server import MariadbServer
from tests.support.memcached_server import MemcachedServer
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow


@contextmanager
def in_folder(path: str, folder: Path) -> Iterator[str]:
    (folder / "files").mkdir()
    yield path.format(folder)


@contextmanager
def on(server: Callable[[Path], Any], folder: Path) -> Iterator[str]:
    with open_folder() as place, server(place / "server") as running:
        yield running.url() if callable(running.url) else running.url


STORES: dict[str, Callable[[Path], Any]] = {
    "sqlite": lambda folder: in_folder("sqlite:///{}/results.db", folder),
    "files": lambda folder: in_folder("file://{}/files", folder),
    "sqlalchemy": lambda folder: in_folder("db+sqlite:///{}/results.db", folder),
    "memory": lambda folder: in_folder("memory://workflow-stores", folder),
    "redis": lambda folder: on(RedisServer, folder),
    "memcached": lambda folder: on(MemcachedServer, folder),
    "postgres": lambda folder: on(PostgresServer, folder),
    "mariadb": lambda folder: on(MariadbServer, folder),
}


@pytest.fixture(scope="module", params=STORES)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celeriac]:
    folder = tmp_path_factory.mktemp("stores")
    with (
        STORES[request.param](folder) as url,
        Celeriac("stores", broker=f"memory://stores-{request.param}", backend=url, set_as_current=False) as app,
    ):
        app.task(lambda x, y=0: x + y, name="add")
        app.task(lambda values: values, name="echo")
        app.task(_fail, name="fail", typing=False)
        app.task(_grow, name="grow", bind=True)
        app.task(_grow_by, name="grow_by", bind=True)
        app.task(_spread, name="spread", bind=True)
        app.conf.task_unknown_delay = 0.01
        with start_worker(app, pool="threads", concurrency=3):
            yield app


def _grow(self: Any, count: int) -> int:
    for number in range(count):
        self.add_to_chord(self.app.tasks["add"].s(10, number))
    return count


def _grow_by(self: Any, signature: Any) -> int:
    self.add_to_chord(signature)
    return 1


def _spread(self: Any, count: int) -> int:
    for number in range(count):
        self.add_to_group(self.app.tasks["spread"].s(number))
    return count


def _fail(*args: Any) -> None:
    raise ValueError("no")


def test_chords_of_every_nesting(app: Celeriac) -> None:
    """[B-CANVAS-054, B-CANVAS-073, B-CANVAS-074]"""
    add, echo = app.tasks["add"], app.tasks["echo"]
    many = chord([add.s(number, 1) for number in range(50)], echo.s()).apply_async()
    nested = chord(
        [chord([add.s(1, 1), add.s(2, 2)], echo.s()), chain(add.s(1, 1), group(add.s(1), add.s(2)))], echo.s()
    )
    steps = chain(add.s(1, 1), group(add.s(1), add.s(2)), echo.s(), group(echo.s(), echo.s())).apply_async()
    results = [nested.apply_async() for _ in range(3)]
    assert many.get(timeout=30) == list(range(1, 51))
    assert [result.get(timeout=30) for result in results] == [[[2, 4], [3, 4]]] * 3
    assert steps.get(timeout=30) == [[3, 4], [3, 4]]
    assert len(many.parent.results) == 50


@pytest.mark.parametrize("name", ["fail", "unknown", "late"])
def test_a_part_that_ends_badly_ends_the_chord(app: Celeriac, name: str) -> None:
    """[B-CANVAS-058, B-CANVAS-088]"""
    add, echo = app.tasks["add"], app.tasks["echo"]
    bad = add.si(1, 1).set(expires=-1) if name == "late" else app.signature(name)
    inner = chord([add.s(1, 1), chain(add.s(1, 1), bad, add.s(1)), add.s(2, 2)], echo.s())
    result = chord([inner, add.s(5, 5)], chain(echo.s(), echo.s())).apply_async()
    error = result.get(timeout=30, propagate=False)
    assert (result.state, type(error)) == ("FAILURE", ChordError)
    inner_body = result.parent.parent.results[0]
    assert type(inner_body.get(timeout=30, propagate=False)) is ChordError
    failed = inner_body.parent.results[1]
    assert failed.get(timeout=30, propagate=False) is not None
    assert failed.state == ("REVOKED" if name == "late" else "FAILURE")


def test_a_running_chord_may_grow(app: Celeriac) -> None:
    """[B-TASK-063]: on each store that counts; the added parts stand behind those that the chord was sent with."""
    add, echo, grow = app.tasks["add"], app.tasks["echo"], app.tasks["grow"]
    result = chord([grow.s(3), add.s(1, 1)], echo.s()).apply_async()
    assert result.get(timeout=30) == [3, 2, 10, 11, 12]
    deep = chord([chord([grow.s(1), grow.s(0)], echo.s()), add.s(5, 5)], echo.s()).apply_async()
    assert deep.get(timeout=30) == [[1, 0, 10], 10]
    alone = grow.delay(1)
    with pytest.raises(ValueError, match="not member of any chord"):
        alone.get(timeout=30)


def test_what_is_added_to_a_chord_may_be_a_workflow_and_may_fail(app: Celeriac) -> None:
    add, echo, grow = app.tasks["add"], app.tasks["echo"], app.tasks["grow_by"]
    whole = chain(add.s(1, 1), group(add.s(2), add.s(3)))
    assert chord([grow.s(whole), add.s(1, 1)], echo.s()).apply_async().get(timeout=30) == [1, 2, [4, 5]]
    failing = chord([grow.s(app.signature("fail")), add.s(1, 1)], echo.s()).apply_async()
    assert type(failing.get(timeout=30, propagate=False)) is ChordError


def test_a_running_group_may_grow(app: Celeriac) -> None:
    add, spread = app.tasks["add"], app.tasks["spread"]
    result = group(spread.s(2), add.s(1, 1)).apply_async()
    assert result.get(timeout=30) == [2, 2]
    while result.refresh():
        result.get(timeout=30)
    assert sorted(result.get(timeout=30)) == [0, 0, 1, 2, 2]
    result.save()
    assert app.GroupResult.restore(result.id).results == result.results
    assert result.refresh() == []
    alone = spread.delay(1)
    with pytest.raises(ValueError, match="not a member of a group"):
        alone.get(timeout=30)
