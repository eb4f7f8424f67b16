"""How far a task is: what is read out of its state, and how changes are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.progress import progress_of
from celeriac.results.base import Record
from tests.support.apps import memory_app, run_all


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def _store(app: Celeriac, state: str, value: bytes) -> None:
    app.backend.store([Record(id="i", state=state, result=value, fence=(0, 1))])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("state", "meta", "fraction", "text"),
    [
        ("PENDING", None, None, "PENDING"),
        ("STARTED", {"pid": 1, "hostname": "h"}, None, "STARTED"),
        ("PROGRESS", {"current": 1, "total": 4}, 0.25, "PROGRESS 25%"),
        ("PROGRESS", {"done": 3, "of": 4, "message": "pages"}, 0.75, "PROGRESS 75% pages"),
        ("PROGRESS", {"current": 9, "total": 4}, 1.0, "PROGRESS 100%"),
        ("PROGRESS", {"current": 1, "total": 0}, None, "PROGRESS"),
        ("PROGRESS", {"current": True, "total": "many"}, None, "PROGRESS"),
        ("HALF", 0.5, 0.5, "HALF 50%"),
        ("ODD", ["a"], None, "ODD"),
        ("SUCCESS", {"current": 1, "total": 4}, 1.0, "SUCCESS 100%"),
        ("FAILURE", ValueError("x"), None, "FAILURE"),
    ],
)
def test_what_a_state_tells(state: str, meta: Any, fraction: float | None, text: str) -> None:
    progress = progress_of(state, meta)
    assert (progress.fraction, str(progress)) == (fraction, text)


def test_the_progress_of_a_result(app: Celeriac) -> None:
    result = app.AsyncResult("i")
    assert (result.progress().state, result.progress().ready) == ("PENDING", False)
    _store(app, "PROGRESS", b'{"current": 1, "total": 2}')
    assert (result.progress().current, result.progress().total) == (1, 2)
    _store(app, "SUCCESS", b"5")
    assert (result.progress().meta, result.progress().ready) == (5, True)


def test_each_change_is_told_up_to_the_end(app: Celeriac) -> None:
    _store(app, "PROGRESS", b"0.5")
    seen = []
    for progress in app.AsyncResult("i").follow(timeout=20):
        seen.append((progress.state, progress.fraction))
        _store(app, *(("PROGRESS", b"0.75") if len(seen) == 1 else ("SUCCESS", b"5")))
    assert seen == [("PROGRESS", 0.5), ("PROGRESS", 0.75), ("SUCCESS", 1.0)]
    assert list(app.AsyncResult("unknown").follow(timeout=0.01)) == []


def test_each_change_is_told_to_coroutines(app: Celeriac) -> None:
    _store(app, "PROGRESS", b"0.5")

    async def follow() -> list[str]:
        seen = []
        async for progress in app.AsyncResult("i").afollow(timeout=20):
            seen.append(progress.state)
            _store(app, "SUCCESS", b"5")
        return seen

    assert asyncio.run(follow()) == ["PROGRESS", "SUCCESS"]


def test_custom_states_come_in_order_with_the_final_one(app: Celeriac) -> None:
    stored: list[str] = []
    store = app.backend.store  # type: ignore[union-attr]

    def noted(records: Any) -> Any:
        stored.extend(record.state for record in records)
        return store(records)

    app.backend.store = noted  # type: ignore[union-attr, method-assign]

    @app.task(bind=True, track_started=True)
    def work(self: Any) -> int:
        for number in range(3):
            self.update_state(state=f"STEP{number}", meta={"current": number, "total": 3})
        return 5

    result = work.delay()
    run_all(app)
    assert stored == ["STARTED", "STEP0", "STEP1", "STEP2"]  # the final one is stored with the acknowledgement
    assert (result.state, result.get(timeout=5)) == ("SUCCESS", 5)
