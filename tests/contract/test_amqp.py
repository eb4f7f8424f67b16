"""The RabbitMQ transport keeps the contract, on a private server, and what is particular to AMQP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.message import Action, Settlement
from celeriac.routing import Queue
from celeriac.testing.transport_case import LONG, PATIENCE, make_message
from celeriac.testing.transports import TransportSuite
from celeriac.transport.amqp import AmqpTransport
from celeriac.transport.base import QueueSize
from tests.support.rabbitmq_server import RabbitMQServer

pytestmark = [pytest.mark.server("rabbitmq"), pytest.mark.slow]


class TestAmqpTransport(TransportSuite):
    lacks = frozenset({"message leases", "commit"})

    @pytest.fixture
    def transport(self, transport: AmqpTransport) -> AmqpTransport:
        return transport

    @pytest.fixture
    def other(self, other: AmqpTransport) -> AmqpTransport:
        return other

    # Where AMQP really can't do what the suite asks.

    def test_priorities(self, transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
        """A queue has priorities from its declaration on, or never."""
        with pytest.raises(ImproperlyConfigured, match=f"{queue}.*inequivalent arg"):
            transport.declare([Queue(queue, max_priority=9)])
        name = f"{queue}-with-priorities"
        transport.declare([Queue(name, max_priority=9)])
        sent = [("a", None), ("b", 9), ("c", 0), ("d", 5), ("e", 9)]
        transport.publish([make_message(key, name, priority=priority) for key, priority in sent])
        assert self.take(other, name, 5) == ["b", "e", "d", "a", "c"]
        transport.delete(name)

    def test_size(self, transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
        """Leases are known to their holder only, and delayed messages lie in queues that all queues share."""
        transport.publish([make_message(f"m{i}", queue) for i in range(5)])
        transport.publish([make_message("later", queue, eta=time.time() + 60)])
        transport.fetch([queue], 2, PATIENCE, LONG)
        assert other.size(queue) == QueueSize(ready=3, delayed=0, leased=0)
        assert transport.size(queue) == QueueSize(ready=3, delayed=0, leased=2)


class QuorumTransport(AmqpTransport):
    """Declares quorum queues."""

    def declare(self, queues: Sequence[Queue]) -> None:
        quorum = {"x-queue-type": "quorum"}
        super().declare(
            [
                queue if queue.max_priority else msgspec.structs.replace(queue, queue_arguments=quorum)
                for queue in queues
            ]
        )


class TestQuorumQueues(TestAmqpTransport):
    @pytest.fixture
    def transport(self, server: RabbitMQServer) -> Iterator[AmqpTransport]:
        transport = QuorumTransport(server.url)
        yield transport
        transport.close()

    @pytest.fixture
    def other(self, server: RabbitMQServer) -> Iterator[AmqpTransport]:
        other = QuorumTransport(server.url)
        yield other
        other.close()

    def test_requeue_goes_to_the_head(self, transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
        """A quorum queue takes back at its tail, at least here."""
        transport.publish([make_message("a", queue), make_message("b", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        transport.settle([Settlement(delivery, Action.REQUEUE)])
        fetched = {each.message.id: each for _ in range(2) for each in other.fetch([queue], 1, PATIENCE, LONG)}
        assert fetched["a"].redelivered
        assert not fetched["b"].redelivered
