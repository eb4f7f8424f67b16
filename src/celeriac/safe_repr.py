"""Texts of values for people: the headers `argsrepr` and `kwargsrepr`, results in events and logs.

`wire/messages.py` calls it for every task that is sent, events and logs for results. The text looks like Python's `repr`
but is bounded: about `maxlen` characters, `maxlevels` levels deep, and work in proportion to that however large the
value. It never raises, whatever a `__repr__` does, and can always be encoded as UTF-8. Nobody parses it.
"""

from __future__ import annotations

import codecs
from typing import Any

__all__ = ["MAX_LENGTH", "MAX_LEVELS", "Secret", "saferepr"]

#: Characters after which a text is cut, unless the caller says otherwise.
MAX_LENGTH = 1024
#: Levels of containers that are shown, unless the caller says otherwise (`task_repr_maxlevels`).
MAX_LEVELS = 3

#: Brackets of the containers that are walked. A subclass counts as long as it keeps the `__repr__` of its base.
_BRACKETS: dict[Any, tuple[str, str]] = {
    tuple.__repr__: ("(", ")"),
    list.__repr__: ("[", "]"),
    dict.__repr__: ("{", "}"),
    set.__repr__: ("{", "}"),
    frozenset.__repr__: ("frozenset({", "})"),
}
_EMPTY = {set.__repr__: "set()", frozenset.__repr__: "frozenset()"}


class Secret:
    """Marks a parameter of a task as secret, in its annotation.

    What is given for it travels in the message, as any argument does, and shows as `***` in logs, events, remote control,
    extended results and reprs.

    Example:
        @app.task
        def log_in(user: str, password: Annotated[str, Secret]): ...
    """

    def __repr__(self) -> str:
        return "Secret()"


def saferepr(value: Any, maxlen: int = MAX_LENGTH, maxlevels: int = MAX_LEVELS) -> str:
    """A bounded `repr`.

    Args:
        value: Anything.
        maxlen: Characters after which the text is cut; closing the brackets takes a few more.
        maxlevels: Containers nested deeper than this show as `...` inside their brackets.
    """
    text = _Writer(maxlen, maxlevels).write(value)
    return text.encode("utf-8", "backslashreplace").decode()


class _Writer:
    """Writes one value until its budget of characters is used up."""

    def __init__(self, maxlen: int, maxlevels: int) -> None:
        self._left = maxlen
        self._maxlevels = maxlevels
        self._parts: list[str] = []

    def write(self, value: Any) -> str:
        self._value(value, 0)
        return "".join(self._parts)

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self._left -= len(text)

    def _value(self, value: Any, level: int) -> None:
        try:
            self._describe(value, level)
        except Exception as exc:  # a subclass of a container may do anything when it is asked for its items
            self._put(f"<{type(value).__name__} object, reading it raised {type(exc).__name__}>")

    def _describe(self, value: Any, level: int) -> None:
        brackets = _BRACKETS.get(type(value).__repr__)
        if brackets is None:
            self._put(_leaf(value, max(self._left, 0)))
        elif not value and isinstance(value, (set, frozenset)):
            self._put(_EMPTY[type(value).__repr__])
        elif value and level >= self._maxlevels:
            self._put(f"{brackets[0]}...{brackets[1]}")
        else:
            self._container(value, brackets, level)

    def _container(self, value: Any, brackets: tuple[str, str], level: int) -> None:
        self._put(brackets[0])
        self._items(value, level)
        if isinstance(value, tuple) and len(value) == 1:
            self._put(",")
        # The bracket is due even when nothing is left, and is not charged.
        self._parts.append(brackets[1])

    def _items(self, value: Any, level: int) -> None:
        is_dict = isinstance(value, dict)
        separator = ""
        for item in value.items() if is_dict else value:
            if separator:
                self._put(separator)
            if self._left <= 0:
                self._parts.append("...")
                return
            separator = ", "
            if is_dict:
                key, item = item
                self._value(key, level + 1)
                self._put(": ")
            self._value(item, level + 1)


def _leaf(value: Any, room: int) -> str:
    """The text of a value without parts, cut to about `room` characters."""
    if type(value) is str:
        return _quoted(value, room)
    if type(value) is bytes:
        return _bytes(value, room)
    if type(value) is int and value.bit_length() > 4096:
        return f"<int of {value.bit_length()} bits>"
    try:
        text = repr(value)
    except Exception as exc:
        return f"<{type(value).__qualname__} object, its __repr__ raised {type(exc).__name__}>"
    return text if len(text) <= room else f"{text[:room]}..."


def _quoted(text: str, room: int) -> str:
    if len(text) <= room:
        return repr(text)
    shown = repr(text[:room])
    return f"{shown[:-1]}...{shown[-1]}"


def _bytes(value: bytes, room: int) -> str:
    """As Celery shows them: text if they are UTF-8, else pairs of hex digits."""
    shown = value[: room + 1]
    try:
        # "Not final" where it was cut: half a character at the end is no reason to show hex.
        text, _ = codecs.utf_8_decode(shown, "strict", len(shown) == len(value))
    except UnicodeDecodeError:
        text = shown.hex()
    return "b" + _quoted(text, room)
