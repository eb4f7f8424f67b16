"""The kinds of values that options take: lists, JSON, levels, concurrency, moments. Each refuses with one clear line."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.log import log_level

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]  # generic in newer versions of click, and for type checkers
else:
    _ParamType = click.ParamType

__all__ = ["CommaList", "Concurrency", "Json", "LogLevel", "Moment", "OneOf"]


#: Longest number of slots.
_DIGITS = 9


class CommaList(_ParamType):
    """`a,b,c` as a list."""

    name = "a,b,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """The parts, without blanks around them and without empty ones."""
        parts = value if isinstance(value, list) else str(value).split(",")
        found = [part.strip() for part in parts if part.strip()]
        return found or self.fail(f"{value!r} names nothing.", param, ctx)


class OneOf(_ParamType):
    """One of a few words, in any case."""

    def __init__(self, words: Sequence[str], aliases: dict[str, str] | None = None) -> None:
        self.words = list(words)
        self.aliases = aliases or {}
        self.name = "|".join(words)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word."""
        word = str(value).lower()
        word = self.aliases.get(word, word)
        if word not in self.words:
            self.fail(f"{value!r} is not one of {', '.join(self.words)}.{near_match(word, self.words)}", param, ctx)
        return word


class LogLevel(_ParamType):
    """A level's name, or its number."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The level as it was written, checked."""
        try:
            log_level(value)
        except ImproperlyConfigured as exc:
            self.fail(str(exc), param, ctx)
        return str(value).upper()


class Concurrency(_ParamType):
    """A number of slots, or "auto" for the number of CPUs (None)."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; 0 stands for "auto", which must differ from an option that was not given."""
        text = str(value).strip().lower()
        if text == "auto":
            return 0
        if not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
            self.fail(f"{value!r} is neither a number of at least 1 nor 'auto'.", param, ctx)
        return int(text)


class Json(_ParamType):
    """JSON of one kind: list or dict."""

    def __init__(self, kind: type[list[Any]] | type[dict[str, Any]]) -> None:
        self.kind = kind
        self.name = "JSON list" if kind is list else "JSON object"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value."""
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as exc:
            self.fail(f"{value!r} is not JSON: {exc}.", param, ctx)
        if not isinstance(found, self.kind):
            example = "'[2, \"x\"]'" if self.kind is list else "'{\"x\": 2}'"
            self.fail(f"{value!r} is not a {self.name}, such as {example}.", param, ctx)
        return found


class Moment(_ParamType):
    """An ISO 8601 moment; with `seconds`, also a number of seconds from now."""

    def __init__(self, *, seconds: bool = False) -> None:
        self.seconds = seconds
        self.name = "seconds|ISO 8601" if seconds else "ISO 8601"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | float:
        """The moment."""
        if self.seconds:
            with contextlib.suppress(ValueError):
                if math.isfinite(float(value)):
                    return float(value)
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return self.fail(f"{value!r} is not {self.name}, such as 2030-01-31T12:00:00+00:00.", param, ctx)
