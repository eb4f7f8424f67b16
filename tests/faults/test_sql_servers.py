"""PostgreSQL and MariaDB killed, restarted, frozen and cut off under load: nothing is lost, and the next call works."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import OperationalError
from celeriac.message import Delivery, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.results.open import open_store
from celeriac.testing.transports import PATIENCE, make_message
from celeriac.transport.base import Commit, QueueSize, Transport
from celeriac.transport.open import open_transport
from tests.faults.apps.rig import Rig
from tests.support.files import eventually
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.proxy import FaultProxy
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.faults

SqlServer = PostgresServer | MariadbServer


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[SqlServer]:
    with open_folder() as folder:
        if request.param == "postgres":
            with PostgresServer(folder / "postgres") as postgres:
                yield postgres
        else:
            with MariadbServer(folder / "mariadb") as mariadb:
                yield mariadb


@pytest.fixture(autouse=True)
def _healthy(server: SqlServer) -> Iterator[None]:
    yield
    server.thaw()
    server.wait_answering()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what a test opened."""
    with ExitStack() as stack:
        yield stack


def transport_of(server: SqlServer, opened: ExitStack, query: str = "?timeout=1") -> Transport:
    transport = open_transport(server.url + query)
    opened.callback(transport.close)
    return transport


def store_of(server: SqlServer, opened: ExitStack, query: str = "?timeout=1") -> ResultStore:
    store = open_store(f"db+{server.url}{query}")
    opened.callback(store.close)
    return store


