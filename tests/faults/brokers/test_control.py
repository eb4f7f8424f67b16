"""Remote control and revoking on every broker: after the server came back, over a bad network, under load."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from celeriac.errors import OperationalError
from tests.faults.apps_brokers.rig import IS_SOAK, BrokerRig
from tests.support.files import eventually
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: Revokes at random, of four times as many tasks.
REVOKES = 1000 if IS_SOAK else 100


def answers(rig: BrokerRig, count: int = 1) -> None:
    """Wait until so many workers answer. A call that meets the broken connection fails, as it has to."""

    def ask() -> bool:
        try:
            return len(rig.app.control.ping(timeout=1.0, limit=count)) == count
        except OperationalError:
            return False

    eventually(ask, 40)


def test_workers_are_reached_again_when_the_server_is_back(rig: BrokerRig) -> None:
    rig.worker("-c", "1")
    answers(rig)
    rig.broker.server.kill()
    rig.broker.server.start()
    answers(rig)
    result = rig.app.send_task("work", ("long", 600.0), queue=rig.broker.queue)
    rig.marks.wait("start", "long")
    rig.app.control.terminate(result.id, reply=True, timeout=20, limit=1)
    eventually(lambda: rig.app.AsyncResult(result.id).state == "REVOKED", 20)


def test_workers_are_reached_again_after_a_cut(far_rig: BrokerRig, proxy: FaultProxy) -> None:
    far_rig.worker("-c", "1")
    answers(far_rig)
    for _ in range(2):
        proxy.cut()
        answers(far_rig)


def test_what_is_revoked_does_not_start_any_more_and_the_rest_does(
    rig: BrokerRig, figure: Callable[[str], None]
) -> None:
    """[B-REVOKE-001] No revoked task starts once the workers have heard of it; every other one runs, once."""
    for _ in range(2):
        rig.worker("-c", "2")
    answers(rig, 2)
    sent = {f"k{number}": rig.app.send_task("work", (f"k{number}", 0.04), queue=rig.broker.queue).id
            for number in range(4 * REVOKES)}  # fmt: skip
    chosen = random.Random(11).sample(sorted(sent), REVOKES)
    for key in chosen:
        rig.app.control.revoke(sent[key])
    answers(rig, 2)  # commands come in their order: all are heard now
    heard_at = time.monotonic()
    others = {key: task_id for key, task_id in sent.items() if key not in chosen}
    rig.wait_succeeded(others.values(), 120 if IS_SOAK else 45)
    states = eventually(lambda: all_ready(rig, [sent[key] for key in chosen]), 20)
    assert set(states) <= {"REVOKED", "SUCCESS"}
    rig.assert_empty()
    starts = rig.marks.counts("start")
    assert {key: starts[key] for key in others if starts[key] != 1} == {}
    began = {mark.key: mark.at for mark in rig.marks("start") if mark.key in chosen}
    assert {key: at - heard_at for key, at in began.items() if at > heard_at} == {}
    stopped = len(chosen) - len(began)
    figure(f"{rig.broker.kind.name}: {stopped} of {len(chosen)} revoked tasks had not started")


def all_ready(rig: BrokerRig, ids: list[str]) -> list[str] | None:
    """Their states, once all of them have ended."""
    records = rig.records(ids).values()
    return [record.state for record in records if record] if all(each and each.is_ready for each in records) else None
