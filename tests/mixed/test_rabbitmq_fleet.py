"""Stock Celery 5.7 and celeriac on one RabbitMQ: either's clients with either's workers, on classic and quorum queues."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.mixed.conftest import Fleet
from tests.support.files import eventually
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

SIDES = [("celery", "celeriac"), ("celeriac", "celery")]
TYPES = ["classic", "quorum"]
both_ways = pytest.mark.parametrize(("client_side", "worker_side"), SIDES)
each_type = pytest.mark.parametrize("queue_type", TYPES)
#: Queues of one topic exchange.
TOPICS = [["alpha", "work", "topic", "work.alpha"], ["beta", "work", "topic", "work.beta.#"]]


def quorum(fleet: Fleet, queue_type: str, **settings: Any) -> None:
    """Use queues of this type."""
    fleet.settings = {"task_default_queue_type": queue_type, **settings} if queue_type == "quorum" else settings


def left(fleet: Fleet, server: RabbitMQServer) -> int:
    """How many messages are left in the queue that all share."""
    return server.queues(fleet.url.rpartition("/")[2])["celery"]


@each_type
@both_ways
def test_calls_results_errors_and_retries_cross(
    rabbit_fleet: Fleet, client_side: str, worker_side: str, queue_type: str
) -> None:
    quorum(rabbit_fleet, queue_type)
    client = rabbit_fleet.client(client_side)
    rabbit_fleet.worker(worker_side)
    assert client("outcome(add.delay(2, 3))") == ["SUCCESS", 5]
    assert client("outcome(add.apply_async((2,), {'y': 0.5}))") == ["SUCCESS", 2.5]
    assert client("outcome(fail.delay('no'))") == ["FAILURE", ["Trouble", ["no", 42]]]
    task_id, state, value = client("(lambda r: [r.id, *outcome(r)])(again.delay(2))")
    assert (state, value) == ("SUCCESS", [task_id, 2])
    values = client("[r.get(timeout=30) for r in [add.delay(n, n) for n in range(200)]]")
    assert values == [2 * n for n in range(200)]


@both_ways
def test_results_in_redis_cross(
    rabbit_fleet: Fleet, redis_server: RedisServer, client_side: str, worker_side: str
) -> None:
    rabbit_fleet.backend = redis_server.url()
    client = rabbit_fleet.client(client_side)
    rabbit_fleet.worker(worker_side)
    state, value = client("outcome(add.delay(2, 3))")
    assert (state, value) == ("SUCCESS", 5)
    task_id = client("(lambda r: (r.get(timeout=20), r.id)[1])(add.delay(20, 22))")
    for side in ("celery", "celeriac"):
        assert rabbit_fleet.client(side)(f"outcome(app.AsyncResult({task_id!r}))") == ["SUCCESS", 42]


@each_type
@both_ways
def test_an_eta_is_kept_across(rabbit_fleet: Fleet, client_side: str, worker_side: str, queue_type: str) -> None:
    quorum(rabbit_fleet, queue_type)
    client = rabbit_fleet.client(client_side)
    rabbit_fleet.worker(worker_side)
    sent = time.time()
    state, ran = client("outcome(now.apply_async(countdown=1.5))")
    assert state == "SUCCESS"
    assert ran >= sent + 1.5
    sent = time.time()
    state, ran = client("outcome(now.apply_async(eta=dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=2.2)))")
    assert state == "SUCCESS"
    assert ran >= sent + 2.2


@pytest.mark.parametrize("first", ["celery", "celeriac"])
@both_ways
def test_delays_in_the_broker_cross_on_a_topic_exchange(
    rabbit_fleet: Fleet, client_side: str, worker_side: str, first: str
) -> None:
    """[B-ROUTE-025] Whoever comes first declares what delays: the other has to find it right."""
    quorum(rabbit_fleet, "quorum", task_queues=TOPICS, task_default_queue="alpha", task_default_exchange="work",
           task_default_exchange_type="topic", task_default_routing_key="work.alpha")  # fmt: skip
    rabbit_fleet.worker(first, "-n", "first@%h").stop()
    client = rabbit_fleet.client(client_side)
    sent = time.time()
    client("[now.apply_async(countdown=3).id, note.apply_async(('beta',), countdown=2, routing_key='work.beta.x',"
           " exchange='work').id]")  # fmt: skip
    rabbit_fleet.worker(worker_side)
    state, ran = client("outcome(now.apply_async(countdown=2.5))")
    assert state == "SUCCESS"
    assert ran >= sent + 2.5
    state, ran = client("outcome(now.apply_async(countdown=1, queue='beta'))")
    assert state == "SUCCESS"
    eventually(lambda: rabbit_fleet.ledger.read_text().split() == ["beta"], 20)


@both_ways
def test_urgent_tasks_go_first_across(rabbit_fleet: Fleet, client_side: str, worker_side: str) -> None:
    """[B-ROUTE-021]"""
    rabbit_fleet.settings = {"task_queue_max_priority": 10, "task_acks_late": True}
    client = rabbit_fleet.client(client_side)
    client("[note.apply_async((f'{p}-{n}',), priority=p).id for p in (0, 3, 9) for n in range(3)] and None")
    rabbit_fleet.worker(worker_side, "-c", "1")
    client("outcome(note.apply_async(('end',), priority=0))")
    order = [line.split("-")[0] for line in rabbit_fleet.ledger.read_text().split()]
    assert order == ["9"] * 3 + ["3"] * 3 + ["0"] * 3 + ["end"]


@both_ways
def test_queues_that_nobody_described_are_made_alike(rabbit_fleet: Fleet, client_side: str, worker_side: str) -> None:
    rabbit_fleet.settings = {"task_create_missing_queue_type": "quorum"}
    client = rabbit_fleet.client(client_side)
    client("note.apply_async(('early',), queue='video').id")
    rabbit_fleet.worker(worker_side, "-Q", "video,audio")
    client("outcome(note.apply_async(('video',), queue='video'))")
    client("outcome(note.apply_async(('audio',), queue='audio'))")
    assert sorted(rabbit_fleet.ledger.read_text().split()) == ["audio", "early", "video"]


def test_expired_tasks_are_revoked_across(rabbit_fleet: Fleet, redis_server: RedisServer) -> None:
    """RabbitMQ drops most of them itself; a worker finds one whose worker-side check is all that is left."""
    rabbit_fleet.backend = redis_server.url()
    clients = [rabbit_fleet.client(side) for side in ("celery", "celeriac")]
    worker = rabbit_fleet.worker("celeriac", "-c", "1")
    clients[0]("nap.delay(1.5).id")
    ids = [client("note.apply_async(('late',), expires=dt.datetime.now(dt.timezone.utc)).id") for client in clients]
    assert clients[0]("outcome(note.apply_async(('end',), expires=60))") == ["SUCCESS", "end"]
    assert rabbit_fleet.ledger.read_text().split() == ["end"]
    assert worker.returncode is None
    assert len(ids) == 2


@each_type
@both_ways
def test_links_and_protocol_1_cross(rabbit_fleet: Fleet, client_side: str, worker_side: str, queue_type: str) -> None:
    quorum(rabbit_fleet, queue_type)
    client = rabbit_fleet.client(client_side)
    rabbit_fleet.worker(worker_side)
    client("outcome(add.apply_async((1, 2), link=note.si('linked'), link_error=note.si('no')))")
    client("outcome(fail.apply_async(('x',), link=note.si('no'), link_error=note.si('failed')))")
    eventually(lambda: sorted(rabbit_fleet.ledger.read_text().split()) == ["failed", "linked"], 20)
    rabbit_fleet.settings = {**rabbit_fleet.settings, "task_protocol": 1}
    old = rabbit_fleet.client(client_side)
    assert old("outcome(add.apply_async((2,), {'y': 5}))") == ["SUCCESS", 7]
    assert old("outcome(fail.delay('no'))") == ["FAILURE", ["Trouble", ["no", 42]]]
    sent = time.time()
    state, ran = old("outcome(now.apply_async(countdown=1.2))")
    assert (state, ran >= sent + 1.2) == ("SUCCESS", True)


def test_a_stock_clients_chain_passes_both_workers(rabbit_fleet: Fleet, redis_server: RedisServer) -> None:
    rabbit_fleet.backend = redis_server.url()
    rabbit_fleet.settings = {"task_routes": {"fleet.add": {"queue": "ours"}}}
    rabbit_fleet.worker("celeriac", "-n", "ours@%h", "-Q", "ours")
    rabbit_fleet.worker("celery", "-n", "stock@%h")
    client = rabbit_fleet.client("celery")
    chain = "(add.s(1, 2) | note.si('first') | add.si(3, 4) | note.si('second') | add.si(7, 1))"
    state, value = client(f"outcome(({chain}).apply_async())")
    assert (state, value) == ("SUCCESS", 8)
    assert rabbit_fleet.ledger.read_text().split() == ["first", "second"]


@each_type
@both_ways
def test_workflows_cross(
    rabbit_fleet: Fleet, redis_server: RedisServer, client_side: str, worker_side: str, queue_type: str
) -> None:
    quorum(rabbit_fleet, queue_type)
    rabbit_fleet.backend = redis_server.url()
    client = rabbit_fleet.client(client_side)
    rabbit_fleet.worker(worker_side)
    assert client("outcome((add.s(1, 2) | add.s(3) | add.s(4)).apply_async())") == ["SUCCESS", 10]
    assert client("group(add.s(n, n) for n in range(5)).apply_async().get(timeout=20)") == [0, 2, 4, 6, 8]
    assert client("outcome(chord([add.s(n, n) for n in range(5)])(total.s()))") == ["SUCCESS", 20]
    assert client("outcome(chord([add.s(1, 1).set(countdown=1), add.s(2, 2)])(total.s()))") == ["SUCCESS", 6]


@each_type
def test_both_workers_share_one_queue_and_leave_nothing(
    rabbit_fleet: Fleet, rabbitmq_server: RabbitMQServer, queue_type: str
) -> None:
    quorum(rabbit_fleet, queue_type)
    rabbit_fleet.worker("celery", "-n", "stock@%h")
    rabbit_fleet.worker("celeriac", "-n", "ours@%h")
    clients = [rabbit_fleet.client(side) for side in ("celery", "celeriac")]
    for client in clients:
        values = client("[r.get(timeout=30) for r in [add.delay(n, n) for n in range(200)]]")
        assert values == [2 * n for n in range(200)]
    eventually(lambda: left(rabbit_fleet, rabbitmq_server) == 0, 10)


@each_type
@pytest.mark.parametrize(("killed", "heir"), SIDES)
def test_what_a_killed_worker_held_is_run_by_the_other_kind(
    rabbit_fleet: Fleet, rabbitmq_server: RabbitMQServer, killed: str, heir: str, queue_type: str
) -> None:
    quorum(rabbit_fleet, queue_type, task_acks_late=True, task_reject_on_worker_lost=True)
    worker = rabbit_fleet.worker(killed)
    client = rabbit_fleet.client(heir)
    client("[hold.delay(f'h{n}', 1.0).id for n in range(2)] and [note.delay(f'n{n}').id for n in range(4)] and None")
    eventually(lambda: sorted(rabbit_fleet.ledger.read_text().split()) == ["h0", "h1"], 10)
    worker.kill_tree()
    rabbit_fleet.worker(heir)
    everything = ["h0", "h0", "h1", "h1", "n0", "n1", "n2", "n3"]
    eventually(lambda: sorted(rabbit_fleet.ledger.read_text().split()) == everything, 20)
    eventually(lambda: left(rabbit_fleet, rabbitmq_server) == 0, 20)
