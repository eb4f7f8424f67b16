"""Messages on Redis against recordings of stock Celery: envelopes, lists, `unacked`, restoring, bindings, channels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.message import Action, Message, Settlement
from celeriac.routing import Exchange, Queue
from celeriac.testing.transports import make_message
from celeriac.transport.redis import RedisTransport
from celeriac.transport.redis_bindings import kombu_pattern
from celeriac.transport.redis_envelope import decode, encode, new_tag
from tests.support.redis_server import RedisServer
from tests.wire import golden

SEP = "\x06\x16"
LONG = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), options=["--appendonly", "no"]) as server:
        yield server


@pytest.fixture
def transport(server: RedisServer) -> Iterator[RedisTransport]:
    server.call("FLUSHALL")
    transport = RedisTransport(server.url(5), {"delay_at_publish": True})
    yield transport
    transport.close()


@pytest.fixture
def call(server: RedisServer) -> Any:
    return lambda *command: server.call(*command, db=5)


def recorded_elements() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{name}-{number}", item)
        for name in golden.names("messages")
        for number, item in enumerate(golden.load("messages", name).get("redis", ()))
    ]


ELEMENTS = recorded_elements()
UNACKED: dict[str, str] = golden.load("redis", "unacked")["keys"]["unacked"]["value"]
QUEUED: dict[str, Any] = golden.load("redis", "queued_priorities")["keys"]


# --- envelopes


@pytest.mark.parametrize("item", [item for _, item in ELEMENTS], ids=[name for name, _ in ELEMENTS])
def test_recorded_messages_are_read_and_written_again(item: dict[str, Any]) -> None:
    message, deliveries, starts = decode(golden.to_bytes(item["raw"]), item["key"])
    expected = golden.from_envelope(item["envelope"])
    for field in ("id", "headers", "body", "content_type", "content_encoding", "priority", "reply_to", "transient"):
        assert getattr(message, field) == getattr(expected, field), field
    assert (message.defect, deliveries, starts) == ("", 1, 0)

    if "expiration" in item["envelope"]["properties"]:
        message = Message(**{**{f: getattr(message, f) for f in message.__struct_fields__}, "expires_at": 4e9})
    exchange, _ = message.exchange, message.routing_key
    unrouted = Message(**{**{f: getattr(message, f) for f in message.__struct_fields__}, "queue": ""})
    written = json.loads(encode(unrouted if exchange else message, item["key"].split(SEP)[0], new_tag()))
    recorded = item["envelope"]
    assert list(written) == list(recorded)
    for part in ("body", "content-encoding", "content-type", "headers"):
        assert written[part] == recorded[part], part
    written["properties"].pop("celeriac", None)
    volatile = {"delivery_tag", "expiration"}
    assert set(written["properties"]) == set(recorded["properties"])
    for name in set(recorded["properties"]) - volatile:
        assert written["properties"][name] == recorded["properties"][name], name
    assert list(written["properties"])[-1] == "delivery_tag"


def test_tags_are_unique_and_look_like_uuids() -> None:
    tags = {new_tag() for _ in range(10_000)}
    assert len(tags) == 10_000
    assert {len(tag) for tag in tags} == {36}


@pytest.mark.parametrize("case", golden.load("lenience", "redis_worker")["cases"], ids=lambda case: case["case"])
def test_whatever_a_stock_worker_bears_is_read(case: dict[str, Any]) -> None:
    message, _, _ = decode(json.dumps(case["sent"]).encode(), "celery")
    if case["outcome"] == "SUCCESS":
        assert message.defect == ""
        assert message.body == golden.from_envelope(case["sent"]).body


@pytest.mark.parametrize(
    "element",
    [
        b"garbage", b"", b"{}", b"[1, 2]", b"null", b'"text"', b"\xff\xfe", b'{"body": 5}', b'{"body": null, "headers": {}}',
        b'{"body": "a", "properties": {"body_encoding": "base64"}}', b"[" * 5000, b'{"body": "', b'{"a": 1}\n',
    ],
)  # fmt: skip
def test_unreadable_elements_are_leased_and_kept(transport: RedisTransport, call: Any, element: bytes) -> None:
    call("LPUSH", "celery", element)
    transport.publish([make_message("good", "celery")])
    bad, good = transport.fetch(["celery"], 10, 1, LONG)
    assert (good.message.id, good.message.defect) == ("good", "")
    assert bad.message.defect
    assert call("HLEN", "unacked") == 1  # a stock worker would stumble over the bad one
    assert transport.settle([Settlement(bad, Action.REQUEUE), Settlement(good)]) == []
    [again] = transport.fetch(["celery"], 10, 1, LONG)
    assert again.message.defect
    assert transport.settle([Settlement(again, Action.DEAD_LETTER, reason="bad")]) == []
    [letter] = transport.dead_letters()
    assert (letter.message.defect, letter.reason) == (again.message.defect, "bad")
    assert transport.replay([letter.key]) == 1
    [stored] = call("LRANGE", "celery", 0, -1)
    assert stored.startswith(element.rstrip(b"}"))


def test_stock_fields_in_any_order_and_without_spaces(transport: RedisTransport, call: Any) -> None:
    [raw] = QUEUED["celery"]["value"]
    compact = json.dumps(dict(reversed(json.loads(raw).items())), separators=(",", ":"))
    call("LPUSH", "celery", compact)
    [delivery] = transport.fetch(["celery"], 1, 1, LONG)
    assert delivery.message.task == "wire.add"
    assert json.loads(call("HGET", "unacked", delivery.token))[1:] == ["", "celery"]
    transport.settle([Settlement(delivery, Action.REQUEUE)])
    [again] = transport.fetch(["celery"], 1, 1, LONG)
    assert (again.deliveries, again.message.task) == (2, "wire.add")


# --- lists


def test_priorities_go_to_kombus_lists(transport: RedisTransport, call: Any) -> None:
    for priority, key in ((None, ""), (0, ""), (2, ""), (3, "3"), (5, "3"), (6, "6"), (9, "9"), (200, "9"), (-1, "")):
        transport.publish([make_message("m", "celery", priority=priority)])
        stored = call("RPOP", "celery" + (SEP + key if key else ""))
        assert stored is not None, priority
        assert json.loads(stored)["properties"]["priority"] == (priority or 0)


def test_a_stock_clients_messages_come_in_stock_order(transport: RedisTransport, call: Any) -> None:
    for key, about in QUEUED.items():
        if about["type"] == "list":
            call("LPUSH", key, *about["value"])
    deliveries = transport.fetch(["celery"], 10, 1, LONG)
    recorded = golden.load("redis", "unacked")["delivered_priorities"]
    assert [delivery.message.priority for delivery in deliveries] == recorded


def test_prefix_steps_and_separator(server: RedisServer, call: Any) -> None:
    recorded = golden.load("redis", "options_prefix_steps_sep")
    server.call("FLUSHALL")
    transport = RedisTransport(server.url(5), recorded["transport_options"])
    queue = Queue("d1", Exchange("dx"), "rk")
    transport.declare([queue])
    transport.publish([make_message("m", exchange="dx", routing_key="rk", priority=4)])
    assert call("LLEN", "pfx_d1:4") == 1
    for key in ("pfx__kombu.binding.dx", "pfx__kombu.binding_permanent.dx"):
        assert [member.decode() for member in call("SMEMBERS", key)] == recorded["keys"][key]["value"]
    [delivery] = transport.fetch(["d1"], 1, 1, LONG)
    assert call("HLEN", "pfx_unacked") == call("ZCARD", "pfx_unacked_index") == 1
    transport.settle([Settlement(delivery)])
    keys = call("KEYS", "*")
    assert all(key.startswith(b"pfx_") for key in keys), keys
    transport.close()


# --- unacked and restoring


def test_a_lease_is_what_a_stock_worker_can_restore(transport: RedisTransport, call: Any) -> None:
    [raw] = QUEUED["celery"]["value"]
    call("LPUSH", "celery", raw)
    [delivery] = transport.fetch(["celery"], 1, 1, LONG)
    [value] = call("HVALS", "unacked")
    assert json.loads(value) == [json.loads(raw), "", "celery"]
    now = int(call("TIME")[0])
    score = float(call("ZSCORE", "unacked_index", delivery.token))
    assert now <= score <= now + LONG + 1  # never as old as a visibility timeout while it is renewed
    # what a stock worker does when it restores
    envelope, exchange, routing_key = json.loads(value)
    envelope["headers"]["redelivered"] = envelope["properties"]["delivery_info"]["redelivered"] = True
    call("ZREM", "unacked_index", delivery.token)
    call("HDEL", "unacked", delivery.token)
    call("RPUSH", routing_key, json.dumps(envelope))
    assert exchange == ""
    assert transport.extend([delivery], LONG) == [delivery]
    assert transport.settle([Settlement(delivery)]) == [delivery]
    [again] = transport.fetch(["celery"], 1, 1, LONG)
    assert (again.deliveries, again.redelivered) == (2, True)
    assert transport.settle([Settlement(again)]) == []
    assert [call("EXISTS", key) for key in ("unacked", "unacked_index", "celery")] == [0, 0, 0]


def test_requeueing_marks_a_message_as_stock_does(transport: RedisTransport, call: Any) -> None:
    [(key, recorded)] = [
        (key, about["value"][0])
        for key, about in golden.load("redis", "requeued")["keys"].items()
        if about["type"] == "list"
    ]
    fresh = json.loads(recorded)
    del fresh["headers"]["redelivered"], fresh["properties"]["delivery_info"]["redelivered"]
    call("LPUSH", key, json.dumps(fresh))
    transport.settle([Settlement(d, Action.REQUEUE) for d in transport.fetch(["celery"], 1, 1, LONG)])
    stored = json.loads(call("LINDEX", key, 0))
    assert stored.pop("celeriac") == [1, 0]
    assert stored == json.loads(recorded)


@pytest.mark.parametrize("headers", [{}, {"task": "t", "id": "m", "headers": {}, "delivery_info": {"a": 1}}])
def test_the_mark_is_set_in_the_right_place(transport: RedisTransport, call: Any, headers: dict[str, Any]) -> None:
    body = b'{"headers": {}, "delivery_info": {}}, "celeriac": [7, 7]}'
    transport.publish([Message(id="m", headers=headers, body=body, queue="celery", properties={"x": {"y": "z"}})])
    transport.settle([Settlement(d, Action.REQUEUE) for d in transport.fetch(["celery"], 1, 1, LONG)])
    stored = json.loads(call("LINDEX", "celery", 0))
    assert stored["headers"] == {**headers, "redelivered": True}
    assert stored["properties"]["delivery_info"] == {"exchange": "", "routing_key": "celery", "redelivered": True}
    [delivery] = transport.fetch(["celery"], 1, 1, LONG)
    assert (delivery.message.body, delivery.deliveries) == (body, 2)


def test_what_stock_workers_left_behind_is_restored(transport: RedisTransport, call: Any) -> None:
    tags = list(UNACKED)
    for number, (tag, value) in enumerate(UNACKED.items()):
        call("HSET", "unacked", tag, value)
        call("ZADD", "unacked_index", int(call("TIME")[0]) - (10 if number == 0 else 3601), tag)
    call("ZADD", "unacked_index", 5, "without-a-value")
    deliveries = transport.fetch(["celery"], 10, 0, LONG)
    assert len(deliveries) == 2
    assert all(delivery.redelivered and delivery.message.headers["redelivered"] for delivery in deliveries)
    assert call("HEXISTS", "unacked", tags[0]) == 1
    assert [call("HEXISTS", "unacked", tag) for tag in tags[1:]] == [0, 0]
    assert call("ZSCORE", "unacked_index", "without-a-value") is None


def test_restoring_routes_by_exchange(transport: RedisTransport, call: Any) -> None:
    call("SADD", "_kombu.binding.dx", f"rk{SEP}{SEP}d1")
    [envelope, _, _] = json.loads(next(iter(UNACKED.values())))
    envelope["properties"]["priority"] = 9
    call("HSET", "unacked", "tag", json.dumps([envelope, "dx", "rk"]), "lost", json.dumps([envelope, "nowhere", "rk"]))
    call("ZADD", "unacked_index", 1, "tag", 1, "lost", 1, "broken")
    call("HSET", "unacked", "broken", "{")
    [delivery] = transport.fetch(["d1"], 10, 0, LONG)
    assert delivery.token.endswith(f":d1{SEP}9".encode())
    assert call("HEXISTS", "unacked", "lost") == call("HEXISTS", "unacked", "broken") == 1  # kept, and logged


# --- exchanges and channels


def test_binding_tables_are_kombus(transport: RedisTransport, call: Any) -> None:
    recorded = golden.load("redis", "bindings")["keys"]
    transport.declare([
        Queue("d1", Exchange("dx"), "rk"), Queue("auto", Exchange("dx"), "au"), Queue("x1", Exchange("dx"), "exp", expires=30.0),
        Queue("t1", Exchange("tx", "topic"), "a.*.#"),
    ])  # fmt: skip
    for key in ("_kombu.binding.dx", "_kombu.binding.tx", "_kombu.binding_permanent.dx", "_kombu.binding_permanent.tx"):
        assert sorted(member.decode() for member in call("SMEMBERS", key)) == sorted(recorded[key]["value"]), key
    now = int(call("TIME")[0]) * 1000
    [exchange, deadline] = call("ZRANGE", "_kombu.binding_deadlines", 0, -1, "WITHSCORES")
    assert (exchange, now + 3_590_000 < int(float(deadline)) <= now + 3_602_000) == (b"dx", True)
    transport.publish([make_message("m", exchange="dx", routing_key="exp")])
    assert 0 < call("PTTL", "x1") <= 30_000


def test_what_stock_has_bound_is_reached(transport: RedisTransport, call: Any) -> None:
    call("SADD", "_kombu.binding.dx", f"rk{SEP}{SEP}d1", f"other{SEP}{SEP}d2")
    call("SADD", "_kombu.binding.tx", rf"a.*.#{SEP}^a\.[^\.]+\..*?${SEP}t1")
    transport.publish([make_message("m1", exchange="dx", routing_key="rk")])
    transport.publish([make_message("m2", exchange="tx", routing_key="a.b.c.d")])
    assert [call("LLEN", key) for key in ("d1", "d2", "t1")] == [1, 0, 1]
    info = json.loads(call("LINDEX", "t1", 0))["properties"]["delivery_info"]
    assert info == {"exchange": "tx", "routing_key": "a.b.c.d"}


@pytest.mark.parametrize(
    ("key", "pattern"),
    [("a.*.#", r"^a\.[^\.]+\..*?$"), ("#", r"^.*?$"), ("x-y.z", r"^x\-y\.z$"), ("*", r"^[^\.]+$")],
)
def test_topic_patterns(key: str, pattern: str) -> None:
    assert kombu_pattern(key) == pattern


def test_topics_are_stocks_channels(transport: RedisTransport, server: RedisServer, call: Any) -> None:
    subscription = transport.subscribe(["celery.pidbox", "celeryev/worker.*"])
    other = RedisTransport(server.url(6))
    other.broadcast("celery.pidbox", b"of another database")
    call("PUBLISH", "/5.celery.pidbox", b"one")
    call("PUBLISH", "/5.celeryev/worker.heartbeat", b"two")
    heard = subscription.poll(10)
    while len(heard) < 2:
        heard += subscription.poll(10)
    assert heard == [("celery.pidbox", b"one"), ("celeryev/worker.heartbeat", b"two")]
    subscription.close()
    other.close()


def test_a_fan_out_is_told_to_stock_listeners(transport: RedisTransport) -> None:
    transport.declare([Queue("f1", Exchange("fx", "fanout"))])
    subscription = transport.subscribe(["fx/any.key"])
    transport.publish([make_message("m", exchange="fx", routing_key="any.key")])
    [(topic, payload)] = subscription.poll(10)
    assert (topic, json.loads(payload)["headers"]["id"]) == ("fx/any.key", "m")
    assert [d.message.id for d in transport.fetch(["f1"], 1, 1, LONG)] == ["m"]
    subscription.close()


def test_an_eta_can_be_left_to_the_workers(server: RedisServer, call: Any, transport: RedisTransport) -> None:
    as_stock = RedisTransport(server.url(5), {"delay_at_publish": False})
    as_stock.publish([make_message("m", "celery", eta=4e9)])
    assert call("LLEN", "celery") == 1
    transport.publish([make_message("later", "celery", eta=4e9)])
    assert call("LLEN", "celery") == 1
    assert transport.size("celery").delayed == 1
    as_stock.close()
