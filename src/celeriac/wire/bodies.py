"""Opening the body of a task message: args, kwargs and what is to follow.

The runner calls `decode_body`; nobody else opens bodies. A message may come from anywhere, so small omissions are
borne (no embed, null for a list, a single callback), and everything else ends in `InvalidTaskError`, `DecodeError` or
`ContentDisallowed` with one line that says why and shows no values.

Every task of a chain brings all that follows it. In a long body that stays sealed: to decode it, and to encode it again less one
step, was half of what a runner did for a step of a chain of a hundred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from celeriac import codec, compression
from celeriac.errors import DecodeError, ImproperlyConfigured, InvalidTaskError
from celeriac.message import Message
from celeriac.safe_repr import saferepr
from celeriac.wire.moments import timelimits

__all__ = ["SealedSteps", "TaskBody", "decode_body", "open_body", "protocol1_headers"]

#: Bytes of a body from which on a chain in it stays sealed, and how to see that there may be one.
LONG, _CHAIN = 2048, re.compile(rb'"chain":\s*\[\s*\{')


class TaskBody(msgspec.Struct, kw_only=True):
    """What a message's body says, whatever its protocol.

    Attributes:
        callbacks, errbacks, chain: Signatures (dicts), or None; `chain` from last to first.
        fields: The whole body of protocol 1, which has there what protocol 2 has in headers; else empty.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    callbacks: Sequence[Any] | None = None
    errbacks: Sequence[Any] | None = None
    chain: Sequence[Any] | None = None
    chord: dict[str, Any] | None = None
    fields: dict[str, Any] = {}


def decode_body(
    message: Message, accept: frozenset[str] | None, max_unpacked_bytes: int, max_depth: int | None = None
) -> TaskBody:
    """Open the body of a task message of either protocol. Arguments are those of `open_body`.

    Raises:
        InvalidTaskError: It is not a task message, or one with broken fields.
        DecodeError: The body can't be decompressed or decoded, or is nested too deep.
        ContentDisallowed: Its content type is not accepted.
    """
    body = open_body(message, accept, max_unpacked_bytes, max_depth)
    if isinstance(body, dict):
        return _from_mapping(body, message.task)
    if not message.task:
        raise InvalidTaskError(f"no task: neither a header 'task' nor a mapping as body, but {_kind(body)}")
    if not isinstance(body, (list, tuple)) or len(body) != 3:
        raise InvalidTaskError(f"the body is not [args, kwargs, embed], but {_kind(body)}")
    args, kwargs, embed = body
    if embed is not None and not isinstance(embed, dict):
        raise InvalidTaskError(f"the third part of the body is not an object, but {_kind(embed)}")
    return _task_body(args, kwargs, embed or {}, {})


def open_body(
    message: Message, accept: frozenset[str] | None, max_unpacked_bytes: int, max_depth: int | None = None
) -> Any:
    """What the body of any message holds.

    Args:
        message: The message.
        accept: Content types to accept; None for all that are not disabled.
        max_unpacked_bytes: Largest size after decompression.
        max_depth: How deep arrays and objects may be nested; None for as deep as the decoder takes them.

    Raises:
        InvalidTaskError: The message can't be read, or does not say what its body is.
        DecodeError: The body can't be decompressed or decoded, or is nested too deep.
        ContentDisallowed: Its content type is not accepted.
    """
    if message.defect:
        raise InvalidTaskError(message.defect)
    if not isinstance(message.content_type, str) or not message.content_type:
        raise InvalidTaskError("the message has no content type")
    data = _unpacked(message, max_unpacked_bytes)
    is_json = codec.registry.reads_json(message.content_type, accept)
    may_be_sealed = is_json and len(data) >= LONG and _CHAIN.search(data) and not codec.has_types(data)
    body = _open_sealed(data) if may_be_sealed else None
    if body is None:
        body = codec.loads(data, message.content_type, message.content_encoding, accept)
    # Each level of JSON has a bracket: most bodies have too few of them to need a closer look.
    if max_depth is not None and (data.count(b"[") + data.count(b"{") if is_json else len(data)) > max_depth:
        _check_depth(body, max_depth)
    return body


def _check_depth(body: Any, limit: int) -> None:
    level = {0: body}
    for _ in range(limit):
        # By identity: in some formats one value may stand in many places, and these in many others.
        level = {
            id(inner): inner for each in level.values() for inner in _parts(each) if isinstance(inner, _CONTAINERS)
        }
        if not level:
            return
    raise DecodeError(f"the body is nested deeper than {limit} levels (message_max_depth)")


_CONTAINERS = (dict, list, tuple, set, frozenset)


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, _CONTAINERS) else ()


def _unpacked(message: Message, limit: int) -> bytes:
    method = message.headers.get("compression")
    if method is None or method == "":
        if len(message.body) > limit:
            raise DecodeError(f"the body has {len(message.body)} bytes, more than {limit}")
        return message.body
    try:
        return compression.decompress(message.body, method, limit)
    except ImproperlyConfigured as exc:
        raise DecodeError(str(exc)) from exc


