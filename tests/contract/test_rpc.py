"""Results by message over RabbitMQ: what a worker sends, the client that sent the task gets, once and whole."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.results.base import Record
from celeriac.results.open import open_store
from celeriac.results.rpc import RpcStore
from celeriac.testing.results import PATIENCE, make_record
from celeriac.transport.amqp import AmqpTransport
from tests.support.files import eventually
from tests.support.rabbitmq_server import RabbitMQServer

pytestmark = [pytest.mark.server("rabbitmq"), pytest.mark.slow]


@pytest.fixture
def client(server: RabbitMQServer) -> Iterator[RpcStore]:
    client = RpcStore("rpc://", {"broker_url": server.url, "broker_options": {"timeout": 2.0}})
    yield client
    client.close()


@pytest.fixture
def worker(server: RabbitMQServer) -> Iterator[RpcStore]:
    worker = RpcStore("rpc://", {"broker_url": server.url, "broker_options": {"timeout": 2.0}})
    yield worker
    worker.close()


@pytest.fixture
def task_id() -> str:
    return str(uuid.uuid4())


def record_for(box: str, task_id: str, state: str = "SUCCESS", **fields: object) -> Record:
    return make_record(task_id, state, reply_to=box, **fields)


def arrives(client: RpcStore, task_id: str) -> Record:
    """Whatever is known of a task, once it is known."""
    return eventually(lambda: client.get([task_id])[0], PATIENCE)


# --- the way of a result


def test_a_result_comes_back_whole(client: RpcStore, worker: RpcStore, task_id: str) -> None:
    sent = record_for(
        client.listen(), task_id, "FAILURE",
        result='{"exc_type": "ValueError", "exc_message": ["bööm"], "exc_module": "builtins"}'.encode(),
        traceback="Traceback …", children=[[["c1", None], None]], date_done="2026-11-20T22:44:12.747806+00:00",
        group_id="g", parent_id="p", name="t", args=b"[1, 2]", kwargs=b"{}", worker="w1@host", retries=2, queue="celery",
        stamps={"stamped_headers": ["sh"], "stamps": {"sh": "v"}},
    )  # fmt: skip
    assert worker.store([sent]) == []
    [found] = client.wait([task_id], PATIENCE)
    assert found == msgspec.structs.replace(sent, reply_to="")
    assert client.get([task_id]) == [found]  # a second look is free


def test_a_pickle_is_opened_where_it_is_accepted_only(
    server: RabbitMQServer, client: RpcStore, worker: RpcStore, task_id: str
) -> None:
    kind = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
    trusting = RpcStore("rpc://", {"broker_url": server.url, "serializer": "pickle"})
    for each in (client, trusting):
        worker.store([record_for(each.listen(), task_id, result=b"\x80\x04K\x05.", **kind)])
        worker.store([record_for(each.listen(), f"{task_id}-marker")])
        each.wait([f"{task_id}-marker"], PATIENCE)
    assert client.get([task_id]) == [None]
    assert [record.result for record in trusting.wait([task_id], PATIENCE)] == [b"\x80\x04K\x05."]
    trusting.close()


def test_states_come_in_order_and_a_final_one_stays(client: RpcStore, worker: RpcStore, task_id: str) -> None:
    box = client.listen()
    worker.store([record_for(box, task_id, "STARTED", result=b"1")])
    assert arrives(client, task_id).state == "STARTED"
    assert client.wait([task_id], 0.05) == []
    worker.store([record_for(box, task_id, "PROGRESS", result=b"2"), record_for(box, task_id, result=b"3")])
    assert client.wait([task_id], PATIENCE)[0].result == b"3"
    marker = str(uuid.uuid4())
    worker.store([record_for(box, task_id, "STARTED", result=b"4"), record_for(box, marker)])
    client.wait([marker], PATIENCE)
    assert client.get([task_id])[0].result == b"3"  # type: ignore[union-attr]


@pytest.mark.behaviour("B-RESULT-026")
def test_only_the_sender_gets_it(client: RpcStore, worker: RpcStore, task_id: str) -> None:
    worker.listen()
    worker.store([record_for(client.listen(), task_id)])
    client.wait([task_id], PATIENCE)
    assert worker.get([task_id]) == [None]


def test_nobody_to_reply_to(worker: RpcStore, task_id: str) -> None:
    assert worker.store([make_record(task_id)]) == []
    assert worker.store([record_for("gone-long-ago", task_id)]) == []


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_wait_is_woken(client: RpcStore, worker: RpcStore, task_id: str, timeout: float | None) -> None:
    box = client.listen()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, [str(uuid.uuid4()), task_id], timeout)
        worker.store([record_for(box, task_id)])
        assert [record.id for record in waiting.result(PATIENCE)] == [task_id]


def test_many_wait_at_once_for_thousands(client: RpcStore, worker: RpcStore) -> None:
    box = client.listen()
    ids = [str(uuid.uuid4()) for _ in range(3000)]

    def collect(mine: list[str]) -> int:
        pending = set(mine)
        while pending:
            found = {record.id for record in client.wait(list(pending), PATIENCE)}
            assert found
            pending -= found
        return len(mine)

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(collect, ids[number::5]) for number in range(5)]
        for start in range(0, len(ids), 500):
            worker.store([record_for(box, each) for each in ids[start : start + 500]])
        assert sum(job.result(PATIENCE) for job in jobs) == len(ids)


def test_wait_gives_up_and_forget_forgets(client: RpcStore, worker: RpcStore, task_id: str) -> None:
    assert client.wait([task_id], 0) == []
    worker.store([record_for(client.listen(), task_id)])
    arrives(client, task_id)
    client.forget([task_id])
    assert client.get([task_id]) == [None]


def test_old_results_are_dropped(server: RabbitMQServer, worker: RpcStore, task_id: str) -> None:
    client = RpcStore("rpc://", {"broker_url": server.url, "expires": 60})
    worker.store([record_for(client.listen(), task_id)])
    arrives(client, task_id)
    assert client.cleanup(time.time() + 30) == 0
    assert client.cleanup(time.time() + 90) == 1
    client.close()


# --- the queue, and what happens to it


def test_the_queue_is_that_of_a_stock_client(server: RabbitMQServer, client: RpcStore) -> None:
    box = client.listen()
    [row] = [
        line.split("\t")
        for line in server.control("list_queues", "name", "durable", "auto_delete", "arguments").splitlines()
        if line.startswith(box)
    ]
    assert row[1:] == ["true", "true", '[{"x-expires",86400000}]']
    client.close()
    assert box not in server.control("list_queues", "name")


@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_listening_goes_on(server: RabbitMQServer, client: RpcStore, worker: RpcStore, task_id: str, how: str) -> None:
    box = client.listen()
    if how == "cut":
        server.evaluate('[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections()].')
    else:
        other = AmqpTransport(server.url)
        other.delete(box)
        other.close()

    def comes() -> bool:
        try:
            worker.store([record_for(box, task_id)])
        except OperationalError:
            return False
        return bool(client.wait([task_id], 0.2))

    assert eventually(comes, PATIENCE)


def test_no_threads_are_left(server: RabbitMQServer, worker: RpcStore) -> None:
    worker.listen()
    before = threading.active_count()
    for _ in range(5):
        client = RpcStore("rpc://", {"broker_url": server.url})
        client.listen()
        client.close()
    assert threading.active_count() == before


# --- what it can't do


def test_what_it_cannot_do_is_said(client: RpcStore) -> None:
    assert (client.capabilities.persistent, client.capabilities.counts_chords) == (False, False)
    with pytest.raises(NotImplementedError, match="no chords"):
        client.join_part("g", 0, 2, make_record("a"))
    with pytest.raises(NotImplementedError, match="no groups"):
        client.save_group("g", b"[]", None)
    assert client.get_group("g") is None


def test_it_is_opened_with_the_brokers_settings(server: RabbitMQServer) -> None:
    settings = {"broker_write_url": server.url, "broker_transport_options": {"timeout": 1.0}, "result_persistent": True}
    store = open_store("rpc://", {}, settings)
    assert isinstance(store, RpcStore)
    assert store.listen()
    store.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "no broker_url is set"), ({"broker_url": "memory://"}, "memory"), ({"broker_url": "amqp://", "x": 1}, "'x'")],
)
def test_mistakes(options: dict[str, object], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        RpcStore("rpc://", options)
