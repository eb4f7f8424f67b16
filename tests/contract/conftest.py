"""Servers that several modules of contracts share: RabbitMQ takes its time to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rabbitmq_server import RabbitMQServer


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    """A RabbitMQ whose settings every test leaves as they were; names of queues are the tests' own."""
    with RabbitMQServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server
