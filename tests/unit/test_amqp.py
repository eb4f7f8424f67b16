"""`app.amqp`: the router, the table of queues and the messages of an app, under Celery's names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac import Celeriac, Exchange, Queue
from celeriac.amqp import AMQP, Queues, Router, task_message
from celeriac.broker_connection import Connection
from celeriac.errors import ImproperlyConfigured, MessageTooLarge, QueueNotFound
from celeriac.runner.zygote import hello_of
from celeriac.wire.messages import decode_body
from tests.support.apps import memory_app, run_all, sent

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with memory_app() as app:
        yield app


# queues


def test_the_queues_are_those_of_the_settings_and_others_are_made_when_named(app: Celeriac) -> None:
    media = Queue("media", Exchange("media", "topic"), "media.#", alias="m")
    app.conf.task_queues = [Queue("celery", Exchange("celery"), "celery"), media]
    queues = app.amqp.queues
    assert list(queues) == ["celery", "media"] == list(app.router.queues)
    assert app.amqp.default_queue.name == "celery" and app.amqp.default_exchange.name == "celery"
    assert queues["m"] == queues["media"] == media
    assert "m" in queues and "new" not in queues
    assert queues["new"].exchange.name == "new"
    assert "new" in app.amqp.queues
    app.conf.task_create_missing_queues = False
    with pytest.raises(QueueNotFound, match=r"'mediaa' is not in task_queues.*Did you mean 'media'"):
        _ = app.amqp.queues["mediaa"]


def test_a_queue_that_is_added_is_known_to_all_and_for_good(app: Celeriac) -> None:
    queues = app.amqp.queues
    app.conf.task_default_priority = 1  # forgets the router
    queues.add(Queue("media", Exchange("media", "topic"), "media.#"))
    queues.add("mail", exchange="letters", routing_key="mail")
    app.conf.task_routes = {"send": {"exchange": "letters", "routing_key": "mail"}}
    assert app.amqp.queues is queues and list(queues) == ["celery", "media", "mail"]
    app.send_task("send", task_id="1")
    app.send_task("cut", task_id="2", exchange="media", routing_key="media.video")
    assert [[message.id for message in sent(app, name)] for name in ("mail", "media")] == [["1"], ["2"]]


def test_workers_consume_what_is_selected(app: Celeriac) -> None:
    queues = app.amqp.queues
    queues.select(["a", "b"])
    assert list(queues.consume_from) == ["a", "b"] == list(app.consumed_queues)
    assert [queue.name for queue in hello_of(app).queues] == ["a", "b"]
    queues.select_add("c", routing_key="c")
    queues.deselect("a")
    app.conf.task_default_priority = 1
    assert list(queues.consume_from) == ["b", "c"]
    assert (
        queues.format(2)
        == "  .> b                exchange=b(direct) key=b\n  .> c                exchange=celery(direct) key=c"
    )
    app.send_task("t", queue="a")
    app.send_task("t", queue="b")
    assert app.control.purge() == 1
    app.select_queues()
    assert "celery" in queues.consume_from


def test_a_table_of_its_own(app: Celeriac) -> None:
    app.conf.task_queue_max_priority = 7
    table = app.amqp.Queues(["a", Queue("b", Exchange("x"))], create_missing=False)
    assert (table["b"].routing_key, table["a"].queue_arguments) == ("celery", {"x-max-priority": 7})
    with pytest.raises(QueueNotFound, match="There is no queue 'c'"):
        _ = table["c"]
    assert list(app.amqp.Queues(None)) == ["celery"]
    free = Queues(
        {"a": {"exchange": "x", "exchange_type": "topic"}},
        create_missing_queue_type="quorum",
        autoexchange="x-".__add__,
    )
    assert free["a"].exchange == Exchange("x", "topic")
    assert (free["n"].exchange.name, free["n"].queue_arguments) == ("x-n", {"x-queue-type": "quorum"})
    free.add_compat("old", binding_key="k", exchange="y")
    free.select("old")
    free.select([])
    free.select_add(Queue("last"))
    free.deselect([])
    assert list(free.consume_from) == ["old", "last"]
    assert free["old"].routing_key == "k"
    assert list(app.router.queues) == ["celery"]  # it is not the app's


# routes


def test_a_route_is_the_options_of_a_call(app: Celeriac) -> None:
    app.conf.task_routes = {"mail.*": {"queue": "mail", "priority": 3}, "cast": {"exchange": "x", "routing_key": "k"}}
    route = app.amqp.router.route
    found = route({"countdown": 2}, "mail.send")
    assert found.pop("queue").name == "mail"
    assert found == {"countdown": 2, "priority": 3}
    assert route({"queue": "other"}, "mail.send")["queue"].name == "other"
    assert route({}, "cast", (1,), {"x": 2}) == {"exchange": "x", "routing_key": "k"}
    assert route(None, "plain")["queue"] == app.amqp.default_queue
    router = app.amqp.router
    assert router.lookup_route("cast") == {"exchange": "x", "routing_key": "k"}
    assert router.lookup_route("plain") is None
    assert router.expand_destination("mail")["queue"].name == "mail"
    assert router.expand_destination({"routing_key": "k"}) == {"routing_key": "k"}
    assert len(app.amqp.routes) == 1 and "mail" in router.queues


def test_routes_that_were_changed_in_place_are_read_again(app: Celeriac) -> None:
    app.conf.task_routes = routes = {"a": "x"}
    app.conf.task_routes["a"] = "x"
    assert app.amqp.router.route({}, "a")["queue"].name == "x"
    app.conf.task_routes["a"] = "y"
    routes["a"] = "y"
    app.amqp.flush_routes()
    assert app.amqp.router.route({}, "a")["queue"].name == "y"
    app.send_task("a")
    assert len(sent(app, "y")) == 1


def test_a_router_of_its_own(app: Celeriac) -> None:
    router = app.amqp.Router({"a": Queue("a")}, create_missing=False)
    assert router.route({"queue": "a"}, "t")["queue"].name == "a"
    with pytest.raises(QueueNotFound):
        router.route({"queue": "b"}, "t")
    assert app.amqp.Router().inner is app.router
    alone = Router({"t": "q"}, {"q": Queue("q")}, create_missing=True)
    assert alone.route({}, "t")["queue"].name == "q"
    assert [route("t", (), {}, {}, None) for route in alone.routes] == ["q"]


# messages


def test_a_message_of_protocol_2_is_as_celery_builds_it(app: Celeriac) -> None:
    """[B-CALL-025]"""
    link = [{"task": "next"}]
    made = app.amqp.as_task_v2(
        "id1", "t", (1,), {"x": 2}, countdown=10, create_sent_event=True, callbacks=link, expires=60, group_id="g",
        chord={"task": "b"}, reply_to="r", time_limit=3, shadow="s", now=NOW, origin="me", stamped_headers=["stamp"],
        stamp="red",
    )  # fmt: skip
    later, over = "2030-01-01T00:00:10+00:00", "2030-01-01T00:01:00+00:00"
    assert made.headers == {
        "lang": "py", "task": "t", "id": "id1", "shadow": "s", "eta": later, "expires": over, "group": "g",
        "group_index": None, "retries": 0, "timelimit": [3, None], "root_id": "id1", "parent_id": None,
        "argsrepr": "(1,)", "kwargsrepr": "{'x': 2}", "origin": "me", "ignore_result": False,
        "replaced_task_nesting": 0, "stamped_headers": ["stamp"], "stamps": {"stamp": "red"},
    }  # fmt: skip
    assert made.properties == {"correlation_id": "id1", "reply_to": "r"}
    assert made.body == ((1,), {"x": 2}, {"callbacks": link, "errbacks": None, "chain": None, "chord": {"task": "b"}})
    assert made.sent_event == {
        "uuid": "id1", "root_id": "id1", "parent_id": None, "name": "t", "args": "(1,)", "kwargs": "{'x': 2}",
        "retries": 0, "eta": later, "expires": over,
    }  # fmt: skip


def test_a_message_of_protocol_1(app: Celeriac) -> None:
    app.conf.task_protocol = 1
    made = app.amqp.create_task_message("id1", "t", [1], now=datetime(2030, 1, 1), countdown=10, timezone=UTC)
    assert (made.headers, made.properties["correlation_id"], made.sent_event) == ({}, "id1", None)
    assert (made.body["task"], made.body["args"], made.body["utc"]) == ("t", [1], True)
    assert made.body["eta"] == "2030-01-01T00:00:10+00:00"
    assert app.amqp.as_task_v1("i", "t", create_sent_event=True).sent_event["uuid"] == "i"  # type: ignore[index]


def test_arguments_that_are_none_are_refused(app: Celeriac) -> None:
    with pytest.raises(TypeError, match="list or tuple"):
        app.amqp.as_task_v2("i", "t", "ab")
    with pytest.raises(TypeError, match="mapping"):
        app.amqp.as_task_v2("i", "t", (), [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="countdown='x'"):
        app.amqp.as_task_v2("i", "t", countdown="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_message_that_was_built_is_sent_and_runs(app: Celeriac, protocol: int) -> None:
    app.conf.task_protocol = protocol
    add = app.task(lambda x, y: x + y, name="add")
    message = app.amqp.create_task_message("id1", "add", (2,), {"y": 3})
    app.amqp.send_task_message(None, "add", message)
    run_all(app)
    assert add.AsyncResult("id1").get(timeout=5) == 5


def test_how_and_where_a_message_is_sent(app: Celeriac) -> None:
    message = app.amqp.as_task_v2("id1", "t", (1,), expires=60, reply_to="me")
    with app.amqp.producer_pool.acquire() as producer:
        app.amqp.send_task_message(
            producer, "t", message, queue="q", compression="gzip", headers={"own": 1}, priority=4, delivery_mode=1,
            declare=[Queue("q")], app_id="x",
        )  # fmt: skip
    [found] = sent(app, "q")
    assert (found.id, found.priority, found.transient, found.reply_to) == ("id1", 4, True, "me")
    assert (found.headers["own"], found.headers["compression"]) == (1, "application/x-gzip")
    assert found.expires_at is not None
    assert found.properties == {"app_id": "x"}
    assert decode_body(found, None, 1000).args == [1]
    later = app.amqp.as_task_v2("id2", "t", countdown=3600)
    app.amqp.send_task_message(None, "t", later)
    assert app.transport.size("celery").delayed == 1
    app.conf.message_max_bytes = 10
    with pytest.raises(MessageTooLarge, match="message_max_bytes"):
        app.amqp.send_task_message(None, "t", message)


def test_a_producer_of_another_broker_sends_there(app: Celeriac) -> None:
    with memory_app() as other, Connection(str(other.conf.broker_url)) as connection:
        producer = connection.Producer()
        app.amqp.send_task_message(producer, "t", app.amqp.as_task_v2("id1", "t"), declare=[Queue("celery")])
        assert [message.id for message in sent(other)] == ["id1"]
    assert sent(app) == []


def test_texts_of_arguments_are_as_long_as_they_may_be(app: Celeriac) -> None:
    assert (app.amqp.argsrepr_maxsize, app.amqp.kwargsrepr_maxsize) == (1024, 1024)
    app.send_task("t", ("x" * 100,))
    app.amqp.argsrepr_maxsize = 20
    app.amqp.kwargsrepr_maxsize = 30
    app.send_task("t", ("x" * 100,), {"k": "y" * 100})
    first, second = sent(app)
    assert len(first.headers["argsrepr"]) > 100
    assert len(second.headers["argsrepr"]) < 30 <= len(second.headers["kwargsrepr"]) < 45
    assert len(app.amqp.as_task_v2("i", "t", ("x" * 100,)).headers["argsrepr"]) < 30


class Short(AMQP):
    argsrepr_maxsize = 10


@pytest.mark.parametrize("given", [Short, f"{__name__}:Short"])
def test_a_class_of_your_own(given: Any) -> None:
    with memory_app(amqp=given) as app:
        assert isinstance(app.amqp, Short)
        app.send_task("t", ("x" * 100,))
        assert len(sent(app)[0].headers["argsrepr"]) < 20


def test_messages_that_workers_would_get_can_be_received(app: Celeriac) -> None:
    app.send_task("t", (1,), task_id="1")
    bodies: list[Any] = []

    def receive(body: Any, message: Any) -> None:
        bodies.append((message.headers["task"], body[0]))
        message.ack()

    with app.connection_for_read() as connection:
        with app.amqp.TaskConsumer(connection, callbacks=[receive]):
            connection.drain_events(timeout=5)
        assert app.amqp.TaskConsumer(connection, [Queue("q")], accept=["pickle"]).consuming_from("q")
    assert bodies == [("t", [1])]
    assert app.amqp.utc is True


def test_what_is_no_queue_is_refused(app: Celeriac) -> None:
    with pytest.raises(ImproperlyConfigured):
        app.amqp.queues.add(object())
    assert json.dumps(task_message({}, {}, [], None)) == "[{}, {}, [], null]"
