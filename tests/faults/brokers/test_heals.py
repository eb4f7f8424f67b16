"""The broker is killed, frozen, cut off, refused, deaf, slow or sliced under load, and heals: tasks go on, nothing is lost.

Each broker heals 20 times (100 with CELERIAC_TEST_SOAK=1): with 4 clients sending and a worker working, a fault begins, lasts,
ends, and a task sent then has to start within 10 s; how soon they did is shown at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from tests.faults.apps_brokers.load import Load
from tests.faults.apps_brokers.rig import IS_SOAK, LEASE, BrokerRig
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: Seconds that a task which is sent after a heal may take to start. What is promised is 5; the machine may be busy.
LIMIT = 10.0


def lasting(seconds: float) -> None:
    """Let a fault last, while the load goes on."""
    threading.Event().wait(seconds)


def describe(name: str, latencies: Sequence[float]) -> str:
    """A line for the report."""
    ordered = sorted(latencies)
    middle = ordered[len(ordered) // 2]
    return f"{name}: {len(ordered)} heals, next task after {middle:.2f} s (median), {ordered[-1]:.2f} s (worst)"


#: In the soak each round of a test is a test of its own, as a test may take 60 s at most.
ROUNDS = range(5 if IS_SOAK else 1)


@pytest.mark.parametrize("number", ROUNDS)
def test_server_is_killed_and_frozen_under_load(rig: BrokerRig, figure: Callable[[str], None], number: int) -> None:
    server = rig.broker.server
    worker = rig.worker("-c", "2")
    latencies = []
    with Load(rig) as load:
        load.healed()
        for _ in range(2):
            server.kill()
            lasting(0.3)
            server.start()
            latencies.append(load.healed(LIMIT))
        for seconds in (1.0, LEASE + 0.5):
            server.freeze()
            lasting(seconds)
            server.thaw()
            latencies.append(load.healed(LIMIT))
    load.verify(may_repeat=True)
    assert load.refusals, "the broker was killed and no client has noticed"
    assert worker.stop() == 0
    figure(describe(f"{rig.broker.kind.name}, server killed or frozen", latencies))


def breaks(proxy: FaultProxy) -> list[Callable[[], object]]:
    """Sixteen faults of the network, each to be healed."""
    return [
        *[proxy.cut] * 4,
        *[proxy.refuse] * 3,
        lambda: proxy.slice(7),
        lambda: proxy.slow(latency=0.1),
        proxy.deaf,
        lambda: proxy.drop_after(500),
        lambda: proxy.drop_after(5000),
        *[proxy.cut] * 4,
    ]


@pytest.mark.parametrize("number", ROUNDS)
def test_network_is_broken_under_load(
    far_rig: BrokerRig, proxy: FaultProxy, figure: Callable[[str], None], number: int
) -> None:
    rig = far_rig
    worker = rig.worker("-c", "2")
    latencies = []
    with Load(rig) as load:
        load.healed()
        for break_it in breaks(proxy):
            break_it()
            lasting(0.4)
            proxy.heal()
            latencies.append(load.healed(LIMIT))
    # Leases that end with the connection are lost with it; others outlast these faults.
    load.verify(may_repeat=rig.broker.capabilities.lease != "message")
    assert worker.stop() == 0
    figure(describe(f"{rig.broker.kind.name}, network broken", latencies))
