"""A batch whose runner dies loses nothing, whatever the broker: its calls come back, and run alone."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.apps_brokers.rig import BrokerRig

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.usually_on("redis", "rabbitmq")
def test_a_runner_killed_in_the_middle_of_a_batch_loses_nothing(rig: BrokerRig) -> None:
    keys = [f"{rig.broker.queue}-{number}" for number in range(10)]
    for key in keys:
        rig.app.send_task("batch_work", (key,), task_id=key)
    worker = rig.worker("-c", "1")
    started = [rig.marks.wait("start", key) for key in keys]
    assert len({mark.pid for mark in started}) == 1
    os.kill(started[0].pid, signal.SIGKILL)

    rig.wait_succeeded(keys)
    assert [rig.app.AsyncResult(key).get(timeout=5) for key in keys] == [1] * 10
    rig.assert_empty()
    assert set(rig.marks.counts("start").values()) == {2}
    assert worker.stop() == 0
