"""Serializers: how arguments and results become bytes, and bytes values again.

`wire/` calls `dumps` on the client's way of a task and `loads` in the runner; settings call `accept_types`. The formats
are those that Celery uses, byte by byte, so that mixed fleets work. Invariants: `dumps` fails with `EncodeError` that
tells where the bad value sits; `loads` decodes only what is accepted, and whatever the bytes are it fails with nothing
but `DecodeError` or `ContentDisallowed`. Values that a format has no type for are refused, never changed silently; an
object with a `__json__()` method is replaced by what that returns.
"""

from __future__ import annotations

import base64
import functools
import importlib
import json
import pickle
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from typing import Any

import msgspec

from celeriac.encode_failure import encode_failure, one_line
from celeriac.errors import (
    CeleriacError,
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    SecurityError,
    near_match,
)

__all__ = [
    "TRUSTED_TYPES", "Constant", "Registry", "Serializer", "accept_types", "disable_insecure_serializers", "dumps",
    "enable_insecure_serializers", "explain", "has_types", "json_dumps", "json_loads", "loads", "register", "register_json_type",
    "registry", "unregister",
]  # fmt: skip

#: Let through even when not accepted: they carry text and bytes as they are, or data that is signed (`auth`).
TRUSTED_TYPES = frozenset({"application/data", "application/text"})
#: Off unless a caller accepts them: pickle runs code, the others have larger decoders than json.
_INSECURE = ("pickle", "yaml", "msgpack")
#: Character sets in which a body of plain text may come. Some of Python's other codecs take quadratic time.
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1", "utf-16", "utf-32"})
#: Values that a YAML body may expand to by its aliases; a few hundred bytes could ask for billions.
_MAX_YAML_VALUES = 10_000_000


class Serializer(msgspec.Struct, frozen=True):
    """One format.

    Attributes:
        encoder: Takes a value, returns text or bytes.
        decoder: Takes the bytes. None for plain text and bytes, which are handed over as they are.
        content_encoding: Sent along; empty if it depends on the value ("utf-8" for text, "binary" for bytes).
    """

    name: str
    encoder: Callable[[Any], str | bytes]
    decoder: Callable[[bytes], Any] | None
    content_type: str
    content_encoding: str


class Constant(msgspec.Struct, eq=False):
    """A value that is serialized again and again, and its JSON, which is made once.

    Attributes:
        json: As `json_dumps` writes it; "" until it is first asked for.
    """

    value: Any
    json: str = ""


