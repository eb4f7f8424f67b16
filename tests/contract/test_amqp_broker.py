"""What is particular to RabbitMQ: topology, delays in the broker, limits, fairness, dead letters, TLS."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from celeriac.errors import EncodeError, ImproperlyConfigured, MessageTooLarge, OperationalError
from celeriac.message import Action, ControlMessage, Delivery, Settlement
from celeriac.routing import Exchange, Queue
from celeriac.testing.transport_case import LONG, PATIENCE, make_message
from celeriac.transport.amqp import AmqpTransport
from celeriac.transport.amqp_channel import Letter
from celeriac.transport.base import Box
from tests.support.certificates import make_certificates
from tests.support.files import eventually
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.server import free_port

VECTORS = Path(__file__).parents[1] / "wire" / "vectors" / "amqp"

pytestmark = [pytest.mark.server("rabbitmq"), pytest.mark.slow]


def listed(server: RabbitMQServer, what: str, *columns: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(server.control(f"list_{what}", *columns, "--formatter", "json"))
    return rows


def test_the_topology_is_that_of_a_stock_worker(server: RabbitMQServer, transport: AmqpTransport) -> None:
    """What the recording shows, a stock worker and we declare alike; a second declaration changes nothing."""
    recorded = json.loads((VECTORS / "topology_quorum_native_delay.json").read_text())
    queues = [
        Queue("celery", Exchange("celery"), "celery"),
        Queue("celery_x", Exchange("celery_x"), "celery_x", max_priority=10),
        Queue("qcelery", Exchange("qcelery", "topic"), "qcelery", queue_arguments={"x-queue-type": "quorum"}),
    ]
    for _ in range(2):
        transport.declare(queues)
    bindings = {
        (row["source_name"], row["destination_name"], row["destination_kind"], row["routing_key"])
        for row in listed(server, "bindings", "source_name", "destination_name", "destination_kind", "routing_key")
    }
    ours = {"qcelery", "celery", "celery_x"}
    expected = {
        (row["source_name"], row["destination_name"], row["destination_kind"], row["routing_key"])
        for row in recorded["bindings"]
        if row["source_name"] in ours
        or (row["source_name"].startswith("celery_delayed") and row["destination_name"] != "qq")
    }
    assert expected <= bindings
    made = {row["name"]: row for row in listed(server, "queues", "name", "durable", "auto_delete", "arguments")}
    for row in recorded["queues"]:
        if row["name"] in ours or row["name"].startswith("celery_delayed"):
            mine = made[row["name"]]
            assert (mine["durable"], mine["auto_delete"]) == (row["durable"], row["auto_delete"])
            assert sorted(mine["arguments"]) == sorted(row["arguments"])
    kinds = {
        row["name"]: (row["type"], row["durable"]) for row in listed(server, "exchanges", "name", "type", "durable")
    }
    for row in recorded["exchanges"]:
        if row["name"] in ours or row["name"].startswith("celery_delayed"):
            assert kinds[row["name"]] == (row["type"], row["durable"])


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_delay_is_the_brokers_business(transport: AmqpTransport, other: AmqpTransport, queue: str, kind: str) -> None:
    """Of a thousand delayed messages none is with a consumer, and none in the queue; those that are due come."""
    transport.declare([Queue(queue, queue_arguments={"x-queue-type": kind})])
    for hundred in range(10):  # each passes 28 exchanges: all at once would take a busy server longer than a call may
        transport.publish([make_message(f"far{hundred}-{i}", queue, eta=time.time() + 3600) for i in range(100)])
    assert transport.size(queue).ready == 0
    assert other.fetch([queue], 10, 0.1, LONG) == []
    due = time.time() + 1.5
    transport.publish([make_message(f"m{i}", queue, eta=due + i / 100) for i in range(50)])
    seen: list[str] = []
    while len(seen) < 50:
        deliveries = other.fetch([queue], 100, PATIENCE, LONG)
        now = time.time()
        assert all(each.message.eta is not None and each.message.eta <= now for each in deliveries)
        routes = {(each.deliveries, each.message.exchange, each.message.routing_key) for each in deliveries}
        assert routes == {(1, "", queue)}
        other.settle([Settlement(each) for each in deliveries])
        seen += [each.message.id for each in deliveries]
    assert sorted(seen) == sorted(f"m{i}" for i in range(50))


def test_what_stock_clients_delay_is_put_off_in_the_broker(
    transport: AmqpTransport, other: AmqpTransport, queue: str
) -> None:
    due = datetime.fromtimestamp(time.time() + 2.5, UTC)
    headers = {"task": "t", "id": "later", "eta": due.isoformat()}
    transport.publish([make_message("later", queue, headers=headers), make_message("now", queue)])
    assert transport.size(queue).ready == 2
    assert [each.message.id for each in other.fetch([queue], 10, PATIENCE, LONG)] == ["now"]
    eventually(lambda: transport.size(queue).ready == 0, PATIENCE)
    [delivery] = other.fetch([queue], 10, PATIENCE, LONG)
    assert time.time() >= due.timestamp()
    assert (delivery.message.headers, delivery.deliveries) == (headers, 1)


def test_a_delay_through_a_topic_exchange(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    exchange = Exchange(f"{queue}-topic", "topic")
    transport.declare([Queue(queue, exchange, "some.key", queue_arguments={"x-queue-type": "quorum"})])
    transport.publish([make_message("m", exchange=exchange.name, routing_key="some.key", eta=time.time() + 1.2)])
    assert transport.size(queue).ready == 0
    [delivery] = other.fetch([queue], 1, PATIENCE, LONG)
    assert (delivery.message.queue, delivery.message.routing_key) == (queue, "some.key")


def test_a_missing_queue_is_made_as_stock_clients_make_it(
    server: RabbitMQServer, transport: AmqpTransport, queue: str
) -> None:
    transport.publish([make_message("m", queue)])
    assert transport.size(queue).ready == 1
    assert (queue, queue) in {
        (row["source_name"], row["destination_name"])
        for row in listed(server, "bindings", "source_name", "destination_name")
    }


def test_batches_to_a_missing_queue_come_once(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    """Also if somebody else makes the queue while they are on their way."""
    transport.publish([make_message("m", f"{queue}-other")])  # is connected
    other.declare([Queue(f"{queue}-other")])
    for number in range(10):
        name = f"{queue}-{number}"
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(transport.publish, [make_message(f"{i}", name) for i in range(1000)])
            other.declare([Queue(name)])
            sending.result(PATIENCE)
        assert other.size(name).ready == 1000


def test_a_client_that_may_only_send(server: RabbitMQServer, transport: AmqpTransport, queue: str) -> None:
    transport.declare([Queue(queue)])
    server.control("add_user", queue, "secret")
    server.control("set_permissions", queue, "^$", ".*", "^$")
    sender = AmqpTransport(f"amqp://{queue}:secret@127.0.0.1:{server.port}//")
    sender.publish([make_message("a", queue), make_message("b", queue)])
    assert transport.size(queue).ready == 2
    with pytest.raises(ImproperlyConfigured, match=f"{queue}-missing"):
        sender.publish([make_message("m", f"{queue}-missing")])
    sender.close()


def test_a_queue_of_others_is_used_as_it_is(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    other.declare([Queue(queue, max_priority=5)])
    transport.publish([make_message("m", queue, priority=5)])
    assert [each.message.id for each in transport.fetch([queue], 1, PATIENCE, LONG)] == ["m"]


def test_properties_of_the_caller(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    free = {"message_id": "mid", "type": "t", "app_id": "a", "timestamp": 1_800_000_000}
    sent = make_message("m", queue, properties={**free, "unknown": 1}, transient=True, priority=3)
    transport.publish([sent])
    [delivery] = other.fetch([queue], 1, PATIENCE, LONG)
    assert delivery.message.properties == free
    assert (delivery.message.transient, delivery.message.priority) == (True, 3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"priority": 256}, "priority"), ({"routing_key": "k" * 256, "exchange": "amq.direct"}, "256 bytes"),
     ({"headers": {"task": "t", "n": 2**70}}, "'n'")],
)  # fmt: skip
def test_what_cannot_be_written(transport: AmqpTransport, queue: str, fields: dict[str, object], said: str) -> None:
    where = {} if "exchange" in fields else {"queue": queue}
    with pytest.raises(EncodeError, match=said):
        transport.publish([make_message("good", queue), make_message("bad", **where, **fields)])
    assert transport.size(queue).ready == 0


def test_headers_that_no_frame_takes(transport: AmqpTransport, queue: str) -> None:
    with pytest.raises(MessageTooLarge, match="headers of message 'm'"):
        transport.publish([make_message("m", queue, headers={"task": "t", "long": "x" * 140_000})])


def test_the_servers_own_limit(server: RabbitMQServer, queue: str) -> None:
    server.evaluate("application:set_env(rabbit, max_message_size, 100000).")
    transport = AmqpTransport(server.url)
    try:
        with pytest.raises(MessageTooLarge, match="larger than configured max size 100000"):
            transport.publish([make_message("large", queue, body=b"x" * 100_001)])
        transport.publish([make_message("small", queue)])
        assert transport.size(queue).ready == 1
    finally:
        server.evaluate("application:set_env(rabbit, max_message_size, 134217728).")
        transport.close()


def test_a_large_batch_keeps_its_order(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    transport.publish([make_message(f"{i}", queue) for i in range(5000)])
    seen: list[str] = []
    while len(seen) < 5000:
        deliveries = other.fetch([queue], 700, PATIENCE, LONG)
        assert len(deliveries) <= 700
        other.settle([Settlement(each) for each in deliveries])
        seen += [each.message.id for each in deliveries]
    assert seen == [f"{i}" for i in range(5000)]


def test_nothing_waits_with_a_consumer_that_does_not_fetch(
    transport: AmqpTransport, other: AmqpTransport, queue: str
) -> None:
    queues = [f"{queue}-{number}" for number in range(3)]
    for name in queues:
        transport.publish([make_message(name, name)])
    [mine] = transport.fetch(queues, 1, PATIENCE, LONG)  # the server may have sent one of each
    others = [other.fetch([name], 1, PATIENCE, LONG)[0].message.id for name in queues if name != mine.queue]
    assert sorted([mine.message.id, *others]) == queues


def test_a_busy_consumer_keeps_its_limit(
    server: RabbitMQServer, transport: AmqpTransport, other: AmqpTransport, queue: str
) -> None:
    """What is wanted changes from fetch to fetch; consuming anew each time would bring what is under way twice."""
    other.publish([make_message(f"{i}", queue) for i in range(6000)])
    deliveries: list[Delivery] = []
    consumers = set()
    for number in range(100):
        deliveries += transport.fetch([queue], 3 if number % 5 else 200, PATIENCE, LONG)
        consumers.update(transport._parts.consumer._session.listening.values())  # type: ignore[union-attr]
        if len(deliveries) > 150:
            transport.settle([Settlement(each) for each in deliveries])
            deliveries = []
    assert len(consumers) <= 3
    assert not any(each.redelivered for each in deliveries)


def test_what_is_held_gives_no_right_to_more(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    """Who holds three and wants one more, after its consumer was cancelled, is sent one: others have the rest at once."""
    transport.publish([make_message(f"m{number}", queue) for number in range(10)])
    held: list[Delivery] = []
    while len(held) < 3:
        held += transport.fetch([queue], 3 - len(held), PATIENCE, LONG)
    eventually(lambda: not listed_consumers(transport, queue), PATIENCE)
    held += transport.fetch([queue], 1, PATIENCE, LONG)
    assert len(held) == 4
    taken: list[Delivery] = []
    while len(taken) < 6 and (more := other.fetch([queue], 6 - len(taken), PATIENCE, LONG)):
        taken += more
    assert len(taken) == 6
    assert not any(each.redelivered for each in taken), "some had to be given back"


def listed_consumers(transport: AmqpTransport, queue: str) -> bool:
    """Whether a consumer of this transport is open."""
    session = transport._parts.consumer._session
    return session is not None and queue in session.listening


def test_who_wants_little_soon_holds_little(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    """A consumer with short tasks, which then turn out long, gives back what was sent to it for the short ones."""
    other.publish([make_message(f"{i}", queue) for i in range(300)])
    held = transport.fetch([queue], 200, PATIENCE, LONG)
    while not (found := other.fetch([queue], 100, 0.1, LONG)):
        held += transport.fetch([queue], 1, 0.0, LONG)
    while len(found) < 300 - len(held):
        found += other.fetch([queue], 300, PATIENCE, LONG)
    assert len(held) < 250


def test_acknowledgements_in_any_order(transport: AmqpTransport, other: AmqpTransport, queue: str) -> None:
    transport.publish([make_message(f"{i}", queue) for i in range(10)])
    held: list[Delivery] = []
    while len(held) < 10:
        held += transport.fetch([queue], 10 - len(held), PATIENCE, LONG)
    for chosen in ([3, 5], [0, 1, 2, 9], [4]):
        assert transport.settle([Settlement(held[number]) for number in chosen]) == []
    transport.close()
    left: list[str] = []
    while len(left) < 3:
        left += [each.message.id for each in other.fetch([queue], 10, PATIENCE, LONG)]
    assert sorted(left) == ["6", "7", "8"]


def test_dead_letters_are_found_without_knowing_the_queue(
    server: RabbitMQServer, transport: AmqpTransport, queue: str
) -> None:
    transport.publish([make_message("m", queue)])
    [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
    transport.settle([Settlement(delivery, Action.DEAD_LETTER, "because")])
    stranger = AmqpTransport(server.url)
    assert [letter.queue for letter in stranger.dead_letters(100) if letter.queue == queue] == [queue]
    assert stranger.discard(["m"]) >= 1
    stranger.close()
    transport.delete(queue)
    names = {row["name"] for row in listed(server, "queues", "name")}
    assert not {queue, f"{queue}.dead"} & names


#: The properties of a body of three bytes: an id that is no text, a header with a time that no date has.
UNREADABLE = {
    "id": b"\x00\x3c\x00\x00" + (3).to_bytes(8, "big") + b"\x04\x00\x01\xff",
    "time": b"\x00\x3c\x00\x00"
    + (3).to_bytes(8, "big")
    + b"\x20\x00\x00\x00\x00\x0b\x01xT"
    + (2**60).to_bytes(8, "big"),
}


@pytest.mark.parametrize("header", UNREADABLE.values(), ids=UNREADABLE)
def test_a_message_that_cannot_be_read_is_kept_byte_by_byte(
    transport: AmqpTransport, other: AmqpTransport, queue: str, header: bytes
) -> None:
    transport.declare([Queue(queue)])
    transport._parts.publisher.send([Letter("", queue, header, b"raw", queue)])
    [delivery] = other.fetch([queue], 1, PATIENCE, LONG)
    assert delivery.message.defect
    assert delivery.message.body == b"raw"
    other.settle([Settlement(delivery, Action.DEAD_LETTER, "malformed")])
    [letter] = other.dead_letters(10, queue)
    assert (letter.reason, letter.message.body) == ("malformed", b"raw")
    assert other.replay([letter.key]) == 1
    [again] = transport.fetch([queue], 1, PATIENCE, LONG)
    assert (again.message.defect, again.message.body) == (delivery.message.defect, b"raw")
    transport.settle([Settlement(again)])


@pytest.mark.parametrize("header", UNREADABLE.values(), ids=UNREADABLE)
def test_a_control_message_that_cannot_be_read_is_dropped(
    transport: AmqpTransport, other: AmqpTransport, header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one arrives."""
    exchange = f"{uuid.uuid4().hex}.pidbox"
    mailbox = transport.open_mailbox(Box(name=f"here.{exchange}", exchange=exchange))
    other._parts.publisher.send([Letter(exchange, "", header, b"raw", is_mandatory=False)])
    other.post(ControlMessage(body=b"next"), exchange)
    received: list[ControlMessage] = []
    eventually(lambda: received.extend(mailbox.receive(1.0)) or received, 20)
    assert [message.body for message in received] == [b"next"]
    assert f"control message on {exchange} dropped" in caplog.text
    mailbox.close()


