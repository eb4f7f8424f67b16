"""Moving messages between brokers and queues: on each kind of broker as source, with nothing lost however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, Queue
from celeriac.broker_connection import Connection
from celeriac.contrib import migrate
from celeriac.errors import OperationalError
from celeriac.message import Settlement
from celeriac.testing.transport_case import PATIENCE, make_message
from celeriac.transport import amqp_credit
from celeriac.transport.amqp import AmqpTransport
from celeriac.transport.amqp_request import consume, prefetch
from celeriac.transport.base import Transport
from celeriac.transport.open import open_transport
from tests.support.command import CommandLine
from tests.support.redis_server import RedisServer

KINDS = [
    "sqlite",
    pytest.param("redis", marks=pytest.mark.server("redis")),
    pytest.param("rabbitmq", marks=[pytest.mark.server("rabbitmq"), pytest.mark.slow]),
]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A broker of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/source.db"
    if request.param == "redis":
        return str(request.getfixturevalue("redis").url())
    return str(request.getfixturevalue("rabbitmq").url)


@pytest.fixture
def other_url(tmp_path: Path) -> str:
    """Another broker."""
    return f"sqlite:///{tmp_path}/other.db"


@pytest.fixture
def app(url: str) -> Iterator[Celeriac]:
    with Celeriac("movers", broker=url, set_as_current=False, task_lease=20.0) as app:
        yield app


@pytest.fixture
def broker(url: str) -> Iterator[Transport]:
    transport = open_transport(url)
    yield transport
    transport.close()


@pytest.fixture
def other(other_url: str) -> Iterator[Transport]:
    transport = open_transport(other_url)
    yield transport
    transport.close()


def fill(broker: Transport, queue: str, count: int, **fields: Any) -> list[str]:
    """Send messages; every other one is of the task `b`."""
    ids = [f"m{number}" for number in range(count)]
    broker.publish(
        [
            make_message(key, queue, headers={"task": "ab"[number % 2], "id": key, "retries": 0}, **fields)
            for number, key in enumerate(ids)
        ]
    )
    return ids


def take(broker: Transport, queue: str, count: int) -> list[str]:
    """So many messages in order, acknowledged."""
    taken: list[str] = []
    while len(taken) < count:
        deliveries = broker.fetch([queue], count - len(taken), PATIENCE, 60.0)
        assert deliveries, f"only {taken} came"
        broker.settle([Settlement(delivery) for delivery in deliveries])
        taken += [delivery.message.id for delivery in deliveries]
    return taken


def ready(broker: Transport, queue: str) -> int:
    return broker.size(queue).ready


@pytest.mark.behaviour("B-CLI-021")
@pytest.mark.parametrize("is_moved", [False, True])
def test_messages_are_copied_as_they_are_or_moved(
    app: Celeriac, url: str, other_url: str, broker: Transport, other: Transport, queue: str, is_moved: bool
) -> None:
    sent = make_message(
        "m", queue, body=bytes(range(256)), content_type="application/x-own", content_encoding="binary", priority=3,
        reply_to="somebody", expires_at=time.time() + 3600,
        headers={"task": "a", "id": "m", "retries": 2, "stamps": {"ä": "ö"}, "compression": None},
    )  # fmt: skip
    broker.publish([sent])
    ids = fill(broker, queue, 230)
    with Connection(url) as source, Connection(other_url) as target:
        state = migrate.migrate_tasks(
            source, target, app=app, queues=f"{queue}:there", ack_messages=is_moved, timeout=0.3
        )
    assert state.count == 231
    [first] = other.fetch(["there"], 1, PATIENCE, 60.0)
    for field in ("id", "headers", "body", "content_type", "content_encoding", "priority", "reply_to"):
        assert getattr(first.message, field) == getattr(sent, field), field
    assert first.message.expires_at == pytest.approx(sent.expires_at, abs=0.01)
    assert take(other, "there", 230) == ids
    assert ready(broker, queue) == (0 if is_moved else 231)
    if not is_moved:
        left = take(broker, queue, 231)
        assert [key for key in left if key != "m"] == ids  # in the order in which they were


@pytest.mark.parametrize("url", KINDS[1:], indirect=True)
def test_what_stock_clients_sent_for_later_moves_at_once(
    app: Celeriac, url: str, other_url: str, broker: Transport, other: Transport, queue: str
) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    headers = {"task": "a", "id": "later", "retries": 0, "eta": eta.isoformat()}
    broker.publish([make_message("later", queue, headers=headers)])  # it lies in its queue, as theirs do
    with Connection(url) as source, Connection(other_url) as target:
        options: dict[str, Any] = {"app": app, "queues": [queue], "timeout": 0.3}
        assert migrate.migrate_tasks(source, target, tasks="b", ack_messages=True, **options).count == 0
        assert ready(broker, queue) == 1
        assert migrate.migrate_tasks(source, target, ack_messages=True, **options).count == 1
    assert (other.size(queue).delayed, ready(broker, queue)) == (1, 0)


def test_only_some_tasks_and_only_so_many(
    app: Celeriac, url: str, other_url: str, broker: Transport, other: Transport, queue: str
) -> None:
    fill(broker, queue, 10)
    with Connection(url) as source, Connection(other_url) as target:
        options: dict[str, Any] = {"app": app, "queues": [queue], "ack_messages": True, "timeout": 0.3}
        assert migrate.migrate_tasks(source, target, tasks="b,c", limit=3, **options).count == 3
        assert migrate.migrate_tasks(source, target, tasks=["b"], **options).count == 2
    assert take(other, queue, 5) == ["m1", "m3", "m5", "m7", "m9"]
    assert take(broker, queue, 5) == ["m0", "m2", "m4", "m6", "m8"]


def test_a_destination_that_can_not_be_reached_leaves_all_where_it_is(
    app: Celeriac, url: str, tmp_path: Path, broker: Transport, queue: str
) -> None:
    ids = fill(broker, queue, 5)
    nowhere = Connection(f"sqlite:///{tmp_path}/no/such/folder/a.db")
    with Connection(url) as source, pytest.raises(OperationalError):
        migrate.migrate_tasks(source, nowhere, app=app, queues=[queue], ack_messages=True, timeout=0.3)
    assert take(broker, queue, 5) == ids


@pytest.mark.behaviour("B-CONTRIB-003")
def test_a_predicate_says_what_moves_and_where_to(app: Celeriac, broker: Transport, queue: str) -> None:
    fill(broker, queue, 6)
    moved: list[str] = []

    def predicate(body: Any, message: Any) -> Any:
        return {"m0": f"{queue}-x", "m1": Queue(f"{queue}-y"), "m2": ("", f"{queue}-x"), "m3": True, "m4": queue}.get(
            message.task_id
        )

    state = migrate.move(
        predicate, app=app, source=[queue], routing_key=f"{queue}-z", timeout=0.3,
        callback=lambda state, body, message: moved.append(message.task_id),
    )  # fmt: skip
    assert (state.count, state.filtered, moved) == (6, 4, ["m0", "m1", "m2", "m3"])
    assert take(broker, f"{queue}-x", 2) == ["m0", "m2"]
    assert take(broker, f"{queue}-y", 1) == ["m1"]
    assert take(broker, f"{queue}-z", 1) == ["m3"]
    assert take(broker, queue, 2) == ["m4", "m5"]


def test_a_predicate_that_fails_leaves_what_it_has_not_moved(app: Celeriac, broker: Transport, queue: str) -> None:
    fill(broker, queue, 5)

    def predicate(body: Any, message: Any) -> Any:
        return f"{queue}-x" if message.task_id != "m2" else 1 / 0

    with pytest.raises(ZeroDivisionError):
        migrate.move(predicate, app=app, source=[queue], timeout=0.3)
    assert take(broker, f"{queue}-x", 2) == ["m0", "m1"]
    assert take(broker, queue, 3) == ["m2", "m3", "m4"]


@pytest.mark.parametrize("url", KINDS[2:], indirect=True)
@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_more_is_copied_than_a_consumer_can_hold(
    monkeypatch: pytest.MonkeyPatch, app: Celeriac, url: str, other_url: str, broker: Transport, other: Transport,
    queue: str, kind: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(amqp_credit, "MAX_PREFETCH", 120)  # AMQP's is 65,535
    broker.declare([Queue(queue, queue_arguments={"x-queue-type": kind})])
    ids = fill(broker, queue, 300)
    with Connection(url) as source, Connection(other_url) as target:
        state = migrate.migrate_tasks(source, target, app=app, queues=[queue], timeout=0.3)
    assert state.count == 300
    assert take(other, queue, 300) == ids
    assert sorted(take(broker, queue, 300)) == sorted(ids)


@pytest.mark.parametrize("url", KINDS[2:], indirect=True)
def test_what_was_not_seen_is_told(
    app: Celeriac, url: str, other_url: str, broker: Transport, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    active = AmqpTransport(url)
    active.declare([Queue(queue, queue_arguments={"x-single-active-consumer": True})])
    active._parts.consuming.ask(prefetch(1), consume(queue, "the-active-one"))
    fill(broker, queue, 3)
    with Connection(url) as source, Connection(other_url) as target:
        state = migrate.migrate_tasks(source, target, app=app, queues=[queue], timeout=0)
    assert state.count == 0
    assert f"2 message(s) of {queue} were not seen" in caplog.text
    active.close()


@pytest.mark.parametrize("point", ["migrate_published:2", "migrate_settled:1"])
@pytest.mark.faults
@pytest.mark.behaviour("B-CLI-021")
def test_a_kill_loses_nothing(
    point: str, url: str, other_url: str, broker: Transport, other: Transport, queue: str, tmp_path: Path
) -> None:
    ids = fill(broker, queue, 250)
    celeriac = CommandLine(tmp_path)
    env = {"CELERIAC_TASK_LEASE": "0.5"}
    command = ("migrate", "-a", "-t", "0.3", "-Q", queue, url, other_url)
    assert celeriac(*command, env={**env, "CELERIAC_FAULT": point}).code == -9
    assert 0 < ready(other, queue) < 250
    done = celeriac(*command, "-t", "2", env=env)  # longer than the leases of the one that was killed
    assert done.code == 0, done.err
    assert "moved from" in done.out
    count = ready(other, queue)
    # What was published and not acknowledged is there twice; it is one batch at most.
    assert 250 <= count <= 350
    assert sorted(set(take(other, queue, count))) == sorted(ids)
    assert ready(broker, queue) == 0
