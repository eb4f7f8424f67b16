"""A message as it stands in a Redis list: kombu's envelope, written as stock Celery writes it and read leniently.

The Redis transport calls it. Our own additions are keys that stock readers ignore: the counts `"celeriac": [deliveries,
starts]`, always the envelope's last key (written by `redis_lua`), and the moments `"celeriac": {"eta", "expires_at"}` among
the properties. Reading never raises: what can't be read becomes a message with `defect` set.
"""

from __future__ import annotations

import binascii
import functools
import itertools
import os
import re
import time
from json.encoder import encode_basestring_ascii as quote
from typing import Annotated, Any

import msgspec

from celeriac import codec
from celeriac.errors import CeleriacError, EncodeError
from celeriac.message import CommonHeaders, Message, SharedHeaders
from celeriac.wire.messages import expiration_ms
from celeriac.wire.moments import as_moment

__all__ = ["decode", "encode", "new_tag"]

#: Properties with a field of their own in Message, or that the driver writes itself.
_OWN = frozenset({
    "body_encoding", "celeriac", "correlation_id", "delivery_info", "delivery_mode", "delivery_tag", "expiration",
    "priority", "reply_to",
})  # fmt: skip


#: How often something happened; databases keep no more than this of it.
_MOST = 2**31
_Count = Annotated[int, msgspec.Meta(ge=0, lt=_MOST)]


class _Envelope(msgspec.Struct, rename={"content_type": "content-type", "content_encoding": "content-encoding"}):
    """What all well-formed envelopes have."""

    body: bytes  # msgspec undoes the base64
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str
    content_encoding: str = ""
    celeriac: tuple[_Count, _Count] = (1, 0)


_decoder = msgspec.json.Decoder(_Envelope)
_tag_head = ""
_tag_numbers = itertools.count()


def _renew_tags() -> None:
    """Another random head for this process, so that no two processes make the same tags."""
    global _tag_head, _tag_numbers
    h = os.urandom(10).hex()
    _tag_head = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{h[16:20]}-"
    _tag_numbers = itertools.count(int.from_bytes(os.urandom(5), "big"))


_renew_tags()
os.register_at_fork(after_in_child=_renew_tags)


def new_tag() -> str:
    """A delivery tag, which has to be unique, in the form of a UUID."""
    return f"{_tag_head}{next(_tag_numbers) & 0xFFFFFFFFFFFF:012x}"


def encode(message: Message, queue: str, tag: str) -> str:
    """The envelope of a message for one queue.

    Raises:
        EncodeError: A header or property is not plain data.
    """
    # With the queue given, it is where the message belongs: whoever restores it routes by these two.
    exchange, routing_key = (message.exchange, message.routing_key) if not message.queue else ("", queue)
    headers, body = message.headers, binascii.b2a_base64(message.body, newline=False).decode()
    try:
        if type(headers) is SharedHeaders and message.eta is message.expires_at is None and not message.properties:
            names, pieces = _form(
                headers.common, message.content_type, message.content_encoding, exchange, routing_key, message.reply_to,
                message.priority, message.transient,
            )  # fmt: skip
            parts = pieces.copy()
            values = map(headers.__getitem__, names)
            parts[1::2] = (
                body,
                *[quote(v) if type(v) is str else codec.json_dumps(v) for v in values],
                quote(message.id),
                tag,
            )
            return "".join(parts)
        return _text_of(
            body, codec.json_dumps(headers), quote(message.id), tag, message.content_type, message.content_encoding,
            exchange, routing_key, message.reply_to, message.priority, message.transient, _more_properties(message),
        )  # fmt: skip
    except (TypeError, ValueError, RecursionError) as exc:
        raise EncodeError(f"Message {message.id!r} can't be sent: {_culprit(message)}{exc}") from exc


def _text_of(
    body: str, headers: str, task_id: str, tag: str, content_type: str, content_encoding: str, exchange: str,
    routing_key: str, reply_to: str, priority: int | None, transient: bool, more: str = "",
) -> str:  # fmt: skip
    return (
        f'{{"body": "{body}", "content-encoding": {quote(content_encoding)}, "content-type": {quote(content_type)}'
        f', "headers": {headers}, "properties": {{"correlation_id": {task_id}'
        f', "reply_to": {quote(reply_to)}, "delivery_mode": {1 if transient else 2}{more}'
        f', "delivery_info": {{"exchange": {quote(exchange)}, "routing_key": {quote(routing_key)}}}'
        f', "priority": {int(priority or 0)}, "body_encoding": "base64", "delivery_tag": "{tag}"}}}}'
    )


#: Stands for what each message has for itself. In JSON it would be escaped.
_GAP = "\0"


