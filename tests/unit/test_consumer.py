"""Consumers of one's own: what callbacks get, how messages end, and that what is held goes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac, Queue
from celeriac.broker_connection import Connection
from celeriac.consumer import Consumer
from celeriac.errors import CeleriacError, ContentDisallowed
from tests.support.apps import memory_app, sent


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with memory_app() as app:
        yield app


@pytest.fixture
def connection(app: Celeriac) -> Iterator[Connection]:
    with app.connection_for_read() as connection:
        yield connection


def say(app: Celeriac, *words: str, **options: Any) -> None:
    with app.producer_or_acquire() as producer:
        for word in words:
            producer.publish({"word": word}, routing_key="words", **options)


def test_messages_come_one_by_one_and_are_acknowledged(app: Celeriac, connection: Connection) -> None:
    say(app, "one", "two", headers={"x": 1}, priority=3)
    heard: list[Any] = []

    def hear(body: Any, message: Any) -> None:
        heard.append((body["word"], message.headers, message.properties["priority"], message.delivery_info["queue"]))
        message.ack()

    with connection.Consumer([Queue("words")], callbacks=[hear]):
        connection.drain_events(timeout=5)
        connection.drain_events(timeout=5)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0)
    assert heard == [("one", {"x": 1}, 3, "words"), ("two", {"x": 1}, 3, "words")]
    assert app.transport.size("words").ready == 0


def test_what_is_held_goes_back_in_order(app: Celeriac, connection: Connection) -> None:
    say(app, "one", "two", "three")
    held: list[Any] = []
    with Consumer(connection, "words", on_message=held.append):
        for _ in range(3):
            connection.drain_events(timeout=5)
        held[1].ack()
        with pytest.raises(CeleriacError, match="before"):
            held[1].ack()
    assert [message.body for message in sent(app, "words")] == [b'{"word": "one"}', b'{"word": "three"}']


def test_a_message_is_requeued_or_becomes_a_dead_letter(app: Celeriac, connection: Connection) -> None:
    say(app, "one")
    consumer = connection.Consumer("words")
    [message] = consumer.receive()
    message.requeue()
    [message] = consumer.receive()
    assert message.acknowledged is False
    message.reject()
    assert message.acknowledged is True
    [letter] = app.transport.dead_letters()
    assert (letter.queue, letter.reason) == ("words", "rejected by a consumer")


def test_types_that_are_not_accepted_are_not_opened(app: Celeriac, connection: Connection) -> None:
    say(app, "one", serializer="pickle")
    say(app, "two", serializer="pickle")
    failed: list[Any] = []
    with connection.Consumer("words") as consumer, pytest.raises(ContentDisallowed):
        connection.drain_events(timeout=5)
    with connection.Consumer("words", on_decode_error=lambda message, exc: failed.append(type(exc))):
        connection.drain_events(timeout=5)
    assert failed == [ContentDisallowed]
    [message, _] = connection.Consumer("words", accept=["pickle"], no_ack=True).receive()
    assert message.decode() == {"word": "one"}
    assert [queue.name for queue in consumer.queues] == ["words"]
    assert app.transport.size("words").ready == 0


def test_queues_come_and_go(app: Celeriac, connection: Connection) -> None:
    consumer = connection.Consumer()
    assert (consumer.receive(), repr(consumer)) == ([], "<Consumer: no queues>")
    consumer.add_queue(Queue("words"))
    consumer.add_queue("others")
    assert consumer.consuming_from("words") and list(consumer) == consumer.queues
    consumer.cancel_by_queue(Queue("others"))
    assert not consumer.consuming_from("others")
    say(app, "one", "two")
    assert consumer.purge() == 2
    assert repr(consumer) == "<Consumer: words>"
    with pytest.raises(TimeoutError, match="there is no consumer"):
        connection.drain_events()


def test_leases_are_renewed_when_more_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    app = memory_app(task_lease=0.001)  # any moment is more than a third of it
    say(app, "one", "two")
    with app.connection_for_read() as connection:
        consumer = connection.Consumer("words")
        first, _ = consumer.receive()
        [again, _] = app.transport.fetch(["words"], 2, 5, 60.0)  # the lease was over
        assert again.message.id == first.message.id
        consumer.renew()
        consumer.recover()  # nothing of it is ours any more
    assert app.transport.size("words").leased == 2
