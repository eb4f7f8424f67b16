"""Redis killed, frozen, cut off, full or failed over, and workers killed while they fetch: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import OperationalError
from celeriac.message import Action, Settlement
from celeriac.results.base import Record
from celeriac.results.redis import RedisStore
from celeriac.testing.transports import make_message
from celeriac.transport.base import Commit, QueueSize
from celeriac.transport.redis import RedisTransport
from tests.support.proxy import FaultProxy, Side
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.faults

LONG = 60.0
PATIENCE = 20.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.thaw()
    shared.call("FLUSHALL")
    return shared


@pytest.fixture
def transport(server: RedisServer) -> Iterator[RedisTransport]:
    transport = RedisTransport(server.url(), {"timeout": 0.5})
    yield transport
    transport.close()


def eventually(action: Any) -> Any:
    """The outcome of an action that may still fail for a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except OperationalError:
            if time.monotonic() > deadline:
                raise


def wait_listening(server: RedisServer, *, tracking: int, subscribed: int) -> None:
    """Until so many connections wait for changes of lists, and so many for messages."""
    deadline = time.monotonic() + PATIENCE
    while True:
        clients = [
            dict(f.split("=", 1) for f in line.split()) for line in server.call("CLIENT", "LIST").decode().splitlines()
        ]
        bells = [client for client in clients if "t" in client["flags"] and client["cmd"] == "evalsha"]
        if len(bells) == tracking and sum(client["sub"] != "0" for client in clients) == subscribed:
            return
        assert time.monotonic() < deadline, clients
        time.sleep(0.01)


CONSUMER = """
import os, sys
from celeriac.message import Action, Settlement
from celeriac.results.base import Record
from celeriac.results.redis import RedisStore
from celeriac.transport.base import Commit
from celeriac.transport.redis import RedisTransport

url, ledger = sys.argv[1:]
transport, store = RedisTransport(url), RedisStore(url)
transport.commits_with(store)
ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(1, b"r")
while True:
    deliveries = transport.fetch(["celery"], 7, 5.0, 0.3)
    commits = []
    for delivery in deliveries:
        number = int(delivery.message.id)
        if number % 5 == 1 and delivery.deliveries == 1:
            commits.append(Commit(Settlement(delivery, Action.REQUEUE)))
        else:
            record = Record(id=delivery.message.id, state="SUCCESS", result=b"1", fence=(0, delivery.deliveries))
            os.write(ledger, b"%d\\n" % number)
            commits.append(Commit(Settlement(delivery), record))
    transport.commit(commits)
"""


