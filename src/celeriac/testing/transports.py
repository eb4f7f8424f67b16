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

Queues have random names, so a broker may be shared. What the driver's `capabilities` rule out is skipped. Nothing sleeps:
a test that needs a lease to end lets the other connection wait for the message.

So that failing asserts show their values, a driver's `conftest.py` calls
`pytest.register_assert_rewrite("celeriac.testing")` before anything else.
"""

from __future__ import annotations

from celeriac.testing.transport_case import PATIENCE, make_message
from celeriac.testing.transport_commits import CommitTests
from celeriac.testing.transport_deliveries import DeliveryTests
from celeriac.testing.transport_queues import QueueTests

__all__ = ["PATIENCE", "TransportSuite", "make_message"]


class TransportSuite(DeliveryTests, QueueTests, CommitTests):
    """Subclass it with fixtures `transport`, `other` and, where the driver commits with a store, `store`."""
