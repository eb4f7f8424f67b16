"""The memcached store keeps the contract, on a private server; and what it does when the server doesn't."""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pymemcache.client.base import Client  # type: ignore[import-untyped]
from pymemcache.client.hash import HashClient  # type: ignore[import-untyped]

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured, MessageTooLarge, OperationalError
from celeriac.results.base import ResultStore
from celeriac.results.memcached import RELATIVE, MemcachedStore
from celeriac.results.memory import MemoryStore
from celeriac.results.open import open_store
from celeriac.testing.results import ResultStoreSuite, make_record
from celeriac.testing.worker import start_worker
from tests.support.memcached_server import MemcachedServer

pytestmark = pytest.mark.server("memcached")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemcachedServer]:
    # Room for the suite's pickles of a megabyte, which are kept twice.
    with MemcachedServer(tmp_path_factory.mktemp("memcached"), options=["-I", "4m"]) as server:
        yield server


@pytest.fixture(scope="module")
def both(server: MemcachedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with MemcachedServer(tmp_path_factory.mktemp("second"), options=["-I", "4m"]) as second:
        yield f"cache+memcached://127.0.0.1:{server.port};127.0.0.1:{second.port}/"


@pytest.fixture
def store(server: MemcachedServer) -> Iterator[MemcachedStore]:
    store = MemcachedStore(server.url)
    yield store
    store.close()


@pytest.fixture
def peer(server: MemcachedServer) -> Iterator[Client]:
    """The client that stock Celery uses."""
    client = Client(("127.0.0.1", server.port), default_noreply=False)
    yield client
    client.flush_all()
    client.close()


class TestMemcachedStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, server: MemcachedServer) -> Iterator[MemcachedStore]:
        store = MemcachedStore(server.url)
        yield store
        store.close()

    @pytest.fixture
    def other(self, server: MemcachedServer) -> Iterator[MemcachedStore]:
        other = MemcachedStore(server.url.replace("memcached", "pylibmc"))
        yield other
        other.close()

    def test_cleanup(self, store: ResultStore, other: ResultStore) -> None:
        """The server can't list its keys; it drops what has expired by itself."""
        assert other.cleanup(time.time() + 1000) == 0


class TestSeveralServers(ResultStoreSuite):
    @pytest.fixture
    def store(self, both: str) -> Iterator[MemcachedStore]:
        store = MemcachedStore(both, {"global_keyprefix": "two", "compression": "zlib"})
        yield store
        store.close()

    @pytest.fixture
    def other(self, both: str) -> Iterator[MemcachedStore]:
        other = MemcachedStore(both, {"global_keyprefix": "two_"})
        yield other
        other.close()

    test_cleanup = TestMemcachedStore.test_cleanup


def test_stock_celery_reads_what_we_write(store: MemcachedStore, peer: Client) -> None:
    store.store([make_record("t1", result=b'{"a": [1, 2]}', fence=(1, 2), date_done="2026-11-20T22:44:12+00:00")])
    meta = json.loads(peer.get("celery-task-meta-t1"))
    assert (meta["status"], meta["result"], meta["task_id"]) == ("SUCCESS", {"a": [1, 2]}, "t1")
    kind = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
    store.store([make_record("t2", result=pickle.dumps({1, 2}), **kind)])
    assert pickle.loads(peer.get("celery-task-meta-t2"))["result"] == {1, 2}


def test_we_read_what_stock_celery_writes(store: MemcachedStore, peer: Client) -> None:
    meta = {"status": "SUCCESS", "result": 5, "traceback": None, "children": [], "date_done": None, "task_id": "t3"}
    peer.set("celery-task-meta-t3", json.dumps(meta))
    [record] = store.get(["t3"])
    assert record is not None
    assert (record.state, record.result, record.fence) == ("SUCCESS", b"5", (0, 0))
    assert store.store([make_record("t3", "FAILURE", fence=(3, 3))]) == ["t3"]
    peer.set("celery-taskset-meta-g", json.dumps({"result": [["g", None], []]}))
    assert store.get_group("g") == b'[["g", null], []]'


