"""Queues at RabbitMQ: their types, arguments and priorities, and those that go with their consumer or belong to one."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.coordination.pauses import pause, resume
from celeriac.errors import ImproperlyConfigured, QueueNotFound
from celeriac.message import Action, Settlement
from celeriac.routing import Exchange, Queue, copy_of, worker_direct
from celeriac.testing.transport_case import LONG, PATIENCE, make_message
from celeriac.testing.worker import start_worker
from celeriac.transport.amqp import AmqpTransport
from tests.support.files import eventually
from tests.support.rabbitmq_server import RabbitMQServer

pytestmark = [pytest.mark.server("rabbitmq"), pytest.mark.slow]


@pytest.fixture
def app(server: RabbitMQServer, tmp_path: Path, queue: str) -> Iterator[Celeriac]:
    """An app with a default queue of its own."""
    app = Celeriac("rabbit", broker=server.url, backend=f"sqlite:///{tmp_path}/results.db", set_as_current=False)
    app.conf.task_default_queue = queue
    app.task(lambda x: x, name="echo")
    yield app
    app.close()


def shown(server: RabbitMQServer, expression: str) -> str:
    """An Erlang value as text."""
    return server.evaluate(f'lists:flatten(io_lib:format("~0p", [{expression}])).')


def arguments_of(server: RabbitMQServer, queue: str) -> str:
    """A queue's arguments, as the server has them."""
    about = f'rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>))'
    return shown(server, f"rabbit_amqqueue:info(element(2, {about}), [arguments])")


def fetched(transport: AmqpTransport, queue: str, limit: int = 10) -> list[str]:
    return [each.message.id for each in transport.fetch([queue], limit, PATIENCE, LONG)]


def test_the_default_queue_can_be_a_quorum_queue(server: RabbitMQServer, app: Celeriac, queue: str) -> None:
    """[B-ROUTE-024]"""
    app.conf.task_default_queue_type = "quorum"
    result = app.send_task("echo", (1,))
    assert '{<<"x-queue-type">>,longstr,<<"quorum">>}' in arguments_of(server, queue)
    with start_worker(app):
        assert result.get(timeout=30) == 1


@pytest.mark.parametrize("kind", ["direct", "topic"])
@pytest.mark.parametrize("maker", ["worker", "message"])
def test_who_merely_sends_to_a_quorum_queue_does_not_declare_28_that_delay(
    server: RabbitMQServer, app: Celeriac, queue: str, kind: str, maker: str
) -> None:
    server.add_vhost(queue)
    app.conf.broker_url = f"amqp://guest:guest@127.0.0.1:{server.port}/{queue}"
    exchange = Exchange(queue, kind)
    app.conf.task_queues = [Queue(queue, exchange, "key", queue_arguments={"x-queue-type": "quorum"})]
    app.conf.task_default_exchange, app.conf.task_default_routing_key = queue, "key"
    result = app.send_task("echo", (1,))
    assert server.queues(queue).keys() == {queue}
    if maker == "worker":  # stock clients leave it to workers
        with start_worker(app):
            assert result.get(timeout=30) == 1
    else:
        app.send_task("echo", (1,), exchange=queue if kind == "topic" else None, routing_key="key", countdown=60)
        assert app.transport.size(queue).ready == 1
    assert {f"celery_delayed_{number}" for number in range(28)} <= server.queues(queue).keys()


def test_what_is_delayed_to_a_quorum_queue_waits_in_the_broker(app: Celeriac, queue: str) -> None:
    """[B-ROUTE-025] Not only behind topic exchanges, as in Celery: any queue's messages do."""
    app.conf.task_default_queue_type = "quorum"
    sent = time.time()
    app.send_task("echo", (2,), countdown=600)
    soon = app.send_task("echo", (1,), countdown=1.5)
    assert app.transport.size(queue).ready == 0
    assert (app.transport.size("celery_delayed_9").ready, app.transport.size("celery_delayed_0").ready) == (1, 1)
    with start_worker(app):
        assert soon.get(timeout=30) == 1
    assert time.time() >= sent + 1.5


def test_a_higher_number_is_more_urgent(app: Celeriac, queue: str) -> None:
    """[B-ROUTE-021]"""
    app.conf.task_queue_max_priority = 10
    for priority in (0, 9, 3, 10, 3):
        app.send_task("echo", (priority,), priority=priority)
    deliveries = app.transport.fetch([queue], 5, PATIENCE, LONG)
    while len(deliveries) < 5:
        deliveries += app.transport.fetch([queue], 5 - len(deliveries), PATIENCE, LONG)
    assert [each.message.priority for each in deliveries] == [10, 9, 3, 3, 0]


