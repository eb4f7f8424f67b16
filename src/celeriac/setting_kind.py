"""The kinds of values that a setting may have: what is accepted, how text is read, and how to say it in words.

`setting_table_base` derives one `Kind` from the annotation of each setting; nothing else calls this. Values from Python
are only converted where nothing else can be meant (an int for a float, a tuple for a list); text, from the environment
or the command line, is read as the kind demands. Invariant: a value that comes out of `accept` or `parse` is of the
annotated type, so readers of a setting never check it again.
"""

from __future__ import annotations

import functools
import json
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta, tzinfo
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

__all__ = ["REFUSED", "Kind", "kind_of"]

#: What `accept` and `parse` return for a value that is not of the kind (None is a value).
REFUSED: Any = type("Refused", (), {"__repr__": lambda self: "REFUSED"})()

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Kind(msgspec.Struct, frozen=True):
    """One kind of value.

    Attributes:
        words: For messages and the settings page: "true or false".
        accept: A Python value to the setting's value, or REFUSED.
        parse: Text from the environment or command line to the setting's value, or REFUSED.
    """

    words: str
    accept: Callable[[Any], Any]
    parse: Callable[[str], Any]


def _accept_bool(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return bool(value) if type(value) is int and value in (0, 1) else REFUSED


def _parse_bool(text: str) -> Any:
    word = text.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else REFUSED


def _accept_int(value: Any) -> Any:
    if isinstance(value, bool):
        return REFUSED
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # More than 63 bits no process could tell another.
    return value if isinstance(value, int) and -(1 << 63) <= value < 1 << 63 else REFUSED


def _parse_int(text: str) -> Any:
    try:
        return _accept_int(int(text))
    except ValueError:
        return REFUSED


def _accept_float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return REFUSED
    try:
        number = float(value)
    except OverflowError:
        return REFUSED
    return REFUSED if math.isnan(number) else number


def _parse_float(text: str) -> Any:
    try:
        return _accept_float(float(text))
    except ValueError:
        return REFUSED


def _accept_str(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, str) else REFUSED


def _accept_bytes(value: Any) -> Any:
    return value if isinstance(value, bytes) else REFUSED


def _accept_none(value: Any) -> Any:
    return None if value is None else REFUSED


def _parse_none(text: str) -> Any:
    return None if text.strip().lower() in ("none", "null", "") else REFUSED


def _accept_list(value: Any) -> Any:
    if isinstance(value, list):
        return value
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)  # a set has no order of its own; the same settings read the same everywhere
    return list(value) if isinstance(value, tuple) else REFUSED


def _accept_texts(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    items = _accept_list(value)
    return items if items is not REFUSED and all(isinstance(item, str) for item in items) else REFUSED


def _parse_texts(text: str) -> Any:
    if text.lstrip().startswith("["):
        return _accept_texts(_parse_json(text))
    return [item.strip() for item in text.split(",") if item.strip()]


def _parse_text_list(text: str) -> Any:
    """For `str | list[str]`: a list only if it is written as one, for a text may have commas."""
    return _parse_texts(text) if text.lstrip().startswith("[") else REFUSED


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return REFUSED


def _accept_dict(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    return dict(value) if isinstance(value, Mapping) else REFUSED


def _accept_anything(value: Any) -> Any:
    return value


def _parse_anything(text: str) -> Any:
    value = _parse_json(text)
    return text if value is REFUSED else value


def _instance(cls: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, cls) else REFUSED


def _refuse_text(text: str) -> Any:
    return REFUSED


#: By annotation. Callables are also given as the text of their path, which the annotation says with `| str`.
_ATOMS: dict[Any, Kind] = {
    bool: Kind("true or false", _accept_bool, _parse_bool),
    int: Kind("a whole number", _accept_int, _parse_int),
    float: Kind("a number", _accept_float, _parse_float),
    str: Kind("text", _accept_str, str),
    bytes: Kind("bytes", _accept_bytes, _refuse_text),
    type(None): Kind("None", _accept_none, _parse_none),
    timedelta: Kind("a timedelta", _instance(timedelta), _refuse_text),
    tzinfo: Kind("a tzinfo", _instance(tzinfo), _refuse_text),
    list[str]: Kind("a list of texts", _accept_texts, _parse_texts),
    list[Any]: Kind("a list", _accept_list, lambda text: _accept_list(_parse_json(text))),
    dict[str, Any]: Kind("a dict", _accept_dict, lambda text: _accept_dict(_parse_json(text))),
    Callable[..., Any]: Kind("a callable", lambda value: value if callable(value) else REFUSED, _refuse_text),
    Any: Kind("anything", _accept_anything, _parse_anything),
}


def _choice(options: tuple[Any, ...]) -> Kind:
    def accept(value: Any) -> Any:
        return value if not isinstance(value, bool) and _is_one_of(value, options) else REFUSED

    def parse(text: str) -> Any:
        return next((option for option in options if str(option) == text.strip()), REFUSED)

    return Kind(_either([repr(option) for option in options]), accept, parse)


def _is_one_of(value: Any, options: Iterable[Any]) -> bool:
    return isinstance(value, (str, int)) and value in options


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _union_of(annotations: tuple[Any, ...]) -> Kind:
    members = [kind_of(annotation) for annotation in annotations]
    # Every text is a text: that is tried last, so that "none" and "5" can be something else.
    order = sorted(annotations, key=lambda annotation: (annotation is str, annotation is not type(None)))
    parsers = [kind_of(annotation).parse for annotation in order]
    if str in annotations and list[str] in annotations:
        parsers[order.index(list[str])] = _parse_text_list

    def accept(value: Any) -> Any:
        return _first(member.accept(value) for member in members)

    def parse(text: str) -> Any:
        return _first(parser(text) for parser in parsers)

    return Kind(_either([member.words for member in members]), accept, parse)


def _first(results: Iterable[Any]) -> Any:
    return next((result for result in results if result is not REFUSED), REFUSED)


@functools.cache
def kind_of(annotation: Any) -> Kind:
    """The kind that belongs to a type annotation.

    Raises:
        TypeError: No setting may have this type.
    """
    if annotation in _ATOMS:
        return _ATOMS[annotation]
    origin = get_origin(annotation)
    if origin is Literal:
        return _choice(get_args(annotation))
    if origin in (Union, types.UnionType):
        return _union_of(get_args(annotation))
    raise TypeError(f"a setting can't be of type {annotation!r}")
