"""Limits that hold for all workers together, on every broker that has a place for them: at full speed, and under kill -9.

With CELERIAC_TEST_SOAK=1 on all of these brokers, for a minute, and with figures that only a machine with time to spare can
hold: a start that the machine delayed may fall into the same second as a hundred others.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from celeriac.rates import CLOSE
from tests.faults.apps_brokers.limits import AT_ONCE, RATE, define, most_at_once, most_in_a_second
from tests.faults.apps_brokers.rig import IS_SOAK, LEASE, BrokerRig
from tests.support.files import eventually

pytestmark = [
    pytest.mark.faults, pytest.mark.slow, pytest.mark.kinds("redis", "postgresql", "rabbitmq"), pytest.mark.usually_on("redis"),
]  # fmt: skip

SECONDS = 60 if IS_SOAK else 2
KEYS = "abc"
#: Of each key.
COUNT = 200 if IS_SOAK else 12


@pytest.fixture
def limited_rig(rig: BrokerRig) -> BrokerRig:
    """Client and workers with these tasks."""
    rig.jobs = "tests.faults.apps_brokers.limited_jobs"
    define(rig.app)
    return rig


def test_three_workers_together_start_no_more_than_the_rate(
    limited_rig: BrokerRig, figure: Callable[[str], None]
) -> None:
    """A hundred a second. None starts too early, however late others were; nothing is lost or run twice."""
    rig = limited_rig
    count = RATE * SECONDS
    for number in range(count):
        rig.app.tasks["paced"].delay(f"p{number}")
    begin = time.monotonic()
    for _ in range(3):
        rig.worker("-c", "2", "-P", "threads")
    eventually(lambda: len(rig.marks("start")) >= count, SECONDS + 60, interval=0.2)
    moments = sorted(mark.at for mark in rig.marks("start"))
    assert all(at >= begin + number / RATE - CLOSE for number, at in enumerate(moments))
    assert set(rig.marks.counts("start").values()) == {1}
    rig.assert_empty()
    most, usual = most_in_a_second(moments), (count - 1) / (moments[-1] - moments[0])
    figure(
        f"{rig.broker.kind.name}: {RATE}/s on 3 workers for {SECONDS} s: at most {most} in a second, {usual:.1f}/s in all"
    )
    if IS_SOAK:
        assert most <= 110
        assert usual >= 95


def test_a_key_is_never_above_its_limit_whoever_is_killed(
    limited_rig: BrokerRig, figure: Callable[[str], None]
) -> None:
    """What a killed worker ran is run again by others, in the slots of its key, and never in more of them."""
    rig = limited_rig
    workers = [rig.worker("-c", "4", "-P", "threads") for _ in range(3)]
    sent: list[str] = []
    killed: dict[int, float] = {}
    for number in range(COUNT):
        sent += [rig.app.tasks["keyed"].delay(key, f"n{number}", 0.1).id for key in KEYS]
        if number in (COUNT // 3, 2 * COUNT // 3):
            worker = workers.pop()
            pids = worker.tree()
            worker.kill_tree(signal.SIGKILL)
            worker.wait(20)
            killed.update(dict.fromkeys(pids, time.monotonic()))
    rig.wait_succeeded(sent, 60 + len(sent) * 0.2)
    rig.assert_empty()
    most = most_at_once(rig.marks("start"), rig.marks("end"), killed)
    figure(f"{rig.broker.kind.name}: {len(sent)} tasks, 2 of 3 workers killed: {dict(most)} at once, {AT_ONCE} allowed")
    assert set(most) == set(KEYS)
    assert max(most.values()) <= AT_ONCE


def test_the_slots_of_a_killed_worker_are_free_after_its_lease(
    limited_rig: BrokerRig, figure: Callable[[str], None]
) -> None:
    """Nobody gives them back: what it ran was acknowledged early and does not run again."""
    rig = limited_rig
    keyed = rig.app.tasks["keyed_once"]
    first = rig.worker("-c", "4", "-P", "threads")
    for number in range(AT_ONCE):
        keyed.delay("a", f"victim{number}", 600.0)
        rig.marks.wait("start", f"a/victim{number}")
    rig.worker("-c", "4", "-P", "threads")
    waits = keyed.delay("a", "waits", 0.0)
    keyed.delay("b", "other", 0.0).get(timeout=30)
    assert rig.marks.counts("start")["a/waits"] == 0
    killed_at = time.monotonic()
    first.kill_tree(signal.SIGKILL)
    assert waits.get(timeout=30) == "waits"
    pause = rig.marks.wait("start", "a/waits").at - killed_at
    figure(f"{rig.broker.kind.name}: a slot was free {pause:.2f} s after kill -9 of its holder (lease {LEASE:g} s)")
    if IS_SOAK:
        assert pause <= LEASE + 1.0
