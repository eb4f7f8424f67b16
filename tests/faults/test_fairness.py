"""No task waits behind another while a runner idles; what is not due yet waits at the broker; order, queues and expiry."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import TaskRevokedError
from celeriac.message import Message
from tests.faults.apps.rig import Mark
from tests.faults.apps_b.bench import Bench
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SHORT, LONG, RUNNERS = 0.005, 3.0, 4


@pytest.fixture
def bench(tmp_path: Path, start_worker: Callable[..., WorkerProcess]) -> Iterator[Bench]:
    bench = Bench(tmp_path, start_worker)
    yield bench
    bench.app.close()


def _longest_idle(marks: Sequence[Mark], begin: float, end: float) -> float:
    """The longest time within [begin, end] in which some runner ran nothing, by the ledger of starts and ends."""
    changes = sorted((mark.at, 1 if mark.what == "start" else -1) for mark in marks)
    busy, since, longest = 0, begin, 0.0
    for at, change in changes:
        if begin < at <= end and busy < RUNNERS:
            longest = max(longest, at - since)
        busy += change
        since = max(at, begin)
    return longest


def test_short_tasks_do_not_wait_behind_long_ones_while_a_runner_idles(bench: Bench) -> None:
    """1 % of the tasks take 600 times as long as the others, and the load is below the capacity."""
    worker = bench.worker("-c", str(RUNNERS))
    worker.wait_runners(RUNNERS)
    bench.send("timed", "warm-up", SHORT).get(timeout=20)
    chance = random.Random(5)
    keys = [f"{'long' if number in (40, 140, 260) else 'short'}-{number}" for number in range(300)]
    sent: dict[str, float] = {}
    results: list[Any] = []
    for number, key in enumerate(keys):  # in fours, about 90 a second; one runner alone could do 200 short ones
        sent[key] = time.monotonic()
        results.append(bench.send("timed", key, LONG if key.startswith("long") else SHORT))
        if number % 4 == 3:
            time.sleep(chance.uniform(0.03, 0.06))
    for result in results:
        result.get(timeout=30)
    marks = bench.marks("start") + bench.marks("end")
    started = {mark.key: mark.at for mark in marks if mark.what == "start"}
    # What a noisy machine takes from all processes is no fault of the pool: a wait counts as far as a runner was idle
    # in it for longer than handing over a task takes.
    waits = sorted(started[key] - sent[key] for key in keys if key.startswith("short"))
    idle = sorted(_longest_idle(marks, sent[key], started[key]) for key in keys if key.startswith("short"))
    assert idle[int(len(idle) * 0.99)] < 0.15, f"waits: {waits[-5:]}, of them beside an idle runner: {idle[-5:]}"


@pytest.mark.parametrize(("pool", "processes"), [("prefork", 2), ("threads", 1)])
def test_frames_behind_a_task_that_turns_out_long_go_elsewhere(bench: Bench, pool: str, processes: int) -> None:
    """A task of a kind that usually takes microseconds blocks, with others in its runner behind it."""
    bench.worker("-c", "2", "-P", pool)
    for _ in range(3):  # until the pool knows how short they are and gives slots many at once
        for result in [bench.send("maybe_block") for _ in range(200)]:
            result.get(timeout=20)
    gate = bench.folder / "gate"
    behind = [bench.send("maybe_block") for _ in range(100)]
    blocker = bench.send("maybe_block", str(gate))
    behind += [bench.send("maybe_block") for _ in range(300)]
    bench.wait_start("blocker")
    for result in behind:
        result.get(timeout=20)
    assert blocker.state == "PENDING", "the blocker has ended before those behind it"
    gate.touch()
    assert blocker.get(timeout=20) > 0
    bench.assert_empty()


def test_what_is_not_due_waits_at_the_broker(bench: Bench) -> None:
    """[B-CALL-002, B-ACK-016]"""
    bench.worker("-c", "1")
    due = time.monotonic() + 1.5
    result = bench.send("timed", "later", 0, countdown=1.5)
    far = [bench.send("timed", f"far-{number}", 0, countdown=3600) for number in range(50)]
    bench.assert_healthy()
    size = bench.app.transport.size("celery")
    assert (size.ready, size.delayed, size.leased) == (0, 51, 0)
    result.get(timeout=20)
    assert bench.wait_start("later").at >= due - 0.05
    assert bench.app.transport.size("celery").delayed == len(far)


def test_a_foreign_message_with_an_eta_is_moved_to_the_broker(bench: Bench) -> None:
    """A stock client leaves the waiting to the worker: its message comes at once."""
    bench.worker("-c", "1")
    task_id = str(uuid.uuid4())
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    headers = {"task": "timed", "id": task_id, "eta": eta}
    bench.publish(Message(id=task_id, headers=headers, body=b'[["foreign", 0], {}, {}]', queue="celery"))
    eventually(lambda: bench.app.transport.size("celery").delayed == 1)
    assert bench.starts() == {}
    assert bench.app.transport.size("celery").leased == 0


def test_an_expired_task_is_revoked_and_not_run(bench: Bench) -> None:
    """[B-CALL-004] [B-REVOKE-009]"""
    expired = bench.send("timed", "expired", 0, expires=0.2)
    fine = bench.send("timed", "fine", 0, expires=60)
    time.sleep(0.3)  # nothing but time makes it expire
    bench.worker("-c", "1")
    fine.get(timeout=20)
    with pytest.raises(TaskRevokedError, match="expired"):
        expired.get(timeout=20)
    assert expired.state == "REVOKED"
    assert bench.starts() == {"fine": 1}
    bench.assert_empty()


def test_higher_priorities_go_first(bench: Bench) -> None:
    """[B-CALL-021]"""
    results = [
        bench.send("timed", f"{priority}-{number}", 0, priority=priority)
        for number in range(5)
        for priority in (0, 5, 9)
    ]
    bench.worker("-c", "1")
    for result in results:
        result.get(timeout=20)
    order = [int(mark.key[0]) for mark in bench.marks("start")]
    assert order == [9] * 5 + [5] * 5 + [0] * 5


def test_tasks_go_to_the_queues_of_their_routes(bench: Bench) -> None:
    """[B-ROUTE-001, B-ROUTE-008, B-ROUTE-017]"""
    bench.app.conf.task_routes = {"timed": {"queue": "fast"}, "echo": "slow"}
    routed = bench.send("timed", "routed", 0)
    chosen = bench.send("timed", "chosen", 0, queue="slow")
    elsewhere = bench.send("echo", "elsewhere")
    bench.worker("-c", "1", "-Q", "fast")
    routed.get(timeout=20)
    assert (chosen.state, elsewhere.state) == ("PENDING", "PENDING")
    bench.worker("-c", "1", "-Q", "slow,other")
    chosen.get(timeout=20)
    assert elsewhere.get(timeout=20) == "elsewhere"


def test_several_queues_take_turns(bench: Bench) -> None:
    results = [bench.send("timed", f"{queue}-{n}", 0, queue=queue) for queue in ("one", "two") for n in range(20)]
    bench.worker("-c", "1", "-Q", "one,two")
    for result in results:
        result.get(timeout=20)
    order = [mark.key.partition("-")[0] for mark in bench.marks("start")]
    assert "two" in order[:15], f"one queue was emptied before the other: {order}"
