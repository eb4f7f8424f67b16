"""`@shared_task`: a task of every app, made without naming one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, ParamSpec, TypeVar, overload

from celeriac import current
from celeriac.task import Task
from celeriac.task_making import AsyncTask, BatchDecorator, BoundBatchDecorator, BoundTaskDecorator, TaskDecorator

__all__ = ["shared_task"]

P = ParamSpec("P")
R = TypeVar("R")


class SharedTask:
    """Stands for the current app's copy of a shared task: every use goes to that copy."""

    def __init__(self, name_of: Callable[[Any], str], fun: Callable[..., Any]) -> None:
        self.__dict__.update(_name_of=name_of, __wrapped__=fun, __doc__=fun.__doc__, __name__=fun.__name__)

    def _task(self) -> Any:
        app = current.get_current_app()
        return app.tasks[self._name_of(app)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._task(), name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._task()(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._task())

    def __reduce__(self) -> Any:
        return self._task().__reduce__()


@overload
def shared_task(fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], batch: int, **options: Any) -> BoundBatchDecorator: ...
@overload
def shared_task(*, bind: Literal[False] = False, batch: int, **options: Any) -> BatchDecorator: ...
@overload
def shared_task(*, bind: Literal[True], **options: Any) -> BoundTaskDecorator: ...
@overload
def shared_task(*, bind: Literal[False] = False, **options: Any) -> TaskDecorator: ...
@overload
def shared_task(fun: Callable[P, R], /, **options: Any) -> Task[P, R]: ...
def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task that every app has, those made before and after; options as for `app.task`.

    Returns:
        A stand-in for the current app's copy.
    """
    if not args:
        return lambda fun: _share(fun, options)
    if len(args) > 1 or not callable(args[0]):
        raise TypeError(f"@shared_task takes one function and keyword options, not {args!r}")
    return _share(args[0], options)


def _share(fun: Callable[..., Any], options: dict[str, Any]) -> Any:
    if isinstance(fun, (SharedTask, Task)):
        raise TypeError(f"{fun!r} is a task already: @shared_task was applied twice")
    name = options.get("name")

    def name_of(app: Any) -> str:
        return str(name or app.gen_task_name(fun.__name__, fun.__module__))

    def add_to(app: Any) -> None:
        if app.registered(name_of(app)) is None:
            app.task(fun, **options)

    current.on_app_finalize.append(add_to)
    for app in current.all_apps():
        if app.finalized:
            add_to(app)
    return SharedTask(name_of, fun)
