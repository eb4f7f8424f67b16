"""Results in Redis against recordings of stock Celery: keys, documents, expiry, prefix, and the fence beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.results.base import Record
from celeriac.results.redis import RedisStore
from celeriac.wire.results import record_from_document
from tests.support.redis_server import RedisServer
from tests.wire import golden

PREFIX = "celery-task-meta-"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), options=["--appendonly", "no"]) as server:
        yield server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    server.call("FLUSHALL")
    store = RedisStore(server.url())
    yield store
    store.close()


RECORDED = {
    name: recorded
    for name in golden.names("results")
    if str((recorded := golden.load("results", name)).get("key", "")).startswith(PREFIX) and recorded.get("raw")
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_stock_workers_result_is_read_and_written_again(server: RedisServer, store: RedisStore, name: str) -> None:
    recorded = RECORDED[name]
    raw = golden.to_bytes(recorded["raw"])
    server.call("SET", recorded["key"], raw)
    task_id = recorded["key"].removeprefix(PREFIX)
    [record] = store.get([task_id])
    assert record == record_from_document(raw)
    server.call("FLUSHALL")
    assert store.store([record]) == []
    written = json.loads(server.call("GET", recorded["key"]))
    assert written.pop("celeriac") == [0, 0, 0]
    assert written == json.loads(raw)
    assert store.get([task_id]) == [record]


def test_expiry_and_publication(server: RedisServer, store: RedisStore) -> None:
    watcher = RedisStore(server.url())
    now = int(server.call("TIME")[0])
    record = Record(id="t", state="SUCCESS", result=b"5", expires_at=float(now + 86400), fence=(1, 2))
    forever = Record(id="f", state="SUCCESS", result=b"5")
    store.store([record, forever])
    assert 86_390 <= server.call("TTL", f"{PREFIX}t") <= 86_400
    assert server.call("TTL", f"{PREFIX}f") == -1
    value = server.call("GET", f"{PREFIX}t")
    assert value.endswith(b'"task_id": "t", "celeriac": [1, 2, %d]}' % ((now + 86400) * 1000))
    assert [found.id for found in watcher.wait(["t"], 5)] == ["t"]
    watcher.close()


@pytest.mark.parametrize("given", ["myapp", "myapp_", "myapp:", "a.", "b-"])
def test_the_prefix_of_results(server: RedisServer, given: str) -> None:
    server.call("FLUSHALL")
    store = RedisStore(server.url(), {"global_keyprefix": given})
    store.store([Record(id="t", state="SUCCESS", result=b"1")])
    store.save_group("g", b"[]", None)
    before = given if given[-1] in ":_-." else given + "_"
    keys = {f"{before}{PREFIX}t", f"{before}celery-taskset-meta-g"}
    assert {key.decode() for key in server.call("KEYS", "*")} == keys
    store.close()


def test_compressed_results(server: RedisServer, store: RedisStore) -> None:
    recorded = golden.load("results", "conf_compressed")["keys"]["ok"]
    [(key, about)] = recorded.items()
    server.call("SET", key, golden.to_bytes(about["raw"]))
    [record] = store.get([key.removeprefix(PREFIX)])
    assert record is not None
    assert (record.state, record.result) == ("SUCCESS", b"5")
    ours = RedisStore(server.url(), {"compression": "gzip"})
    mine = Record(id="mine", state="FAILURE", result=b'"x"', fence=(0, 3))
    ours.store([mine])
    assert server.call("GET", f"{PREFIX}mine").startswith(b"\0celery-compressed\0application/x-gzip\0")
    assert store.get(["mine"]) == [mine]
    assert store.store([Record(id="mine", state="SUCCESS", result=b"1", fence=(0, 2))]) == ["mine"]
    ours.close()


def test_groups_are_stocks(server: RedisServer, store: RedisStore) -> None:
    recorded = golden.load("results", "group_meta")
    group_id = recorded["key"].removeprefix("celery-taskset-meta-")
    server.call("SET", recorded["key"], recorded["raw"])
    value = store.get_group(group_id)
    assert value is not None
    assert json.loads(value) == recorded["as_tuple"]
    store.save_group(group_id, value, None)
    assert json.loads(server.call("GET", recorded["key"])) == json.loads(recorded["raw"])


@pytest.mark.parametrize("result", [b"NaN", b"[1, Infinity]", b"not json", b""])
def test_stock_can_read_whatever_was_stored(server: RedisServer, store: RedisStore, result: bytes) -> None:
    record = Record(id="t", state="SUCCESS", result=result, fence=(0, 1))
    store.store([record])
    assert json.loads(server.call("GET", f"{PREFIX}t"))["status"] == "SUCCESS"
    assert store.get(["t"]) == [record]
    assert store.wait(["t"], 1) == [record]
    store.forget(["t"])
    assert server.call("KEYS", "*") == []


def test_a_result_that_stock_wrote_over_ours(server: RedisServer, store: RedisStore) -> None:
    kind = "application/x-python-serialize"
    store.store(
        [
            Record(
                id="t", state="RETRY", result=b"\x80\x04N.", content_type=kind, content_encoding="binary", fence=(2, 1)
            )
        ]
    )
    stock: dict[str, Any] = {"status": "STARTED", "result": None, "traceback": None, "children": [], "task_id": "t"}
    server.call("SET", f"{PREFIX}t", json.dumps(stock))
    [record] = store.get(["t"])
    assert record is not None
    assert (record.state, record.fence) == ("STARTED", (0, 0))
    assert store.store([Record(id="t", state="SUCCESS", result=b"1", fence=(0, 1))]) == []


def test_a_success_of_stock_is_final(server: RedisServer, store: RedisStore) -> None:
    server.call("SET", f"{PREFIX}t", golden.to_bytes(RECORDED["success"]["raw"]))
    assert store.store([Record(id="t", state="FAILURE", result=b"1", fence=(9, 9))]) == ["t"]
    server.call("SET", f"{PREFIX}t", b"\x80\x04\x95}\x94(\x8c\x06status\x94\x8c\x07SUCCESS\x94u.")
    assert store.store([Record(id="t", state="FAILURE", result=b"1", fence=(9, 9))]) == ["t"]
