"""Random workflows while runners and whole workers are killed: every one ends with the value that it has without kills."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from celeriac import chain, chord, group
from tests.faults.apps.rig import Rig, kill, now
from tests.support.files import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WORKFLOWS = 30
#: Seconds of killing.
KILLING = 8.0


class Maker:
    """Makes workflows and what they give."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.random = random.Random(seed)
        self.work, self.note = rig.app.signature("work"), rig.app.signature("note")
        self.count = 0

    def make(self, depth: int) -> tuple[Any, Any]:
        """A workflow and its value."""
        kind = self.random.choice(["task", "chain", "chord", "group"]) if depth else "task"
        if kind == "task":
            self.count += 1
            return self.note.clone((None,), {"key": f"k{self.count}"}).set(immutable=True), f"k{self.count}"
        members = [self.make(depth - 1) for _ in range(self.random.randint(2, 4))]
        signatures = [signature for signature, _ in members]
        if kind == "chain":
            end, value = self.body()
            return chain(*signatures, end), value
        if kind == "group":
            return group(signatures), self.flat(members)
        end, value = self.body()
        return chord(signatures, end), value

    def body(self) -> tuple[Any, Any]:
        self.count += 1
        return self.note.clone((), {"key": f"k{self.count}"}), f"k{self.count}"

    @staticmethod
    def flat(members: list[tuple[Any, Any]]) -> list[Any]:
        """Groups in a group are one group."""
        found: list[Any] = []
        for signature, value in members:
            found += value if isinstance(signature, group) else [value]
        return found


def test_workflows_end_whoever_dies(each_rig: Rig) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rig, maker = each_rig, Maker(each_rig, seed)
    rig.settings["task_lease"] = 1.5
    expected = [maker.make(3) for _ in range(WORKFLOWS)]
    worker = rig.worker("-c", "2")
    results = [signature.apply_async() for signature, _ in expected]
    end = now() + KILLING
    while now() < end:
        seen, quiet = len(rig.ledger), now() + 1.0
        eventually(lambda: len(rig.ledger) >= seen + 20 or now() > quiet)  # noqa: B023 -- called at once
        if maker.random.random() < 0.6:
            for pid in worker.runner_pids()[:1]:
                kill(pid, signal.SIGKILL)
        else:
            worker.kill_tree(signal.SIGKILL)
            worker.wait()
            worker = rig.worker("-c", "2")
    assert [result.get(timeout=40) for result in results] == [value for _, value in expected]
    rig.assert_empty()
    assert set(rig.starts()) == {f"k{number}" for number in range(1, maker.count + 1)}
    assert worker.stop() == 0
