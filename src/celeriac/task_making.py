"""Makes tasks of functions: what `@app.task` does, and `task_annotations`.

The app calls it; the result is an instance of a new subclass of `Task`, so every option is an ordinary attribute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.errors import DuplicateTaskNameWarning
from celeriac.loading import import_object
from celeriac.task import Task

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["annotate", "make_task"]

#: Options that replace methods.
_HANDLERS = frozenset({"on_success", "on_failure", "on_retry", "after_return", "before_start", "shadow_name"})


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
    """A handler that takes no `self` must not become a method."""
    code = getattr(value, "__code__", None)
    takes_self = code is not None and code.co_argcount > 0 and code.co_varnames[0] == "self"
    return staticmethod(value) if key in _HANDLERS and callable(value) and not takes_self else value


def annotate(app: Celeriac, task: Any) -> None:
    """Apply `task_annotations` to a task, once settings are there."""
    if "conf" not in app.__dict__:
        app.on_after_configure.connect(lambda **_: annotate(app, task), weak=False)
        return
    annotations = app.conf.task_annotations
    for entry in annotations if isinstance(annotations, (list, tuple)) else [annotations] if annotations else []:
        if isinstance(entry, Mapping):
            found = {**(entry.get("*") or {}), **(entry.get(task.name) or {})}
        else:
            found = entry.annotate(task) or {}
        for key, value in found.items():
            setattr(task, key.lstrip("@"), value)
