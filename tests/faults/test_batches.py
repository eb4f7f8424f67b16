"""Deaths in the middle of a batch: nothing is lost, and the neighbours of a call that kills runners are not blamed for long."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from celeriac import AsyncResult
from celeriac.errors import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from tests.faults.apps.rig import Rig, kill
from tests.support.files import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: A full batch.
KEYS = [f"call-{number}" for number in range(20)]


def send(rig: Rig, *more: str, hold: bool = True) -> dict[str, AsyncResult[Any]]:
    """A full batch of calls, some of which may have other names; with `hold` it does not end before `let_go`."""
    if hold:
        (rig.folder / "hold").touch()
    keys = [*KEYS[: len(KEYS) - len(more)], *more]
    return {key: rig.send("batch_work", key) for key in keys}


def let_go(rig: Rig) -> None:
    (rig.folder / "hold").unlink()


def test_a_runner_killed_in_the_middle_of_a_batch_loses_nothing(each_rig: Rig) -> None:
    """Each call is started twice, the second time alone: which of them the death was due to is then known."""
    rig = each_rig
    results = send(rig)
    worker = rig.worker("-c", "1")
    started = [rig.wait_start(key) for key in KEYS]
    assert len({mark.pid for mark in started}) == 1
    kill(started[0].pid, signal.SIGKILL)
    let_go(rig)

    rig.wait_ended(results)
    assert {key: result.get(timeout=5) for key, result in results.items()} == {key: [key, 1] for key in KEYS}
    rig.assert_empty()
    assert set(rig.starts().values()) == {2}
    assert worker.stop() == 0


def test_a_worker_killed_in_the_middle_of_a_batch_loses_nothing(rig: Rig) -> None:
    rig.settings["task_lease"] = 1.5
    results = send(rig)
    worker = rig.worker("-c", "1")
    for key in KEYS:
        rig.wait_start(key)
    worker.kill_tree(signal.SIGKILL)
    let_go(rig)

    rig.worker("-c", "1")
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()
    assert set(rig.starts().values()) == {2}


def test_a_call_that_kills_its_runner_is_buried_and_its_neighbours_succeed(rig: Rig) -> None:
    rig.settings["task_max_deliveries"] = 3
    results = send(rig, "killer", hold=False)
    rig.worker("-c", "1")
    rig.wait_ended(results)
    poison = results.pop("killer")
    assert isinstance(poison.get(propagate=False), WorkerLostError)
    assert [(letter.message.id, letter.starts) for letter in rig.dead_letters()] == [(poison.id, 3)]
    rig.assert_succeeded(results)
    starts = rig.starts()
    assert starts.pop("killer") == 3
    assert set(starts.values()) == {2}


def test_a_hard_time_limit_ends_every_call_of_its_batch(rig: Rig) -> None:
    results = send(rig)
    results.pop(KEYS[0]).revoke()  # makes room for the one with the limit
    results["limited"] = rig.app.send_task("batch_work", ("limited",), time_limit=0.3)
    rig.worker("-c", "1")
    rig.wait_ended(results)
    assert {type(result.get(propagate=False)) for result in results.values()} == {TimeLimitExceeded}
    assert set(rig.starts().values()) == {1}
    rig.assert_empty()


def test_terminating_one_call_of_a_batch_hits_no_other(rig: Rig) -> None:
    results = send(rig)
    rig.worker("-c", "1")
    for key in KEYS:
        rig.wait_start(key)
    ended = results.pop(KEYS[3])

    def active() -> set[str]:
        found = rig.app.control.inspect(timeout=0.5).active() or {}
        return {info["id"] for infos in found.values() for info in infos}

    eventually(lambda: active() == {ended.id, *(result.id for result in results.values())})
    ended.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        ended.get(timeout=20)
    let_go(rig)
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    assert rig.starts() == {KEYS[3]: 1, **dict.fromkeys(results, 2)}


GAPS = [("one file", "after_return"), ("two files", "before_ack")]
if os.environ.get("CELERIAC_TEST_SOAK"):
    GAPS += [("one file", "before_commit"), ("one file", "after_commit"), ("two files", "after_store")]


@pytest.mark.parametrize(("each_rig", "point"), GAPS, indirect=["each_rig"])
def test_killed_in_any_gap_each_outcome_of_a_batch_is_recorded(each_rig: Rig, point: str) -> None:
    rig = each_rig
    rig.settings["task_lease"] = 1.5
    rig.env = {"CELERIAC_FAULT": point, "CELERIAC_FAULT_ONCE": str(rig.folder / "killed")}
    results = send(rig, hold=False)
    worker = rig.worker("-c", "1", ready=False)
    if point != "after_return":
        assert worker.wait() == -signal.SIGKILL
        rig.worker("-c", "1")
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()
    assert (rig.folder / "killed").exists()
