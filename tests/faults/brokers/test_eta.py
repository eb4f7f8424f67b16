"""A great many tasks with an ETA on Redis: they wait in the broker, cost the worker no memory, and start in time.

100,000 wait here, a million with CELERIAC_TEST_SOAK=1 (add `-o faulthandler_timeout=600`: sending them takes minutes).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.message import Message
from celeriac.transport.open import open_transport
from tests.faults.apps_brokers.kinds import Broker, redis_kind
from tests.faults.apps_brokers.rig import IS_SOAK, BrokerRig
from tests.support.files import eventually
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.slow]

COUNT = 1_000_000 if IS_SOAK else 100_000
#: Of those that stock clients send, which pass through the worker once.
COUNT_OF_STOCK = 200_000 if IS_SOAK else 20_000
#: What the worker may grow, in bytes.
GROWTH = 5 << 20
#: Tasks due a second, and for how many seconds.
RATE, SECONDS = 2000, 10 if IS_SOAK else 3
#: What the latest of a hundred may be late in the soak, in seconds.
LATENESS = 1.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    # Not synced at each write: what is measured is the worker.
    with RedisServer(tmp_path / "redis", options=["--appendfsync", "everysec"]) as server:
        yield Broker(redis_kind(), server, None)


def message_for(rig: BrokerRig, moment: float) -> Message:
    """A task that notes how late it starts, as the client makes it."""
    options = {"eta": datetime.fromtimestamp(moment, UTC), "ignore_result": True}
    message, _ = rig.app.prepare("due", (moment,), None, options=options)
    return message


def publish_later(rig: BrokerRig, count: int, **options: Any) -> None:
    """Tasks that are due in an hour and later, with these options of the transport."""
    later = time.time() + 3600
    message = message_for(rig, later)
    with closing(open_transport(rig.url, options)) as transport:
        for start in range(0, count, 5000):
            transport.publish([
                replace(message, id=str(uuid.uuid4()), eta=later + number / 100)
                for number in range(start, min(count, start + 5000))
            ])  # fmt: skip


def run_one(rig: BrokerRig, key: str) -> None:
    """The worker works."""
    rig.app.send_task("work", (key, 0))
    rig.marks.wait("end", key)


@pytest.mark.parametrize(
    ("count", "options"),
    [(COUNT, {"delay_at_publish": True}), (COUNT_OF_STOCK, {"delay_at_publish": False})],
    ids=["sent by our clients", "as stock clients send them"],
)
def test_tasks_that_wait_cost_the_worker_no_memory(
    rig: BrokerRig, figure: Callable[[str], None], count: int, options: dict[str, Any]
) -> None:
    worker = rig.worker("-c", "2")
    publish_later(rig, 2000, **options)  # whatever is loaded at the first of them
    run_one(rig, "before")
    before = worker.pss_bytes()
    publish_later(rig, count - 2000, **options)
    eventually(lambda: rig.app.transport.size(rig.broker.queue).delayed == count, timeout=300, interval=0.1)
    run_one(rig, "after")
    growth = worker.pss_bytes() - before
    figure(f"redis, {count} delayed tasks: the worker has grown by {growth / (1 << 20):.1f} MB")
    assert growth < GROWTH, f"the worker has grown by {growth} bytes with {count} delayed tasks"
    assert worker.stop() == 0


def test_two_thousand_a_second_start_in_time(rig: BrokerRig, figure: Callable[[str], None]) -> None:
    worker = rig.worker("-c", "2", "-l", "WARNING")
    count = RATE * SECONDS
    begin = time.time() + 4.0
    rig.app.transport.publish([message_for(rig, begin + number / RATE) for number in range(count)])
    assert time.time() < begin, "the machine was too slow to send them before they were due"
    late = eventually(lambda: found if len(found := rig.marks("late")) >= count else None, timeout=60, interval=0.1)
    rig.assert_empty()
    assert len(rig.marks("late")) == count, "some ran twice"
    ordered = sorted(mark.at for mark in late)
    middle, most = ordered[count // 2], ordered[int(count * 0.99)]
    assert ordered[0] >= 0, f"one was {-ordered[0]:.3f} s too early"
    figure(f"redis, {RATE} due a second for {SECONDS} s: lateness {middle * 1000:.0f} ms (median), {most:.2f} s (p99)")
    if IS_SOAK:
        assert most < LATENESS, f"of a hundred the latest is {most:.2f} s late"
    assert worker.stop() == 0
