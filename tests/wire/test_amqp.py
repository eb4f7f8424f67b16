"""RabbitMQ messages, results and delays are those of a stock Celery, byte for byte where it matters."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import DecodeError, EncodeError
from celeriac.message import Message
from celeriac.results.rpc import Post, _read
from celeriac.routing import Exchange, Queue
from celeriac.transport import amqp_delay as delay
from celeriac.transport.amqp_channel import Pushed
from celeriac.transport.amqp_field import (
    Properties,
    decode_properties,
    decode_table,
    encode_properties,
    encode_table,
)
from celeriac.transport.amqp_mail import _letter
from celeriac.transport.amqp_message import own_headers, read, to_properties
from celeriac.transport.amqp_request import define
from tests.wire import golden

pika = pytest.importorskip("pika")


def pushed(properties: Properties, body: bytes = b"", **method: Any) -> Pushed:
    """A message as the server pushes it."""
    given = {"exchange": "", "routing_key": "q", "redelivered": False, "delivery_tag": 1, "consumer_tag": "c", **method}
    return Pushed(SimpleNamespace(**given), encode_properties(properties, len(body)), body)


def recorded() -> list[Any]:
    return [
        pytest.param(message, id=f"{name}-{number}")
        for name in golden.names("messages")
        for number, message in enumerate(golden.load("messages", name).get("amqp", ()))
        if name not in ("plain_serializers", "delayed_quorum")
    ]


def stock_properties(message: dict[str, Any]) -> Properties:
    given = dict(message["properties"])
    given["headers"] = given.pop("application_headers", {})
    return Properties(**given)


# --- messages


@pytest.mark.parametrize("message", recorded())
def test_a_recorded_message_is_written_as_it_was(message: dict[str, Any]) -> None:
    stock = stock_properties(message)
    body = base64.b64decode(message["body_b64"])
    envelope = read(pushed(stock, body, exchange=message["exchange"], routing_key=message["routing_key"]), "q")
    assert envelope.message.defect == ""
    assert envelope.message.body == body
    assert envelope.message.headers == stock.headers
    again = to_properties(envelope.message)
    # What is left of its time differs; an absent priority is 0.
    expected = msgspec.structs.replace(
        stock, expiration=again.expiration, priority=stock.priority or 0, reply_to=stock.reply_to or ""
    )
    assert again == expected


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_float(each) for each in value.values())
    return isinstance(value, float) or (isinstance(value, list) and any(_has_float(each) for each in value))


def recorded_without_fractions() -> list[Any]:
    """Those that pika can write: it has no fractions."""
    return [
        each
        for each in recorded()
        if "float" not in each.id and not _has_float(stock_properties(each.values[0]).headers)
    ]


@pytest.mark.parametrize("message", recorded_without_fractions())
def test_its_encoding_is_that_of_pika(message: dict[str, Any]) -> None:
    properties = stock_properties(message)
    theirs = pika.spec.BasicProperties(**{name: getattr(properties, name) for name in Properties.__struct_fields__})
    assert encode_properties(properties, 0)[12:] == b"".join(theirs.encode())


def test_moments_that_no_header_tells_travel_with_the_message() -> None:
    eta, expires_at = 4_000_000_000.25, 4_000_000_100.5
    message = Message(id="m", headers={"id": "m", "eta": None}, body=b"", eta=eta, expires_at=expires_at)
    found = read(pushed(to_properties(message)), "q").message
    assert (found.eta, found.expires_at) == (eta, expires_at)
    assert found.headers == message.headers


def test_moments_that_headers_tell_are_not_repeated() -> None:
    text = "2031-01-02T03:04:05.678901+02:00"
    moment = datetime.fromisoformat(text).timestamp()
    message = Message(
        id="m", headers={"id": "m", "eta": text, "expires": text}, body=b"", eta=moment, expires_at=moment
    )
    properties = to_properties(message)
    assert properties.headers == message.headers
    found = read(pushed(properties), "q").message
    assert (found.eta, found.expires_at) == (pytest.approx(moment), pytest.approx(moment))


@pytest.mark.parametrize(
    ("left", "expiration"), [(None, None), (-5.0, "0"), (2**32 / 1000 + 60, None)], ids=["none", "over", "too long"]
)
def test_expiration(left: float | None, expiration: str | None) -> None:
    at = None if left is None else datetime.now(UTC).timestamp() + left
    assert to_properties(Message(id="m", headers={}, body=b"", expires_at=at)).expiration == expiration


def test_expiration_is_text_of_milliseconds_and_no_part_of_a_delay() -> None:
    message = Message(id="m", headers={}, body=b"", expires_at=datetime.now(UTC).timestamp() + 60)
    text = to_properties(message).expiration
    assert text is not None
    assert 55_000 < int(text) <= 60_000
    assert to_properties(message, is_delayed=True).expiration is None


def test_counts_travel_in_headers_of_ours_and_are_taken_out() -> None:
    message = Message(id="m", headers={"id": "m", "mine": 1}, body=b"")
    found = read(pushed(to_properties(message, extra=own_headers(3, 2))), "q")
    assert (found.deliveries, found.starts, found.message.headers) == (3, 2, message.headers)
    again = read(pushed(to_properties(message, extra=own_headers(3, 2)), redelivered=True), "q")
    assert again.deliveries == 4


def test_quorum_queues_count_deliveries() -> None:
    properties = Properties(headers={"id": "m", "x-delivery-count": 4})
    found = read(pushed(properties, redelivered=True), "q")
    assert (found.deliveries, found.message.headers) == (4, {"id": "m"})


def test_deaths_in_queues_of_the_senders_stay_in_the_headers() -> None:
    death = {"x-death": [{"queue": "mine"}], "x-first-death-queue": "mine"}
    assert read(pushed(Properties(headers={"id": "m", **death})), "q").message.headers == {"id": "m", **death}
    delayed = {**death, "x-first-death-queue": "celery_delayed_3"}
    assert read(pushed(Properties(headers={"id": "m", **delayed})), "q").message.headers == {"id": "m"}


@pytest.mark.parametrize(
    "header",
    [
        b"", b"\x00\x3c", b"\x00\x3c" + b"\x00" * 10 + b"\x20\x00\xff\xff\xff\xff",
        b"\x00\x3c" + b"\x00" * 10 + b"\x20\x00" + b"\x00\x00\x00\x05\x01a?xx",
        b"\x00\x3c" + b"\x00" * 10 + b"\x80\x00\x05ab",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_defect(header: bytes) -> None:
    method = SimpleNamespace(exchange="", routing_key="q", redelivered=False, delivery_tag=1, consumer_tag="c")
    message = read(Pushed(method, header, b"body"), "q").message
    assert message.defect.startswith("unreadable")
    assert (message.body, message.queue) == (b"body", "q")


# --- tables


PLAIN = st.recursive(
    st.none() | st.booleans() | st.text() | st.binary() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=40), PLAIN, max_size=8))
def test_tables_survive(table: dict[str, Any]) -> None:
    data = encode_table(table)
    assert decode_table(data) == (table, len(data))


@given(st.binary(max_size=80))
def test_garbage_is_refused(data: bytes) -> None:
    try:
        decode_properties(b"\x00\x3c" + b"\x00" * 10 + data)
    except DecodeError as exc:
        assert "unreadable" in str(exc)


def test_values_that_pika_writes_are_read() -> None:
    table = {"when": datetime(2030, 1, 2, tzinfo=UTC), "much": Decimal("1.25"), "big": 2**40, "no": False}
    pieces: list[bytes] = []
    pika.data.encode_table(pieces, table)
    read_back, _ = decode_table(b"".join(pieces))
    assert read_back == {"when": "2030-01-02T00:00:00+00:00", "much": "1.25", "big": 2**40, "no": False}


def test_queue_arguments_are_equal_to_those_of_stock_clients() -> None:
    """py-amqp writes small integers as 32 bits, large ones as 64; so does pika, which writes our declarations."""
    assert encode_table({"n": 10})[4:] == b"\x01nI\x00\x00\x00\x0a"
    assert encode_table({"n": 2**32})[4:] == b"\x01nl" + (2**32).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("table", "named"),
    [({"bad": object()}, "bad"), ({"n": 2**64}, "n"), ({"l" * 300: 1}, "l"), ({"deep": {"set": {1}}}, "deep.set")],
)
def test_what_cannot_travel_is_named(table: dict[str, Any], named: str) -> None:
    with pytest.raises(EncodeError, match=f"'{named}"):
        encode_table(table)


# --- delays


@pytest.mark.parametrize(
    ("seconds", "digits"),
    [(0, "0" * 28), (5, "0" * 25 + "101"), (300, "0" * 19 + "100101100"), (2**28 - 1, "1" * 28), (2**40, "1" * 28)],
)
def test_a_delay_is_28_binary_digits(seconds: int, digits: str) -> None:
    assert delay.delayed_key(seconds, "qcelery") == ".".join(digits) + ".qcelery"


def test_the_recorded_delay() -> None:
    [message] = golden.load("amqp", "native_delay_countdown_300")["messages"]
    assert (delay.ENTRY, delay.delayed_key(300, "qcelery")) == (message["exchange"], message["routing_key"])


@pytest.mark.parametrize("queue", ["celery", "a.b.c", "ä ö", "x" * 255, "a.*.b", "#", "", "a..b"])
def test_every_queue_has_an_address(queue: str) -> None:
    key = delay.delayed_key(1, delay.address(queue))
    assert len(key.encode()) <= 255
    words = delay.address(queue).split(".")
    assert "*" not in words
    assert "#" not in words
    assert words[-1] == delay.MARK
    assert delay.original_route(delay.DELIVERY, key, queue) == ("", queue)


def test_addresses_differ() -> None:
    assert len({delay.address(queue) for queue in ("a", "b.a", "a.b", "#", "*", "sha256-x")}) == 6


def test_the_route_of_a_stock_delay_is_restored() -> None:
    [message] = golden.load("amqp", "delayed_quorum")["amqp"]
    envelope = read(
        pushed(stock_properties(message), exchange=message["exchange"], routing_key=message["routing_key"]), "qq"
    )
    assert envelope.message.routing_key == "qq"
    assert not any(name.startswith("x-") for name in envelope.message.headers)


# --- declarations


def described(requests: list[Any]) -> list[dict[str, Any]]:
    return [{"verb": request.verb, **request.arguments} for request in requests]


def test_the_delay_queues_are_those_of_a_stock_worker() -> None:
    recorded = golden.load("amqp", "topology_quorum_native_delay")
    queues = {queue["name"]: queue for queue in recorded["queues"] if "delayed" in queue["name"]}
    made = described(delay.chain_requests("quorum"))
    declared = {each["queue"]: each for each in made if each["verb"] == "queue_declare"}
    assert declared.keys() == queues.keys()
    for name, queue in queues.items():
        assert declared[name]["arguments"] == {key: value for key, _type, value in queue["arguments"]}
        assert declared[name]["durable"] == queue["durable"]
    exchanges = {each["exchange"] for each in made if each["verb"] == "exchange_declare"}
    assert exchanges == {each["name"] for each in recorded["exchanges"] if "celery_delayed" in each["name"]}
    bindings = {
        (each.get("source") or each["exchange"], each.get("destination") or each["queue"], each["routing_key"])
        for each in made
        if each["verb"].endswith("_bind")
    }
    assert bindings == {
        (each["source_name"], each["destination_name"], each["routing_key"])
        for each in recorded["bindings"]
        if each["source_name"].startswith("celery_delayed") and each["source_name"] != delay.DELIVERY
    }


def test_a_plain_queue_is_that_of_a_stock_worker() -> None:
    made = described(define(Queue("celery", Exchange("celery"), "celery")))
    assert [each["verb"] for each in made] == ["exchange_declare", "queue_declare", "queue_bind"]
    [queue] = [each for each in golden.load("amqp", "topology_worker")["queues"] if each["name"] == "celery"]
    flags = {"durable": made[1]["durable"], "auto_delete": made[1]["auto_delete"], "exclusive": made[1]["exclusive"]}
    assert flags == {name: queue[name] for name in flags}
    assert made[1]["arguments"] == {}
    made = described(define(Queue("celery_x", Exchange("celery_x"), "celery_x", max_priority=10)))
    [queue] = [each for each in golden.load("amqp", "topology_max_priority")["queues"] if each["name"] == "celery_x"]
    assert made[1]["arguments"] == {key: value for key, _type, value in queue["arguments"]}


# --- rpc


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_an_rpc_result_is_that_of_a_stock_worker(outcome: str) -> None:
    recorded = golden.load("rpc", "amqp")[outcome]
    [message] = recorded["messages"]
    stock = stock_properties(message)
    body = base64.b64decode(message["body_b64"])
    record = _read(body, stock.content_type or "", frozenset())
    assert record is not None
    assert record.id == recorded["task_id"]
    letter = _letter(
        Post(recorded["oid"], record.id, body, record.content_type, record.content_encoding, is_persistent=False)
    )
    assert (letter.exchange, letter.routing_key, letter.body) == (message["exchange"], message["routing_key"], body)
    assert decode_properties(letter.header) == stock
