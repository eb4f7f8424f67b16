"""How a setting is written down: the `Setting` record, the `setting()` that tables use, and the check of a value.

The tables (`setting_table_tasks`, `_worker`, `_backends`) are classes whose annotated attributes are the settings, so
that type checkers know the type of each; `collect` turns such a class into records. Invariant: what `Setting.check`
returns is of the annotated type and within the range, and what it raises is one line that shows no secret.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar, get_type_hints, overload

import msgspec

from celeriac.config_mask import censor_value
from celeriac.errors import ImproperlyConfigured
from celeriac.setting_kind import REFUSED, Kind, kind_of

__all__ = ["Setting", "collect", "make_setting", "setting"]

T = TypeVar("T")

#: Longest value that an error message shows.
_SHOWN = 80


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table.

    Attributes:
        kind: What values it takes.
        default: Its value when nothing is configured.
        meaning: One line for people.
        group: The section of the settings page.
        old: Upper-case names that Celery had for it.
        unit: Of a number: "s", "ms", "bytes", "KiB".
        low: Smallest number allowed.
        above: Number that it must exceed.
        high: Largest number allowed.
        aliases: Other ways to write a value: {"auto": None}.
        fallback: The setting whose value it has while it is not set.
        differs: Why its default is not Celery's; "" where it is.
        deprecated: What to use instead; "" where it is current.
        unused: Why it has no effect here, although configurations may carry it along; "" where it has one.
    """

    name: str
    kind: Kind
    default: Any
    meaning: str
    group: str
    old: tuple[str, ...] = ()
    unit: str = ""
    low: float | None = None
    above: float | None = None
    high: float | None = None
    aliases: Mapping[Any, Any] = {}
    fallback: str = ""
    differs: str = ""
    deprecated: str = ""
    unused: str = ""

    @property
    def has_none(self) -> bool:
        """Whether None is a value of its own. Where it is not, None means the default."""
        return self.kind.accept(None) is None and not self.fallback

    @property
    def allowed(self) -> str:
        """What it may be, in words: "'auto', a whole number of at least 1 or None"."""
        if self.low is not None and self.high is not None:
            limits = f" from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            limits = f" of at least {self.low:g}"
        else:
            limits = f" above {self.above:g}" if self.above is not None else ""
        words = self.kind.words.replace("number", f"number{limits}", 1)
        others = [repr(alias) for alias in self.aliases if isinstance(alias, str)]
        return ", ".join([*others, words])

    def fresh_default(self) -> Any:
        """The default; a copy of its own where it could be changed in place."""
        return copy.deepcopy(self.default) if isinstance(self.default, (dict, list)) else self.default

    def check(self, value: Any) -> Any:
        """A value from Python code, as the setting's type.

        Raises:
            ImproperlyConfigured: It is not allowed; the message says what is.
        """
        accepted = self.kind.accept(value)
        if accepted is REFUSED and self.unit == "s" and isinstance(value, timedelta):
            accepted = self.kind.accept(value.total_seconds())
        return self._within(accepted, value)

    def parse(self, text: str) -> Any:
        """Text from the environment or the command line, as the setting's type.

        Raises:
            ImproperlyConfigured: It can't be read as such.
        """
        return self._within(self.kind.parse(text), text)

    def _within(self, value: Any, given: Any) -> Any:
        for written in (given, value):  # "auto" is refused by the kind; of the text "0", the number is the alias
            if isinstance(written, (str, int, float)) and not isinstance(written, bool) and written in self.aliases:
                return self.aliases[written]
        if value is REFUSED or (_is_number(value) and not self._in_range(value)):
            raise ImproperlyConfigured(f"{self.name} must be {self.allowed}, not {_shown(self.name, given)}")
        return value

    def _in_range(self, number: float) -> bool:
        if number in (math.inf, -math.inf) and number != self.default:
            return False
        above_low = (self.low is None or number >= self.low) and (self.above is None or number > self.above)
        return above_low and (self.high is None or number <= self.high)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(name: str, value: Any) -> str:
    text = repr(censor_value(name, value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class _Declared(msgspec.Struct, frozen=True):
    """What `setting()` leaves in the class body until `collect` picks it up."""

    default: Any
    details: dict[str, Any]


@overload
def setting(default: None, meaning: str, *, fallback: str, old: str = "", **details: Any) -> Any: ...
@overload
def setting(default: T, meaning: str, *, old: str = "", **details: Any) -> T: ...
def setting(default: Any, meaning: str, *, old: str = "", **details: Any) -> Any:
    """Declare a setting in a table class; type checkers see its default's type.

    Args:
        default: Value when nothing is configured.
        meaning: One line for people.
        old: Names in Celery's old style, separated by spaces.
        details: Further attributes of `Setting`.
    """
    return _Declared(default, {"meaning": meaning, "old": old, **details})


def make_setting(name: str, annotation: Any, default: Any, *, old: str = "", **details: Any) -> Setting:
    """One record, from a name, a type and the rest."""
    return Setting(name=name, kind=kind_of(annotation), default=default, old=tuple(old.split()), **details)


def collect(table: type, group: str) -> dict[str, Setting]:
    """The settings that a table class declares, by name. Removes the declarations, so that the class has types only."""
    found: dict[str, Setting] = {}
    annotations = get_type_hints(table)
    for name, declared in list(vars(table).items()):
        if isinstance(declared, _Declared):
            found[name] = make_setting(name, annotations[name], declared.default, group=group, **declared.details)
            delattr(table, name)
    return found
