"""RabbitMQ killed, frozen, cut off, out of memory or short of a node; consumers killed; leases that outlast its patience."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from celeriac.errors import OperationalError
from celeriac.message import Action, Delivery, Settlement
from celeriac.routing import Queue
from celeriac.testing.transport_case import make_message, names
from celeriac.timing import Deadline
from celeriac.transport.amqp import AmqpTransport
from celeriac.transport.amqp_request import cancel, consume, look_up, prefetch
from tests.support.files import eventually
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq_server import RabbitMQServer, rabbitmq_cluster

pytestmark = [pytest.mark.server("rabbitmq"), pytest.mark.faults, pytest.mark.slow]

T = TypeVar("T")
PATIENCE = 30.0
LONG = 60.0
#: Longest wait for the server in these tests.
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    with RabbitMQServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def server(shared: RabbitMQServer) -> RabbitMQServer:
    """Running, whatever the test before has done to it."""
    shared.thaw()
    try:
        assert shared.answers()
    except Exception:
        shared.restart()
    return shared


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return f"q-{request.node.name[:60]}-{time.monotonic_ns()}"


@pytest.fixture
def connect(server: RabbitMQServer) -> Iterator[Callable[..., AmqpTransport]]:
    """Opens transports with a short timeout: `connect()`, `connect(url, option=…)`."""
    opened: list[AmqpTransport] = []

    def open_one(url: str = "", **options: object) -> AmqpTransport:
        transport = AmqpTransport(url or server.url, {"timeout": TIMEOUT, **options})
        opened.append(transport)
        return transport

    yield open_one
    server.thaw()
    for transport in opened:
        transport.close()


def at_last(action: Callable[[], T]) -> T:
    """What an action gives that may fail for a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def drain(transport: AmqpTransport, queue: str, count: int) -> list[str]:
    """Ids of so many different messages, acknowledged."""
    seen: dict[str, None] = {}
    deadline = time.monotonic() + PATIENCE
    while len(seen) < count and time.monotonic() < deadline:
        deliveries = at_last(lambda: transport.fetch([queue], 100, 0.5, LONG))
        transport.settle([Settlement(delivery) for delivery in deliveries])
        seen.update(dict.fromkeys(names(deliveries)))
    return list(seen)


def drain_until(transport: AmqpTransport, queue: str, wanted: set[str]) -> set[str]:
    """Ids of all messages that came until these had."""
    seen: set[str] = set()
    while not wanted <= seen:
        more = drain(transport, queue, 1)
        assert more, f"only {seen} came"
        seen |= set(more)
    return seen


def first(transport: AmqpTransport, queue: str) -> Delivery:
    """One message, on lease."""
    [delivery] = at_last(lambda: transport.fetch([queue], 1, PATIENCE, LONG))
    return delivery


def sockets() -> int:
    return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in os.listdir("/proc/self/fd")
               if os.path.lexists(f"/proc/self/fd/{fd}"))  # fmt: skip


# --- the server


def test_what_was_confirmed_survives_the_servers_death(
    server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str
) -> None:
    confirmed: list[str] = []
    sender = connect()
    sender.declare([Queue(queue)])
    enough, stop = threading.Event(), threading.Event()

    def send() -> None:
        number = 0
        while not stop.is_set():
            batch = [f"m{number + i}" for i in range(7)]
            try:
                sender.publish([make_message(name, queue) for name in batch])
            except OperationalError:
                return
            confirmed.extend(batch)
            number += 7
            if number > 500:
                enough.set()

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        assert enough.wait(PATIENCE)
        server.kill()
        stop.set()
        sending.result(PATIENCE)
    server.start()
    found = drain(connect(), queue, len(confirmed))
    assert set(confirmed) <= set(found)


def test_a_frozen_server_is_an_error_in_time_and_no_growth(
    server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str
) -> None:
    transport = connect()
    transport.publish([make_message("before", queue)])
    server.freeze()
    before = threading.active_count()

    def attempt(number: int) -> None:
        with pytest.raises(OperationalError, match=r"guest:\*\*@"):
            transport.publish([make_message(f"m{number}", queue)])

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(attempt, range(100)))
    assert threading.active_count() <= before + 1
    with pytest.raises(OperationalError):
        transport.fetch([queue], 1, 0.1, LONG)
    server.thaw()
    # What was given up is closed at the server, too: it would keep its leases there for good.
    eventually(lambda: server.evaluate("length(rabbit_networking:connections()).") in ("0", "1", "2"), PATIENCE)
    at_last(lambda: transport.publish([make_message("after", queue)]))
    drain_until(transport, queue, {"before", "after"})