class Registry:
    """The serializers of this process, by name and by content type."""

    def __init__(self) -> None:
        self._by_name: dict[str, Serializer] = {}
        self._by_type: dict[str, Serializer] = {}
        self._disabled: set[str] = set()

    def register(
        self,
        name: str,
        encoder: Callable[[Any], str | bytes],
        decoder: Callable[[bytes], Any] | None,
        content_type: str,
        content_encoding: str = "utf-8",
    ) -> None:
        """Add a serializer, or replace the one of this name.

        Args:
            name: What `task_serializer` and `serializer=` call it.
            encoder: Takes a value, returns text or bytes.
            decoder: Takes bytes, returns the value.
            content_type: MIME type by which a receiver finds the decoder.
            content_encoding: "utf-8" for text, "binary" for bytes.
        """
        entry = Serializer(name, encoder, decoder, content_type, content_encoding)
        self._by_name[name] = entry
        self._by_type[content_type] = entry

    def unregister(self, name: str) -> None:
        """Remove a serializer.

        Raises:
            ImproperlyConfigured: There is none of this name.
        """
        gone = self.serializer(name)
        del self._by_name[name]
        if self._by_type.get(gone.content_type) is gone:
            del self._by_type[gone.content_type]
            for entry in self._by_name.values():
                if entry.content_type == gone.content_type:
                    self._by_type[entry.content_type] = entry

    def names(self) -> list[str]:
        """Names of all serializers, sorted."""
        return sorted(self._by_name)

    def serializer(self, name: str) -> Serializer:
        """The serializer of this name.

        Raises:
            ImproperlyConfigured: There is none.
        """
        entry = self._by_name.get(name)
        if entry is None:
            hint = near_match(str(name), self._by_name)
            if name == "auth":
                hint = " Call app.setup_security() to have messages signed."
            raise ImproperlyConfigured(f"unknown serializer {name!r}; known are {', '.join(self.names())}.{hint}")
        return entry

    @property
    def name_to_type(self) -> dict[str, str]:
        """Content type of each name."""
        return {name: entry.content_type for name, entry in self._by_name.items()}

    @property
    def type_to_name(self) -> dict[str, str]:
        """Name of the serializer of each content type."""
        return {content_type: entry.name for content_type, entry in self._by_type.items()}

    def disable(self, name: str) -> None:
        """Refuse this serializer (name or content type) where the caller of `loads` doesn't say what it accepts."""
        self._disabled |= self.accept_types([name])

    def enable(self, name: str) -> None:
        """Undo `disable`."""
        self._disabled -= self.accept_types([name])

    def accept_types(self, names: Iterable[str]) -> frozenset[str]:
        """Content types of serializer names and MIME types, as in the setting `accept_content`.

        Raises:
            ImproperlyConfigured: One of them is unknown.
        """
        known = {**self.name_to_type, "auth": "application/data"}
        types = {*known.values(), *self._by_type, *TRUSTED_TYPES}
        accepted = set()
        for name in names:
            if name not in types and name not in known:
                hint = near_match(str(name), [*known, *types])
                raise ImproperlyConfigured(
                    f"accept_content: unknown serializer or type {name!r}; known are {', '.join(sorted(known))}.{hint}"
                )
            accepted.add(known.get(name, name))
        return frozenset(accepted)

    def dumps(self, value: Any, serializer: str = "json", last: Constant | None = None) -> tuple[str, str, bytes]:
        """Serialize `value`.

        Args:
            last: One more item of `value`, which is then a tuple of at least one.

        Returns:
            Content type, content encoding and body.

        Raises:
            EncodeError: Part of the value has no form in this format; the message says where it sits.
            ImproperlyConfigured: The serializer is unknown, or its package is not installed.
        """
        entry = self._by_name.get(serializer) or self.serializer(serializer)
        try:
            if last is not None and entry.encoder is json_dumps:
                if not last.json:
                    last.json = json_dumps(last.value)
                text = f"{json_dumps(value)[:-1]}, {last.json}]"
                return entry.content_type, entry.content_encoding or "utf-8", text.encode()
            body = entry.encoder(value if last is None else (*value, last.value))
            if isinstance(body, str):
                return entry.content_type, entry.content_encoding or "utf-8", body.encode()
        except CeleriacError:
            raise
        except Exception as exc:  # encoders run foreign code, such as __json__ and __reduce__
            raise self.explain({"value": value}, serializer, exc) from exc
        return entry.content_type, entry.content_encoding or "binary", body

    def reads_json(self, content_type: str, accept: frozenset[str] | None) -> bool:
        """Whether `loads` takes this for JSON and decodes it with `json_loads`."""
        entry = self._by_type.get(content_type)
        is_accepted = content_type not in self._disabled if accept is None else content_type in accept
        return is_accepted and entry is not None and entry.decoder is json_loads

    def writes_json(self, serializer: str) -> bool:
        """Whether `dumps` encodes with `json_dumps`."""
        entry = self._by_name.get(serializer)
        return entry is not None and entry.encoder is json_dumps

    def loads(
        self, body: bytes, content_type: str, content_encoding: str = "utf-8", accept: frozenset[str] | None = None
    ) -> Any:
        """Deserialize `body`.

        Args:
            accept: Content types to accept (see `accept_types`); None for all that are not disabled.

        Raises:
            ContentDisallowed: The content type is not accepted.
            DecodeError: The body can't be decoded.
        """
        self._check_accepted(content_type, accept)
        entry = self._by_type.get(content_type)
        if entry is None and content_type not in TRUSTED_TYPES:
            raise DecodeError(f"no serializer for content type {content_type!r} is registered here")
        if entry is None or entry.decoder is None:
            return _plain_text(body, content_encoding)
        try:
            return entry.decoder(body)
        except (DecodeError, SecurityError):
            raise
        except Exception as exc:  # whatever a decoder raises on foreign bytes
            raise DecodeError(f"can't decode {len(body)} bytes of {content_type}: {one_line(exc)}") from exc

    def explain(self, parts: Mapping[str, Any], serializer: str, cause: BaseException) -> EncodeError:
        """The error for `parts` (values by the names under which the caller knows them) that `dumps` refused."""
        return encode_failure(parts, serializer, self.serializer(serializer).encoder, cause)

    def _check_accepted(self, content_type: str, accept: frozenset[str] | None) -> None:
        if accept is None:
            if content_type not in self._disabled:
                return
            allowed = sorted(self._by_type.keys() - self._disabled)
        else:
            if content_type in accept or content_type in TRUSTED_TYPES:
                return
            allowed = sorted(accept)
        raise ContentDisallowed(f"content type {content_type!r} is not accepted, only {', '.join(allowed)}")


