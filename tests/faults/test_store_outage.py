"""The result store is away for a while under load: outcomes are kept and tried again, nothing is acked before it is stored."""

from __future__ import annotations

import time

import pytest

from tests.faults.apps.rig import Rig
from tests.support.files import eventually
from tests.support.flaky_control import FlakyControl

pytestmark = [pytest.mark.faults, pytest.mark.slow]

TASKS = 200
#: Seconds for which the store is away.
OUTAGE = 20.0


def _with_flaky_store(rig: Rig) -> FlakyControl:
    control = FlakyControl(rig.folder)
    rig.worker_store_url = f"flaky://{rig.store_url}"
    rig.env = dict(control.env)
    rig.settings["task_lease"] = 2.0
    return control


def _failed(control: FlakyControl, verb: str) -> int:
    return control.calls().count(f"{verb}!")


def test_store_outage_under_load_loses_nothing_and_repeats_nothing(rig: Rig) -> None:
    control = _with_flaky_store(rig)
    worker = rig.worker("-c", "4")
    results = rig.send_work([f"t{number}" for number in range(TASKS)], lambda: 0.03)
    rig.ledger.wait_for(40)
    control.fail()
    back_at = time.monotonic() + OUTAGE
    # Tasks go on. Leases are 2 s: they would run out many times if they were not renewed, and the second worker would run
    # the tasks again.
    other = rig.worker("-c", "1")
    eventually(lambda: len(rig.marks("end")) == TASKS, timeout=30)
    eventually(lambda: time.monotonic() > back_at and _failed(control, "store") >= 15, timeout=OUTAGE + 20)
    stored = [record for record in rig.records(results).values() if record is not None]
    assert len(stored) < TASKS, "the outage was none"
    assert rig.app.transport.size("celery").leased == TASKS - len(stored), "something was acked before it was stored"
    control.heal()

    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()
    repeated = {key: count for key, count in rig.starts().items() if count != 1}
    assert not repeated, f"not run once: {repeated}"
    assert [worker.stop(), other.stop()] == [0, 0]


def test_lost_replies_of_the_store_lose_no_callback(rig: Rig) -> None:
    """The store has the record, the worker does not know: the second try is refused there, and yet all goes on."""
    control = _with_flaky_store(rig)
    worker = rig.worker("-c", "1")
    control.lose_replies("store")
    result = rig.send("work", "task", 0.01, link=rig.app.signature("note", kwargs={"key": "callback"}))
    eventually(lambda: _failed(control, "store") >= 2)
    control.heal()
    rig.wait_start("callback")
    assert result.get(timeout=20)[0] == "task"
    rig.assert_empty()
    assert rig.starts() == {"task": 1, "callback": 1}
    assert worker.stop() == 0


def test_worker_ends_in_time_though_the_store_is_away_and_the_next_one_does_the_rest(rig: Rig) -> None:
    control = _with_flaky_store(rig)
    rig.settings["worker_shutdown_grace"] = 1.0
    worker = rig.worker("-c", "1")
    # Once: a worker that has not read yet what is revoked takes no message while the store is away.
    rig.wait_ended(rig.send_work(["before"], lambda: 0.0))
    control.fail()
    results = rig.send_work(["task"], lambda: 0.05)
    eventually(lambda: _failed(control, "store") >= 1)
    worker.kill(15)
    assert worker.wait(3.0) == 0
    worker.wait_output("outcome.* left behind")
    control.heal()
    rig.worker("-c", "1")
    rig.wait_ended(results)
    rig.assert_succeeded(results)
    rig.assert_empty()
