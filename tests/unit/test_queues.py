"""Queues, bindings and broadcasts as data, ours and those that look like kombu's; which of them a worker consumes."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import Broadcast, Celeriac, Exchange, Queue, binding
from celeriac.config import Settings
from celeriac.errors import ImproperlyConfigured
from celeriac.queue_forms import as_queue
from celeriac.router import Route
from celeriac.routing import copy_of, is_copy, worker_direct
from celeriac.worker.options import WorkerOptions
from celeriac.worker.queue_choice import chosen_queues, queues_to_declare
from tests.support.apps import memory_app, sent

MEDIA, TASKS = Exchange("media", "topic"), Exchange("tasks")


def as_kombu(kind: str = "Queue", **attributes: Any) -> Any:
    """An object with the attributes that kombu's of this class have where nothing is said."""
    usual = {
        "exchange": as_kombu_exchange(""), "routing_key": "", "queue_arguments": None, "binding_arguments": None,
        "consumer_arguments": None, "durable": True, "exclusive": False, "auto_delete": False, "no_ack": False,
        "alias": None, "bindings": set(), "no_declare": None, "expires": None, "message_ttl": None, "max_length": None,
        "max_length_bytes": None, "max_priority": None,
    }  # fmt: skip
    return type(kind, (SimpleNamespace,), {"__hash__": object.__hash__})(**{**usual, **attributes})


def as_kombu_exchange(name: str, type: str = "direct", **attributes: Any) -> Any:
    usual = {"arguments": None, "durable": True, "auto_delete": False, "delivery_mode": None, "passive": False}
    return SimpleNamespace(**{**usual, "no_declare": False, "name": name, "type": type, **attributes})


# what queues are


def test_what_is_left_out_may_be_none_and_an_exchange_may_be_its_name() -> None:
    queue: Any = Queue("q", "media", None, queue_arguments=None, bindings=None)  # type: ignore[arg-type]
    assert queue == Queue("q", Exchange("media"))
    assert Queue("q", exclusive=True).auto_delete


def test_a_list_of_bindings_may_stand_for_the_exchange() -> None:
    """[B-ROUTE-014]"""
    bindings = [binding(MEDIA, "video.#"), binding(TASKS, "video")]
    queue = Queue("q", bindings)  # type: ignore[arg-type]
    assert queue == Queue("q", bindings=tuple(bindings))
    assert queue.all_bindings == tuple(bindings)
    assert Queue("q", MEDIA, "image.#", bindings=tuple(bindings)).all_bindings == (binding(MEDIA, "image.#"), *bindings)


def test_a_queue_with_several_bindings_gets_a_message_once() -> None:
    """[B-ROUTE-014]"""
    queue = Queue("video", bindings=(binding(MEDIA, "video.#"), binding(MEDIA, "#.hd"), binding(TASKS, "video")))
    app = memory_app(task_queues=[Queue("celery"), queue])
    app.send_task("a", exchange="media", routing_key="video.hd")
    app.send_task("b", exchange="tasks", routing_key="video")
    app.send_task("c", queue="video")
    app.send_task("d", exchange="media", routing_key="image.hd")
    assert [message.task for message in sent(app, "video")] == ["a", "b", "c", "d"]


def test_two_queues_of_one_routing_key_both_get_it() -> None:
    app = memory_app(task_queues=[Queue("celery"), Queue("a", TASKS, "k"), Queue("b", TASKS, "k")])
    app.send_task("t", exchange="tasks", routing_key="k")
    assert [len(sent(app, name)) for name in ("a", "b")] == [1, 1]


def test_the_life_of_a_queue() -> None:
    assert Queue("q").life is None
    assert Queue("q", expires=30).life == 30
    assert Queue("q", queue_arguments={"x-expires": 1500}).life == 1.5


# kombu's


def test_kombus_queue_is_taken_with_all_it_says() -> None:
    given = as_kombu(
        name="q", exchange=as_kombu_exchange("media", "topic", durable=False, delivery_mode=1), routing_key="video.#",
        durable=False, auto_delete=True, exclusive=True, queue_arguments={"x-queue-type": "quorum"},
        binding_arguments={"a": 1}, consumer_arguments={"x-priority": 5}, alias="other", no_ack=True, no_declare=True,
        expires=30.0, message_ttl=60.0, max_length=5, max_length_bytes=6, max_priority=7,
    )  # fmt: skip
    assert as_queue(given) == Queue(
        "q", Exchange("media", "topic", durable=False, delivery_mode=1), "video.#", durable=False, auto_delete=True,
        exclusive=True, queue_arguments={"x-queue-type": "quorum"}, binding_arguments={"a": 1},
        consumer_arguments={"x-priority": 5}, alias="other", no_ack=True, no_declare=True, expires=30.0, message_ttl=60.0,
        max_length=5, max_length_bytes=6, max_priority=7,
    )  # fmt: skip


def test_kombus_bindings_are_taken() -> None:
    """[B-ROUTE-014]"""
    made = [
        SimpleNamespace(exchange=as_kombu_exchange(name, kind), routing_key=key, arguments=None, unbind_arguments=None)
        for name, kind, key in (("tasks", "direct", "k"), ("media", "topic", "video.#"))
    ]
    queue = as_queue(as_kombu(name="q", exchange=None, bindings=made))
    assert queue == Queue("q", bindings=(binding(MEDIA, "video.#"), binding(TASKS, "k")))