@functools.lru_cache(maxsize=1024)
def _form(common: CommonHeaders, *others: Any) -> tuple[list[str], list[str]]:
    """Names of the headers that each message has for itself, and the text around them: every other piece is for one.

    Before the headers comes the body, after them the id and the tag.
    """
    names = [name for name in common.values if name in common.own]
    headers = [
        f"{quote(name)}: {_GAP if name in common.own else codec.json_dumps(value)}"
        for name, value in common.values.items()
    ]
    return names, re.split(f"({_GAP})", _text_of(_GAP, f"{{{', '.join(headers)}}}", _GAP, _GAP, *others))


def _more_properties(message: Message) -> str:
    """The properties that not every message has, each with a comma before it."""
    if message.expires_at is None and message.eta is None and not message.properties:
        return ""
    more: dict[str, Any] = {}
    if message.expires_at is not None:
        more["expiration"] = expiration_ms(message, time.time())
    more.update({name: value for name, value in message.properties.items() if name not in _OWN})
    if message.expires_at is not None or message.eta is not None:
        more["celeriac"] = {"eta": message.eta, "expires_at": message.expires_at}
    return ", " + codec.json_dumps(more)[1:-1] if more else ""


def _culprit(message: Message) -> str:
    for kind, table in (("header", message.headers), ("property", message.properties)):
        for name, value in table.items():
            try:
                codec.json_dumps({name: value})
            except (TypeError, ValueError, RecursionError):
                return f"{kind} {name!r} ({type(value).__name__}) is not plain data: "
    return ""


def decode(element: bytes, queue: str) -> tuple[Message, int, int]:
    """The message in a list element, how often it was delivered (this time included) and started before."""
    try:
        envelope = _decoder.decode(element)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _decode_leniently(element, queue)
    properties = envelope.properties
    if properties.get("body_encoding") != "base64" or b'"__type__"' in element:
        return _decode_leniently(element, queue)
    message = _message(
        envelope.body, envelope.headers, properties, queue, envelope.content_type, envelope.content_encoding
    )
    deliveries, starts = envelope.celeriac
    return message, deliveries, starts


def _message(
    body: bytes, headers: dict[str, Any], properties: dict[str, Any], queue: str, content_type: str, encoding: str
) -> Message:
    info = properties.get("delivery_info")
    exchange, routing_key = (info.get("exchange"), info.get("routing_key")) if isinstance(info, dict) else ("", "")
    priority = properties.get("priority")
    moments = properties.get("celeriac")
    eta, expires_at = (moments.get("eta"), moments.get("expires_at")) if isinstance(moments, dict) else (None, None)
    return Message(
        id=_text(headers.get("id")) or _text(properties.get("correlation_id")),
        headers=headers,
        body=body,
        content_type=content_type,
        content_encoding=encoding,
        queue=queue,
        exchange=_text(exchange),
        routing_key=_text(routing_key),
        priority=priority if type(priority) is int else None,
        eta=None if eta is None else as_moment(eta),
        expires_at=None if expires_at is None else as_moment(expires_at),
        reply_to=_text(properties.get("reply_to")),
        transient=properties.get("delivery_mode") == 1,
        properties={name: value for name, value in properties.items() if name not in _OWN},
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _decode_leniently(element: bytes, queue: str) -> tuple[Message, int, int]:
    """What a stock worker would bear is borne; the rest has a defect."""
    try:
        envelope = codec.json_loads(element)
    except (CeleriacError, ValueError, TypeError, RecursionError) as exc:
        return _defective(element, queue, f"the envelope is no JSON: {exc}"), 1, 0
    if not isinstance(envelope, dict):
        return _defective(element, queue, f"the envelope is {type(envelope).__name__}, not an object"), 1, 0
    deliveries, starts = _counts(envelope.get("celeriac"))
    headers, properties = envelope.get("headers"), envelope.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    headers, body = headers if isinstance(headers, dict) else {}, envelope.get("body")
    if not isinstance(body, str):
        return _defective(element, queue, f"the body is {type(body).__name__}, not text", headers), deliveries, starts
    try:
        # As kombu: base64 where the properties say so, else the text itself.
        is_base64 = properties.get("body_encoding") == "base64"
        content = binascii.a2b_base64(body, strict_mode=False) if is_base64 else body.encode(errors="surrogatepass")
    except (binascii.Error, ValueError) as exc:
        return _defective(element, queue, f"the body is no base64: {exc}", headers), deliveries, starts
    kind, encoding = _text(envelope.get("content-type")), _text(envelope.get("content-encoding"))
    return _message(content, headers, properties, queue, kind, encoding), deliveries, starts


def _counts(value: Any) -> tuple[int, int]:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(type(number) is int and 0 <= number < _MOST for number in value)
    ):
        return value[0], value[1]
    return 1, 0


def _defective(element: bytes, queue: str, defect: str, headers: dict[str, Any] | None = None) -> Message:
    headers = headers or {}
    return Message(id=_text(headers.get("id")), headers=headers, body=element, queue=queue, defect=defect)
