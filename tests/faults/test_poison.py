"""Tasks that kill the process they run in harm nothing but themselves, and end where one can see them."""

from __future__ import annotations

import signal

import pytest

from celeriac import AsyncResult
from celeriac.errors import WorkerLostError
from tests.faults.apps.rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MAX_DELIVERIES = 3
#: Key → task, its further arguments, and what the dead letter must say.
POISON = {
    "killer": ("kill_own_process", (0.0,), "SIGKILL"),
    # Runs long enough that its start is charged before it dies.
    "slow-killer": ("kill_own_process", (0.3,), "SIGKILL"),
    "segfault": ("segfault", (), "SIGSEGV"),
    "hog": ("eat_memory", (600,), "memory"),
}


def test_poisonous_tasks_are_buried_after_their_starts_and_the_healthy_succeed(rig: Rig) -> None:
    rig.settings |= {"task_max_deliveries": MAX_DELIVERIES, "worker_hard_memory_per_child": 400 * 1024}
    rig.worker("-c", "2")
    healthy: dict[str, AsyncResult[object]] = {}
    poisonous: dict[str, AsyncResult[object]] = {}
    for key, (task, args, _) in POISON.items():
        poisonous[key] = rig.send(task, key, *args)
        healthy |= {f"{key}-{number}": rig.send("note", 0, f"{key}-{number}") for number in range(125)}

    rig.wait_ended(healthy | poisonous, timeout=40)
    wrong = {key: record and record.state for key, record in rig.records(healthy).items()}
    assert set(wrong.values()) == {"SUCCESS"}, wrong
    starts = rig.starts()
    assert {key: starts[key] for key in POISON} == dict.fromkeys(POISON, MAX_DELIVERIES)
    letters = {letter.message.id: letter for letter in rig.dead_letters()}
    for key, (_, _, reason) in POISON.items():
        result = poisonous[key]
        assert result.state == "FAILURE", f"{key} is {result.state}"
        error = result.get(propagate=False)
        assert isinstance(error, WorkerLostError), f"{key}: {error!r}"
        assert reason in str(error), f"{key}: {error!r}"
        letter = letters.pop(result.id, None)
        assert letter is not None, f"no dead letter of {key}"
        assert reason in letter.reason, f"{key}: {letter.reason}"
        assert letter.starts == MAX_DELIVERIES, f"the dead letter of {key} tells of {letter.starts} starts"
    assert not letters, f"dead letters of others: {letters}"


@pytest.mark.parametrize("task", ["kill_own_process_once", "kill_own_process_acked_early"])
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_what_must_not_be_repeated_fails_after_one_start_and_its_error_callback_runs(
    rig: Rig, task: str, seconds: float
) -> None:
    worker = rig.worker("-c", "1")
    result = rig.send(task, "task", seconds, link_error=rig.app.signature("note_failure"))

    with pytest.raises(WorkerLostError, match="SIGKILL"):
        result.get(timeout=20)
    rig.wait_start("errback")
    rig.assert_empty()
    assert worker.stop() == 0
    assert rig.starts() == {"task": 1, "errback": 1}


def test_task_acked_early_is_not_run_again_when_its_worker_is_killed(rig: Rig) -> None:
    rig.settings["task_lease"] = 1.0
    worker = rig.worker("-c", "1")
    rig.send("work_acked_early", "task", 30)
    rig.wait_start("task")
    worker.kill_tree(signal.SIGKILL)

    rig.worker("-c", "1")
    rig.send("note", 0, "next").get(timeout=20)
    rig.assert_empty()
    assert rig.starts() == {"task": 1, "next": 1}


def test_death_is_noticed_though_a_child_of_the_task_lives_on(rig: Rig) -> None:
    """The child holds a copy of the runner's socket, which therefore never closes."""
    rig.settings["task_max_deliveries"] = 2
    rig.worker("-c", "1")
    result = rig.send("leave_child_and_die", "task", 25)
    after = rig.send("note", 0, "next")

    with pytest.raises(WorkerLostError, match="SIGKILL"):
        result.get(timeout=10)
    assert after.get(timeout=10) == "next"
    assert rig.starts() == {"task": 2, "next": 1}
