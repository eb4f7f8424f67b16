"""Handlers of tasks on the real worker: they run after the outcome is stored, and nothing is lost if one ends the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.apps_b.bench import Bench
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def bench(tmp_path: Path, start_worker: Callable[..., WorkerProcess]) -> Iterator[Bench]:
    bench = Bench(tmp_path, start_worker)
    yield bench
    bench.app.close()


@pytest.mark.behaviour("B-TASK-028")
def test_a_result_is_there_before_its_handlers_have_ended(bench: Bench, tmp_path: Path) -> None:
    bench.worker("-c", "1")
    follower = bench.app.signature("watched", args=("next", "none"), immutable=True)
    result = bench.send("watched", "first", "until", link=follower)
    assert result.get(timeout=20) == "first"
    assert not bench.marks("saw-SUCCESS") or {mark.key for mark in bench.marks("saw-SUCCESS")} == {"first"}
    (tmp_path / "go-on").touch()
    eventually(lambda: {mark.key for mark in bench.marks("saw-SUCCESS")} == {"first", "next"} or None)
    bench.assert_empty()


def test_handlers_of_a_failure_see_it(bench: Bench) -> None:
    bench.worker("-c", "1")
    with pytest.raises(ValueError, match="lost"):
        bench.send("watched", "lost", "fail").get(timeout=20)
    eventually(lambda: bench.marks("saw-FAILURE") or None)


def test_what_follows_is_sent_although_a_handler_crashed_the_runner(bench: Bench) -> None:
    bench.worker("-c", "1")
    follower = bench.app.signature("watched", args=("next", "none"), immutable=True)
    assert bench.send("watched", "first", "crash", link=follower).get(timeout=20) == "first"
    eventually(lambda: [mark for mark in bench.marks("saw-SUCCESS") if mark.key == "next"] or None)
    bench.assert_empty()
    assert bench.starts() == {"first": 1, "next": 1}


def test_what_follows_is_sent_although_a_handler_took_too_long(bench: Bench) -> None:
    bench.worker("-c", "1")
    follower = bench.app.signature("watched", args=("next", "none"), immutable=True)
    result = bench.send("watched", "first", "long", link=follower, time_limit=1)
    assert result.get(timeout=20) == "first"
    eventually(lambda: [mark for mark in bench.marks("saw-SUCCESS") if mark.key == "next"] or None)
    bench.assert_empty()
    assert (result.state, bench.starts()) == ("SUCCESS", {"first": 1, "next": 1})