def test_stock_celery_looks_on_the_same_of_several_servers(both: str) -> None:
    """Celery asks this client, with keys and servers as text."""
    peer = HashClient(both.partition("://")[2].rstrip("/").split(";"), default_noreply=False)
    store = MemcachedStore(both)
    ids = [f"several-{number}" for number in range(40)]
    store.store([make_record(task_id) for task_id in ids])
    assert len(peer.get_many([f"celery-task-meta-{task_id}" for task_id in ids])) == len(ids)
    peer.set("celery-task-meta-theirs", json.dumps({"status": "SUCCESS", "result": 7, "task_id": "theirs"}))
    assert store.get(["theirs"]) != [None]
    for server in peer.clients.values():
        assert server.stats()[b"curr_items"] > 0
    peer.close()
    store.close()


def test_batches_that_meet(server: MemcachedServer) -> None:
    """Whoever is told that a record was stored wins over the older ones, and the last one is never told otherwise."""
    ids = [f"meet-{number}" for number in range(50)]
    stores = [MemcachedStore(server.url) for _ in range(4)]

    def write(attempt: int) -> list[str]:
        batch = [make_record(task_id, "FAILURE", result=b"%d" % attempt, fence=(0, attempt)) for task_id in ids]
        return stores[attempt % 4].store(batch)

    with ThreadPoolExecutor(4) as pool:
        refused = list(pool.map(write, range(1, 13)))
    assert refused[-1] == []
    assert [record and record.result for record in stores[0].get(ids)] == [b"12"] * 50
    for store in stores:
        store.close()


def test_one_too_large_in_a_batch_does_not_harm_the_others(store: MemcachedStore) -> None:
    batch = [make_record(f"among-{number}") for number in range(5)]
    with pytest.raises(MessageTooLarge):
        store.store([*batch, make_record("among-large", result=b'"%b"' % (b"x" * 5_000_000))])
    assert None not in store.get([record.id for record in batch])
    assert store.get(["among-large"]) == [None]


def test_what_the_server_refuses_without_a_word_is_named(
    store: MemcachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a batch on a server with a small `-I`: nothing waits for the answer, and the value isn't there."""
    monkeypatch.setattr("celeriac.results.memcached_node.SMALL", 10_000_000)
    large = make_record("word-b", result=b'"%b"' % (b"x" * 5_000_000))
    with pytest.raises(MessageTooLarge, match=r"option -I"):
        store.store([make_record("word-a"), large, make_record("word-c")])
    assert [record is not None for record in store.get(["word-a", "word-b", "word-c"])] == [True, False, True]


def test_a_record_that_has_expired_already_in_a_batch(store: MemcachedStore) -> None:
    gone = [make_record(f"gone-{number}", expires_at=time.time() - 1) for number in range(3)]
    assert store.store([*gone, make_record("there")]) == []
    assert [record is not None for record in store.get(["gone-0", "there"])] == [False, True]


def test_closing_while_others_use_it(store: MemcachedStore) -> None:
    store.store([make_record("open")])
    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(store.get, ["open"]) for _ in range(200)]
        for _ in range(50):
            store.close()
        assert all(look.result() != [None] for look in looks)


def test_a_name_with_addresses_where_nobody_listens(server: MemcachedServer) -> None:
    store = MemcachedStore(f"cache+memcached://localhost:{server.port}")
    assert store.get(["nothing"]) == [None]
    store.close()


def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        store = MemcachedStore(f"cache+memcached://{tmp_path}/s")

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(100) == b"gets celery-task-meta-a\r\n"
                peer.sendall(b"END\r\n")

        with ThreadPoolExecutor(1) as pool:
            answering = pool.submit(answer)
            assert store.get(["a"]) == [None]
            answering.result()
        store.close()


def test_an_expiry_over_thirty_days_is_not_taken_for_the_past(store: MemcachedStore) -> None:
    store.store([make_record("long", expires_at=time.time() + RELATIVE + 86_400)])
    store.save_group("long", b"[1]", time.time() + RELATIVE * 2)
    assert store.get(["long"]) != [None]
    assert store.get_group("long") == b"[1]"