def test_killed_while_fetching_nothing_is_lost(server: RedisServer, transport: RedisTransport, tmp_path: Path) -> None:
    script, ledger = tmp_path / "consumer.py", tmp_path / "ledger"
    script.write_text(CONSUMER)
    count = 3000
    chance = random.Random(7)
    path = os.pathsep.join(sys.path)
    start = 0
    for _ in range(6):
        consumers = [
            subprocess.Popen(
                [sys.executable, str(script), server.url(), str(ledger)],
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
            for _ in range(2)
        ]
        for consumer in consumers:
            assert consumer.stdout is not None
            assert consumer.stdout.read(1) == b"r"
        stop = start + count // 6
        kill_at = chance.randrange(start, stop)
        for number in range(start, stop):
            transport.publish([make_message(str(number), "celery")])
            if number == kill_at:
                for consumer in consumers:
                    consumer.kill()
        for consumer in consumers:
            consumer.kill()
            consumer.wait()
            assert consumer.stdout is not None
            consumer.stdout.close()
        start = stop
    done = {int(line) for line in ledger.read_text().split()}
    store = RedisStore(server.url())
    stored = {number for number, record in enumerate(store.get([str(n) for n in range(count)])) if record is not None}
    assert stored <= done
    left: set[int] = set()
    while transport.size("celery") != QueueSize(0, 0, 0):
        deliveries = transport.fetch(["celery"], 100, 1.0, LONG)
        left |= {int(delivery.message.id) for delivery in deliveries}
        assert transport.settle([Settlement(delivery) for delivery in deliveries]) == []
    assert stored | left == set(range(count))
    assert stored & left == set()  # stored and acknowledged is one step
    assert server.call("HLEN", "unacked") == server.call("ZCARD", "unacked_index") == 0
    store.close()


def test_a_killed_server_keeps_what_it_confirmed(server: RedisServer, transport: RedisTransport) -> None:
    transport.publish([make_message(str(n), "celery") for n in range(50)])
    held = transport.fetch(["celery"], 10, 1, LONG)
    server.kill()
    with pytest.raises(OperationalError, match=r"redis://127\.0\.0\.1"):
        transport.publish([make_message("no", "celery")])
    with pytest.raises(OperationalError):
        transport.fetch(["celery"], 10, 1, LONG)
    server.start()
    assert eventually(lambda: transport.settle([Settlement(delivery) for delivery in held])) == []
    rest = transport.fetch(["celery"], 100, 1, LONG)
    assert sorted(int(each.message.id) for each in held + rest) == list(range(50))


def test_a_frozen_server_fails_within_the_timeout(server: RedisServer, transport: RedisTransport) -> None:
    store = RedisStore(server.url(), {"timeout": 0.5})
    transport.publish([make_message("before", "celery")])
    store.get(["x"])
    server.freeze()
    try:
        for action in (
            lambda: transport.publish([make_message("m", "celery")]),
            lambda: transport.fetch(["celery"], 1, PATIENCE, LONG),
            lambda: transport.broadcast("t", b"x"),
            lambda: store.store([Record(id="x", state="SUCCESS", result=b"1")]),
            lambda: store.wait(["x"], PATIENCE),
        ):
            with pytest.raises(OperationalError, match="no answer in time"):
                action()
    finally:
        server.thaw()
    [first, *_] = eventually(lambda: transport.fetch(["celery"], 10, 1, LONG))
    assert first.message.id == "before"
    store.close()


def test_a_cut_connection_ends_a_wait_and_the_next_works(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        transport, store = RedisTransport(url), RedisStore(url)
        subscription = transport.subscribe(["topic"])
        with ThreadPoolExecutor(3) as pool:
            waiting = [
                pool.submit(transport.fetch, ["celery"], 1, 600.0, LONG),
                pool.submit(store.wait, ["x"], 600.0),
                pool.submit(subscription.poll, 600.0),
            ]
            wait_listening(server, tracking=1, subscribed=2)
            proxy.cut()
            for each in waiting[::2]:
                with pytest.raises(OperationalError):
                    each.result(PATIENCE)
            eventually(lambda: transport.publish([make_message("m", "celery")]))
            assert [each.message.id for each in eventually(lambda: transport.fetch(["celery"], 1, 1, LONG))] == ["m"]
            eventually(lambda: store.store([Record(id="x", state="SUCCESS", result=b"1")]))
            try:
                assert [record.id for record in waiting[1].result(PATIENCE)] == ["x"]
            except OperationalError:
                assert [record.id for record in store.wait(["x"], PATIENCE)] == ["x"]
            assert eventually(lambda: subscription.poll(0.05)) == []
            eventually(lambda: transport.broadcast("topic", b"again"))
            assert subscription.poll(PATIENCE) == [("topic", b"again")]
        subscription.close()
        transport.close()
        store.close()


def test_many_waiting_fetches_are_woken_and_each_message_comes_once(server: RedisServer) -> None:
    transports = [RedisTransport(server.url()) for _ in range(4)]
    count, seen, finished = 200, [], threading.Event()

    def consume(transport: RedisTransport) -> None:
        while not finished.is_set():
            deliveries = transport.fetch(["celery"], 3, 60.0, LONG)
            seen.extend(delivery.message.id for delivery in deliveries)
            transport.settle([Settlement(delivery) for delivery in deliveries])
            if len(seen) >= count:
                finished.set()
                for each in transports:
                    each.interrupt()

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(consume, transport) for transport in transports]
        with RedisTransportContext(server) as publisher:
            for number in range(count):
                publisher.publish([make_message(str(number), "celery")])
        for job in jobs:
            job.result(PATIENCE)
    assert sorted(seen, key=int) == [str(number) for number in range(count)]
    for transport in transports:
        transport.close()


class RedisTransportContext:
    """A transport for a `with` block."""

    def __init__(self, server: RedisServer) -> None:
        self.transport = RedisTransport(server.url(), {"delay_at_publish": True})

    def __enter__(self) -> RedisTransport:
        return self.transport

    def __exit__(self, *_: object) -> None:
        self.transport.close()


def test_a_frozen_worker_is_taken_over_and_fenced(server: RedisServer, transport: RedisTransport) -> None:
    other, store = RedisTransport(server.url()), RedisStore(server.url())
    assert transport.commits_with(store)
    transport.publish([make_message("m", "celery")])
    [slow] = transport.fetch(["celery"], 1, 1, 0.1)
    [fast] = other.fetch(["celery"], 1, PATIENCE, LONG)
    assert (fast.deliveries, fast.token != slow.token) == (2, True)
    late = Record(id="m", state="SUCCESS", result=b'"late"', fence=(0, slow.deliveries))
    assert transport.commit([Commit(Settlement(slow), late, [make_message("next", "celery")])]) == [slow]
    assert store.get(["m"]) == [None]
    assert other.settle([Settlement(fast, Action.REQUEUE)]) == []
    assert other.size("celery") == QueueSize(1, 0, 0)
    other.close()
    store.close()


def test_a_hundred_thousand_delayed_cost_nothing(server: RedisServer) -> None:
    with FaultProxy(server.port) as proxy, RedisTransportContext(server) as publisher:
        later = time.time() + 3600
        for start in range(0, 100_000, 5000):
            publisher.publish([make_message(str(start + n), "celery", eta=later + n) for n in range(5000)])
        assert publisher.size("celery").delayed == 100_000
        transport = RedisTransport(f"redis://127.0.0.1:{proxy.port}/0")
        publisher.publish([make_message("now", "celery"), make_message("soon", "celery", eta=time.time() + 0.2)])
        came = [each.message.id for _ in range(2) for each in transport.fetch(["celery"], 10, PATIENCE, LONG)]
        assert came == ["now", "soon"]
        before = proxy.forwarded(Side.CLIENT)
        assert transport.fetch(["celery"], 10, 0.3, LONG) == []
        assert proxy.forwarded(Side.CLIENT) - before < 1000  # bytes: nothing of them travels
        assert publisher.purge("celery") == 100_000
        transport.close()


def test_a_full_server_refuses_and_recovers(server: RedisServer, transport: RedisTransport) -> None:
    store = RedisStore(server.url())
    assert transport.commits_with(store)
    transport.publish([make_message("m", "celery"), make_message("n", "celery")])
    [delivery] = transport.fetch(["celery"], 1, 1, LONG)
    record = Record(id="m", state="SUCCESS", result=b"1")
    server.call("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(OperationalError, match="it is full"):
            transport.publish([make_message("more", "celery")])
        with pytest.raises(OperationalError, match="it is full"):
            transport.commit([Commit(Settlement(delivery), record)])
        assert transport.extend([delivery], LONG) == []
        transport.mark_started([delivery])
        [other] = transport.fetch(["celery"], 1, 1, LONG)
        assert transport.settle([Settlement(other)]) == []  # a queue can always be emptied
    finally:
        server.call("CONFIG", "SET", "maxmemory", "0")
    assert transport.commit([Commit(Settlement(delivery), record)]) == []
    assert store.get(["m"]) == [record]
    store.close()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("maxmemory-policy", "allkeys-lru", "Set it to noeviction"),
        ("appendfsync", "everysec", "loses the last second"),
        ("appendfsync", "no", "appendfsync is no"),
        ("appendonly", "no", "loses everything"),
        (None, None, None),
    ],
)
def test_what_the_server_may_lose_is_told(
    server: RedisServer, transport: RedisTransport, name: str | None, value: str | None, told: str | None
) -> None:
    before = server.call("CONFIG", "GET", name)[1] if name else None
    if name:
        server.call("CONFIG", "SET", name, value)
    try:
        report = transport.durability_report()
    finally:
        if name:
            server.call("CONFIG", "SET", name, before)
    assert [told in line for line in report] == ([True] if told else [])


