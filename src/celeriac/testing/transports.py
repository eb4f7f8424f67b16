"""The conformance suite of transports: every promise of `celeriac.transport.base.Transport` as a test.

A driver's test module subclasses `TransportSuite` and gives it two connections to one broker:

    class TestMine(TransportSuite):
        @pytest.fixture
        def transport(self):
            transport = MyTransport("mine://localhost", {})
            yield transport
            transport.close()

        @pytest.fixture
        def other(self):
            ...  # a second one, to the same broker

Queues have random names, so a broker may be shared. A driver that can't do everything says so in the class attribute
`lacks`, for example `lacks = frozenset({"broadcast", "commit"})`; the tests of these features are left out. Nothing
sleeps: a test that needs a lease to end lets the other connection wait for the message.

So that failing asserts show their values, a driver's `conftest.py` calls
`pytest.register_assert_rewrite("celeriac.testing")` before anything else.
"""

from __future__ import annotations

from celeriac.results.base import ResultStore
from celeriac.testing.transport_ahead import AheadTests
from celeriac.testing.transport_case import PATIENCE, make_message
from celeriac.testing.transport_commits import CommitTests, FetchingCommitTests
from celeriac.testing.transport_deliveries import DeliveryTests
from celeriac.testing.transport_queues import QueueTests
from celeriac.transport.base import Transport

__all__ = ["PATIENCE", "AheadTests", "FetchingCommitTests", "TransportSuite", "make_message"]


class TransportSuite(DeliveryTests, QueueTests, CommitTests):
    """Subclass it with fixtures `transport`, `other` and, where the driver commits with a store, `store`."""

    def test_what_is_left_out_is_what_the_driver_lacks(self, transport: Transport, store: ResultStore | None) -> None:
        can = transport.capabilities
        has = {
            "delay": can.delay > 0,
            "priorities": can.priorities >= 3,
            "message leases": can.lease == "message",
            "counted starts": can.counts_starts,
            "dead letters": can.dead_letters,
            "broadcast": can.broadcast,
            "commit": store is not None and transport.commits_with(store),
        }
        assert set(self.lacks) == {feature for feature, is_there in has.items() if not is_there}