def names(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def drain(transport: Transport, queue: str) -> list[str]:
    found: list[str] = []
    while deliveries := transport.fetch([queue], 100, 0, 60):
        found += names(deliveries)
        transport.settle([Settlement(delivery) for delivery in deliveries])
    return found


class Load:
    """Two publishers, two consumers that commit outcomes, and what each of them was told."""

    def __init__(self, server: SqlServer, opened: ExitStack, queue: str) -> None:
        self.queue = queue
        self.accepted: list[str] = []
        self.failures = 0
        self.stop = threading.Event()
        self.transports = [transport_of(server, opened) for _ in range(4)]
        self.store = store_of(server, opened)
        for transport in self.transports:
            assert transport.commits_with(self.store)
        self.pool = ThreadPoolExecutor(4)
        self.jobs = [self.pool.submit(self.publish, number) for number in range(2)]
        self.jobs += [self.pool.submit(self.consume, number) for number in range(2, 4)]

    def publish(self, number: int) -> None:
        count = 0
        while not self.stop.is_set():
            name = f"{self.queue}-{number}-{count}"
            try:
                self.transports[number].publish([make_message(name, self.queue)])
            except OperationalError:
                self.failures += 1
                time.sleep(0.02)
                continue
            self.accepted.append(name)
            count += 1

    def consume(self, number: int) -> None:
        transport = self.transports[number]
        while not self.stop.is_set():
            try:
                deliveries = transport.fetch([self.queue], 5, 0.2, 2.0)
                transport.commit([
                    Commit(Settlement(each), Record(id=each.message.id, state="SUCCESS", result=b"1", fence=(0, each.deliveries)))
                    for each in deliveries
                ])  # fmt: skip
            except OperationalError:
                self.failures += 1
                time.sleep(0.02)

    def progress(self, more: int = 30) -> None:
        """Wait until some more were accepted and stored."""
        goal = len(self.accepted) + more
        eventually(lambda: len(self.accepted) >= goal, PATIENCE)
        last = self.accepted[-1]
        eventually(lambda: self.store.get([last])[0] is not None, PATIENCE)

    def end(self) -> None:
        """Stop, and check that nothing accepted is lost: each has an outcome, and no message is left."""
        self.stop.set()
        for job in self.jobs:
            job.result(PATIENCE)
        self.pool.shutdown()
        transport = self.transports[0]

        def all_done() -> bool:
            deliveries = transport.fetch([self.queue], 100, 0.1, 60)
            transport.commit([
                Commit(Settlement(each), Record(id=each.message.id, state="SUCCESS", result=b"1", fence=(0, each.deliveries)))
                for each in deliveries
            ])  # fmt: skip
            return transport.size(self.queue) == QueueSize(0, 0, 0)

        eventually(all_done, PATIENCE)
        missing = [
            name for name, record in zip(self.accepted, self.store.get(self.accepted), strict=True) if not record
        ]
        assert missing == []


def test_a_killed_server_loses_nothing(server: SqlServer, opened: ExitStack) -> None:
    load = Load(server, opened, "killed")
    for _ in range(3):
        load.progress()
        server.restart()
    load.progress()
    assert load.failures > 0
    load.end()


def test_a_frozen_server_costs_no_call_more_than_its_timeout(server: SqlServer, opened: ExitStack) -> None:
    transport, store = transport_of(server, opened, "?timeout=0.5"), store_of(server, opened, "?timeout=0.5")
    fresh = transport_of(server, opened, "?timeout=0.5")
    transport.publish([make_message("before", "frozen")])
    [delivery] = transport.fetch(["frozen"], 1, PATIENCE, 60)
    store.get(["x"])
    calls: list[Callable[[], object]] = [
        lambda: transport.publish([make_message("lost?", "elsewhere")]),
        lambda: transport.fetch(["frozen"], 1, 5, 60),
        lambda: transport.extend([delivery], 60),
        lambda: store.get(["x"]),
        lambda: fresh.size("frozen"),
    ]
    server.freeze()
    with ThreadPoolExecutor(10) as pool:
        for job in [pool.submit(call) for call in calls * 2]:
            with pytest.raises(OperationalError, match=r"did not answer in time \(at most 0\.5 s\)|timeout|timed out"):
                job.result(PATIENCE)
    server.thaw()
    eventually(lambda: _works(lambda: transport.size("frozen")), PATIENCE)
    assert transport.settle([Settlement(delivery)]) == []
    transport.publish([make_message("after", "frozen")])
    assert drain(transport, "frozen") == ["after"]


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except OperationalError:
        return False
    return True


def test_a_frozen_server_under_load(server: SqlServer, opened: ExitStack) -> None:
    load = Load(server, opened, "thawed")
    load.progress()
    server.freeze()
    seen = load.failures
    eventually(lambda: load.failures >= seen + 4, PATIENCE)
    server.thaw()
    load.progress()
    load.end()


def test_the_first_call_after_a_restart_works(server: SqlServer, opened: ExitStack) -> None:
    transport, store = transport_of(server, opened), store_of(server, opened)
    transport.publish([make_message("before", "restart")])
    store.store([Record(id="restart", state="SUCCESS", result=b"1")])
    server.restart()
    transport.publish([make_message("after", "restart")])
    assert [record is not None for record in store.get(["restart"])] == [True]
    assert drain(transport, "restart") == ["before", "after"]


def test_waiters_are_woken_after_a_restart(server: SqlServer, opened: ExitStack) -> None:
    transport, other = transport_of(server, opened), transport_of(server, opened)
    subscription = transport.subscribe(["news"])
    server.restart()

    def hears() -> bool:
        other.broadcast("news", b"x")
        try:
            return subscription.poll(0.1) != []
        except OperationalError:
            return False

    eventually(hears, PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(transport.fetch, ["woken"], 1, PATIENCE, 60)
        other.publish([make_message("m", "woken")])
        assert names(waiting.result(PATIENCE)) == ["m"]
    subscription.close()


@pytest.mark.parametrize("trouble", ["cut", "deaf", "refuse"])
def test_a_bad_network(server: SqlServer, opened: ExitStack, trouble: str) -> None:
    with FaultProxy(server.port) as proxy:
        url = server.url.replace(str(server.port), str(proxy.port)) + "?timeout=0.5"
        transport = open_transport(url)
        opened.callback(transport.close)
        transport.publish([make_message("before", trouble)])
        getattr(proxy, trouble)()
        if trouble != "cut":
            with pytest.raises(OperationalError, match=r"://celeriac:\*\*@127"):
                while True:  # "refuse" spares the connections that exist
                    transport.publish([make_message("meanwhile", "elsewhere")])
                    transport.close()
        proxy.heal()
        eventually(lambda: _works(lambda: transport.size(trouble)), PATIENCE)
        transport.publish([make_message("after", trouble)])
        assert drain(transport, trouble) == ["before", "after"]


def test_eight_processes_create_the_tables_at_once(server: SqlServer) -> None:
    with server.connect() as connection:
        cursor = connection.cursor()
        for table in (
            "messages",
            "dead_letters",
            "exchanges",
            "bindings",
            "broadcasts",
            "chords",
            "chord_parts",
            "results",
        ):
            cursor.execute(f"DROP TABLE IF EXISTS celeriac_{table}")
        cursor.execute("DROP TABLE IF EXISTS celeriac_meta")
        cursor.execute("DROP TABLE IF EXISTS celery_taskmeta")
        cursor.execute("DROP TABLE IF EXISTS celery_tasksetmeta")
    code = """
        import sys
        from celeriac.message import Message
        from celeriac.results.base import Record
        from celeriac.results.open import open_store
        from celeriac.transport.open import open_transport
        url, number = sys.argv[1:]
        print("here", flush=True)
        sys.stdin.readline()
        transport, store = open_transport(url), open_store("db+" + url)
        transport.publish([Message(id=number, headers={}, body=b"", queue="race")])
        assert store.store([Record(id="race-" + number, state="SUCCESS", result=b"1")]) == []
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), server.url, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for number in range(8)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0] * 8, ends
    with ExitStack() as opened:
        assert sorted(drain(transport_of(server, opened), "race")) == [str(number) for number in range(8)]
        assert None not in store_of(server, opened).get([f"race-{number}" for number in range(8)])


def test_a_forked_child_has_connections_of_its_own(server: SqlServer, opened: ExitStack) -> None:
    transport = transport_of(server, opened, "")
    transport.publish([make_message("parent", "fork")])
    child = os.fork()
    if child == 0:
        try:
            transport.publish([make_message("child", "fork")])
            os._exit(0)
        except BaseException:  # noqa: BLE001 -- the child must not run on into pytest
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    transport.publish([make_message("parent again", "fork")])
    assert drain(transport, "fork") == ["parent", "child", "parent again"]


def test_no_connection_or_thread_is_left_behind(server: SqlServer, opened: ExitStack) -> None:
    transport = transport_of(server, opened, "?pool_size=2&max_overflow=30")
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda number: transport.publish([make_message(str(number), "many")]), range(200)))
    transport.fetch(["none"], 1, 0.05, 60)
    transport.close()
    sockets = [link for link in os.listdir("/proc/self/fd") if _peer_is(link, server.port)]
    assert sockets == []
    assert not [thread.name for thread in threading.enumerate() if thread.name == "celeriac-listener"]
    assert len(drain(transport, "many")) == 200


def _peer_is(fd: str, port: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(int(fd))) as sock:
            return sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getpeername()[1] == port
    except OSError:
        return False


def test_a_worker_frozen_past_its_lease_is_fenced(
    server: SqlServer, tmp_path: Path, start_worker: Callable[..., WorkerProcess]
) -> None:
    rig = Rig(tmp_path, start_worker, is_one_file=True)
    rig.app.close()
    rig.broker_url, rig.store_url = server.url, f"db+{server.url}"
    rig.worker_store_url = rig.store_url
    rig.app = Celeriac("client", broker=rig.broker_url, backend=rig.store_url, set_as_current=False)
    rig.settings["task_lease"] = 1.5
    first = rig.worker("-c", "1")
    results = rig.send_work(["task"], lambda: 0.5)
    rig.wait_start("task")
    first.kill_tree(signal.SIGSTOP)
    second = rig.worker("-c", "1")
    rig.wait_start("task", number=2)
    rig.wait_ended(results)
    record = rig.records(results)["task"]
    assert results["task"].get(timeout=5) == ["task", "w2@test"]
    first.kill_tree(signal.SIGCONT)
    first.wait_output(r"outcome of work\[.*\] refused: its lease was lost")
    assert rig.records(results)["task"] == record, "the late outcome has replaced the other"
    more = rig.send_work([f"more{number}" for number in range(20)], lambda: 0.01)
    rig.wait_ended(more)
    rig.assert_succeeded(more)
    rig.assert_empty()
    assert [first.stop(), second.stop()] == [0, 0]
    rig.app.close()