def test_a_restarted_server_gives_back_what_was_on_lease(
    server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str
) -> None:
    transport, other = connect(), connect()
    transport.publish([make_message("m", queue)])
    lost = first(transport, queue)
    server.restart()
    assert transport.extend([lost], LONG) == [lost]
    assert transport.settle([Settlement(lost)]) == [lost]
    again = first(other, queue)
    assert (again.message.id, again.redelivered) == ("m", True)
    assert other.settle([Settlement(again)]) == []


def test_out_of_memory(server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str) -> None:
    transport = connect()
    transport.publish([make_message("before", queue)])
    server.raise_memory_alarm()

    def is_blocked() -> bool:
        try:
            transport.publish([make_message("blocked", queue)])
        except OperationalError as exc:
            assert "blocked by the broker: low on memory" in str(exc)
            return True
        return False  # the server's connections hear of the alarm a moment after the command has ended

    try:
        eventually(is_blocked, PATIENCE)
        assert is_blocked() and is_blocked()
        delivery = first(transport, queue)  # who publishes waits, who consumes does not
        assert delivery.message.id == "before"
        assert transport.settle([Settlement(delivery)]) == []
    finally:
        server.clear_memory_alarm()
    at_last(lambda: transport.publish([make_message("after", queue)]))
    # The first one was on its way when the alarm became known: it may come, as after any error in between.
    assert drain_until(transport, queue, {"after"}) <= {"after", "blocked"}


# --- the network


def test_cut_connections_are_made_anew_without_growth(
    server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str
) -> None:
    with FaultProxy(server.port) as proxy:
        transport = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}//")
        transport.publish([make_message("first", queue)])
        drain(transport, queue, 1)
        threads, descriptors = threading.active_count(), sockets()
        for number in range(100):
            proxy.cut()
            at_last(lambda: transport.publish([make_message(f"m{number}", queue)]))  # noqa: B023 -- called at once
            delivery = first(transport, queue)
            transport.settle([Settlement(delivery)])
        assert threading.active_count() <= threads + 1
        assert sockets() <= descriptors + 3
        transport.close()


@pytest.mark.parametrize("how", ["cut", "deaf"])
def test_a_fetch_that_waits_survives_the_network(
    server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str, how: str
) -> None:
    direct = connect()
    direct.declare([Queue(queue)])
    with FaultProxy(server.port) as proxy:
        transport = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}//")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(first, transport, queue)
            eventually(lambda: proxy.connections, PATIENCE)
            getattr(proxy, how)()
            if how == "deaf":
                proxy.cut()
            proxy.heal()
            direct.publish([make_message("m", queue)])
            assert waiting.result(PATIENCE).message.id == "m"
        transport.close()


def test_slices_and_a_slow_network(server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str) -> None:
    with FaultProxy(server.port) as proxy:
        transport = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}//", timeout=20)
        proxy.slice(50)
        transport.publish([make_message(f"m{i}", queue) for i in range(20)])
        assert drain(transport, queue, 20) == [f"m{i}" for i in range(20)]
        proxy.heal()
        transport.close()


def test_the_next_host_is_tried(server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str) -> None:
    dead = "amqp://guest:secret@127.0.0.1:1//"
    for strategy in ("round-robin", "shuffle"):
        transport = connect(f"{dead};{server.url};{dead}", failover_strategy=strategy)
        transport.publish([make_message(strategy, queue)])
        assert drain(transport, queue, 1) == [strategy]
    transport = connect(f"{dead};{dead}")
    with pytest.raises(OperationalError, match="127.0.0.1:1") as raised:
        transport.publish([make_message("m", queue)])
    assert "secret" not in str(raised.value)


# --- consumers


CONSUMER = """
import sys
from celeriac.transport.amqp import AmqpTransport
transport = AmqpTransport(sys.argv[1])
deliveries = transport.fetch([sys.argv[2]], 50, 10.0, 60.0)
print(len(deliveries), flush=True)
sys.stdin.read()
"""


def test_a_killed_consumer_loses_nothing(
    server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str
) -> None:
    transport = connect()
    transport.publish([make_message(f"m{i}", queue) for i in range(100)])
    victim = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, server.url, queue], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    assert int(victim.stdout.readline()) > 0
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert sorted(drain(transport, queue, 100)) == sorted(f"m{i}" for i in range(100))


def test_a_fork_makes_connections_of_its_own(connect: Callable[..., AmqpTransport], queue: str) -> None:
    transport = connect()
    transport.publish([make_message("parent", queue)])
    delivery = first(transport, queue)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            transport.publish([make_message("child", queue)])
            assert transport.settle([Settlement(delivery)]) == [delivery]
            transport.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert transport.settle([Settlement(delivery)]) == []
    assert drain(transport, queue, 1) == ["child"]