def test_a_replica_says_so(server: RedisServer, transport: RedisTransport) -> None:
    server.call("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(OperationalError, match="it is a replica"):
            transport.publish([make_message("m", "celery")])
        assert any("this is a replica" in line for line in transport.durability_report())
    finally:
        server.call("REPLICAOF", "NO", "ONE")
    transport.publish([make_message("m", "celery")])


def test_a_key_of_another_type_loses_nothing(server: RedisServer, transport: RedisTransport) -> None:
    transport.publish([make_message("m", "good")])
    server.call("SET", "bad", "x")
    with pytest.raises(OperationalError, match="another type"):
        transport.publish([make_message("n", "bad")])
    for _ in range(2):  # the first queue in turn is another one each time
        with pytest.raises(OperationalError, match="another type"):
            transport.fetch(["good", "bad"], 10, 0, 0.05)
    server.call("DEL", "bad")
    assert [each.message.id for each in transport.fetch(["good", "bad"], 10, PATIENCE, LONG)] == ["m"]


def test_after_a_fork_nobody_uses_the_parents_connections(server: RedisServer, transport: RedisTransport) -> None:
    transport.publish([make_message("parent", "celery")])
    assert transport.fetch(["none"], 1, 0.05, LONG) == []  # a bell is open, too
    child = os.fork()
    if child == 0:
        try:
            transport.publish([make_message("child", "celery")])
            transport.fetch(["none"], 1, 0.05, LONG)
            transport.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert transport.fetch(["none"], 1, 0.05, LONG) == []
    assert [each.message.id for each in transport.fetch(["celery"], 10, 1, LONG)] == ["parent", "child"]


def test_scripts_are_loaded_again(server: RedisServer, transport: RedisTransport) -> None:
    transport.publish([make_message("m", "celery")])
    server.call("SCRIPT", "FLUSH")
    [delivery] = transport.fetch(["celery"], 1, 1, LONG)
    server.call("SCRIPT", "FLUSH")
    assert transport.settle([Settlement(delivery)]) == []


def test_a_worker_that_waits_is_woken_by_messages_and_not_by_the_ends_of_leases(
    server: RedisServer, transport: RedisTransport
) -> None:
    with ThreadPoolExecutor(1) as pool, RedisTransportContext(server) as other:
        other.publish([make_message(f"busy{number}", "celery") for number in range(3)])
        held = other.fetch(["celery"], 9, 0, LONG)
        waiting = pool.submit(transport.fetch, ["celery"], 9, PATIENCE, LONG)
        wait_listening(server, tracking=1, subscribed=0)
        before = server.scripts_run()
        for delivery in held:
            other.settle([Settlement(delivery)])
        other.publish([make_message("new", "celery")])
        assert [each.message.id for each in waiting.result(PATIENCE)] == ["new"]
        assert server.scripts_run() - before == 3 + 1, "each end of a lease is a script, and one fetch"


@pytest.mark.parametrize("refused", ["tracking", "caching"])
def test_without_tracking_the_bell_looks_from_time_to_time(server: RedisServer, refused: str) -> None:
    server.call("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", f"-client|{refused}")
    transport = RedisTransport(f"redis://limited:pw@127.0.0.1:{server.port}/0", {"polling_interval": 0.01})
    with ThreadPoolExecutor(1) as pool, RedisTransportContext(server) as publisher:
        waiting = pool.submit(transport.fetch, ["celery"], 1, PATIENCE, LONG)
        publisher.publish([make_message("m", "celery")])
        assert [each.message.id for each in waiting.result(PATIENCE)] == ["m"]
        waiting = pool.submit(transport.fetch, ["celery"], 1, 600.0, LONG)
        while not waiting.done():
            transport.interrupt()
        assert waiting.result() == []
    transport.close()


def test_a_frozen_worker_process_loses_its_lease(
    server: RedisServer, transport: RedisTransport, tmp_path: Path
) -> None:
    script = tmp_path / "holder.py"
    script.write_text(
        "import sys\nfrom celeriac.transport.redis import RedisTransport\nfrom celeriac.message import Settlement\n"
        "t = RedisTransport(sys.argv[1])\n[d] = t.fetch(['celery'], 1, 60, 0.2)\nprint('held', flush=True)\n"
        "input()\nprint(len(t.settle([Settlement(d)])), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script), server.url()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:  # fmt: skip
        assert holder.stdin is not None
        assert holder.stdout is not None
        transport.publish([make_message("m", "celery")])
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        [taken] = transport.fetch(["celery"], 1, PATIENCE, LONG)
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "1\n"
    assert transport.settle([Settlement(taken)]) == []
