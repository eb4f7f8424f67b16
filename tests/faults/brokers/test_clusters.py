"""A member of a cluster is lost under load, for good: tasks go on, and nothing that was confirmed is lost.

RabbitMQ: one node of three, the one that everyone is connected to; quorum queues, so what was confirmed is on two nodes.

Redis: the master of one replica, three sentinels of which two have to agree. Redis replicates asynchronously, and neither
`min-replicas-to-write` nor WAIT is set here: a write that was confirmed in the moment before the master dies may never have
reached the replica. So what was accepted in the last 0.1 s may be missing, and is counted; everything earlier must be there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.apps_brokers.clusters import RedisTrio, rabbitmq_trio_kind, redis_trio_kind
from tests.faults.apps_brokers.kinds import Broker
from tests.faults.apps_brokers.load import Load
from tests.faults.apps_brokers.rig import BrokerRig
from tests.support.files import eventually
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: Accepted so short before the death of a Redis master, in seconds, a task may be lost with it.
UNSAFE = 0.1
#: Seconds until the next task starts: sentinels need 1 s to notice, then they vote.
LIMIT = 20.0


@pytest.fixture
def redis_trio(tmp_path: Path) -> Iterator[Broker]:
    kind = redis_trio_kind()
    with kind.start(tmp_path / "trio") as server:
        yield Broker(kind, server, None)


@pytest.fixture
def rabbitmq_trio(tmp_path: Path) -> Iterator[Broker]:
    kind = rabbitmq_trio_kind()
    with RedisServer(tmp_path / "store") as store, kind.start(tmp_path / "trio") as server:
        yield Broker(kind, server, store)


def test_redis_failover_by_sentinels(
    redis_trio: Broker, make_rig: Callable[..., BrokerRig], figure: Callable[[str], None]
) -> None:
    rig = make_rig(redis_trio)
    trio: RedisTrio = redis_trio.server  # type: ignore[assignment]
    worker = rig.worker("-c", "2")
    with Load(rig, threads=2) as load:
        load.healed(LIMIT)
        eventually(lambda: len(load.accepted) > 50)
        safe = {each.id for each in list(load.accepted)}
        time_of_death = time.monotonic() + UNSAFE
        eventually(lambda: time.monotonic() >= time_of_death)
        trio.kill()
        known = {each.id for each in list(load.accepted)}
        latency = load.healed(LIMIT)
        eventually(lambda: len(load.accepted) > len(known) + 50)
    doubtful = known - safe
    rig.wait_succeeded(each.id for each in load.accepted if each.id not in doubtful)
    rig.assert_empty()
    lost = [key for key, record in rig.records(doubtful).items() if record is None]
    assert worker.stop() == 0
    figure(f"redis sentinel: next task {latency:.2f} s after the master's death; of {len(doubtful)} tasks accepted in"
           f" the {UNSAFE:g} s before it, {len(lost)} lost")  # fmt: skip


def test_rabbitmq_node_of_three_is_lost(
    rabbitmq_trio: Broker, make_rig: Callable[..., BrokerRig], figure: Callable[[str], None]
) -> None:
    rig = make_rig(rabbitmq_trio)
    rig.settings["task_default_queue_type"] = "quorum"
    early = rig.app.send_task("work", ("early", 0))  # the client declares its queue, too
    worker = rig.worker("-c", "2")
    assert early.get(timeout=60)[0] == "early"  # the first worker in a cluster's life makes 28 queues that delay
    with Load(rig, threads=2) as load:
        load.healed()
        eventually(lambda: len(load.accepted) > 50)
        rig.broker.server.kill()
        latency = load.healed(LIMIT)
        known = len(load.accepted)
        eventually(lambda: len(load.accepted) > known + 50)
    load.verify(may_repeat=True)
    assert worker.stop() == 0
    figure(f"rabbitmq of three nodes: next task {latency:.2f} s after the loss of one")