def test_a_queue_has_the_arguments_that_it_is_given(
    server: RabbitMQServer, transport: AmqpTransport, queue: str
) -> None:
    transport.declare([
        Queue(queue, Exchange(f"{queue}-x"), "k", message_ttl=5, max_length=3, max_length_bytes=1000, max_priority=4, expires=60,
              queue_arguments={"x-overflow": "reject-publish"}, durable=True),
    ])  # fmt: skip
    text = arguments_of(server, queue)
    for name, value in {
        "x-message-ttl": 5000, "x-max-length": 3, "x-max-length-bytes": 1000, "x-max-priority": 4, "x-expires": 60000,
    }.items():  # fmt: skip
        assert re.search(rf'{{<<"{name}">>,\w+,{value}}}', text), (name, text)
    assert '{<<"x-overflow">>,longstr,<<"reject-publish">>}' in text


def test_consumers_have_the_arguments_that_they_are_given(
    server: RabbitMQServer, transport: AmqpTransport, queue: str
) -> None:
    transport.declare([Queue(queue, consumer_arguments={"x-priority": 7})])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(transport.fetch, [queue], 1, 3 * PATIENCE, LONG)
        eventually(lambda: '<<"x-priority">>' in shown(server, 'rabbit_amqqueue:consumers_all(<<"/">>)'), PATIENCE)
        transport.publish([make_message("m", queue)])
        waiting.result()


def _listens_when_idle(transport: AmqpTransport, queue: str) -> bool:
    """Whether it still consumes a queue, a long while after its last fetch."""
    consumer = transport._parts.consumer
    consumer._fetched_at -= 60.0
    consumer.look()
    return consumer._session is not None and queue in consumer._session.listening


def test_a_queue_that_goes_with_its_consumer_outlives_a_busy_worker(
    transport: AmqpTransport, other: AmqpTransport, queue: str
) -> None:
    """A worker without a free slot fetches nothing for a while; what is sent meanwhile has to wait for it."""
    mortal = Queue(queue, Exchange(f"{queue}-x", "fanout"), auto_delete=True)
    transport.declare([mortal])
    other.declare([mortal])
    other.publish([make_message("m1", exchange=mortal.exchange.name)])
    (busy_with,) = transport.fetch([queue], 1, PATIENCE, LONG)
    assert _listens_when_idle(transport, queue)
    other.publish([make_message(name, exchange=mortal.exchange.name) for name in ("m2", "m3", "m4")])
    transport.settle([Settlement(busy_with)])
    got: list[str] = []
    while len(got) < 3:
        got += fetched(transport, queue, 3 - len(got))
    assert got == ["m2", "m3", "m4"]
    transport.close()
    eventually(lambda: other._parts.topology.count(queue) is None, PATIENCE)


def test_an_exclusive_queue_belongs_to_its_worker(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    mine = Queue(queue, Exchange(f"{queue}-x"), "k", exclusive=True)
    with pytest.raises(QueueNotFound, match="exclusive"):
        other.declare([mine])
        other.publish([make_message("m", queue)])
    transport.declare([mine])
    assert transport.fetch([queue], 1, 0.05, LONG) == []
    other.publish([make_message("m", queue)])
    [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
    transport.settle([Settlement(delivery, Action.DEFER, until=time.time() + 1.2)])
    assert fetched(transport, queue) == ["m"]
    with pytest.raises(ImproperlyConfigured, match="belongs to another worker"):
        other.fetch([queue], 1, 0.05, LONG)
    transport.close()
    eventually(lambda: other._parts.topology.count(queue) is None, PATIENCE)


def test_a_copy_outlives_a_busy_worker(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    news = Queue(queue, Exchange(f"{queue}-x", "fanout"), is_broadcast=True)
    copy = copy_of(news)
    transport.declare([news, copy])
    other.declare([news])
    assert transport.fetch([copy.name], 1, 0.05, LONG) == []
    assert not _listens_when_idle(transport, copy.name)
    other.publish([make_message("m", exchange=news.exchange.name)])
    assert fetched(transport, copy.name) == ["m"]
    transport.delete(copy.name)


def test_the_queue_of_one_worker_is_bound_as_celery_binds_it(server: RabbitMQServer, transport: AmqpTransport) -> None:
    """[B-ROUTE-018]"""
    node = f"w-{uuid.uuid4().hex[:8]}@test"
    transport.declare([worker_direct(node)])
    bindings = shown(server, 'rabbit_binding:list_for_source(rabbit_misc:r(<<"/">>, exchange, <<"C.dq2">>))')
    assert re.search(rf'<<"C.dq2">>.*<<"{node}">>.*<<"{node}.dq2">>', bindings)


def test_a_pause_holds_on_rabbitmq(app: Celeriac, queue: str, tmp_path: Path) -> None:
    """Where pauses are kept is the result store, or what `coordination_url` names."""
    app.conf.coordination_url = f"sqlite:///{tmp_path}/pauses.db"
    place = app.coordination
    assert place is not None
    pause(place, [queue])
    waits = app.send_task("echo", ("waits",))
    for _ in range(2):
        with start_worker(app, queues=[queue, f"{queue}-other"]):
            assert app.send_task("echo", ("other",), queue=f"{queue}-other").get(timeout=30) == "other"
            assert app.transport.size(queue).ready == 1
    resume(place, [queue])
    with start_worker(app):
        assert waits.get(timeout=30) == "waits"
