"""Time limits on the real worker, against tasks that sleep, compute, or hold the interpreter in a C call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import AsyncResult, SoftTimeLimitExceeded
from celeriac.errors import TimeLimitExceeded
from celeriac.message import Message
from tests.faults.apps_b.bench import Bench
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WAYS = ["sleep", "busy", "C call", "regex"]


@pytest.fixture
def bench(tmp_path: Path, start_worker: Callable[..., WorkerProcess]) -> Iterator[Bench]:
    bench = Bench(tmp_path, start_worker)
    yield bench
    bench.app.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "gevent", "eventlet"])
def test_a_hard_limit_ends_any_task(bench: Bench, pool: str) -> None:
    """[B-LIMIT-003, B-LIMIT-004, B-LIMIT-009]. B-LIMIT-008 differs on purpose: nobody has to yield."""
    # One runner in each pool: the very one that runs the task is ended and replaced.
    worker = bench.worker("-c", "1" if pool == "prefork" else "2", "-P", pool)
    first = worker.wait_runners(1)
    for way in WAYS:
        errback = bench.app.signature("on_error", kwargs={"key": f"error-of-{way.replace(' ', '-')}"})
        result = bench.send("long_limited", way.replace(" ", "-"), way, 30, link_error=errback)
        with pytest.raises(TimeLimitExceeded, match="0.5"):
            result.get(timeout=20)
        assert result.state == "FAILURE"
        bench.assert_healthy()
    eventually(lambda: len(bench.marks("TimeLimitExceeded")) == len(WAYS))
    eventually(lambda: not set(first) & set(worker.runner_pids()))
    worker.wait_runners(len(first))
    assert set(bench.starts().values()) == {1}
    assert not bench.marks("end")
    bench.assert_empty()


@pytest.mark.parametrize("way", ["sleep", "C call"])
def test_neighbours_of_a_task_past_its_limit_succeed(bench: Bench, way: str) -> None:
    """One that ends soon ends where it is; one that does not is run again, without being charged a delivery."""
    bench.settings["task_max_deliveries"] = 1
    bench.worker("-c", "4", "-P", "threads", "--processes", "1")
    soon = bench.send("long", "soon", "sleep", 1.0)
    late = bench.send("long", "late", "sleep", 5.0, soft_time_limit=20)
    bench.wait_start("soon")
    bench.wait_start("late")
    limited = bench.send("long_limited", "limited", way, 30)
    with pytest.raises(TimeLimitExceeded):
        limited.get(timeout=20)
    bench.assert_healthy()
    assert (soon.get(timeout=20), late.get(timeout=30)) == ("soon", "late")
    starts = bench.starts()
    assert starts["limited"] == 1
    assert starts["late"] == 2
    assert starts["soon"] == (1 if way == "sleep" else 2)
    bench.assert_empty()


@pytest.mark.parametrize(
    ("pool", "way"),
    [("prefork", "sleep"), ("prefork", "busy"), ("threads", "busy"), ("asyncio", "busy")]
    + [(pool, way) for pool in ("gevent", "eventlet") for way in ("sleep", "busy")],
)
def test_a_soft_limit_is_raised_in_the_task_which_may_clean_up(bench: Bench, pool: str, way: str) -> None:
    """[B-LIMIT-001, B-LIMIT-002]. B-LIMIT-007 differs on purpose: threads have soft limits, too, where Python runs."""
    bench.worker("-c", "1", "-P", pool)
    caught = bench.send("careful", "caught", way, 20, soft_time_limit=0.4)
    assert caught.get(timeout=15) == "cleaned up"
    not_caught = bench.send("long_soft", "not-caught", way, 20)
    with pytest.raises(SoftTimeLimitExceeded):
        not_caught.get(timeout=15)
    bench.assert_healthy()
    assert bench.starts() == {"caught": 1, "not-caught": 1}


def test_where_a_soft_limit_can_not_be_raised_the_hard_one_decides(bench: Bench) -> None:
    """[B-LIMIT-007]: a thread that sleeps in C sees no exception until it is back."""
    bench.worker("-c", "1", "-P", "threads")
    result = bench.send("careful", "asleep", "sleep", 20, soft_time_limit=0.2, time_limit=0.6)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=15)
    bench.assert_healthy()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_a_soft_limit_reaches_a_coroutine_that_waits(bench: Bench, pool: str) -> None:
    """[B-LIMIT-001]"""
    bench.worker("-c", "1", "-P", pool)
    result = bench.send("long_async", "patient", 20, soft_time_limit=0.3)
    assert result.get(timeout=15) == "cleaned up"
    assert bench.send("long_async", "next", 0).get(timeout=15) == "next"


def test_a_changed_signal_handler_does_not_disable_soft_limits_of_others(bench: Bench) -> None:
    bench.worker("-c", "1")
    bench.send("abuse", "handlers").get(timeout=15)
    assert bench.send("careful", "caught", "sleep", 20, soft_time_limit=0.3).get(timeout=15) == "cleaned up"


def test_the_call_ranks_above_the_task_above_the_worker(bench: Bench) -> None:
    """[B-LIMIT-005, B-LIMIT-010]"""
    bench.worker("-c", "4", "--time-limit", "1.2", "--soft-time-limit", "1.0")
    sent: dict[str, Any] = {
        "call over task": bench.send("long_limited", "1", "sleep", 0.9, time_limit=5, soft_time_limit=4),
        "task over worker": bench.send("long_limited", "2", "sleep", 30),
        "worker, soft": bench.send("long", "3", "sleep", 30),
        "worker, hard": bench.send("long", "4", "sleep", 30, soft_time_limit=100),
        "call over worker": bench.send("long", "5", "sleep", 1.6, time_limit=6, soft_time_limit=5),
    }
    ends = {what: result.get(timeout=20, propagate=False) for what, result in sent.items()}
    assert ends["call over task"] == "1"
    assert isinstance(ends["task over worker"], TimeLimitExceeded)
    assert ends["task over worker"].args == (0.5,)
    assert isinstance(ends["worker, soft"], SoftTimeLimitExceeded)
    assert isinstance(ends["worker, hard"], TimeLimitExceeded)
    assert ends["worker, hard"].args == (1.2,)
    assert ends["call over worker"] == "5"


def test_settings_are_the_default_of_limits(bench: Bench) -> None:
    """[B-LIMIT-005]"""
    bench.settings["task_time_limit"] = 0.4
    bench.worker("-c", "1")
    with pytest.raises(TimeLimitExceeded):
        bench.send("long", "limited", "sleep", 30).get(timeout=15)
    bench.assert_healthy()


def test_a_timed_out_task_is_given_back_if_it_says_so(bench: Bench) -> None:
    """[B-ACK-005]: until its deliveries are used up; then it is a dead letter."""
    bench.settings["task_max_deliveries"] = 2
    bench.worker("-c", "1")
    result = bench.send("long_again", "again", "sleep", 30)
    assert "poisonous" in bench.wait_dead(result.id).reason
    assert bench.starts() == {"again": 2}
    assert result.state == "FAILURE"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_limits_of_a_message_of_protocol_1_are_kept(bench: Bench, pool: str) -> None:
    """[B-CALL-028]: its limits stand in the body, which only the runner opens."""
    bench.worker("-c", "1", "-P", pool)

    def send(key: str, task: str, args: list[Any], *limits: float | None) -> AsyncResult[Any]:
        body = json.dumps({"task": task, "id": key, "args": [key, *args], "kwargs": {}, "timelimit": limits}).encode()
        return bench.publish(Message(id=key, headers={}, body=body, queue="celery"))

    with pytest.raises(TimeLimitExceeded, match="0.6"):
        send("hard", "long", ["sleep", 30], 0.6, None).get(timeout=20)
    with pytest.raises(SoftTimeLimitExceeded):
        send("soft", "long", ["busy", 30], 20, 0.6).get(timeout=20)
    with pytest.raises(TimeLimitExceeded, match="0.5"):
        send("own", "long_limited", ["sleep", 30], None, None).get(timeout=20)
    bench.assert_empty()
