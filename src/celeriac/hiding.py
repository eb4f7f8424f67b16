"""Hides arguments that are marked as `Secret` from the texts and values that people see of a call.

`sending` asks it for the headers `argsrepr` and `kwargsrepr`, records with `result_extended` for what they keep, signatures for
their repr. The message's body is left alone. Invariant: in doubt an argument is hidden; a task whose annotations can't be
resolved is judged by their text.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac.arguments import signature_of
from celeriac.safe_repr import Secret, saferepr

__all__ = ["HIDDEN", "Secrets", "masked", "secrets_of", "texts_of"]

#: What is shown instead of a secret.
HIDDEN = "***"
_WORD = re.compile(r"\bSecret\b")


class Secrets(msgspec.Struct, frozen=True):
    """Which arguments of a function are secret.

    Attributes:
        positional: For each positional parameter, whether it is.
        names: Those that may be given by name.
        rest: Whether `*args` is.
        others: Whether `**kwargs` is.
    """

    positional: tuple[bool, ...] = ()
    names: frozenset[str] = frozenset()
    rest: bool = False
    others: bool = False


class _Hidden:
    def __repr__(self) -> str:
        return HIDDEN


_HIDDEN = _Hidden()


def secrets_of(task: Any) -> Secrets | None:
    """The secret arguments of a task; None if it has none."""
    fun = getattr(task, "__wrapped__", task.run)
    try:
        parameters = list(signature_of(fun, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return None
    hints = _hints(fun)
    if task._bind:
        parameters = parameters[1:]
    marked = [each for each in parameters if _is_secret(hints.get(each.name, each.annotation))]
    if not marked:
        return None
    kinds = {each.kind for each in marked}
    return Secrets(
        positional=tuple(
            each in marked for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ),
        names=frozenset(each.name for each in marked if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)),
        rest=marked[0].VAR_POSITIONAL in kinds,
        others=marked[0].VAR_KEYWORD in kinds,
    )


def _hints(fun: Any) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(fun, include_extras=True)
    except Exception:  # names that are there for type checkers only, or anything else in the user's annotations
        return {}


def _is_secret(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return bool(_WORD.search(annotation))
    marks = getattr(annotation, "__metadata__", ())
    if any(mark is Secret or isinstance(mark, Secret) for mark in marks):
        return True
    text = getattr(annotation, "__forward_arg__", None)
    return (isinstance(text, str) and _is_secret(text)) or any(map(_is_secret, typing.get_args(annotation)))


def masked(
    secrets: Secrets, args: Sequence[Any], kwargs: Mapping[str, Any], instead: Any = HIDDEN
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with `instead` in the place of secret ones."""
    known = len(secrets.positional)
    shown = [
        instead if (secrets.positional[place] if place < known else secrets.rest) else value
        for place, value in enumerate(args)
    ]
    named = {name: instead if name in secrets.names or secrets.others else value for name, value in kwargs.items()}
    return shown, named


def texts_of(secrets: Secrets, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """The headers `argsrepr` and `kwargsrepr`."""
    shown, named = masked(secrets, args, kwargs, _HIDDEN)
    return {"argsrepr": saferepr(tuple(shown)), "kwargsrepr": saferepr(named)}
