"""A message as stored by drivers that keep it whole: one compact head, and the body as it is.

The memory and SQL transports call it. The head is a MessagePack array of everything but the body and the queue; new
fields are appended at its end, so that older and newer releases read each other's. What can't be read becomes a
message with `defect` set: reading never raises.
"""

from __future__ import annotations

from typing import Any

import msgspec

from celeriac.errors import EncodeError
from celeriac.message import Message

__all__ = ["pack", "unpack"]


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The stored part of a message. The order of the fields is the format: append only."""

    id: str
    headers: dict[str, Any]
    content_type: str
    content_encoding: str
    exchange: str
    routing_key: str
    priority: int | None
    eta: float | None
    expires_at: float | None
    reply_to: str
    transient: bool
    properties: dict[str, Any]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Head)


def pack(message: Message) -> bytes:
    """The head of a message.

    Raises:
        EncodeError: A header or property is not plain data.
    """
    try:
        return _encoder.encode(
            Head(
                message.id, message.headers, message.content_type, message.content_encoding, message.exchange,
                message.routing_key, message.priority, message.eta, message.expires_at, message.reply_to,
                message.transient, message.properties,
            )
        )  # fmt: skip
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise EncodeError(f"Message {message.id!r} can't be sent: {_culprit(message)}{exc}") from exc


def _culprit(message: Message) -> str:
    for kind, table in (("header", message.headers), ("property", message.properties)):
        for name, value in table.items():
            try:
                _encoder.encode({name: value})
            except (TypeError, ValueError, OverflowError, RecursionError):
                return f"{kind} {name!r} ({type(value).__name__}) is not plain data: "
    return ""


def unpack(head: Any, body: Any, queue: str) -> Message:
    """The message of a stored head and body; one with `defect` set if they can't be read."""
    try:
        known = _decoder.decode(head)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        payload = body if isinstance(body, bytes) else b""
        return Message(id="", headers={}, body=payload, queue=queue, defect=f"unreadable head: {exc}")
    if not isinstance(body, bytes):
        defect, body = f"the body is {type(body).__name__}, not bytes", b""
    else:
        defect = ""
    return Message(
        id=known.id, headers=known.headers, body=body, content_type=known.content_type,
        content_encoding=known.content_encoding, queue=queue, exchange=known.exchange, routing_key=known.routing_key,
        priority=known.priority, eta=known.eta, expires_at=known.expires_at, reply_to=known.reply_to,
        transient=known.transient, properties=known.properties, defect=defect,
    )  # fmt: skip
