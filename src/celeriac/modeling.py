"""Pydantic models as arguments and results of tasks: `@app.task(pydantic=True)`.

Imported only for such a task, so pydantic stays optional. Follows Celery's documented rules: an argument whose annotation
is a model, or Optional of one, is validated from a dict; a returned model is dumped; models that a caller passes travel
as plain data.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Union

from pydantic import BaseModel

from celeriac.arguments import signature_of

__all__ = ["dump_models", "pydantic_wrapper", "wrap"]


def wrap(app: Any, fun: Callable[..., Any], name: str, bind: bool, options: dict[str, Any]) -> Callable[..., Any]:
    """`fun` with its model arguments validated and its returned model dumped."""
    strict = bool(options.get("pydantic_strict", False))
    context = {"celery_app": app, "celery_task_name": name, **(options.get("pydantic_context") or {})}
    dump = {"mode": "json", **(options.get("pydantic_dump_kwargs") or {})}
    signature = signature_of(fun)

    @functools.cache
    def models() -> dict[str, type[BaseModel]]:
        # Looked up when first needed: annotations may name classes that are defined further down.
        hints = typing.get_type_hints(fun)
        return {name: model for name, hint in hints.items() if (model := _model(hint)) is not None}

    def validated(args: Any, kwargs: Any) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        for key, model in models().items():
            value = bound.arguments.get(key) if key != "return" else None
            if value is not None and not isinstance(value, BaseModel):
                bound.arguments[key] = model.model_validate(value, strict=strict or None, context=context)
        return bound

    def dumped(value: Any) -> Any:
        model = models().get("return")
        return value.model_dump(**dump) if model is not None and isinstance(value, model) else value

    if inspect.iscoroutinefunction(fun):

        @functools.wraps(fun)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            bound = validated(args, kwargs)
            return dumped(await fun(*bound.args, **bound.kwargs))

        return run_async

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        bound = validated(args, kwargs)
        return dumped(fun(*bound.args, **bound.kwargs))

    return run


def pydantic_wrapper(
    app: Any,
    task_fun: Callable[..., Any],
    task_name: str,
    strict: bool = True,
    context: dict[str, Any] | None = None,
    dump_kwargs: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """`wrap`, as Celery documents it."""
    options = {"pydantic_strict": strict, "pydantic_context": context, "pydantic_dump_kwargs": dump_kwargs}
    return wrap(app, task_fun, task_name, False, options)


def dump_models(args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of a call with models as plain data."""
    return [_plain(value) for value in args or ()], {key: _plain(value) for key, value in (kwargs or {}).items()}


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _model(hint: Any) -> type[BaseModel] | None:
    """The model that an annotation means: the class itself, or of `Optional[Model]`; None for anything else."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    if typing.get_origin(hint) in (Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        if len(members) == 1 and len(typing.get_args(hint)) == 2:
            return _model(members[0])
    return None
