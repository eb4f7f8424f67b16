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


@pytest.mark.behaviour("B-RESULT-023", "B-RESULT-047")
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


@pytest.mark.behaviour("B-RESULT-046")
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


@pytest.mark.behaviour("B-RESULT-040")
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


# --- chords

CHORDS = {name: golden.load("chords", name) for name in ("simple", "failing")}


def parts_of(recorded: dict[str, Any], moment: str) -> list[tuple[str, str, Any, int]]:
    """Task id, state, result and index of the parts that had ended at a recorded moment."""
    members = recorded[moment].get(f"celery-taskset-meta-{recorded['group_id']}.j", {"value": []})["value"]
    return [(*json.loads(member)[1:], int(score)) for member, score in members]


def joined(store: RedisStore, recorded: dict[str, Any], part: tuple[str, str, Any, int]) -> bool:
    task_id, state, result, index = part
    record = Record(id=task_id, state=state, result=json.dumps(result).encode())
    return store.join_part(recorded["group_id"], index, 0, record)


def keys_of(server: RedisServer, group_id: str) -> dict[str, Any]:
    """The chord's keys and their values, as the recordings have them."""
    found: dict[str, Any] = {}
    for key in map(bytes.decode, server.call("KEYS", f"*{group_id}*")):
        if key.endswith(".j"):
            flat = [value.decode() for value in server.call("ZRANGE", key, 0, -1, "WITHSCORES")]
            found[key] = [[member, float(score)] for member, score in zip(flat[::2], flat[1::2], strict=True)]
        elif key.endswith(".d"):
            found[key] = sorted(value.decode() for value in server.call("SMEMBERS", key))
        else:
            found[key] = server.call("GET", key).decode()
        assert server.call("TTL", key) > 0
    return found


def recorded_keys(recorded: dict[str, Any], moment: str) -> dict[str, Any]:
    values = {key: entry["value"] for key, entry in recorded[moment].items()}
    return {key: sorted(value) if key.endswith(".d") else value for key, value in values.items()}


@pytest.mark.parametrize("name", CHORDS)
def test_a_chord_is_counted_in_the_keys_of_stock(store: RedisStore, server: RedisServer, name: str) -> None:
    recorded = CHORDS[name]
    store.start_chord(recorded["group_id"], 3, b"[]", 4e9)
    server.call("DEL", f"celery-taskset-meta-{recorded['group_id']}")  # stock clients write it for nested headers only
    for part in parts_of(recorded, "midway"):
        assert not joined(store, recorded, part)
        assert not joined(store, recorded, part), "counted twice"
    assert store.get_group(recorded["group_id"]) is None, "not all are there"
    assert keys_of(server, recorded["group_id"]) == recorded_keys(recorded, "midway")


def test_what_stock_workers_counted_is_completed_by_ours(store: RedisStore, server: RedisServer) -> None:
    recorded = CHORDS["failing"]
    group_id, parts = recorded["group_id"], parts_of(recorded, "after")
    key = f"celery-taskset-meta-{group_id}"
    server.call("SET", f"{key}.s", "3", "EX", "86400")
    for (member, score), counted in zip(recorded["midway"][f"{key}.j"]["value"], parts, strict=False):
        server.call("ZADD", f"{key}.j", score, member)
        server.call("SADD", f"{key}.d", f"{counted[0]}:{counted[3]}")
    assert not joined(store, recorded, parts[0]), "stock has counted it"
    assert joined(store, recorded, parts[2])
    assert joined(store, recorded, parts[2]), "whoever tells it again made up for a death"
    assert not joined(store, recorded, parts[1]), "the body is another part's to send"
    ids = [head[0] for head, _ in json.loads(store.get_group(group_id) or b"")[1]]
    assert ids == [task_id for task_id, *_ in parts]
    store.forget_group(group_id)
    assert keys_of(server, group_id) == {f"{key}.c": "done"}
    assert not joined(store, recorded, parts[2])
    assert keys_of(server, group_id) == {f"{key}.c": "done"}


def test_a_claim_of_stock_is_respected_until_it_ends(store: RedisStore, server: RedisServer) -> None:
    recorded = CHORDS["simple"]
    key = f"celery-taskset-meta-{recorded['group_id']}"
    server.call("SET", f"{key}.s", "1", "EX", "86400")
    server.call("SET", f"{key}.c", "0123456789abcdef", "EX", "6")
    part = ("one", "SUCCESS", 2, 0)
    assert not joined(store, recorded, part)
    server.call("DEL", f"{key}.c")
    assert joined(store, recorded, part)
    assert server.call("GET", f"{key}.c") == b"one"
    assert 0 < server.call("TTL", f"{key}.c") < 30


def test_a_group_that_was_only_saved_leaves_nothing(store: RedisStore, server: RedisServer) -> None:
    store.save_group("g", b"[1]", None)
    store.forget_group("g")
    assert server.call("KEYS", "*") == []


def test_parts_may_be_counted_in_a_list(server: RedisServer) -> None:
    server.call("FLUSHALL")
    store = RedisStore(server.url(), {"result_chord_ordered": False})
    store.start_chord("g", 2, b"[]", None)
    assert not store.join_part("g", 0, 2, Record(id="a", state="SUCCESS", result=b"1"))
    assert store.join_part("g", 1, 2, Record(id="b", state="SUCCESS", result=b"\x80", content_type="application/x"))
    assert server.call("LRANGE", "celery-taskset-meta-g.j", 0, -1) == [
        b'[1, "a", "SUCCESS", 1]', b'[1, "b", "SUCCESS", null]',
    ]  # fmt: skip
    store.close()


def test_parts_that_are_counted_together_count_as_those_counted_alone(store: RedisStore) -> None:
    parts = [(index, Record(id=f"p{index}", state="SUCCESS", result=b"%d" % index)) for index in range(5)]
    assert store.join_parts("g", 5, parts[:2]) == ""
    assert store.join_parts("g", 5, parts[:3]) == "", "a part that is told again is counted once"
    assert store.join_parts("g", 5, parts[3:]) == "p4", "the last of those that complete it sends the body"
    assert store.join_parts("g", 5, parts[:2]) == "", "it is for that part, and no other"
    assert store.join_parts("g", 5, [parts[4], parts[0]]) == "p4", "who has it may ask again"
    assert store.join_part("g", 4, 5, parts[4][1])
    assert not store.join_part("g", 0, 5, parts[0][1])
    store.forget_group("g")
    assert store.join_parts("g", 5, parts) == "", "the chord is over"
