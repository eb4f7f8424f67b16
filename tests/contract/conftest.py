"""What several modules of contracts share: a RabbitMQ, which takes its time to start, and connections to it.

`server`, `transport` and `other` are RabbitMQ's for the modules that don't have their own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from celeriac.transport.amqp import AmqpTransport
from tests.support.rabbitmq_server import RabbitMQServer


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    """A RabbitMQ whose settings every test leaves as they were; names of queues are the tests' own."""
    with RabbitMQServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def server(rabbitmq: RabbitMQServer) -> RabbitMQServer:
    return rabbitmq


@pytest.fixture
def transport(server: RabbitMQServer) -> Iterator[AmqpTransport]:
    transport = AmqpTransport(server.url)
    yield transport
    transport.close()


@pytest.fixture
def other(server: RabbitMQServer) -> Iterator[AmqpTransport]:
    other = AmqpTransport(server.url)
    yield other
    other.close()


@pytest.fixture
def queue() -> str:
    """A name that no other test has."""
    return f"q-{uuid.uuid4().hex[:12]}"
