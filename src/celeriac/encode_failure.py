"""Where a value that can't be serialized sits, and what to do about it.

`codec.py` calls it after a serializer has failed, never before: finding the place means trying the parts one by one.
The message names the path and the type of the culprit but not its value, which may be a secret.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from celeriac.errors import EncodeError

__all__ = ["encode_failure", "one_line"]

_Encoder = Callable[[Any], Any]


def encode_failure(parts: Mapping[str, Any], serializer: str, encode: _Encoder, cause: BaseException) -> EncodeError:
    """The error for values that could not be serialized.

    Args:
        parts: The values by the names under which the caller knows them, such as "args".
        serializer: Its name, for the message.
        encode: The serializer itself.
        cause: What it raised.
    """
    path, value = next(((path, value) for path, value in parts.items() if _fails(encode, value)), ("value", None))
    refused = f"can't be serialized as {serializer}"
    if isinstance(cause, RecursionError):
        return EncodeError(f"{path} {refused}: it is nested too deeply or contains itself")
    path, value, is_loop = _descend(path, value, encode)
    if is_loop:
        return EncodeError(f"{path} {refused}: it contains itself")
    if isinstance(value, dict):
        for key in value:
            if _fails(encode, {key: None}):
                return EncodeError(f"a key of type {_type_name(key)} in {path} {refused}")
    return EncodeError(f"{path} of type {_type_name(value)} {refused}: {_advice(value, cause)}")


def one_line(exc: BaseException) -> str:
    """An exception's type and text, short and without line breaks."""
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    text = " ".join(f"{type(exc).__name__}: {exc}".split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _descend(path: str, value: Any, encode: _Encoder) -> tuple[str, Any, bool]:
    """Follow the parts that fail to the innermost one; the flag says that it is one of the containers around it."""
    around: list[Any] = []
    while True:
        around.append(value)
        inner = next(((step, item) for step, item in _children(value) if _fails(encode, item)), None)
        if inner is None:
            return path, value, False
        path, value = path + inner[0], inner[1]
        if any(value is outer for outer in around):
            return path, value, True


def _fails(encode: _Encoder, value: Any) -> bool:
    try:
        body = encode(value)
        if isinstance(body, str):
            body.encode()
    except Exception:  # runs the same foreign code that failed before
        return True
    return False


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items() if isinstance(key, (str, int)))
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _advice(value: Any, cause: BaseException) -> str:
    if isinstance(value, (set, frozenset)):
        return "pass a list"
    if hasattr(value, "model_dump"):
        return "pass its model_dump(mode='json')"
    # The text of other errors may quote the value.
    if isinstance(cause, (ValueError, OverflowError, AttributeError, pickle.PicklingError)):
        return one_line(cause)
    return "pass plain data, or give its class a __json__() method"
