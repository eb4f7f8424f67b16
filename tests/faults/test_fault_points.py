"""kill -9 in every gap between two steps of a task's way: its outcome is recorded once, and what follows from it is sent."""

from __future__ import annotations

import signal

import pytest

from tests.faults.apps.rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: Fault point → how often the task is started in all. Once its outcome is stored it is not run again.
_RUNNER = {"after_start": 1, "after_return": 2}
_ONE_FILE = {"after_fetch": 1, "before_commit": 2, "after_commit": 1}
_TWO_FILES = {"after_fetch": 1, "after_store": 1, "before_ack": 1}
_CASES = [
    *(("one file", point, starts) for point, starts in (_RUNNER | _ONE_FILE).items()),
    *(("two files", point, starts) for point, starts in (_RUNNER | _TWO_FILES).items()),
]


@pytest.mark.parametrize(("each_rig", "point", "starts"), _CASES, indirect=["each_rig"])
def test_killed_in_any_gap_the_outcome_is_recorded_once(each_rig: Rig, point: str, starts: int) -> None:
    rig = each_rig
    marker = rig.folder / "killed"
    rig.settings["task_lease"] = 1.5
    rig.env = {"CELERIAC_FAULT": point, "CELERIAC_FAULT_ONCE": str(marker)}
    callback = rig.app.signature("note", kwargs={"key": "callback"})
    worker = rig.worker("-c", "1")
    result = rig.send("work", "task", 0.01, link=callback)
    if point not in _RUNNER:
        assert worker.wait() == -signal.SIGKILL, f"the supervisor did not die {point}"
        worker = rig.worker("-c", "1")

    assert result.get(timeout=20)[0] == "task"
    rig.wait_start("callback")
    children = result.children
    assert children and len(children) == 1, f"the task's record names {children} as what it sent"
    assert children[0].get(timeout=20) == "callback"
    rig.assert_empty()
    assert marker.exists(), f"nobody died {point}"
    assert rig.starts()["task"] == starts, f"started {rig.starts()}, killed {point}"
    # Once more if it was running in the dying worker, and once more if its message was sent again before it had ended.
    assert rig.starts()["callback"] in (1, 2, 3), rig.starts()
    assert worker.stop() == 0