def _from_mapping(body: dict[str, Any], task: str) -> TaskBody:
    """Protocol 1, or the hybrid with headers of protocol 2 on top."""
    if not task:
        for name in ("task", "id"):
            value = body.get(name)
            if not isinstance(value, str) or not value:
                raise InvalidTaskError(f"the body is a mapping whose {name!r} is not text, but {_kind(value)}")
    return _task_body(body.get("args"), body.get("kwargs"), {**body, "chain": None}, body)


def _task_body(args: Any, kwargs: Any, embed: Mapping[str, Any], fields: dict[str, Any]) -> TaskBody:
    if args is not None and not isinstance(args, (list, tuple)):
        raise InvalidTaskError(f"args is not an array, but {_kind(args)}")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise InvalidTaskError(f"kwargs is not an object, but {_kind(kwargs)}")
    for key in kwargs or ():
        if not isinstance(key, str):
            raise InvalidTaskError(f"kwargs has a key that is not text, but {_kind(key)}")
    if not any(embed.values()):  # most tasks are followed by nothing
        return TaskBody(args=list(args or ()), kwargs=kwargs or {}, fields=fields)
    chord = embed.get("chord")
    return TaskBody(
        args=list(args or ()),
        kwargs=kwargs or {},
        callbacks=_signatures("callbacks", embed),
        errbacks=_signatures("errbacks", embed),
        chain=_signatures("chain", embed),
        chord=_signature("chord", chord) if chord else None,
        fields=fields,
    )


def _signatures(name: str, embed: Mapping[str, Any]) -> Sequence[Any] | None:
    value = embed.get(name)
    if not value:
        return None
    if isinstance(value, SealedSteps):
        return value
    if isinstance(value, dict):  # older peers sent a single one as it is
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise InvalidTaskError(f"{name} is not an array of signatures, but {_kind(value)}")
    for signature in value:  # of a long chain there are many: no call for those that are right
        if not isinstance(signature, dict) or not isinstance(signature.get("task"), str):
            _signature(name, signature)
    return list(value)


def _signature(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        raise InvalidTaskError(f"{name} holds something that is not a signature, but {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """What a value is, without showing what may be secret in it."""
    if isinstance(value, (list, tuple)):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    return "null" if value is None else f"a value of type {type(value).__name__}"


def protocol1_headers(body: TaskBody) -> dict[str, Any]:
    """What the headers of protocol 2 would have been for a body of protocol 1; those a message has go on top of them."""
    fields = body.fields
    is_utc = bool(fields.get("utc"))
    return {
        "lang": "py",
        "task": fields.get("task"),
        "id": fields.get("id"),
        "shadow": None,
        "eta": _in_utc(fields.get("eta")) if is_utc else fields.get("eta"),
        "expires": _in_utc(fields.get("expires")) if is_utc else fields.get("expires"),
        "group": fields.get("taskset") or fields.get("group"),
        "group_index": fields.get("group_index"),
        "retries": fields.get("retries") or 0,
        "timelimit": list(timelimits(fields)),
        "root_id": fields.get("id"),
        "parent_id": None,
        "argsrepr": saferepr(body.args),
        "kwargsrepr": saferepr(body.kwargs),
        "origin": "",
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _in_utc(text: Any) -> Any:
    """A naive moment with UTC's offset; anything else unchanged, for `parse_moment` to judge."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return text
    return text if moment.tzinfo is not None else moment.replace(tzinfo=UTC).isoformat()


# a chain that stays sealed


class _Embed(msgspec.Struct):
    callbacks: Any = None
    errbacks: Any = None
    chain: msgspec.Raw = msgspec.Raw(b"null")
    chord: Any = None


class _Step(msgspec.Struct):
    task: str


_body = msgspec.json.Decoder(tuple[Any, Any, _Embed])
_steps = msgspec.json.Decoder(list[msgspec.Raw])
_named = msgspec.json.Decoder(list[_Step])


class SealedSteps(Sequence[Any]):
    """Signatures, from last to first, as the JSON texts that came: each is decoded when somebody looks at it.

    Args:
        texts: Of each.
    """

    __slots__ = ("_texts",)

    def __init__(self, texts: Sequence[msgspec.Raw]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return SealedSteps(self._texts[index])
        return codec.json_loads(bytes(self._texts[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __json__(self) -> list[Any]:
        return list(self)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)  # whoever gets it pickled knows lists

    def __repr__(self) -> str:
        return repr(list(self))

    def json(self) -> str:
        """The array, as `codec.json_dumps` would write it if it had written the steps."""
        return f"[{b', '.join(self._texts).decode()}]"


def _open_sealed(body: bytes) -> Any:
    """What a JSON body holds, with the chain sealed; None if it is not [args, kwargs, embed] with a chain, all well formed."""
    try:
        body.decode()  # checks what the decoders skip
        args, kwargs, embed = _body.decode(body)
        steps = _steps.decode(embed.chain)
        _named.decode(embed.chain)  # what is none is to be refused before anything of the chain has run
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not steps:
        return None
    chain = SealedSteps(steps)
    return [
        args,
        kwargs,
        {"callbacks": embed.callbacks, "errbacks": embed.errbacks, "chain": chain, "chord": embed.chord},
    ]
