"""A worker that is told to end does so in time, and loses nothing: with tasks running, and with the broker away."""

from __future__ import annotations

import os
import random
import signal

import pytest

from celeriac import AsyncResult
from tests.faults.apps.rig import Rig, wait_gone
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: Seconds that a worker may need to leave, after the grace it gives to running tasks: two, and what a loaded machine adds.
LEAVING = 2.0 + 1.5


def _assert_nothing_charged(rig: Rig) -> None:
    """What went back has no start on its account."""
    charged = {each.message.id: each.starts for each in rig.look() if each.starts}
    assert not charged, f"interrupted, and yet charged: {charged}"


def test_terminated_at_random_moments_nothing_is_lost_or_charged(rig: Rig) -> None:
    grace = 0.5
    rig.settings |= {"worker_shutdown_grace": grace}
    seed = int(os.environ.get("CELERIAC_TEST_SEED") or random.randrange(2**32))
    print(f"CELERIAC_TEST_SEED={seed}")
    chance = random.Random(seed)
    results: dict[str, AsyncResult[object]] = {}
    for number in range(10):
        keys = [f"r{number}t{index}" for index in range(12)]
        results |= rig.send_work(keys, lambda: chance.choice([0.05, 0.1, 0.3, 1.0]))
        worker = rig.worker("-c", "2")
        rig.ledger.wait_for(len(rig.ledger) + chance.randint(1, 12))
        worker.kill(signal.SIGTERM)
        assert worker.wait(grace + LEAVING) == 0, worker.output
        left = {key for key, record in rig.records(results).items() if record is None}
        size = rig.app.transport.size("celery")
        assert (size.ready, size.leased) == (len(left), 0), f"{len(left)} tasks have not ended; the queue holds {size}"
        _assert_nothing_charged(rig)

    rig.worker("-c", "8")
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()


def _busy_worker(rig: Rig, seconds: float) -> tuple[WorkerProcess, dict[str, AsyncResult[object]]]:
    """A worker that runs "running", while "waiting" waits."""
    worker = rig.worker("-c", "1")
    results = rig.send_work(["running", "waiting"], lambda: seconds)
    rig.wait_start("running")
    return worker, results


def _assert_given_back(rig: Rig, worker: WorkerProcess, pids: list[int]) -> None:
    size = rig.app.transport.size("celery")
    assert (size.ready, size.leased) == (2, 0), f"not all was given back: {size}. Output:\n{worker.output}"
    _assert_nothing_charged(rig)
    wait_gone(pids)


def test_quit_gives_everything_back_and_ends_at_once(rig: Rig) -> None:
    worker, _ = _busy_worker(rig, 60)
    pids = worker.tree()
    worker.kill(signal.SIGQUIT)
    assert worker.wait(LEAVING) == 0
    _assert_given_back(rig, worker, pids)


def test_second_interrupt_ends_at_once(rig: Rig) -> None:
    worker, _ = _busy_worker(rig, 60)
    pids = worker.tree()
    worker.kill(signal.SIGINT)
    worker.wait_output("warm shutdown")
    worker.kill(signal.SIGINT)
    assert worker.wait(LEAVING) == 0
    _assert_given_back(rig, worker, pids)


def test_term_remapped_to_quit_ends_at_once(rig: Rig) -> None:
    rig.env["REMAP_SIGTERM"] = "SIGQUIT"
    worker, _ = _busy_worker(rig, 60)
    pids = worker.tree()
    worker.kill(signal.SIGTERM)
    assert worker.wait(LEAVING) == 0
    _assert_given_back(rig, worker, pids)


def test_more_terms_change_nothing(rig: Rig) -> None:
    worker, results = _busy_worker(rig, 1.0)
    worker.kill(signal.SIGTERM)
    worker.wait_output("warm shutdown")
    for _ in range(3):
        worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    assert results["running"].state == "SUCCESS", worker.output
    assert rig.app.transport.size("celery").ready == 1
    assert rig.starts() == {"running": 1}
    assert "cold shutdown" not in worker.output


def test_worker_that_hangs_up_starts_again(rig: Rig) -> None:
    worker, results = _busy_worker(rig, 0.5)
    old = worker.tree()
    worker.kill(signal.SIGHUP)
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    assert rig.starts() == {"running": 1, "waiting": 1}
    eventually(lambda: worker.output.count("w1@test ready.") == 2)
    wait_gone([pid for pid in old if pid != worker.pid])
    assert rig.send("note", 0, "after").get(timeout=20) == "after"
    assert worker.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_worker_leaves_in_time_though_the_broker_is_locked(rig: Rig, signum: signal.Signals) -> None:
    rig.settings |= {"worker_shutdown_grace": 1.0, "task_lease": 2.0}
    worker, results = _busy_worker(rig, 0.3)
    with rig.locked_broker():
        eventually(lambda: rig.marks("end"))
        worker.kill(signum)
        assert worker.wait(1.0 + LEAVING) == 0
    next_worker = rig.worker("-c", "1")
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()
    assert next_worker.stop() == 0


def test_worker_leaves_in_time_though_the_broker_is_locked_and_a_task_runs(rig: Rig) -> None:
    rig.settings |= {"worker_shutdown_grace": 0.5, "task_lease": 2.0}
    with_lock = rig.locked_broker()
    worker, results = _busy_worker(rig, 1.5)
    with with_lock:
        worker.kill(signal.SIGTERM)
        assert worker.wait(0.5 + LEAVING) == 0
    rig.worker("-c", "1")
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()


def test_what_is_acked_early_is_ended_before_a_warm_end(rig: Rig) -> None:
    """Nobody else can run it: its message is gone."""
    worker = rig.worker("-c", "1")
    results = {key: rig.send("work_acked_early", key, 0.3) for key in ("a", "b")}
    rig.wait_start("a")
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    states = {key: result.state for key, result in results.items()}
    left = rig.app.transport.size("celery").ready
    assert states["a"] == "SUCCESS", worker.output
    assert (states["b"], left) in (("SUCCESS", 0), ("PENDING", 1)), f"{states}, {left} in the queue"


def test_worker_waits_for_its_broker_at_the_start(rig: Rig) -> None:
    rig.settings["broker_transport_options"] = {"busy_timeout": 0.1}
    result = rig.send("note", 0, "first")
    with rig.locked_broker():
        worker = rig.worker("-c", "1", ready=False)
        worker.wait_output("the broker can't be reached, trying again")
        ending = rig.worker("-c", "1", ready=False)
        ending.wait_output("the broker can't be reached, trying again")
        ending.kill(signal.SIGTERM)
        assert ending.wait(LEAVING) == 0
    assert result.get(timeout=20) == "first"
    assert worker.stop() == 0


def test_worker_told_to_end_while_it_starts_ends(rig: Rig) -> None:
    worker = rig.worker("-c", "2", ready=False)
    eventually(lambda: len(worker.tree()) >= 2)  # the zygote is there, and imports the app
    worker.kill(signal.SIGTERM)
    assert worker.wait(10) == 0, worker.output
    wait_gone(worker.tree())
