"""Workers beside a broken broker: frozen past their lease they are fenced, told to end while it is frozen they end in time."""

from __future__ import annotations

import signal

import pytest

from tests.faults.apps_brokers.rig import BrokerRig
from tests.support.files import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

GRACE = 1.0
#: Seconds that a worker may take to leave beyond its grace.
LEAVING = 2.0
#: What the processes of a loaded machine may take to start and end, in seconds.
SLACK = 1.0


@pytest.mark.kinds("redis", "postgresql", "mariadb")  # RabbitMQ's leases last as long as the connection
@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(True, id="whole worker"),
        pytest.param(False, id="supervisor only", marks=pytest.mark.usually_on("redis")),
    ],
)
def test_worker_frozen_past_its_lease_is_fenced(rig: BrokerRig, whole: bool) -> None:
    """Another worker runs its task; its own outcome comes too late and is refused."""
    rig.settings["task_lease"] = 1.5
    first = rig.worker("-c", "1")
    task_id = f"task-{rig.broker.queue}"  # results of earlier tests are still there
    rig.app.send_task("work", (task_id, 0.5), task_id=task_id)
    rig.marks.wait("start", task_id)
    if whole:
        first.kill_tree(signal.SIGSTOP)
    else:
        first.kill(signal.SIGSTOP)  # its runner ends the task; the outcome waits in the pipe
        rig.marks.wait("end", task_id)
    second = rig.worker("-c", "1")
    stored = rig.wait_succeeded([task_id])
    assert rig.app.AsyncResult(task_id).get(timeout=5)[:2] == [task_id, "w2@test"]

    first.kill_tree(signal.SIGCONT)
    first.wait_output(rf"outcome of work\[{task_id}\] refused: its lease was lost")
    assert rig.records([task_id]) == stored, "the late outcome has replaced the other"
    assert rig.marks.counts("start")[task_id] == 2
    rig.assert_empty()
    assert [first.stop(), second.stop()] == [0, 0]


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGQUIT, marks=pytest.mark.usually_on("rabbitmq"))]
)
def test_worker_ends_in_time_though_the_broker_is_frozen(rig: BrokerRig, signum: signal.Signals) -> None:
    rig.settings["worker_shutdown_grace"] = GRACE
    worker = rig.worker("-c", "2")
    short, long = f"short-{rig.broker.queue}", f"long-{rig.broker.queue}"
    rig.app.send_task("work", (short, 0.3), task_id=short)
    rig.app.send_task("work", (long, 60.0), task_id=long)
    rig.marks.wait("start", short)
    rig.marks.wait("start", long)
    rig.broker.server.freeze()
    rig.marks.wait("end", short)
    worker.kill(signum)
    assert worker.wait((GRACE if signum == signal.SIGTERM else 0.0) + LEAVING + SLACK) == 0
    rig.broker.server.thaw()
    rig.worker("-c", "2")
    rig.wait_succeeded([short])  # if its outcome could not be recorded, it runs once more
    eventually(lambda: rig.marks.counts("start")[long] == 2)