def test_kombus_broadcast_is_known_by_its_class() -> None:
    """[B-ROUTE-016]"""
    given = as_kombu(
        "Broadcast", name=f"bcast.{uuid.uuid4()}", alias="news", auto_delete=True, exchange=as_kombu_exchange("news", "fanout"),
    )  # fmt: skip
    assert as_queue(given) == Broadcast("news")
    app = memory_app(task_queues=(given,), task_routes={"t": "news"})
    assert app.router.route("t", (), {}, {}) == Route("", "news", "celery")
    shared = as_kombu(
        "Broadcast", name="own", alias="news", auto_delete=True, exchange=as_kombu_exchange("news", "fanout")
    )
    assert as_queue(shared) == Broadcast("news", queue="own")


def test_what_is_no_queue_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match="5 is no queue: it is neither a name nor an object that has one"):
        as_queue(5)


def test_a_queue_may_be_a_table_of_options() -> None:
    table = {
        "exchange": "media", "exchange_type": "topic", "binding_key": "video.#", "exchange_durable": False, "durable": False,
        "queue_arguments": {"x-max-length": 5}, "expires": 9,
    }  # fmt: skip
    assert as_queue(table, name="q") == Queue(
        "q",
        Exchange("media", "topic", durable=False),
        "video.#",
        durable=False,
        queue_arguments={"x-max-length": 5},
        expires=9,
    )


# aliases, broadcasts, queues of one worker


def test_an_alias_is_as_good_as_the_name() -> None:
    app = memory_app(task_queues=[Queue("celery"), Queue("long-name", alias="short")], task_create_missing_queues=False)
    app.send_task("t", queue="short")
    assert len(sent(app, "long-name")) == 1


def test_a_broadcast_queue_is_reached_by_queue_and_by_exchange() -> None:
    """[B-ROUTE-016]"""
    app = memory_app(
        task_queues=[Queue("celery"), Broadcast("news")], task_routes={"t": {"queue": "news", "exchange": "news"}}
    )
    assert app.router.route("t", (), {}, {}) == Route("", "news", "celery")
    assert app.router.route("x", (), {}, {"queue": "news"}) == Route("", "news", "celery")
    assert app.router.route("x", (), {}, {"exchange": "news"}) == Route("", "news", "celery")
    assert app.router.to_declare() == [app.router.queues["news"]]


def test_the_forms_of_a_broadcast() -> None:
    assert Broadcast("news").exchange == Exchange("news", "fanout")
    assert Broadcast("news", alias="other").name == "other"
    assert Broadcast("news", exchange=MEDIA, routing_key="news.#").all_bindings == (binding(MEDIA, "news.#"),)
    assert Broadcast("news", queue="shared") == Queue(
        "shared", Exchange("news", "fanout"), alias="news", auto_delete=True
    )
    assert Broadcast("news", queue="shared", unique=True) == Broadcast("news")


def test_copies_are_all_different_and_expire() -> None:
    news = Broadcast("news", max_priority=5)
    one, two = copy_of(news), copy_of(news)
    assert one.name != two.name
    assert is_copy(one.name)
    assert (one.exchange, one.alias, one.max_priority, one.is_broadcast, one.auto_delete) == (
        news.exchange,
        "news",
        5,
        False,
        False,
    )
    assert one.life
    assert copy_of(Broadcast("news", expires=5)).life == 5


def test_the_queue_of_one_worker() -> None:
    """[B-ROUTE-018]"""
    queue = worker_direct("w1@host")
    assert queue == Queue("w1@host.dq2", Exchange("C.dq2"), "w1@host")
    assert worker_direct(queue) is queue
    app = memory_app(task_create_missing_queues=False)
    app.send_task("t", queue=queue)
    assert len(sent(app, "w1@host.dq2")) == 1


# what a worker consumes


def chosen(app: Celeriac, **options: Any) -> list[str]:
    conf = Settings.from_plain(app.conf.plain()[0])
    queues = chosen_queues(list(app.router.queues.values()), WorkerOptions(node="w@host", **options), conf)
    return [queue.alias or queue.name for queue in queues]


def test_a_worker_consumes_what_is_chosen() -> None:
    """[B-ROUTE-017]"""
    app = memory_app(task_queues=[Queue("a"), Queue("b", alias="bee"), Broadcast("news")])
    assert chosen(app) == ["a", "bee", "news"]
    assert chosen(app, queues=["b", "news", "new"]) == ["bee", "news", "new"]
    assert chosen(app, queues=["bee"]) == ["bee"]
    assert chosen(app, exclude_queues=["bee", "news"]) == ["a"]
    app.conf.task_create_missing_queues = False
    with pytest.raises(ImproperlyConfigured, match="queue 'aa' is not in task_queues"):
        chosen(app, queues=["aa"])


def test_a_worker_of_its_own_queue_consumes_that_too() -> None:
    """[B-ROUTE-018] Whatever -Q says."""
    app = memory_app(worker_direct=True)
    assert chosen(app) == ["celery", "w@host.dq2"]
    assert chosen(app, queues=["video"]) == ["video", "w@host.dq2"]
    assert chosen(app, exclude_queues=["w@host.dq2"]) == ["celery"]


def test_a_worker_declares_what_nobody_could_make_up() -> None:
    described = [Queue("a"), Broadcast("news"), Broadcast("other")]
    consumed = [described[0], copy_of(described[1]), Queue("new", Exchange("new"), "new"), worker_direct("w@host")]
    declared = queues_to_declare(described, consumed)
    assert declared == [consumed[0], consumed[1], consumed[3], described[1], described[2]]
