"""Moving messages: predicates, mappings of ids, names and nodes, protocol 1, and the command's words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac, Exchange, Queue
from celeriac.contrib import migrate
from celeriac.errors import ContentDisallowed
from celeriac.message import Message
from celeriac.testing.transport_case import make_message
from tests.support.apps import memory_app, sent


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with memory_app() as app:
        yield app


OPTIONS: dict[str, Any] = {"timeout": 0}


def ids(messages: list[Message]) -> list[str]:
    return [message.id for message in messages]


def test_messages_are_moved_by_id_by_name_and_to_one_worker(app: Celeriac) -> None:
    for number in range(6):
        app.send_task(f"task{number}", task_id=f"id{number}")
    assert migrate.move_task_by_id("id0", Queue("a"), app=app, **OPTIONS).filtered == 1
    assert migrate.move_by_idmap({"id1": "a", "id2": Queue("b")}, app=app, **OPTIONS).filtered == 2
    assert migrate.move_by_taskmap({"task3": "b", "other": "c"}, app=app, **OPTIONS).filtered == 1
    migrate.move_direct_by_id("id4", "w1@host", app=app, **OPTIONS)
    migrate.move_direct(lambda body, message: message.task == "task5" and "w2@host", app=app, **OPTIONS)
    assert ids(sent(app, "a")) == ["id0", "id1"]
    assert ids(sent(app, "b")) == ["id2", "id3"]
    assert ids(sent(app, "w1@host.dq2")) == ["id4"]
    assert ids(sent(app, "w2@host.dq2")) == ["id5"]
    assert sent(app) == []


def test_ids_are_found_in_both_protocols(app: Celeriac) -> None:
    app.send_task("t", task_id="new")
    app.conf.task_protocol = 1
    app.send_task("t", task_id="old")
    seen: list[Any] = []

    def look(body: Any, message: Any) -> None:
        seen.append((message.task_id, message.task, body.__class__))
        assert migrate.task_id_eq(message.task_id, body, message)
        assert migrate.task_id_in({"new", "old"}, body, message)
        assert not migrate.task_id_in({"x"}, body, message)

    with app.connection_for_read() as connection:
        state = migrate.start_filter(app, connection, look, **OPTIONS)
    assert (state.count, state.total_apx, state.strtotal, repr(state)) == (2, 2, "2", "<State: 2/2>")
    assert seen == [("new", "t", list), ("old", "t", dict)]
    assert ids(sent(app)) == ["new", "old"]


def test_a_body_is_opened_only_by_who_looks_at_it(app: Celeriac) -> None:
    app.transport.publish([make_message("m", "celery", content_type="application/x-python-serialize")])
    assert migrate.move_task_by_id("m", "there", app=app, **OPTIONS).filtered == 1
    with pytest.raises(ContentDisallowed):
        migrate.move(lambda body, message: bool(body), app=app, source=["there"], routing_key="x", **OPTIONS)
    assert ids(sent(app, "there")) == ["m"]


def test_who_looks_may_say_that_it_is_enough(app: Celeriac) -> None:
    for number in range(3):
        app.send_task("t", task_id=str(number))

    def first_only(state: migrate.State, body: Any, message: Any) -> None:
        raise migrate.StopFiltering

    assert migrate.move(lambda *_: "a", app=app, source=["celery"], callback=first_only, **OPTIONS).filtered == 1
    assert migrate.move(lambda *_: "b", app=app, source=["celery"], limit=1, **OPTIONS).filtered == 1
    assert (ids(sent(app, "a")), ids(sent(app, "b")), ids(sent(app))) == (["0"], ["1"], ["2"])


def test_messages_move_to_exchanges_too(app: Celeriac) -> None:
    topic = Exchange("events", "topic")
    app.conf.task_queues = [Queue("celery", Exchange("celery"), "celery"), Queue("news", topic, "news.#")]
    app.transport.declare(list(app.router.queues.values()))
    app.send_task("t", task_id="1", queue="celery")
    app.send_task("t", task_id="2", queue="celery")
    migrate.move(lambda *_: (topic, "news.one"), app=app, source=["celery"], limit=1, **OPTIONS)
    migrate.move(lambda *_: True, app=app, source=["celery"], exchange="events", routing_key="news.two", **OPTIONS)
    assert ids(sent(app, "news")) == ["1", "2"]


def test_a_queue_that_is_returned_is_declared_once(app: Celeriac, monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    connection = app.connection_for_write()
    declare = connection.driver.declare
    monkeypatch.setattr(
        connection.driver, "declare", lambda queues: declared.extend(q.name for q in queues) or declare(queues)
    )
    for number in range(4):
        app.send_task("t", task_id=str(number))
    queues = [Queue("a"), Queue("b", Exchange("b", "topic"), "b"), Queue("c", Exchange("c", "topic"), "c")]
    options = {"app": app, "connection": connection, "source": ["celery"], **OPTIONS}
    migrate.move(lambda body, message: queues[int(message.task_id) % 3], **options)
    assert declared == ["a", "b", "c"]
    app.send_task("t", task_id="5")
    migrate.move_direct_by_id("5", "w1@host", **options)
    assert declared[3:] == ["w1@host.dq2"]
    assert [len(sent(app, name)) for name in ("a", "b", "c", "w1@host.dq2")] == [2, 1, 1, 1]


def test_a_place_that_is_none_is_refused(app: Celeriac) -> None:
    app.send_task("t", task_id="1")
    with pytest.raises(ValueError, match="neither exchange nor routing_key says where to"):
        migrate.move(lambda *_: True, app=app, **OPTIONS)
    with pytest.raises(ValueError, match="a queue or a pair"):
        migrate.move(lambda *_: ("a", "b", "c"), app=app, **OPTIONS)
    assert ids(sent(app)) == ["1"]


def test_what_has_expired_arrives_so_that_a_worker_says_so(app: Celeriac) -> None:
    app.transport.publish([make_message("m", "celery", expires_at=time.time() - 1, priority=4, reply_to="r")])
    with app.connection_for_read() as connection, app.connection_for_write() as target:

        def republish(body: Any, message: Any) -> None:
            migrate.republish(target.Producer(), message, routing_key="there", remove_props=["priority"])
            message.ack()

        migrate.start_filter(app, connection, republish, **OPTIONS)
    [message] = sent(app, "there")
    assert (message.expires_at, message.priority, message.reply_to) == (None, None, "r")


def test_queues_are_named_in_many_ways(app: Celeriac) -> None:
    there = memory_app()
    seen: list[str] = []
    for queues, name in (("a,b:c", "a,c"), (["a", Queue("b")], "a,b"), ({"a": "d", "b": ""}, "d,b"), (None, "celery")):
        app.send_task("t", queue="a")
        app.send_task("t", queue="b")
        app.send_task("t")
        with app.connection_for_read() as source, there.connection_for_write() as target:
            state = migrate.migrate_tasks(
                source, target, app=app, queues=queues, ack_messages=True, on_declare_queue=lambda q: seen.append(q.name),
                **OPTIONS,
            )  # fmt: skip
        names = name.split(",")
        if queues is None:  # all that the app knows by now
            assert seen == ["a", "b"] * 3 + ["celery", "a", "b"]
        else:
            assert state.count == 2
            assert [len(sent(there, each)) for each in names] == [1] * len(names)
    app.send_task("t", queue="x:y")  # of an object, this is the whole name
    with app.connection_for_read() as source, there.connection_for_write() as target:
        migrate.migrate_tasks(source, target, app=app, queues=[Queue("x:y")], ack_messages=True, **OPTIONS)
    assert len(sent(there, "x:y")) == 1
    there.close()


def test_what_can_not_be_read_stays(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.task_protocol = 1
    app.transport.publish([make_message("m", "celery", headers={}, body=b"no json")])
    with app.connection_for_read() as source, memory_app().connection_for_write() as target:
        state = migrate.migrate_tasks(source, target, app=app, tasks=["t"], ack_messages=True, **OPTIONS)
    assert state.count == 0
    assert "its task can't be read" in caplog.text
    assert ids(sent(app)) == ["m"]


def test_those_not_yet_due_are_counted(app: Celeriac) -> None:
    app.send_task("t", countdown=3600)
    app.send_task("t")
    assert migrate.move(lambda *_: "a", app=app, **OPTIONS).delayed == 1
