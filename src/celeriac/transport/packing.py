"""A message as stored by drivers that keep it whole: one compact head, and the body as it is.

The memory and SQL transports call it. The head is a MessagePack array of everything but the body and the queue; new
fields are appended at its end, so that older and newer releases read each other's. What can't be read becomes a
message with `defect` set: reading never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from celeriac.errors import EncodeError
from celeriac.message import Message
from celeriac.wire.moments import as_moment

__all__ = ["WRITE_ERRORS", "head_of", "unpack", "unwritable", "write_head"]


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

# Writing a head is `write_head(head_of(message))`, two calls of C functions on the way of every task: drivers make them
# themselves, and raise `unwritable` for an error of WRITE_ERRORS.
head_of: Callable[[Message], tuple[Any, ...]] = attrgetter(*Head.__struct_fields__)
write_head = _encoder.encode
WRITE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


def unwritable(message: Message, error: Exception) -> EncodeError:
    """What to raise for a message with a header or property that is not plain data."""
    return EncodeError(f"Message {message.id!r} can't be sent: {_culprit(message)}{error}")


def _culprit(message: Message) -> str:
    for kind, table in (("header", message.headers), ("property", message.properties)):
        for name, value in table.items():
            try:
                _encoder.encode({name: value})
            except WRITE_ERRORS:
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
        priority=known.priority, eta=None if known.eta is None else as_moment(known.eta),
        expires_at=None if known.expires_at is None else as_moment(known.expires_at), reply_to=known.reply_to,
        transient=known.transient, properties=known.properties, defect=defect,
    )  # fmt: skip
