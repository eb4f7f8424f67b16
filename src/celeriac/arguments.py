"""What functions take: checks a call's arguments against a function's signature, before anything is sent.

The check is a generated empty function with the same parameters: calling it costs one Python call and raises the
`TypeError` that the user knows from Python. Imported when first used: `inspect` is a tenth of what `import celeriac` costs.
"""

from __future__ import annotations

import inspect
import keyword
import sys
from collections.abc import Callable
from typing import Any

if sys.version_info >= (3, 14):
    import annotationlib

__all__ = ["argument_checker", "signature_of", "takes_request"]


def signature_of(fun: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature:
    """The signature of a callable, whose annotations may name what is not there at run time.

    Raises:
        TypeError, ValueError: Python can't tell it.
    """
    if sys.version_info >= (3, 14):  # annotations are evaluated when they are asked for
        return inspect.signature(fun, follow_wrapped=follow_wrapped, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(fun, follow_wrapped=follow_wrapped)


def _anything(*args: Any, **kwargs: Any) -> None:
    """For callables whose signature Python can't tell."""


def argument_checker(fun: Callable[..., Any], *, bound: bool = False) -> Callable[..., None]:
    """A function that takes exactly the arguments of `fun` and does nothing.

    Args:
        bound: Leave out the first parameter (`self` of a bound task).
    """
    try:
        # Not through `__wrapped__`: a decorator may take other arguments than the function in it.
        parameters = list(signature_of(fun, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return _anything
    if bound and parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        parameters = parameters[1:]
    plain = [_without_annotation(parameter) for parameter in parameters]
    name = getattr(fun, "__name__", "task")
    if not name.isidentifier() or keyword.iskeyword(name):
        name = "task"
    namespace: dict[str, Any] = {"_default": None}
    text = str(inspect.Signature(plain)).replace("'_default'", "_default")
    exec(f"def {name}{text}: pass", namespace)  # noqa: S102 -- text is made of parameter names only
    checker: Callable[..., None] = namespace[name]
    return checker


def _without_annotation(parameter: inspect.Parameter) -> inspect.Parameter:
    default = inspect.Parameter.empty if parameter.default is inspect.Parameter.empty else "_default"
    return parameter.replace(annotation=inspect.Parameter.empty, default=default)


def takes_request(task: Any) -> bool:
    """Whether an error callback takes (request, exc, traceback) rather than the failed task's id alone."""
    try:
        parameters = signature_of(getattr(task, "__wrapped__", task.run)).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    return not task._bind and (len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in positional))
