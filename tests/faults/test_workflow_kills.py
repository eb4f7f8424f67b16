"""kill -9 in every gap of a chord's way: it ends, its body gets every part in order, and what follows runs."""

from __future__ import annotations

import signal

import pytest

from celeriac import chain, chord
from tests.faults.apps.rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: With one slot the executions are: three parts, the join, the body.
_RUNNER = [f"{point}:{number}" for point in ("after_start", "after_return") for number in (1, 3, 4, 5)]
_ONE_FILE = ["after_count:1", "after_count:3", "after_count:4", "before_commit:3", "before_commit:4", "after_commit:3"]
#: Here the body may have run already, and its outcome is not recorded.
_KILLED_IN_BODY = ["after_return:5", "before_commit:4", "after_commit:3"]
_TWO_FILES = ["after_count:3", "after_store:3", "after_store:4", "before_ack:3", "before_ack:4"]
_CASES = [("one file", each) for each in _RUNNER + _ONE_FILE] + [("two files", each) for each in _TWO_FILES]


@pytest.mark.parametrize(("each_rig", "point"), _CASES, indirect=["each_rig"])
def test_killed_in_any_gap_the_chord_ends(each_rig: Rig, point: str, request: pytest.FixtureRequest) -> None:
    """[B-CANVAS-054]"""
    rig = each_rig
    marker = rig.folder / "killed"
    rig.settings["task_lease"] = 1.5
    rig.env = {"CELERIAC_FAULT": point, "CELERIAC_FAULT_ONCE": str(marker)}
    worker = rig.worker("-c", "1")
    work, note = rig.app.signature("work"), rig.app.signature("note")
    parts = [work.clone((f"part{number}", 0.01)) for number in range(3)]
    body = chain(note.clone((), {"key": "body"}), note.clone((), {"key": "end"}))
    result = chord(parts, body, app=rig.app).apply_async()
    if point not in _RUNNER:
        assert worker.wait() == -signal.SIGKILL, f"the supervisor did not die {point}"
        worker = rig.worker("-c", "1")

    assert result.get(timeout=20) == "end"
    assert [part[0] for part in result.parent.parent.get(timeout=20)] == ["part0", "part1", "part2"]
    rig.assert_empty()
    assert marker.exists(), f"nobody died {point}"
    # Where broker and store are one file, its message is sent once. Elsewhere it starts once more if it was running in the
    # dying worker, and once more if its message was sent again before it had ended.
    most = 3 if request.node.callspec.params["each_rig"] == "two files" else 1 + (point in _KILLED_IN_BODY)
    assert 1 <= rig.starts()["body"] <= most, rig.starts()
    assert worker.stop() == 0
