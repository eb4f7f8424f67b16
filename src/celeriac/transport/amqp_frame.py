"""Frames of AMQP 0-9-1 as bytes: the four kinds that a busy connection is full of. Pure functions; nothing here knows a socket.

`amqp_pika` reads deliveries with `read_deliver`, `amqp_channel` writes messages and acknowledgements. All other frames are
pika's, whose objects for these would cost ten microseconds a message each way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from celeriac.transport.amqp_field import short_text

__all__ = ["DELIVER", "FRAME_END", "HEAD", "Deliver", "publish_frames", "read_deliver", "settling_frames"]

#: Type, channel and size: what each frame begins with.
HEAD = struct.Struct(">BHI")
FRAME_END = 0xCE
#: Class and method of Basic.Deliver.
DELIVER = b"\x00\x3c\x00\x3c"
_METHOD, _HEADER, _BODY = 1, 2, 3
_END = bytes([FRAME_END])
_TAG_AND_FLAG = struct.Struct(">QB")
#: A whole Basic.Ack or Basic.Nack: head, class, method, tag, flags, end.
_SETTLING = struct.Struct(">BHIHHQBB")
_BASIC, _PUBLISH, _ACK, _NACK = 60, 40, 80, 120
_SETTLING_SIZE = 13
_REQUEUE = 2
#: Methods of publishing by where to: they are written over and over.
_known: dict[tuple[int, str, str, bool], bytes] = {}
_MAX_KNOWN = 1000


class Deliver(NamedTuple):
    """How a message came: AMQP's Basic.Deliver."""

    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str


def read_deliver(data: bytes, at: int) -> Deliver:
    """The arguments of a Basic.Deliver, which begin at `at`."""
    start = at + 1
    at = start + data[at]
    consumer_tag = data[start:at].decode()
    tag, flag = _TAG_AND_FLAG.unpack_from(data, at)
    start = at + 10
    at = start + data[at + 9]
    exchange = data[start:at].decode()
    return Deliver(consumer_tag, tag, flag & 1 == 1, exchange, data[at + 1 : at + 1 + data[at]].decode())


def settling_frames(channel: int, acks: Iterable[tuple[int, bool]], requeues: Iterable[int]) -> bytes:
    """Acknowledgements, as (tag, whether all before it, too), and tags that go back to their queue."""
    pack = _SETTLING.pack
    frames = [pack(_METHOD, channel, _SETTLING_SIZE, _BASIC, _ACK, tag, multiple, FRAME_END) for tag, multiple in acks]
    frames += [pack(_METHOD, channel, _SETTLING_SIZE, _BASIC, _NACK, tag, _REQUEUE, FRAME_END) for tag in requeues]
    return b"".join(frames)


def publish_frames(
    channel: int, exchange: str, routing_key: str, header: bytes, body: bytes, longest: int, *, is_mandatory: bool
) -> bytes:
    """A message to publish.

    Args:
        header: The payload of its header frame.
        longest: Bytes of body that a frame takes.
    """
    key = (channel, exchange, routing_key, is_mandatory)
    method = _known.get(key)
    if method is None:
        method = _publish_method(*key)
        if len(_known) < _MAX_KNOWN:
            _known[key] = method
    if 0 < len(body) <= longest:
        between = _END + HEAD.pack(_BODY, channel, len(body))
        return b"".join((method, HEAD.pack(_HEADER, channel, len(header)), header, between, body, _END))
    parts = [method, HEAD.pack(_HEADER, channel, len(header)), header, _END]
    for start in range(0, len(body), longest):
        piece = body[start : start + longest]
        parts += (HEAD.pack(_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def _publish_method(channel: int, exchange: str, routing_key: str, is_mandatory: bool) -> bytes:
    names = short_text(exchange) + short_text(routing_key)
    payload = struct.pack(">HHH", _BASIC, _PUBLISH, 0) + names + bytes([is_mandatory])
    return HEAD.pack(_METHOD, channel, len(payload)) + payload + _END