@pytest.fixture
def impatient(server: RabbitMQServer) -> Iterator[float]:
    """The server's consumer_timeout is two seconds."""
    server.evaluate("application:set_env(rabbit, channel_tick_interval, 200).")
    server.evaluate("application:set_env(rabbit, consumer_timeout, 2000).")
    yield 2.0
    server.evaluate("application:set_env(rabbit, consumer_timeout, 1800000).")
    server.evaluate("application:set_env(rabbit, channel_tick_interval, 60000).")


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_lease_outlasts_the_consumer_timeout(
    connect: Callable[..., AmqpTransport], queue: str, impatient: float, kind: str
) -> None:
    transport, other = connect(consumer_timeout=impatient), connect()
    transport.declare([Queue(queue, queue_arguments={"x-queue-type": kind})])
    transport.publish([make_message("long", queue)])
    delivery = first(transport, queue)
    assert other.fetch([queue], 1, 3 * impatient, LONG) == []
    assert transport.extend([delivery], LONG) == []
    assert transport.settle([Settlement(delivery)]) == []
    assert other.fetch([queue], 1, 0.2, LONG) == []


def test_the_consumer_timeout_is_learned(connect: Callable[..., AmqpTransport], queue: str, impatient: float) -> None:
    transport, other = connect(), connect()
    transport.publish([make_message("long", queue)])
    lost = first(transport, queue)
    again = first(other, queue)
    other.settle([Settlement(again)])
    assert transport.settle([Settlement(lost)]) == [lost]
    at_last(lambda: transport.fetch([queue], 1, 0.05, LONG))
    transport.publish([make_message("longer", queue)])
    delivery = first(transport, queue)
    assert other.fetch([queue], 1, 2 * impatient, LONG) == []
    assert transport.settle([Settlement(delivery)]) == []


def test_starts_are_counted_although_whole_workers_die(connect: Callable[..., AmqpTransport], queue: str) -> None:
    connect().publish([make_message("poison", queue)])
    counts = []
    for _ in range(4):
        victim = connect()
        delivery = first(victim, queue)
        counts.append((delivery.deliveries, delivery.starts))
        victim.mark_started([delivery])
        victim.close()
    # The first death is known by the server's mark alone; from then on every start counts.
    assert counts == [(1, 0), (2, 0), (3, 1), (4, 2)]


def test_a_moved_message_can_be_settled_in_every_way(connect: Callable[..., AmqpTransport], queue: str) -> None:
    transport, other = connect(), connect()
    for action in (Action.REQUEUE, Action.DEFER, Action.DEAD_LETTER, Action.ACK):
        transport.publish([make_message(action.value, queue)])
        transport.settle([Settlement(first(transport, queue), Action.REQUEUE)])
        delivery = first(transport, queue)
        transport.mark_started([delivery])
        assert transport.settle([Settlement(delivery, action, reason="r", until=time.time() + 0.05)]) == []
        if action in (Action.REQUEUE, Action.DEFER):
            again = first(other, queue)
            assert (again.message.id, again.starts, again.message.headers) == (
                action.value, 0, delivery.message.headers,
            )  # fmt: skip
            other.settle([Settlement(again)])
    assert other.fetch([queue], 1, 0.2, LONG) == []
    assert [letter.message.id for letter in other.dead_letters(10, queue)] == ["dead-letter"]


def is_consumed(transport: AmqpTransport, queue: str) -> bool:
    """Whether a queue exists and has a consumer."""
    found = transport._parts.topology.ask_about(look_up(queue))
    return found is not None and found.consumer_count > 0


def test_a_queue_that_is_deleted_while_a_fetch_waits(connect: Callable[..., AmqpTransport], queue: str) -> None:
    transport, other = connect(), connect()
    transport.declare([Queue(queue)])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first, transport, queue)
        eventually(lambda: is_consumed(other, queue), PATIENCE)
        other.delete(queue)
        eventually(lambda: is_consumed(other, queue), PATIENCE)  # the fetch has made it again
        at_last(lambda: other.publish([make_message("m", queue)]))
        assert waiting.result(PATIENCE).message.id == "m"


def test_a_queue_that_is_deleted_between_two_fetches(connect: Callable[..., AmqpTransport], queue: str) -> None:
    transport, other = connect(), connect()
    assert transport.fetch([queue], 1, 0.05, LONG) == []
    eventually(lambda: not is_consumed(other, queue), PATIENCE)
    other.delete(queue)
    assert at_last(lambda: transport.fetch([queue], 1, 0.05, LONG)) == []
    other.publish([make_message("m", queue)])
    assert first(transport, queue).message.id == "m"


def publish_once_delivered(transport: AmqpTransport, name: str, queue: str) -> None:
    """A message that comes as delivered before, so that a start of it is noted by moving it."""
    transport.publish([make_message(name, queue)])
    transport.settle([Settlement(first(transport, queue), Action.REQUEUE)])


