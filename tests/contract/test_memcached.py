"""The memcached store keeps the contract, on a private server; and what it does when the server doesn't."""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymemcache.client.base import Client  # type: ignore[import-untyped]

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
    options = {"behaviors": {"tcp_nodelay": True}, "timeout": 1.5}
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
        ("cache+memcached://h/", {"timeout": "long"}, "timeout is a number of seconds above 0, not 'long'"),
    ],
)
def test_what_is_wrong_is_said(url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        open_store(url, options)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