def _plain_text(body: bytes, content_encoding: str) -> str | bytes:
    charset = content_encoding.lower() if isinstance(content_encoding, str) else ""
    if charset not in _CHARSETS:
        return body
    try:
        return body.decode(charset)
    except ValueError as exc:
        raise DecodeError(f"a body of {len(body)} bytes is not {charset} text: {one_line(exc)}") from exc


# --- json: Celery's extensions for a few types ---

_TypeEncoder = Callable[[Any], Any]
_json_encoders: dict[type, _TypeEncoder] = {}
_json_decoders: dict[str, Callable[[Any], Any]] = {}


def register_json_type(
    cls: type, marker: str | None, encoder: Callable[[Any], Any], decoder: Callable[[Any], Any] | None = None
) -> None:
    """Teach the json serializer a type. Receivers must know the marker too: an unknown one makes the body unreadable.

    Args:
        marker: What stands as `__type__`; None to write what `encoder` returns without a marker.
        encoder: Takes an object of `cls`, returns something that json can write.
        decoder: The reverse, for the marker.
    """
    _json_encoders[cls] = encoder if marker is None else functools.partial(_marked, marker, encoder)
    if marker is not None and decoder is not None:
        _json_decoders[marker] = decoder


def _marked(marker: str, encoder: _TypeEncoder, value: Any) -> dict[str, Any]:
    return {"__type__": marker, "__value__": encoder(value)}


def _bytes_form(value: bytes) -> dict[str, str]:
    try:
        return {"__type__": "bytes", "__value__": value.decode()}
    except UnicodeDecodeError:
        return {"__type__": "base64", "__value__": base64.b64encode(value).decode()}


def _json_default(value: Any) -> Any:
    own_form = getattr(value, "__json__", None)
    if own_form is not None:
        return own_form()
    for cls, encoder in _json_encoders.items():
        if isinstance(value, cls):
            return encoder(value)
    raise TypeError(f"no json form for {type(value).__name__}")


def _json_restore(value: dict[str, Any]) -> Any:
    if len(value) != 2 or "__type__" not in value or "__value__" not in value:
        return value
    marker = value["__type__"]
    decoder = _json_decoders.get(marker) if isinstance(marker, str) else None
    if decoder is None:
        raise DecodeError(f"json with an unknown __type__ {marker!r}; known are {', '.join(_json_decoders)}")
    return decoder(value["__value__"])


register_json_type(datetime, "datetime", datetime.isoformat, datetime.fromisoformat)  # before date, its base
register_json_type(date, "date", date.isoformat, date.fromisoformat)
register_json_type(time, "time", time.isoformat, time.fromisoformat)
register_json_type(Decimal, "decimal", str, Decimal)
register_json_type(uuid.UUID, "uuid", lambda value: {"hex": value.hex}, lambda form: uuid.UUID(hex=form["hex"]))
register_json_type(bytes, None, _bytes_form)
_json_decoders["bytes"] = lambda text: text.encode()
_json_decoders["base64"] = lambda text: base64.b64decode(text)

#: Made once: `json.dumps` and `JSONEncoder.encode` make a new one at every call, which takes as long as a small body. It
#: keeps no list of what it is in the middle of, so what holds itself ends in a RecursionError.
_make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
_json_encode: Any = _make_encoder and _make_encoder(
    None, _json_default, encode_basestring_ascii, None, ": ", ", ", False, False, True
)


def json_dumps(value: Any) -> str:
    """Value to text, as the standard library's encoder writes it."""
    if _json_encode is None:  # an interpreter without the encoder in C
        return json.dumps(value, default=_json_default)
    return "".join(_json_encode(value, 0))


def has_types(body: bytes) -> bool:
    """Whether JSON may hold Celery's typed values. Their marker may be written with an escaped underscore."""
    return b"__type__" in body or b"\\u005" in body


