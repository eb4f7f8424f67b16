"""Text in colours for terminals: `app.log.colored()`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from celeriac.errors import near_match

__all__ = ["Colored"]

#: In the order of ANSI's digits.
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


class Colored:
    """Text in colours: `str(colored.red("no", colored.bold("way")))`. Each colour is a method that makes another text.

    Args:
        parts: What it consists of, such texts among them.
        enabled: Whether colours are written.
        code: What is written before; see ANSI's codes.
    """

    _CODES: ClassVar[dict[str, str]] = {
        **{name: f"1;3{digit}" for digit, name in enumerate(_COLOURS)},
        **{f"i{name}": f"7;3{digit}" for digit, name in enumerate(_COLOURS)},
        "bold": "1", "bright": "1", "underline": "4", "blink": "5", "reverse": "7", "reset": "0",
    }  # fmt: skip

    def __init__(self, *parts: Any, enabled: bool = True, code: str = "") -> None:
        self.parts = parts
        self.enabled = enabled
        self.code = code

    def __getattr__(self, name: str) -> Callable[..., Colored]:
        code = self._CODES.get(name)
        if code is None:
            raise AttributeError(f"there is no colour {name!r}.{near_match(name, self._CODES)}")
        return lambda *parts: Colored(*parts, enabled=self.enabled, code=code)

    def node(self, parts: Iterable[Any], code: str = "") -> Colored:
        """These parts in this colour."""
        return Colored(*parts, enabled=self.enabled, code=code)

    def no_color(self) -> str:
        """The text alone."""
        return "".join(part.no_color() if isinstance(part, Colored) else str(part) for part in self.parts)

    def embed(self) -> str:
        """The text with its colours, not reset in the end."""
        if not self.enabled:
            return self.no_color()
        inner = "".join(part.embed() if isinstance(part, Colored) else str(part) for part in self.parts)
        return f"\x1b[{self.code}m{inner}" if self.code else inner

    def __str__(self) -> str:
        return f"{self.embed()}\x1b[0m" if self.enabled else self.no_color()

    def __add__(self, other: Any) -> str:
        return str(self) + str(other)
