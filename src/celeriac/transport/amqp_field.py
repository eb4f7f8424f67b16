"""Field tables and message properties of AMQP 0-9-1 as bytes. Pure functions; nothing here knows a socket.

`amqp_method` writes tables in arguments, `amqp_message` turns properties into messages. Values are written with the same
types as stock clients write them, so that redeclared queues are found equal: text as long string, integers as 32 bits where
they fit and 64 bits otherwise, floats as doubles. What can't be written raises `EncodeError`; what can't be read raises
`DecodeError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from celeriac.errors import DecodeError, EncodeError

__all__ = ["Properties", "decode_properties", "decode_table", "encode_properties", "encode_table", "short_text"]

_U8, _U16, _U32, _U64 = (struct.Struct(f">{code}") for code in "BHIQ")
_I16, _I32, _I64 = (struct.Struct(f">{code}") for code in "hiq")
_FLOAT, _DOUBLE = struct.Struct(">f"), struct.Struct(">d")
_INTEGERS = {"B": _U8, "H": _U16, "I": _U32, "Q": _U64}
#: Tags of fields with a fixed size. RabbitMQ reads l and L as signed, and so do clients.
_FIXED: dict[int, struct.Struct] = {
    ord(b"b"): struct.Struct(">b"), ord(b"B"): _U8, ord(b"s"): _I16, ord(b"U"): _I16, ord(b"u"): _U16, ord(b"I"): _I32,
    ord(b"i"): _U32, ord(b"l"): _I64, ord(b"L"): _I64, ord(b"f"): _FLOAT, ord(b"d"): _DOUBLE,
}  # fmt: skip
_TAG_TEXT, _TAG_BOOL, _TAG_VOID, _TAG_TABLE, _TAG_ARRAY = b"S"[0], b"t"[0], b"V"[0], b"F"[0], b"A"[0]
_TAG_BYTES, _TAG_TIME, _TAG_DECIMAL = b"x"[0], b"T"[0], b"D"[0]
_LONG_TEXT, _INT32, _INT64, _FLOAT64 = (struct.Struct(f">c{code}") for code in "Iiqd")
#: Tables deeper than this are refused, as an attack on the stack.
_MAX_DEPTH = 60


def short_text(value: str) -> bytes:
    """Text of at most 255 bytes, with its length.

    Raises:
        EncodeError: It is longer.
    """
    raw = value.encode()
    if len(raw) > 255:
        raise EncodeError(f"{value[:60]!r}… has {len(raw)} bytes; AMQP takes 255 in names, keys and ids")
    return b"%c%b" % (len(raw), raw)


# --- tables


class _Unplain(Exception):
    """A value that AMQP has no type for, and where it sits."""

    def __init__(self, path: str, value: Any, reason: object) -> None:
        super().__init__(path)
        self.path = path
        self.value = value
        self.reason = reason


def encode_table(table: Mapping[str, Any]) -> bytes:
    """A field table.

    Raises:
        EncodeError: A value is not plain data; its field is named.
    """
    parts: list[bytes] = []
    try:
        _write_fields(parts, table, 0)
    except _Unplain as exc:
        kind = type(exc.value).__name__
        raise EncodeError(f"header {exc.path!r} ({kind}) is not plain data: {exc.reason}") from exc
    body = b"".join(parts)
    return _U32.pack(len(body)) + body


def _write_fields(parts: list[bytes], table: Mapping[str, Any], depth: int) -> None:
    for name, value in table.items():
        try:
            parts.append(_name(name))
            _write(parts, value, depth)
        except _Unplain as exc:
            raise _Unplain(f"{name}.{exc.path}", exc.value, exc.reason) from exc
        except (AttributeError, TypeError, ValueError, OverflowError, struct.error) as exc:
            raise _Unplain(str(name), value, exc) from exc


_names: dict[str, bytes] = {}


def _name(name: str) -> bytes:
    """A field's name; the same few are written over and over."""
    known = _names.get(name)
    if known is None:
        known = short_text(name)
        if len(_names) < 1000:
            _names[name] = known
    return known


