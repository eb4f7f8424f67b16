"""Makes tasks of functions: what `@app.task` does, and `task_annotations`.

The app calls it; the result is an instance of a new subclass of `Task`, so every option is an ordinary attribute. What
the decorators give is told to type checkers here, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from celeriac.batch_call import Call
from celeriac.errors import DuplicateTaskNameWarning
from celeriac.loading import import_object
from celeriac.task import Task

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = [
    "AsyncTask",
    "BatchDecorator",
    "BoundBatchDecorator",
    "BoundTaskDecorator",
    "TaskDecorator",
    "annotate",
    "make_task",
]

P = ParamSpec("P")
R = TypeVar("R")


class AsyncTask(Task[P, R]):
    """A task made of a coroutine function, for type checkers: called as a function it gives the coroutine."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
            """The coroutine."""


class TaskDecorator(Protocol):
    """What `@app.task(…)` is."""

    @overload
    def __call__(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[P, R], /) -> Task[P, R]: ...


class BoundTaskDecorator(Protocol):
    """What `@app.task(bind=True, …)` is: the function's first parameter is the task itself."""

    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


class BatchDecorator(Protocol):
    """What `@app.task(batch=…)` is: the function gets a list of calls, and returns a list of results or None."""

    @overload
    def __call__(self, fun: Callable[[list[Call[P]]], Coroutine[Any, Any, None]], /) -> AsyncTask[P, None]: ...
    @overload
    def __call__(self, fun: Callable[[list[Call[P]]], Coroutine[Any, Any, Sequence[R]]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[[list[Call[P]]], None], /) -> Task[P, None]: ...
    @overload
    def __call__(self, fun: Callable[[list[Call[P]]], Sequence[R]], /) -> Task[P, R]: ...


class BoundBatchDecorator(Protocol):
    """What `@app.task(bind=True, batch=…)` is."""

    @overload
    def __call__(self, fun: Callable[[Any, list[Call[P]]], Coroutine[Any, Any, None]], /) -> AsyncTask[P, None]: ...
    @overload
    def __call__(self, fun: Callable[[Any, list[Call[P]]], Coroutine[Any, Any, Sequence[R]]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[[Any, list[Call[P]]], None], /) -> Task[P, None]: ...
    @overload
    def __call__(self, fun: Callable[[Any, list[Call[P]]], Sequence[R]], /) -> Task[P, R]: ...


#: Options that replace methods, with the number of their arguments without `self`.
_HANDLERS = {
    "on_success": 4, "on_failure": 5, "on_retry": 5, "after_return": 6, "before_start": 3, "shadow_name": 3,
}  # fmt: skip


def make_task(
    app: Celeriac,
    fun: Callable[..., Any],
    name: str | None = None,
    base: type[Task[..., Any]] | None = None,
    bind: bool = False,
    shared: bool = True,
    filter: Callable[[Any], Any] | None = None,
    lazy: bool = True,
    **options: Any,
) -> Any:
    """A task of `fun`, registered with the app. Decorating the same function again gives the same task."""
    name = name or app.gen_task_name(fun.__name__, fun.__module__)
    known = app.registered(name)
    if known is not None:
        if _is_same(getattr(known, "__wrapped__", None), fun):
            return known
        text = f"two functions are registered as task {name!r}: pass name= to one of them"
        warnings.warn(DuplicateTaskNameWarning(text), stacklevel=4)
    run = fun
    if options.get("pydantic"):
        run = import_object("celeriac.modeling:wrap", "pydantic")(app, fun, name, bind, options)
    body = {
        "__doc__": fun.__doc__,
        "__module__": fun.__module__,
        "__wrapped__": staticmethod(fun),
        "name": name,
        "run": run if bind else staticmethod(run),
        "_bind": bind,
        "typing": app.strict_typing,
        **{key: _as_attribute(key, value) for key, value in options.items()},
    }
    task = type(fun.__name__, (base or app.Task,), body)()
    return app.add_task(filter(task) if filter else task)


def _is_same(original: Any, fun: Callable[..., Any]) -> bool:
    """Whether both are the same function, perhaps from a module that was imported twice."""
    return original is not None and original.__qualname__ == fun.__qualname__ and original.__module__ == fun.__module__


def _as_attribute(key: str, value: Any) -> Any:
    """A handler becomes a method, unless it is a function of just the documented arguments without `self`."""
    return staticmethod(value) if key in _HANDLERS and not _takes_self(key, value) else value


def _takes_self(key: str, value: Any) -> bool:
    code = getattr(value, "__code__", None)
    if code is None:
        return False
    names = code.co_varnames[: code.co_argcount]
    return names[:1] == ("self",) or len(names) != _HANDLERS[key]


def annotate(app: Celeriac, task: Any) -> None:
    """Apply `task_annotations` to a task, once settings are there."""
    if "conf" not in app.__dict__:
        app.on_after_configure.connect(lambda **_: annotate(app, task), weak=False)
        return
    annotations = app.conf.task_annotations
    for entry in annotations if isinstance(annotations, (list, tuple)) else [annotations] if annotations else []:
        for key, value in _annotations_of(entry, task).items():
            if key.startswith("@"):  # a decorator for the method
                setattr(task, key[1:], value(getattr(task, key[1:])))
            elif key in _HANDLERS and _takes_self(key, value):
                setattr(task, key, MethodType(value, task))
            else:
                setattr(task, key, value)


def _annotations_of(entry: Any, task: Any) -> Mapping[str, Any]:
    """What one entry of `task_annotations` says of a task: a mapping by name, an object with `annotate`, or its path."""
    if isinstance(entry, str):
        entry = import_object(entry, "task_annotations")
    if isinstance(entry, Mapping):
        return {**(entry.get("*") or {}), **(entry.get(task.name) or {})}
    return (entry() if isinstance(entry, type) else entry).annotate(task) or {}
