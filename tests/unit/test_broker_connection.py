"""Connections to the broker, and messages that are no tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac, Exchange, Queue
from celeriac.broker_connection import Connection
from celeriac.errors import ImproperlyConfigured, OperationalError
from tests.support.apps import memory_app, sent


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with memory_app() as app:
        yield app


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    """A broker that can't be reached."""
    return f"sqlite:///{tmp_path}/no/such/folder/a.db"


def test_a_connection_says_whether_the_broker_answers(app: Celeriac, nowhere: str) -> None:
    with app.connection_for_write() as connection:
        assert not connection.connected
        assert connection.connect() is connection
        assert connection.connected
    assert not connection.connected
    with app.connection_for_read(nowhere) as connection, pytest.raises(OperationalError):
        connection.ensure_connection(max_retries=0)


def test_it_is_tried_again_as_long_as_it_is_asked_for(nowhere: str) -> None:
    told: list[float] = []
    connection = Connection(nowhere)
    with pytest.raises(OperationalError):
        connection.ensure_connection(
            errback=lambda exc, pause: told.append(pause), max_retries=2, interval_start=0, interval_step=0.001
        )
    assert told == [0, 0.001]
    with pytest.raises(OperationalError):
        connection.ensure_connection(interval_start=60, timeout=1)  # the pause would be longer than what is left


def test_it_is_named_by_a_url_or_by_its_parts() -> None:
    connection = Connection("host", "user", "p/w", "v", 5673, connect_timeout=1)
    assert connection.as_uri() == "amqp://user:**@host:5673/v"
    assert connection.as_uri(include_password=True) == "amqp://user:p%2Fw@host:5673/v"
    assert repr(connection) == "<Connection: amqp://user:**@host:5673/v>"
    info = connection.info()
    assert (info["hostname"], info["userid"], info["virtual_host"], info["port"]) == ("host", "user", "v", 5673)
    assert "p/w" not in str(info)
    assert connection.clone().as_uri() == connection.as_uri()
    assert Connection("h", transport="redis").as_uri() == "redis://h/"
    with pytest.raises(ImproperlyConfigured, match="neither"):
        Connection("user:pw@host")


def test_the_pool_shares_the_connections_of_the_app(app: Celeriac) -> None:
    with app.pool.acquire(block=True) as connection:
        assert connection.driver is app.transport
    task = app.task(lambda: 1, name="t")
    with app.producer_or_acquire() as producer:
        task.apply_async(producer=producer)
        assert producer.connection.driver is app.transport
    with app.connection_or_acquire() as one, app.connection_or_acquire(one) as same:
        assert one is same
    with app.connection_or_acquire(pool=False) as own:
        assert own.driver is not app.transport
    with app.producer_or_acquire(producer) as given:
        assert given is producer
    assert len(sent(app)) == 1
    assert app.pool.limit == app.conf.broker_pool_limit


def test_a_task_is_sent_over_the_connection_that_is_given(app: Celeriac) -> None:
    task = app.task(lambda: 1, name="t")
    other = memory_app()
    with app.connection(other.conf.broker_url) as connection:
        task.apply_async(connection=connection)
    assert [message.task for message in sent(other)] == ["t"]
    assert sent(app) == []
    other.close()


def test_messages_that_are_no_tasks_are_sent(app: Celeriac) -> None:
    queue = Queue("news", Exchange("news", "topic"), "news.#")
    with app.producer_pool.acquire() as producer:
        producer.publish({"a": 1}, exchange=queue.exchange, routing_key="news.now", declare=[queue], headers={"h": 2})
        producer.publish("plain", routing_key="news", content_type="text/plain", content_encoding="utf-8")
        producer.publish(
            [3], "news", serializer="pickle", compression="zlib", expiration=60, delivery_mode=1, priority=5
        )
    first, second, third = sorted(sent(app, "news"), key=lambda message: message.content_type)
    assert (json.loads(first.body), first.headers) == ({"a": 1}, {"h": 2})
    assert third.body == b"plain"
    assert (second.content_type, second.priority, second.transient) == ("application/x-python-serialize", 5, True)
    assert second.headers == {"compression": "application/x-gzip"}
    assert second.expires_at is not None


def test_a_producer_has_defaults(app: Celeriac) -> None:
    with app.connection_for_write() as connection:
        producer = connection.Producer(exchange="", routing_key="mine", serializer="raw")
        producer.publish(b"bytes")
    (message,) = sent(app, "mine")
    assert message.body == b"bytes"
