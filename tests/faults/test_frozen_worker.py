"""A worker that was stopped past its lease comes too late: another has run its task, and its outcome is refused."""

from __future__ import annotations

import re
import signal

import pytest

from tests.faults.apps.rig import Rig
from tests.support.files import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LEASE = 1.5
REFUSED = r"outcome of work\[.*\] refused: its lease was lost"


@pytest.mark.parametrize("whole", [True, False], ids=["whole worker", "supervisor only"])
def test_outcome_of_a_worker_frozen_past_its_lease_is_refused(each_rig: Rig, whole: bool) -> None:
    rig = each_rig
    rig.settings["task_lease"] = LEASE
    first = rig.worker("-c", "1")
    results = rig.send_work(["task"], lambda: 0.5)
    rig.wait_start("task")
    if whole:
        first.kill_tree(signal.SIGSTOP)
    else:
        first.kill(signal.SIGSTOP)  # its runner ends the task; the outcome waits in the pipe
        eventually(lambda: rig.marks("end"))
    second = rig.worker("-c", "1")
    rig.wait_start("task", number=2)
    rig.wait_ended(results)
    ours = results["task"].get(timeout=5)
    record = rig.records(results)["task"]
    assert ours == ["task", "w2@test"], f"the stored result is {ours}"

    if whole:
        first.kill_tree(signal.SIGCONT)
    else:
        first.kill(signal.SIGCONT)
    first.wait_output(REFUSED)
    assert rig.records(results)["task"] == record, "the late outcome has replaced the other"
    assert rig.starts() == {"task": 2}
    more = rig.send_work([f"more{number}" for number in range(6)], lambda: 0.1)
    rig.wait_ended(more)
    rig.assert_succeeded(more)
    rig.assert_empty()
    assert not re.search(REFUSED, second.output)
    assert [first.stop(), second.stop()] == [0, 0]


def test_worker_frozen_within_its_lease_goes_on_as_if_nothing_had_been(rig: Rig) -> None:
    rig.settings["task_lease"] = 30.0
    first = rig.worker("-c", "1")
    results = rig.send_work(["task"], lambda: 0.5)
    rig.wait_start("task")
    first.kill_tree(signal.SIGSTOP)
    second = rig.worker("-c", "1")
    rig.send("note", 0, "other").get(timeout=20)  # the second worker is at work, and leaves the task alone
    first.kill_tree(signal.SIGCONT)
    rig.wait_ended(results)
    assert results["task"].get() == ["task", "w1@test"]
    assert rig.starts() == {"task": 1, "other": 1}
    rig.assert_empty()
    assert [first.stop(), second.stop()] == [0, 0]