# --- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


def test_tls_with_client_certificates(tmp_path: Path, certificates: Path, queue: str) -> None:
    port = free_port()
    config = [
        f"listeners.ssl.local = 127.0.0.1:{port}", f"ssl_options.cacertfile = {certificates}/ca.pem",
        f"ssl_options.certfile = {certificates}/server.pem", f"ssl_options.keyfile = {certificates}/server.key",
        "ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true",
    ]  # fmt: skip
    with RabbitMQServer(tmp_path / "rabbitmq", config=config):
        url = f"amqps://guest:guest@localhost:{port}//"
        trust = {"ca_certs": f"{certificates}/ca.pem"}
        client = {"certfile": f"{certificates}/client.pem", "keyfile": f"{certificates}/client.key"}
        transport = AmqpTransport(url, {**trust, **client})
        transport.publish([make_message(f"{i}", queue, body=b"x" * 300_000) for i in range(20)])
        seen: list[str] = []
        while len(seen) < 20:
            deliveries = transport.fetch([queue], 20, PATIENCE, LONG)
            transport.settle([Settlement(each) for each in deliveries])
            seen += [each.message.id for each in deliveries]
        assert seen == [f"{i}" for i in range(20)]
        transport.close()
        for options in (client, trust):  # an unknown authority; no certificate of our own
            stranger = AmqpTransport(url, {**options, "timeout": 2.0})
            with pytest.raises(OperationalError):
                stranger.publish([make_message("m", queue)])
            stranger.close()