def json_loads(body: bytes) -> Any:
    """Decode json with Celery's typed values; raises whatever the decoders raise."""
    if not has_types(body):  # only a body with a marker needs the slower decoder
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError:
            pass  # NaN, byte order mark, lone surrogates, UTF-16: Celery's peers read these, so do we
    return json.loads(body, object_hook=_json_restore)


# --- msgpack, yaml and the rest ---


def _plain(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """`value` of plain dicts, lists and what `leaf` makes of the rest; objects with `__json__` are replaced."""
    if isinstance(value, dict):
        return {_plain(key, leaf): _plain(item, leaf) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, leaf) for item in value]
    own_form = getattr(value, "__json__", None)
    return leaf(value) if own_form is None else _plain(own_form(), leaf)


def _msgpack_leaf(value: Any) -> Any:
    """Refuses what msgspec would change silently: sets, dates, UUIDs, dataclasses, enums."""
    if value is None or isinstance(value, (bytes, bytearray, memoryview)) or type(value) in (bool, int, float, str):
        return value
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"no msgpack form for {type(value).__name__}")


def _msgpack_dumps(value: Any) -> bytes:
    return msgspec.msgpack.encode(_plain(value, _msgpack_leaf))


@functools.cache
def _yaml() -> Any:
    """PyYAML, imported at first use: few need it, and it would slow down every start."""
    try:
        return importlib.import_module("yaml")
    except ImportError as exc:
        raise ImproperlyConfigured("serializer 'yaml' needs the package PyYAML: pip install celeriac[yaml]") from exc


@functools.cache
def _yaml_loader() -> Any:
    """PyYAML's safe loader in Python, without merge keys.

    Its C loader overruns the stack on deep nesting, which kills the process. Merge keys, which no serializer writes,
    let a small body build a huge mapping while it is read.
    """
    yaml = _yaml()

    def refuse_merge(loader: Any, node: Any) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise DecodeError("yaml merge keys (<<) are not accepted")

    return type("_Loader", (yaml.SafeLoader,), {"flatten_mapping": refuse_merge})


def _yaml_loads(body: bytes) -> Any:
    try:
        value = _yaml().load(body, _yaml_loader())
    except ImproperlyConfigured as exc:
        raise DecodeError(str(exc)) from exc
    if b"*" in body and _expanded_size(value, {}) > _MAX_YAML_VALUES:
        raise DecodeError(f"yaml aliases expand to more than {_MAX_YAML_VALUES} values")
    return value


def _expanded_size(value: Any, sizes: dict[int, int]) -> int:
    """Number of values when each alias counts as a copy; a loop raises RecursionError."""
    if not isinstance(value, (dict, list, tuple)):
        return 1
    size = sizes.get(id(value))
    if size is None:
        items = [*value, *value.values()] if isinstance(value, dict) else value
        size = sizes[id(value)] = 1 + sum(_expanded_size(item, sizes) for item in items)
    return size


def _yaml_dumps(value: Any) -> str:
    text: str = _yaml().safe_dump(_plain(value, lambda leaf: leaf))
    return text


def _raw_dumps(value: Any) -> str | bytes:
    if isinstance(value, (str, bytes)):
        return value
    raise TypeError("only text and bytes")


def _text_dumps(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("only text")


registry = Registry()
register = registry.register
unregister = registry.unregister
accept_types = registry.accept_types
dumps = registry.dumps
loads = registry.loads
explain = registry.explain


def disable_insecure_serializers(allowed: Iterable[str] = ("json",)) -> None:
    """Refuse all serializers but these where the caller of `loads` doesn't say what it accepts."""
    for name in registry.names():
        registry.disable(name)
    for name in allowed:
        registry.enable(name)


def enable_insecure_serializers(choices: Iterable[str] = _INSECURE) -> None:
    """Undo `disable_insecure_serializers` for these."""
    for name in choices:
        registry.enable(name)


register("json", json_dumps, json_loads, "application/json")
register(
    "pickle", functools.partial(pickle.dumps, protocol=4), pickle.loads, "application/x-python-serialize", "binary"
)
register("yaml", _yaml_dumps, _yaml_loads, "application/x-yaml")
register("msgpack", _msgpack_dumps, msgspec.msgpack.decode, "application/x-msgpack", "binary")
register("text", _text_dumps, None, "text/plain")
register("raw", _raw_dumps, None, "application/data", "")
for _name in _INSECURE:
    registry.disable(_name)
