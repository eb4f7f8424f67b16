"""`worker_cancel_long_running_tasks_on_connection_loss`: what runs is ended when the broker is lost, and run again later."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.apps_brokers.rig import BrokerRig
from tests.support.files import eventually
from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.faults


@pytest.mark.behaviour("B-ACK-015")
@pytest.mark.usually_on("redis", "rabbitmq")
def test_what_runs_is_cancelled_told_and_run_again(far_rig: BrokerRig, proxy: FaultProxy, tmp_path: Path) -> None:
    far_rig.store_url = f"sqlite:///{tmp_path}/results.db"  # so that the state can be seen while the broker is away
    far_rig.settings.update(worker_cancel_long_running_tasks_on_connection_loss=True, task_lease=60)
    worker = far_rig.worker("-c", "2")
    late = far_rig.app.send_task("endless_once", ("late",))
    far_rig.marks.wait("start", "late")
    early = far_rig.app.send_task("acked_early", ("early", "late"))
    far_rig.marks.wait("start", "early")
    proxy.refuse()
    eventually(lambda: late.state == "RETRY", 30)
    assert "lost the connection" in str(late.result)
    proxy.heal()
    assert late.get(timeout=60) == "late"
    assert early.get(timeout=30) == "early"
    assert far_rig.marks.counts("start") == {"late": 2, "early": 1}, (
        "what is acknowledged goes on: nobody else would run it"
    )
    assert worker.stop() == 0