def test_two_states_of_one_task_in_one_batch(store: MemcachedStore) -> None:
    assert store.store([make_record("two", "STARTED"), make_record("two"), make_record("two", "FAILURE")]) == ["two"]
    [record] = store.get(["two"])
    assert record is not None
    assert record.state == "SUCCESS"


def test_a_result_that_is_too_large_is_named(server: MemcachedServer, store: MemcachedStore) -> None:
    with pytest.raises(MessageTooLarge, match=r"option -I"):
        store.store([make_record("large", result=b'"%b"' % (b"x" * 5_000_000))])
    assert store.store([make_record("small")]) == []


def test_a_restart_loses_results_and_nothing_else(tmp_path: Path) -> None:
    with MemcachedServer(tmp_path / "m") as server:
        store = MemcachedStore(server.url)
        store.store([make_record("a")])
        server.restart()
        assert store.get(["a"]) == [None]
        assert store.store([make_record("a")]) == []
        server.kill()
        with pytest.raises(OperationalError, match=f"memcached at 127.0.0.1:{server.port} can't be reached"):
            store.get(["a"])
        store.close()


def test_outcomes_wait_for_a_server_that_is_down(tmp_path: Path) -> None:
    with MemcachedServer(tmp_path / "m") as server:
        app = Celeriac("m", broker=f"memory://{tmp_path}", backend=server.url, set_as_current=False)
        may_end = threading.Event()

        @app.task
        def slow() -> str:
            may_end.wait(20)
            return "stored"

        with app, start_worker(app, pool="threads"):
            result = slow.delay()
            server.kill()
            may_end.set()
            server.start()
            assert result.get(timeout=20) == "stored"


def test_a_frozen_server_is_given_up(tmp_path: Path) -> None:
    with MemcachedServer(tmp_path / "m") as server:
        store = MemcachedStore(server.url, {"timeout": 0.2})
        store.store([make_record("a")])
        server.freeze()
        with pytest.raises(OperationalError, match="no answer in time"):
            store.get(["a"])
        server.thaw()
        assert store.get(["a"]) != [None]
        store.close()


def test_a_server_that_is_no_memcached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = MemcachedStore(f"cache+memcached://127.0.0.1:{listener.getsockname()[1]}")

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OperationalError, match="does not answer as a memcached server does"):
            store.get(["a"])
        thread.join()
        store.close()


def test_a_fork_does_not_share_connections(store: MemcachedStore) -> None:
    store.store([make_record("f")])
    pid = os.fork()
    if pid == 0:
        os._exit(0 if store.get(["f"]) != [None] and store.get(["g"]) == [None] else 1)
    assert store.get(["f"]) != [None]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_settings_of_celery_are_options(server: MemcachedServer, peer: Client) -> None:
    options = {"behaviors": {"tcp_nodelay": True}, "default_noreply": False, "retry_attempts": 2, "timeout": 1.5}
    app = Celeriac(
        "c", backend=server.url, result_compression="zlib", cache_backend_options=options, set_as_current=False
    )
    assert app.backend is not None
    app.backend.store([make_record("squeezed")])
    assert peer.get("celery-task-meta-squeezed").startswith(b"\0celery-compressed\0")
    assert app.backend.get(["squeezed"]) != [None]
    app.close()


def test_opening() -> None:
    assert isinstance(open_store("cache+memcached://one:1;two:2/", {"timeout": 1}), MemcachedStore)
    assert isinstance(open_store("cache+pylibmc://localhost"), MemcachedStore)
    assert isinstance(open_store("cache+memory://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("cache+memcached://h:port/", {}, "the port must be a number from 1 to 65535, not 'port'"),
        ("cache+memcached://u:secret@h/", {}, "without user and password"),
        ("cache+memcached://h/?timeuot=1", {}, "Did you mean 'timeout'?"),
        (
            "cache+memcached://h/",
            {"global_keyprefix": "a b"},
            "ASCII without blanks, at most 150 characters, not 'a b'",
        ),
        ("cache+memcached://h/", {"timeout": "long"}, "timeout is a number of seconds above 0, not 'long'"),
    ],
)
def test_what_is_wrong_is_said(url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        open_store(url, options)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
