"""Which limit a call is under: its concurrency key and its unique key, made of the arguments it binds.

`sending` calls `mark_for` for tasks with such options. Equal calls have equal keys, however their arguments are written:
`f(1)`, `f(x=1)` and a default value of 1 are the same call.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac import codec
from celeriac.arguments import signature_of
from celeriac.errors import EncodeError, ImproperlyConfigured, near_match
from celeriac.safe_repr import saferepr
from celeriac.task_limits import Mark, check_option
from celeriac.timing import SYSTEM_CLOCK

__all__ = ["bound_arguments", "mark_for", "short"]

#: Longest key that is kept as it is; a longer one becomes a digest.
LONGEST = 150


def mark_for(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, is_named: bool) -> Mark:
    """What a worker must know of this call.

    Raises:
        ImproperlyConfigured: An option is wrong, or names an argument that the task doesn't have.
        EncodeError: A unique call without `unique_key` has arguments that JSON can't hold.
    """
    key = unique = until = ""
    ends_at = 0.0
    if task.concurrency_key is not None:
        check_option(task.name, "concurrency_key", task.concurrency_key)
        key = short(_formatted(task, "concurrency_key", args, kwargs))
    if task.unique:
        for option in ("unique", "unique_key", "on_conflict"):
            check_option(task.name, option, getattr(task, option))
        has_key = task.unique_key is not None
        own = _formatted(task, "unique_key", args, kwargs) if has_key else _digest_of(task, args, kwargs)
        unique = f"{task.name}:{short(own)}"
        if isinstance(task.unique, str):
            until = task.unique
        else:
            ends_at = SYSTEM_CLOCK.now() + task.unique
    return Mark(key, unique, until, task.on_conflict, ends_at=ends_at, is_named=is_named)


def bound_arguments(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments by their names, defaults included.

    Raises:
        TypeError: They don't fit.
    """
    bound = _signature(task).bind(*args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = bound.arguments
    return found


def _signature(task: Any) -> Any:
    if task.batch is not None:  # its function takes a list of calls, whatever these are called with
        return signature_of(task.run, follow_wrapped=False)
    signature = signature_of(getattr(task, "__wrapped__", task.run), follow_wrapped=False)
    if not task._bind:
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _formatted(task: Any, option: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    template = getattr(task, option)
    if not isinstance(template, str):
        return str(template(*args, **kwargs))
    arguments = bound_arguments(task, args, kwargs)
    for parameter in _signature(task).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name)
    try:
        return string.Formatter().vformat(template, (), arguments)
    except KeyError as exc:
        name = str(exc.args[0])
        raise ImproperlyConfigured(
            f"task {task.name!r}: {option}={template!r} names {name!r}, which is no argument of this call; there are"
            f" {', '.join(arguments) or 'none'}.{near_match(name, arguments)}"
        ) from exc
    except (ValueError, IndexError, AttributeError, TypeError) as exc:
        raise ImproperlyConfigured(
            f"task {task.name!r}: {option}={saferepr(template, 80)} can't be filled in: {exc}"
        ) from exc


def _digest_of(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    arguments = bound_arguments(task, args, kwargs)
    try:
        text = codec.dumps(_ordered(arguments), "json")[2]
    except EncodeError as exc:
        raise EncodeError(
            f"{task.name} is unique by its arguments, which must be JSON: {exc}; or give unique_key"
        ) from exc
    return hashlib.sha256(text).hexdigest()[:32]


def _ordered(value: Any) -> Any:
    """The same with mappings in one order, whatever order they were made in."""
    if isinstance(value, Mapping):
        return [[key, _ordered(value[key])] for key in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [_ordered(each) for each in value]
    return value


def short(key: str) -> str:
    """A key as it travels: a long one becomes a digest."""
    if len(key) <= LONGEST:
        return key
    return f"{key[: LONGEST - 40]}#{hashlib.sha256(key.encode()).hexdigest()[:32]}"
