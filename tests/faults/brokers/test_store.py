"""The result store, on a server of its own, is frozen and then down while tasks go on: nothing is lost or run twice.

20 s in all. With CELERIAC_TEST_SOAK=1 (and `-o faulthandler_timeout=600`) 60 s, and all brokers take their turn instead of
Redis alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.apps_brokers.kinds import Broker
from tests.faults.apps_brokers.load import Load
from tests.faults.apps_brokers.rig import IS_SOAK, LEASE, BrokerRig
from tests.support.files import eventually
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: Seconds of each of the two outages.
OUTAGE = 30.0 if IS_SOAK else 10.0


@pytest.fixture
def second_server(tmp_path: Path) -> Iterator[RedisServer]:
    """The result store."""
    with RedisServer(tmp_path / "second") as server:
        yield server
        server.thaw()


@pytest.mark.usually_on("redis")
def test_store_outage_loses_nothing_and_repeats_nothing(
    broker: Broker, second_server: RedisServer, make_rig: Callable[..., BrokerRig], figure: Callable[[str], None]
) -> None:
    broker.store = second_server
    broker.store_url = broker.store_url_at(0)
    rig = make_rig(broker)
    workers = [rig.worker("-c", "2"), rig.worker("-c", "1")]
    with Load(rig, threads=2) as load:
        load.healed()
        for begin, end in ((second_server.freeze, second_server.thaw), (second_server.kill, second_server.start)):
            begin()
            before = len(rig.marks("end"))
            rig_goes_on(rig, before, OUTAGE)
            workers[0].wait_output("can't be committed, trying again")
            end()
            latency = load.healed()
            wait_stored(rig, load)
            figure(f"{broker.kind.name}, store away for {OUTAGE:g} s: {len(rig.marks('end')) - before} tasks ended"
                   f" meanwhile, the next one {latency:.2f} s after the heal")  # fmt: skip
    load.verify(may_repeat=False)
    assert [worker.stop() for worker in workers] == [0, 0]


def rig_goes_on(rig: BrokerRig, before: int, seconds: float) -> None:
    """Tasks go on while the store is away, for longer than leases are."""
    assert seconds > 2 * LEASE, "leases would not have to be renewed"
    ended = eventually(lambda: rig.marks("end")[before:], timeout=seconds)
    begun = ended[0].at
    eventually(lambda: rig.marks("end")[-1].at - begun > seconds, timeout=seconds + 15, interval=0.1)


def wait_stored(rig: BrokerRig, load: Load) -> None:
    """What was accepted until now is SUCCESS."""
    rig.wait_succeeded([each.id for each in list(load.accepted)])