def held_at(server: RabbitMQServer, queue: str) -> str:
    """How many messages a queue holds, ready or on lease."""
    names = f'Q <- rabbit_amqqueue:list(), element(4, amqqueue:get_name(Q)) == <<"{queue}">>'
    return server.evaluate(f"lists:sum([N || {names}, {{messages, N}} <- rabbit_amqqueue:info(Q, [messages])]).")


def test_a_moved_message_survives_its_connection(
    server: RabbitMQServer, connect: Callable[..., AmqpTransport], queue: str
) -> None:
    """Cut off after it was moved it comes again, though the same worker moves another one meanwhile."""
    other = connect()
    with FaultProxy(server.port) as proxy:
        transport = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}//", timeout=2.0)
        publish_once_delivered(other, "a", queue)
        transport.mark_started([first(transport, queue)])
        eventually(lambda: held_at(server, queue) == "0")  # the original is acknowledged
        proxy.cut()
        publish_once_delivered(other, "b", queue)
        delivery = first(transport, queue)
        at_last(lambda: transport.mark_started([delivery]))
        assert transport.settle([Settlement(delivery)]) == []
        assert (delivery.message.id, drain(transport, queue, 1)) == ("b", ["a"])
        transport.close()


# --- connected, and nothing comes


def test_a_consumer_that_is_gone_unnoticed_is_opened_anew(connect: Callable[..., AmqpTransport], queue: str) -> None:
    transport, other = connect(stall_timeout=0.2), connect()
    transport.publish([make_message("before", queue)])
    before = first(transport, queue)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(transport.fetch, [queue], 1, 3.0, LONG)
        session = transport._parts.consumer._session
        assert session is not None
        eventually(lambda: session.listening)
        session.channel.ask(Deadline(PATIENCE), *[cancel(each.tag) for each in session.listening.values()])
        other.publish([make_message("m", queue)])
        assert waiting.result(PATIENCE) == []
    with pytest.raises(OperationalError, match=rf"1 in '{queue}'.*none has come.*reopen the consumers"):
        transport.fetch([queue], 1, 1.5, LONG)
    assert first(transport, queue).message.id == "m"
    assert transport.settle([Settlement(before)]) == []  # no lease was lost


def test_a_queue_that_sends_nothing_costs_the_connection(connect: Callable[..., AmqpTransport], queue: str) -> None:
    """What is left to try when open consumers get nothing: here another consumer is the only one that may."""
    transport, other = connect(stall_timeout=0.2), connect()
    transport.declare([Queue(queue, queue_arguments={"x-single-active-consumer": True})])
    transport.publish([make_message("theirs", queue), make_message("ours", queue)])
    other._parts.consuming.ask(prefetch(1), consume(queue, "the-active-one"))
    told: list[str] = []

    def is_told_twice() -> bool:
        try:
            transport.fetch([queue], 1, 1.1, LONG)
        except OperationalError as exc:
            told.append(str(exc))
        return len(told) == 2

    eventually(is_told_twice, PATIENCE)
    assert told[0].endswith("reopen the consumers")
    assert told[1].endswith("reconnect")
    other.close()
    assert set(drain(transport, queue, 2)) == {"theirs", "ours"}


# --- a cluster


def test_a_lost_node_of_three(tmp_path: Path) -> None:
    """Under load nothing that was confirmed is lost, and tasks go on."""
    with rabbitmq_cluster(tmp_path) as nodes:
        url = ";".join(node.url for node in nodes)
        options = {"timeout": 4.0}
        sender, receiver = AmqpTransport(url, options), AmqpTransport(url, {**options, "failover_strategy": "shuffle"})
        queue = "ha"
        sender.declare([Queue(queue, queue_arguments={"x-queue-type": "quorum"})])
        confirmed: list[str] = []
        seen: dict[str, None] = {}
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                batch = [f"m{len(confirmed) + i}" for i in range(5)]
                at_last(lambda: sender.publish([make_message(name, queue) for name in batch]))  # noqa: B023
                confirmed.extend(batch)

        def receive() -> None:
            while not enough.is_set():
                deliveries = at_last(lambda: receiver.fetch([queue], 20, 0.5, LONG))
                receiver.settle([Settlement(delivery) for delivery in deliveries])
                seen.update(dict.fromkeys(names(deliveries)))

        enough = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            sending, receiving = pool.submit(send), pool.submit(receive)
            try:
                eventually(lambda: len(seen) >= 50, PATIENCE)
                before = len(seen)
                nodes[0].kill()  # the sender's node: hosts are tried in order
                eventually(lambda: len(seen) >= before + 200, PATIENCE)
                stop.set()
                sending.result(PATIENCE)
                eventually(lambda: set(confirmed) <= seen.keys(), PATIENCE)
            finally:
                stop.set()
                enough.set()
            receiving.result(PATIENCE)
        sender.close()
        receiver.close()
