"""Targets: results, exceptions and control messages as they come back from stores and the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from celeriac import config_plain
from celeriac.errors import DecodeError
from celeriac.message import ControlMessage
from celeriac.results import meta_value, redis_records, sql_rows, sqlite_record
from celeriac.results.base import Record
from celeriac.wire.control import concerns, decode_answer, decode_command
from celeriac.wire.exceptions import exception_form, exception_from_form
from celeriac.wire.results import decode_result, document, record_from_document
from tests.fuzz.feed import Feed
from tests.fuzz.messages import ACCEPT
from tests.fuzz.target import target
from tests.wire import golden

_KEYS = (
    "status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "name", "args", "kwargs", "worker",
    "retries", "queue", "stamped_headers", "task_id", "celeriac", "SUCCESS", "FAILURE", "REVOKED", "stamp",
)  # fmt: skip
_FORM = (
    "exc_type", "exc_message", "exc_module", "exc_text", "exc_notes", "exc_cause", "ValueError", "KeyError", "OSError",
    "UnicodeDecodeError", "ExceptionGroup", "Retry", "Reject", "builtins", "celery.exceptions", "celeriac.errors", "json",
    "JSONDecodeError", "urllib.error", "HTTPError", "subprocess", "CalledProcessError", "nowhere", "A.B",
)  # fmt: skip
_COMMAND = (
    "method", "arguments", "destination", "pattern", "matcher", "ticket", "reply_to", "exchange", "routing_key", "glob",
    "pcre", "ping", "w1@node", "(a*)*", "*", "[a-", "\\d+",
)  # fmt: skip
NODE = "celery@ip-10-0-0-100.eu-central-1.compute.internal"
_ROW = Record(id="i", state="SUCCESS", result=b"1", date_done="2026-01-01T00:00:00+00:00", children=[], name="add")


def shown(record: Record) -> None:
    """What a client does with a record."""
    try:
        decode_result(record, ACCEPT)
    except DecodeError:
        return


def _documents() -> Iterator[bytes]:
    for name in golden.names("results"):
        raw = golden.load("results", name).get("raw")
        if raw is not None and "pickle" not in name:
            yield golden.to_bytes(raw)
    yield msgspec.msgpack.encode({"status": "SUCCESS", "result": 1, "task_id": "i"})
    yield b"status: SUCCESS\nresult: 1\ntask_id: i\ndate_done: 2026-01-01 00:00:00\n"
    yield document(_ROW, "gzip")


@target("celeriac.wire.results", refuses=(DecodeError,), starts=_documents)
def result_document(data: bytes) -> None:
    if data[:1] != b"\x80":
        shown(record_from_document(data, ACCEPT, max_bytes=1 << 20))


@target("celeriac.wire.results", "celeriac.wire.exceptions", refuses=(DecodeError,))
def result_document_shaped(data: bytes) -> None:
    feed = Feed(data, (*_KEYS, *_FORM))
    shown(record_from_document(feed.json_object(*_KEYS[:15]).encode(), ACCEPT))


def _values() -> Iterator[bytes]:
    for kind, value in (
        ("application/json", b"1"),
        ("application/x-msgpack", b"\x01"),
        ("application/x-yaml", b"1\n"),
        ("x", b"?"),
    ):
        yield meta_value.value_of(msgspec.structs.replace(_ROW, content_type=kind, result=value))
    yield meta_value.value_of(_ROW, "zstd")
    yield meta_value.group_value(b"[1]", 1.9e9)


@target("celeriac.results.meta_value", refuses=(DecodeError,), starts=_values)
def stored_value(data: bytes) -> None:
    if data[:1] != b"\x80":
        record = meta_value.record_from(data)
        assert meta_value.readable("key", data) == record or record != record
        shown(record)


@target("celeriac.results.meta_value", refuses=(DecodeError,), starts=_values)
def stored_group(data: bytes) -> None:
    meta_value.expiry_of("key", data)
    meta_value.group_from(data, 0.0)


@target("celeriac.results.redis_records", refuses=(DecodeError,), starts=_values)
def redis_value(data: bytes) -> None:
    value, _, companion = data.partition(b"\xff\xff")
    if value[:1] != b"\x80":
        shown(
            redis_records.record_from(
                "i", value, b"%d 0 1 SUCCESS\n%b" % (len(value), companion) if companion else None
            )
        )


@target("celeriac.results.sql_rows", "celeriac.results.sqlite_record", refuses=(DecodeError,))
def result_row(data: bytes) -> None:
    feed = Feed(data, ("SUCCESS", "FAILURE", "application/json", "utf-8"))

    def text() -> Any:
        return feed.choice((None, "", feed.text()))

    def blob() -> Any:
        return feed.choice((None, b"", feed.take(feed.byte())))

    moment, number = feed.choice((None, "2026-01-01 00:00:00.000000", "2026-01-01")), feed.choice((None, 0, 2**62, -1))
    row = ("i", feed.choice(("SUCCESS", "FAILURE")), blob(), moment, text(), blob(), text(), blob(), blob(), text(), number,
           text(), blob(), text(), text(), number, text(), text(), feed.choice((None, 1.5, 2**62)))  # fmt: skip
    for read in (sql_rows.record_of, sqlite_record.record_of):
        shown(read(row))


@target("celeriac.wire.exceptions")
def exception(data: bytes) -> None:
    """Reading an exception never raises, and what it returns can be shown and written again."""
    feed = Feed(data, _FORM)
    form = feed.table(*_FORM[:3])
    if feed.byte() % 2:
        form["exc_cause"] = feed.table(*_FORM[:3])
    found = exception_from_form(form if feed.byte() % 16 else feed.value())
    assert isinstance(found, Exception)
    str(found)
    exception_from_form(exception_form(found))


def _commands() -> Iterator[bytes]:
    for name in golden.names("control_redis"):
        for item in golden.load("control_redis", name).get("broadcast", ()):
            body = item.get("envelope", {}).get("body")
            if isinstance(body, str):
                yield body.encode()


@target("celeriac.wire.control", refuses=(DecodeError,), starts=_commands)
def control_bytes(data: bytes) -> None:
    kinds = ("application/json", "application/x-yaml", "application/x-msgpack", "text/plain")
    message = ControlMessage(body=data[1:], content_type=kinds[(data or b"\0")[0] % 4])
    decode_answer(message, ACCEPT)
    concerns(decode_command(message, ACCEPT), NODE)


@target("celeriac.wire.control", refuses=(DecodeError,))
def control_shaped(data: bytes) -> None:
    feed = Feed(data, _COMMAND)
    headers = feed.table("clock", "ticket")
    text = f'{{"method": "ping", {feed.json_object(*_COMMAND[1:7])[1:]}'.replace(", }", "}")
    message = ControlMessage(body=text.encode(), headers=headers)
    decode_answer(message, ACCEPT)
    concerns(decode_command(message, ACCEPT), NODE)


@target("celeriac.wire.control", refuses=(DecodeError,), starts=lambda: [b"w\\d+@.*", b"(web|app)@\\w+", b"[!a-z]*@*"])
def node_pattern(data: bytes) -> None:
    for matcher in ("glob", "pcre"):
        command = {"method": "ping", "pattern": data.decode("utf-8", "replace"), "matcher": matcher}
        message = ControlMessage(body=json.dumps(command).encode())
        concerns(decode_command(message, ACCEPT), NODE)


@target("celeriac.config_plain", refuses=(DecodeError,))
def plain_settings(data: bytes) -> None:
    names = (
        "$",
        "value",
        "float",
        "dict",
        "datetime",
        "date",
        "time",
        "timedelta",
        "bytes",
        "zone",
        "Europe/Berlin",
        "nan",
    )
    config_plain.decode(Feed(data, names, is_deep=False).value())
