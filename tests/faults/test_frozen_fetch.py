"""A fetch that was under way when its server froze leases nothing once nobody waits for its answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from celeriac.errors import OperationalError
from celeriac.testing.transport_case import make_message, names
from celeriac.transport.base import Transport
from celeriac.transport.open import open_transport
from tests.faults.apps_brokers.kinds import KINDS, Broker, need_driver

pytestmark = [pytest.mark.faults, pytest.mark.slow]

#: Longest wait of the drivers, in seconds.
TIMEOUT = 0.5


@pytest.fixture(params=[kind for kind in KINDS if kind.name != "rabbitmq"], ids=lambda kind: kind.name)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Each broker whose leases are single messages', running."""
    kind = request.param
    need_driver(kind)
    with kind.start(tmp_path_factory.mktemp(kind.name)) as server:
        yield Broker(kind, server, None)


@contextlib.contextmanager
def opened(broker: Broker) -> Iterator[Transport]:
    transport = open_transport(broker.url, {"timeout": TIMEOUT})
    yield transport
    transport.close()


def test_what_a_lost_answer_would_have_brought_is_there_for_others(broker: Broker) -> None:
    with opened(broker) as first, opened(broker) as second:
        for transport in (first, second):  # connected
            transport.publish([make_message("hello", "q")])
            transport.settle([])
            assert names(transport.fetch(["q"], 10, 0.0, 300.0)) == ["hello"]
        second.publish([make_message("kept", "q")])
        broker.server.freeze()
        try:
            with pytest.raises(OperationalError):
                first.fetch(["q"], 10, 0.0, 300.0)
            time.sleep(TIMEOUT)  # what was asked is over by the server's clock, too
        finally:
            broker.server.thaw()
        assert names(second.fetch(["q"], 10, 5.0, 300.0)) == ["kept"]
