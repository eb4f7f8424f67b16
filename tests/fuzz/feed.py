"""Values made of bytes: every input of a fuzzer is one, so that none is wasted on text that is no JSON.

Targets that take data rather than text call it. The words of a target are what its keys and texts are made of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["Feed"]

#: Numbers at the edges of what others can hold.
_EDGES = (0, 1, -1, 255, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 86400)
_FLOATS = (float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, -0.0, 0.5, 1e18, 253402300800.0)
_MOMENTS = ("2999-01-01T00:00:00+05:30", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2020-01-01", "T")
_MAX_DEPTH, _MAX_ITEMS = 5, 6


class Feed:
    """Reads values out of bytes; when they are used up, it goes on with zeros.

    Args:
        data: What the fuzzer made.
        words: Names that mean something to the target.
        is_deep: Whether lists may be nested by the hundred, as in what comes from the network; nobody configures that.
    """

    def __init__(self, data: bytes, words: Sequence[str] = (), *, is_deep: bool = True) -> None:
        self._data = data
        self._is_deep = is_deep
        self._at = 0
        self._words = (*words, "", "a", "__type__", "__value__", "task", "\ud800", "\0", *_MOMENTS)

    def byte(self) -> int:
        """The next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self, size: int) -> bytes:
        """The next bytes, as many as there are."""
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self._data[self._at :]

    def choice(self, options: Sequence[Any]) -> Any:
        """One of these."""
        return options[self.byte() % len(options)]

    def text(self) -> str:
        """A word, several, or any characters."""
        kind = self.byte() % 8
        if kind < 4:
            return str(self.choice(self._words))
        if kind < 6:
            return self.take(self.byte() % 24).decode("utf-8", "surrogateescape")
        return str(self.choice(self._words) or "9") * (1 if kind == 6 else 8 * self.byte())

    def scalar(self) -> Any:
        """None, a truth, a number or a text."""
        kind = self.byte() % 8
        if kind < 2:
            return None if kind == 0 else self.byte() % 2 == 1
        if kind == 2:
            return self.byte() - 128
        if kind == 3:
            return self.choice(_EDGES)
        return self.choice(_FLOATS) if kind == 4 else self.text()

    def value(self, depth: int = 0) -> Any:
        """Any plain value of Python."""
        kind = self.byte() % 10
        if kind < 4 or depth >= _MAX_DEPTH:
            return self.scalar()
        if kind == 4:
            return self.take(self.byte() % 16)
        if kind == 5:
            inner = self.scalar()
            for _ in range(8 * self.byte() if self._is_deep else 2):
                inner = [inner]
            return inner
        if kind < 8:
            items = [self.value(depth + 1) for _ in range(self.byte() % _MAX_ITEMS)]
            return items if kind == 6 else tuple(items)
        return {self.text(): self.value(depth + 1) for _ in range(self.byte() % _MAX_ITEMS)}

    def table(self, *required: str) -> dict[str, Any]:
        """A mapping with some of the words as keys."""
        found = {name: self.value(1) for name in required}
        return found | {self.text(): self.value(1) for _ in range(self.byte() % _MAX_ITEMS)}

    def json(self, depth: int = 0) -> str:
        """JSON; NaN and deep nesting included, which not everyone reads."""
        kind = self.byte() % 10
        if kind < 5 or depth >= _MAX_DEPTH:
            return json.dumps(self.scalar())
        if kind == 5:
            levels = 32 * self.byte()
            return "[" * levels + json.dumps(self.scalar()) + "]" * levels
        items = [self.json(depth + 1) for _ in range(self.byte() % _MAX_ITEMS)]
        if kind < 8:
            return f"[{', '.join(items)}]"
        return f"{{{', '.join(f'{json.dumps(self.text())}: {item}' for item in items)}}}"

    def json_object(self, *names: str) -> str:
        """A JSON object with these names, and perhaps others."""
        items = [f"{json.dumps(name)}: {self.json(1)}" for name in names if self.byte() % 8]
        items += [f"{json.dumps(self.text())}: {self.json(1)}" for _ in range(self.byte() % _MAX_ITEMS)]
        return f"{{{', '.join(items)}}}"
