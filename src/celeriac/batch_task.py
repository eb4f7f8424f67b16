"""Batch tasks: `@app.task(batch=100, batch_wait=2.0)`. Their function is given many calls at once, as a list of `Call`.

`adapt` makes two functions of a batch task's: `run_batch(calls)`, which workers call with what has gathered, and `run`, which
takes one call's arguments as any task's does: direct calls, `apply()` and lone messages go through it. Each call keeps its own
id, state, result, retries and callbacks. Imported only where there is such a task.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.arguments import signature_of
from celeriac.batch_call import OPEN, Call
from celeriac.errors import ImproperlyConfigured
from celeriac.safe_repr import saferepr

if TYPE_CHECKING:
    from celeriac.task import Task

__all__ = ["adapt", "ends", "size_of"]

#: Seconds for which calls may gather at most: they are on lease meanwhile.
LONGEST_WAIT = 3600


def ends(task: Task[..., Any], calls: Sequence[Call[...]], value: Any) -> list[Any]:
    """What each call returned, or the exception that it raised, by what the function returned for all of them.

    Raises:
        TypeError, ValueError: The function has not returned a list with a result for each.
    """
    if value is None:
        value = [None] * len(calls)
    if not isinstance(value, (list, tuple)):
        shown = saferepr(value, 60)
        raise TypeError(f"batch task {task.name!r} returned {shown}: it has to return a list of results, or None")
    if len(value) != len(calls):
        raise ValueError(f"batch task {task.name!r} returned {len(value)} results for {len(calls)} calls")
    return [each if call.end is OPEN else call.end for call, each in zip(calls, value, strict=True)]


def adapt(cls: type[Task[..., Any]]) -> None:
    """Make `run_batch` and a `run` for one call of the function that stands in a batch task's class.

    Raises:
        ImproperlyConfigured: An option is wrong, or the function can't take a list of calls.
    """
    name = cls.name or cls.__name__
    if cls.batch is None:
        raise ImproperlyConfigured(f"task {name!r}: batch_wait has a meaning only beside batch, such as batch=100")
    raw: Any = cls.__dict__["run"]
    is_static = isinstance(raw, staticmethod)
    function: Callable[..., Any] = raw.__func__ if is_static else raw
    _check(name, cls, function, 1 if is_static else 2)
    setattr(cls, "run_batch", raw)  # noqa: B010 -- not an attribute of every task
    setattr(cls, "run", _run_async if inspect.iscoroutinefunction(function) else _run)  # noqa: B010
    cls.typing = False  # the function's parameters are not those of a call


def size_of(task: Any) -> int | None:
    """How many calls a task takes at once; None if it is no batch task.

    Raises:
        ImproperlyConfigured: The option is wrong, or was set on a task that was not made as a batch task.
    """
    if task.batch is not None:
        _check_options(task.name, task.batch, task.batch_wait)
        if not hasattr(task, "run_batch"):
            raise ImproperlyConfigured(
                f"task {task.name!r}: batch: its function takes no list of calls: set it on @app.task"
            )
    size: int | None = task.batch
    return size


def _check_options(name: str, size: Any, wait: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ImproperlyConfigured(f"task {name!r}: batch: {saferepr(size, 60)} is no whole number from 1 up")
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait <= LONGEST_WAIT:
        text = f"{saferepr(wait, 60)} is no number of seconds from 0 to {LONGEST_WAIT}"
        raise ImproperlyConfigured(f"task {name!r}: batch_wait: {text}")


def _check(name: str, cls: type[Task[..., Any]], function: Callable[..., Any], parameters: int) -> None:
    _check_options(name, cls.batch, cls.batch_wait)
    if cls.pydantic:
        raise ImproperlyConfigured(
            f"task {name!r}: batch: a batch task can't be pydantic, too: validate each call's args"
        )
    try:
        signature_of(function).bind(*[None] * parameters)
    except TypeError:
        text = "the function of a batch task is called with one argument, the list of calls"
        raise ImproperlyConfigured(f"task {name!r}: batch: {text}") from None


def _run(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Run one call."""
    call: Call[...] = Call(self, self.request, args, kwargs)
    return _only(self, call, self.run_batch([call]))


async def _run_async(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Run one call."""
    call: Call[...] = Call(self, self.request, args, kwargs)
    return _only(self, call, await self.run_batch([call]))


def _only(task: Any, call: Call[...], value: Any) -> Any:
    (end,) = ends(task, [call], value)
    if isinstance(end, BaseException):
        raise end
    return end