def _write(parts: list[bytes], value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        raw = value.encode()
        parts.append(_LONG_TEXT.pack(b"S", len(raw)))
        parts.append(raw)
    elif value is None:
        parts.append(b"V")
    elif kind is int:
        parts.append(_INT32.pack(b"I", value) if -0x80000000 <= value <= 0x7FFFFFFF else _INT64.pack(b"l", value))
    elif kind is bool:
        parts.append(b"t\x01" if value else b"t\x00")
    elif kind is float:
        parts.append(_FLOAT64.pack(b"d", value))
    else:
        _write_other(parts, value, depth)


def _write_other(parts: list[bytes], value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise EncodeError("nested too deeply")
    if isinstance(value, (list, tuple, Mapping)):
        inner: list[bytes] = []
        if isinstance(value, Mapping):
            _write_fields(inner, value, depth + 1)
        else:
            for item in value:
                _write(inner, item, depth + 1)
        body = b"".join(inner)
        parts.append(_LONG_TEXT.pack(b"F" if isinstance(value, Mapping) else b"A", len(body)) + body)
    elif isinstance(value, (bytes, bytearray)):
        parts.append(_LONG_TEXT.pack(b"x", len(value)) + value)
    elif isinstance(value, datetime):
        parts.append(b"T" + _U64.pack(int(value.timestamp())))
    elif isinstance(value, Decimal):
        _write(parts, str(value), depth)
    else:
        for base in (str, bool, int, float):  # subclasses, such as enums
            if isinstance(value, base):
                return _write(parts, base(value), depth)
        raise EncodeError("no such type in AMQP")


def decode_table(data: bytes, position: int = 0, depth: int = 0) -> tuple[dict[str, Any], int]:
    """A field table, and the position behind it. May raise what `decode_properties` turns into a DecodeError."""
    end = position + 4 + _U32.unpack_from(data, position)[0]
    if end > len(data) or depth > _MAX_DEPTH:
        raise DecodeError("a table is cut off or nested too deeply")
    position += 4
    table: dict[str, Any] = {}
    while position < end:
        start = position + 1
        position = start + data[position]
        name = data[start:position].decode()
        tag = data[position]
        if tag == _TAG_TEXT:
            start = position + 5
            position = start + _U32.unpack_from(data, position + 1)[0]
            table[name] = _text(data[start:position])
        elif tag == _TAG_VOID:
            table[name] = None
            position += 1
        else:
            table[name], position = _read(data, tag, position + 1, depth)
    if position != end:
        raise DecodeError("a table is longer than it says")
    return table, position


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _read(data: bytes, tag: int, position: int, depth: int) -> tuple[Any, int]:
    """The value with this tag at `position`, and the position behind it."""
    packing = _FIXED.get(tag)
    if packing is not None:
        return packing.unpack_from(data, position)[0], position + packing.size
    reader = _READERS.get(tag)
    if reader is None:
        raise DecodeError(f"unknown type {chr(tag)!r} in a table")
    return reader(data, position, depth)


def _read_array(data: bytes, position: int, depth: int) -> tuple[list[Any], int]:
    end = position + 4 + _U32.unpack_from(data, position)[0]
    if end > len(data) or depth > _MAX_DEPTH:
        raise DecodeError("an array is cut off or nested too deeply")
    position += 4
    items = []
    while position < end:
        item, position = _read(data, data[position], position + 1, depth + 1)
        items.append(item)
    return items, position


def _read_bytes(data: bytes, position: int, depth: int) -> tuple[bytes, int]:
    end = position + 4 + _U32.unpack_from(data, position)[0]
    return data[position + 4 : end], end


def _read_text(data: bytes, position: int, depth: int) -> tuple[str | bytes, int]:
    raw, position = _read_bytes(data, position, depth)
    return _text(raw), position


def _read_time(data: bytes, position: int, depth: int) -> tuple[str, int]:
    return datetime.fromtimestamp(_U64.unpack_from(data, position)[0], UTC).isoformat(), position + 8


def _read_decimal(data: bytes, position: int, depth: int) -> tuple[str, int]:
    scale, digits = data[position], _I32.unpack_from(data, position + 1)[0]
    return str(Decimal(digits).scaleb(-scale)), position + 5


_READERS: dict[int, Callable[[bytes, int, int], tuple[Any, int]]] = {
    _TAG_TEXT: _read_text,
    _TAG_BYTES: _read_bytes,
    _TAG_ARRAY: _read_array,
    _TAG_TIME: _read_time,
    _TAG_DECIMAL: _read_decimal,
    _TAG_VOID: lambda data, position, depth: (None, position),
    _TAG_BOOL: lambda data, position, depth: (bool(data[position]), position + 1),
    _TAG_TABLE: lambda data, position, depth: decode_table(data, position, depth + 1),
}


# --- properties


class Properties(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a message ("basic properties"); None is absent."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


#: In the order of AMQP, which is the order of the flags from the highest bit down.
_PROPERTIES = [
    (name, 1 << (15 - index), {"headers": "T", "delivery_mode": "B", "priority": "B", "timestamp": "Q"}.get(name, "s"))
    for index, name in enumerate(Properties.__struct_fields__)
]


def encode_properties(properties: Properties, size: int) -> bytes:
    """The payload of a header frame for a body of `size` bytes.

    Raises:
        EncodeError: A property can't be written; it is named.
    """
    flags = 0
    parts = []
    for name, flag, code in _PROPERTIES:
        value = getattr(properties, name)
        if value is None:
            continue
        flags |= flag
        try:
            if code == "s":
                parts.append(short_text(value))
            elif code == "T":
                parts.append(encode_table(value))
            else:
                parts.append(_INTEGERS[code].pack(value))
        except (AttributeError, struct.error) as exc:
            raise EncodeError(f"property {name!r} can't be {value!r}") from exc
    return b"\x00\x3c\x00\x00%b%b%b" % (_U64.pack(size), _U16.pack(flags), b"".join(parts))


def decode_properties(payload: bytes) -> Properties:
    """The properties in a header frame.

    Raises:
        DecodeError: They can't be read.
    """
    try:
        flags, position = _U16.unpack_from(payload, 12)[0], 14
        found: dict[str, Any] = {}
        for name, flag, code in _PROPERTIES:
            if not flags & flag:
                continue
            if code == "s":
                start = position + 1
                position = start + payload[position]
                found[name] = payload[start:position].decode()
            elif code == "T":
                found[name], position = decode_table(payload, position)
            else:
                packing = _INTEGERS[code]
                found[name] = packing.unpack_from(payload, position)[0]
                position += packing.size
        if position > len(payload):
            raise DecodeError("they are cut off")
        return Properties(**found)
    except (IndexError, struct.error, ValueError, OverflowError, OSError) as exc:  # a time may be no date
        raise DecodeError(f"unreadable properties: {exc}") from exc
