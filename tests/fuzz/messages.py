"""Targets: messages as transports read them, and their way through a worker: admission, frame, body, execution."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from datetime import UTC
from zoneinfo import ZoneInfo

import msgspec

from celeriac import codec, compression
from celeriac.environment import Environment
from celeriac.errors import ContentDisallowed, DecodeError, InvalidTaskError
from celeriac.execution import execute
from celeriac.message import Action, ControlMessage, Delivery, Message
from celeriac.outcome import Execution
from celeriac.results.sql_rows import row_of
from celeriac.results.sqlite_record import upsert
from celeriac.results.sqlite_schema import ensure_schema
from celeriac.runner.leaving import sendable
from celeriac.runner.protocol import FrameReader, Kind, decode_frame, encode_frame
from celeriac.task_limits import is_named, mark_of
from celeriac.transport import redis_envelope
from celeriac.transport.amqp_channel import Pushed
from celeriac.transport.amqp_field import decode_properties, decode_table, encode_properties
from celeriac.transport.amqp_frame import Deliver
from celeriac.transport.amqp_message import read, to_properties
from celeriac.transport.filesystem_name import Name, parse_due, parse_lease
from celeriac.transport.mailbox import TopicMailbox
from celeriac.transport.packing import WRITE_ERRORS, head_of, unpack, write_head
from celeriac.wire.bodies import decode_body, protocol1_headers
from celeriac.wire.moments import parse_moment, timelimits
from celeriac.worker.admission import Decision, Rules, admit
from tests.fuzz.feed import Feed
from tests.fuzz.target import target
from tests.support.apps import memory_app
from tests.wire import golden

NOW = 1_900_000_000.0
RULES = Rules(known={"add": None}, max_deliveries=5, unknown_delay=10.0, timezone=UTC)
LIMIT = 1 << 20
#: What a worker may be told to accept, but for pickle, which runs what it is given.
ACCEPT = frozenset({"application/json", "application/x-yaml", "application/x-msgpack", "text/plain"})
HEADERS = (
    "task", "id", "eta", "expires", "retries", "timelimit", "group", "group_index", "root_id", "parent_id", "shadow",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "compression",
    "celeriac-limits", "add",
)  # fmt: skip
_ENVELOPE = ("body", "headers", "properties", "content-type", "content-encoding", "celeriac")
_PROPERTIES = (
    "correlation_id",
    "reply_to",
    "delivery_mode",
    "delivery_info",
    "priority",
    "body_encoding",
    "expiration",
)
_EMBED = ("callbacks", "errbacks", "chain", "chord", "args", "kwargs", "options", "immutable", "subtask_type", "utc")
_FRAMED = (ValueError, TypeError, OverflowError, RecursionError)
APP = memory_app()
_STORE = sqlite3.connect(":memory:")
ensure_schema(_STORE, ":memory:")
_STORE.commit()
APP.task(lambda *args, **kwargs: args, name="add", typing=False)


def admitted(message: Message, deliveries: int = 1, starts: int = 0) -> None:
    """What a worker does with any message before it opens it."""
    delivery = Delivery(message=message, queue="celery", token=1, deliveries=deliveries, starts=starts)
    admission = admit(delivery, RULES, NOW)
    if admission.decision is Decision.DEFER:
        assert admission.until is not None and NOW < admission.until < math.inf
    if isinstance(message.headers, dict):
        hard, soft = timelimits(message.headers)
        assert all(limit is None or 0 < limit < math.inf for limit in (hard, soft))
        mark_of(message.headers)
        is_named(message.headers)
    for moment in (message.eta, message.expires_at):
        assert moment is None or math.isfinite(moment)
    try:
        frame = encode_frame(Kind.RUN, Execution(1, 0, message, "celery", deliveries, admission.verdict))
    except _FRAMED:  # what `RunnerProcess.give` raises for headers that can't travel
        return
    ((kind, body),) = FrameReader().feed(frame)
    opened(decode_frame(kind, body).message)


def opened(message: Message) -> None:
    """What a runner does with a message."""
    try:
        body = decode_body(message, ACCEPT, LIMIT)
    except (InvalidTaskError, DecodeError):
        return
    if body.fields:
        protocol1_headers(body)


def _envelopes() -> Iterator[bytes]:
    for name in golden.names("messages"):
        for item in golden.load("messages", name).get("redis", ()):
            yield golden.to_bytes(item["raw"])


@target("celeriac.transport.redis_envelope", "celeriac.worker.admission", starts=_envelopes)
def redis_envelope_bytes(data: bytes) -> None:
    admitted(*redis_envelope.decode(data, "celery"))


@target("celeriac.transport.redis_envelope", "celeriac.worker.admission")
def redis_envelope_shaped(data: bytes) -> None:
    feed = Feed(data, (*_ENVELOPE, *_PROPERTIES, *HEADERS, "base64", "application/json", "W1tdLCB7fSwge31d"))
    headers, properties = feed.json_object("task", "id"), feed.json_object("body_encoding", "celeriac", "priority")
    kind, body = feed.json(4), feed.json(4)
    text = f'{{"body": {body}, "headers": {headers}, "properties": {properties}, "content-type": {kind}'
    counts = f', "celeriac": {feed.json(3)}' if feed.byte() % 2 else ""
    redis_envelope_bytes(f"{text}{counts}}}".encode())


def _headers_of_amqp() -> Iterator[bytes]:
    for name in golden.names("messages"):
        for item in golden.load("messages", name).get("amqp", ()):
            message = golden.from_amqp(item)
            yield encode_properties(to_properties(message), len(message.body))


@target("celeriac.transport.amqp_field", "celeriac.transport.amqp_message", starts=_headers_of_amqp)
def amqp_header(data: bytes) -> None:
    method = Deliver("c", 1, False, "", "celery")
    envelope = read(Pushed(method, data, b"[[], {}, {}]"), "celery")
    admitted(envelope.message, envelope.deliveries + 1, envelope.starts)


@target("celeriac.transport.amqp_field", refuses=(DecodeError,), starts=_headers_of_amqp)
def amqp_properties(data: bytes) -> None:
    decode_properties(data)


@target("celeriac.transport.amqp_field")
def amqp_table(data: bytes) -> None:
    """A table inside of well-formed properties."""
    table = len(data).to_bytes(4, "big") + data
    try:
        decode_properties(b"\x00\x3c\x00\x00" + bytes(8) + b"\x20\x00" + table)
    except DecodeError:
        return
    decode_table(table)


@target("celeriac.transport.packing", "celeriac.worker.admission")
def packed_head(data: bytes) -> None:
    admitted(unpack(data, b"[[], {}, {}]", "celery"))


@target("celeriac.transport.packing", "celeriac.worker.admission")
def packed_head_shaped(data: bytes) -> None:
    feed = Feed(data, HEADERS)
    try:
        head = msgspec.msgpack.encode([feed.value(3) if feed.byte() % 4 == 0 else usual for usual in (
            "i", feed.table("task", "id"), "application/json", "utf-8", "", "celery", 0, None, None, "", False, {})])  # fmt: skip
    except WRITE_ERRORS:
        return
    message = unpack(head, feed.choice((b"[[], {}, {}]", b"", "text", None)), "celery")
    admitted(message)
    if not message.defect:
        assert unpack(write_head(head_of(message)), message.body, "celery").id == message.id


def _names() -> Iterator[bytes]:
    name = "25500001900000000000000000000_0190aa-1.d1s0.celery.msg"
    yield from (text.encode() for text in (name, f"000000000012345.0a1b.ff.{name}", f"1900000000000.{name}"))


@target("celeriac.transport.filesystem_name", starts=_names)
def filesystem_name(data: bytes) -> None:
    text = data[:255].decode("utf-8", "surrogateescape")
    name, lease, due = Name.parse(text), parse_lease(text), parse_due(text)
    if name is not None:
        assert Name.parse(str(name)) == name
        assert name.counted(1, 1).order == name.order
    if lease is not None:
        assert parse_lease(str(lease)) == lease
        lease.is_over("boot", 1.0)
    if due is not None:
        assert due[0] / 1000 >= 0


class _Payload:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def poll(self, wait: float) -> list[tuple[str, bytes]]:
        return [("topic", self.data)]


@target("celeriac.transport.mailbox", starts=lambda: [msgspec.msgpack.encode(ControlMessage(body=b"{}"))])
def mailbox_payload(data: bytes) -> None:
    TopicMailbox(_Payload(data)).receive(0)  # type: ignore[arg-type]


def _bodies() -> Iterator[bytes]:
    for name in golden.names("messages"):
        for message in golden.messages(name):
            if "pickle" not in name:
                yield bytes([0]) + message.body


#: Content types in which a body may come, by the input's first byte.
_TYPES = ("application/json", "application/x-yaml", "application/x-msgpack", "text/plain", "application/data", "")
_METHODS = (None, "gzip", "bzip2", "lzma", "brotli", "zstd", "nonsense")


@target("celeriac.wire.bodies", "celeriac.codec", starts=_bodies)
def body(data: bytes) -> None:
    kind, headers = data[:1], {"task": "add"} if data[:1] < b"\x80" else {}
    message = Message(
        id="i", headers=headers, body=data[1:], content_type=_TYPES[(kind or b"\0")[0] % 6], content_encoding="utf-8"
    )
    opened(message)


@target("celeriac.wire.bodies")
def body_shaped(data: bytes) -> None:
    feed = Feed(data, (*HEADERS, *_EMBED))
    text = (
        feed.json_object("task", "id", *_EMBED) if feed.byte() % 2 else f"[{feed.json()}, {feed.json()}, {feed.json()}]"
    )
    headers = {"task": "add"} if feed.byte() % 2 else {}
    opened(Message(id="i", headers=headers, body=text.encode(), content_type="application/json"))


@target("celeriac.codec", refuses=(DecodeError, ContentDisallowed))
def content(data: bytes) -> None:
    kind, charset = (
        _TYPES[(data[:1] or b"\0")[0] % 6],
        ("utf-8", "binary", "utf-16", "latin-1")[(data[1:2] or b"\0")[0] % 4],
    )
    codec.loads(data[2:], kind, charset, ACCEPT)


def _compressed() -> Iterator[bytes]:
    for position, method in enumerate(_METHODS[1:6], 1):
        for plain in (b"[[], {}, {}]", bytes(3 * LIMIT)):
            yield bytes([position]) + compression.compress(plain, method or "")[0]


@target("celeriac.compression", refuses=(DecodeError,), starts=_compressed)
def compressed(data: bytes) -> None:
    method = _METHODS[(data[:1] or b"\0")[0] % len(_METHODS)]
    assert len(compression.decompress(data[1:], method or "", LIMIT)) <= LIMIT


@target("celeriac.worker.admission", "celeriac.wire.moments", "celeriac.task_limits")
def headers(data: bytes) -> None:
    feed = Feed(data, (*HEADERS, "until_start", "unique", "key", "ignore", "is_named", "until", "ttl", "ends_at"))
    table = feed.table("task", "id", "eta", "expires", "timelimit", "celeriac-limits")
    text = table["id"] if isinstance(table["id"], str) else "i"
    admitted(
        Message(id=text, headers=table, body=b"[[], {}, {}]", content_type="application/json"),
        feed.byte(),
        feed.byte() % 8,
    )


@target(
    "celeriac.wire.moments", refuses=(InvalidTaskError,), starts=lambda: [b"2999-01-01T00:00:00.5+05:30", b"20300101"]
)
def moment(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for zone in (UTC, ZoneInfo("Australia/Lord_Howe")):
        found = parse_moment(text, zone)
        assert found is None or math.isfinite(found)


def _signature(feed: Feed, depth: int = 0) -> str:
    """JSON of a signature, and of workflows in it."""
    task = feed.choice(("add", "far", "celery.chain", "celery.group", "celery.chord", "celery.map", "celery.chunks"))
    inner = ", ".join(_signature(feed, depth + 1) for _ in range(feed.byte() % 3)) if depth < 3 else ""
    kwargs = f'{{"tasks": [{inner}], "body": {inner.partition("}, {")[0] or "null"}}}' if inner else feed.json(3)
    if inner and _json_or_none(kwargs) is None:
        kwargs = f'{{"tasks": [{inner}], "header": [{inner}]}}'
    kind = task.removeprefix("celery.")
    return (
        f'{{"task": "{task}", "args": {feed.json(3)}, "kwargs": {kwargs}, "options": {feed.json_object()}, '
        f'"subtask_type": "{kind if kind != task else ""}", "immutable": {feed.json(5)}}}'
    )


def _json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@target("celeriac.execution", "celeriac.signature", "celeriac.continuations")
def execution(data: bytes) -> None:
    """Whatever a message says, its execution ends in an outcome that can travel and be stored."""
    feed = Feed(data, (*HEADERS, *_EMBED, "add", "far", "queue", "celery", "chord_size", "group", "link", "countdown"))
    table = {"task": "add", "id": "i", **feed.table()}
    embed = ", ".join(
        f'"{name}": {_signature(feed) if name == "chord" else f"[{_signature(feed)}]"}'
        for name in ("callbacks", "errbacks", "chain", "chord")
        if feed.byte() % 2
    )
    arguments = ("[]", "{}") if feed.byte() % 2 else (feed.json(2), feed.json(2))
    parts = (*arguments, f"{{{embed}}}" if feed.byte() % 8 else feed.json(2))
    text = feed.json_object("task", "id", *_EMBED) if feed.byte() % 4 == 0 else f"[{', '.join(parts)}]"
    message = Message(id="i", headers=table, body=text.encode(), content_type="application/json", queue="celery")
    try:
        ((kind, frame),) = FrameReader().feed(encode_frame(Kind.RUN, Execution(1, 0, message, "celery", 1)))
    except _FRAMED:
        return
    environment, asked = Environment(APP, "node"), decode_frame(kind, frame)
    outcome = sendable(environment, asked, execute(environment, asked))
    ((kind, frame),) = FrameReader().feed(encode_frame(Kind.OUTCOME, outcome))
    travelled = decode_frame(kind, frame)
    assert Action(travelled.action)
    for follower in travelled.messages:
        write_head(head_of(follower))
    records = [record for record in (travelled.record, *travelled.more_records) if record is not None]
    upsert(_STORE, records, NOW)
    _STORE.rollback()
    for record in records:
        row_of(record)


def _frames() -> Iterator[bytes]:
    execution = Execution(1, 0, Message(id="i", headers={"task": "add"}, body=b"[[], {}, {}]"), "celery", 1)
    yield encode_frame(Kind.RUN, execution)
    yield encode_frame(Kind.LIMITS, (0, 1, 2.0, None)) + encode_frame(Kind.READY, 1)


@target("celeriac.runner.protocol", refuses=(msgspec.MsgspecError,), starts=_frames)
def frames(data: bytes) -> None:
    """A stream from a runner; the supervisor ends one whose frames raise a MsgspecError."""
    reader = FrameReader()
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        for kind, body in reader.feed(piece):
            decode_frame(kind, body)
