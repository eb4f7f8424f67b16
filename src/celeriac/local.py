"""Stand-ins for objects that are found when they are used: Celery's documented `celery.local`. Layer 0.

`Proxy` looks its object up at each use (the current app, the task that runs now); `PromiseProxy` once. Programs meet them
under the import hook; nothing on the way of a task uses one.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["PromiseProxy", "Proxy", "maybe_evaluate", "try_import"]

#: What Python does with an object through functions, not through an attribute of it.
_BY_FUNCTION: dict[str, Callable[..., Any]] = {
    "__bool__": bool, "__len__": len, "__iter__": iter, "__next__": next, "__str__": str, "__hash__": hash, "__dir__": dir,
    "__bytes__": bytes, "__format__": format, "__int__": int, "__float__": float, "__complex__": complex,
    "__index__": operator.index, "__reversed__": reversed, "__round__": round, "__abs__": abs,
    "__contains__": operator.contains, "__getitem__": operator.getitem, "__setitem__": operator.setitem,
    "__delitem__": operator.delitem, "__eq__": operator.eq, "__ne__": operator.ne, "__lt__": operator.lt,
    "__le__": operator.le, "__gt__": operator.gt, "__ge__": operator.ge, "__neg__": operator.neg, "__pos__": operator.pos,
    "__invert__": operator.invert, "__divmod__": divmod, "__pow__": pow, "__instancecheck__": lambda obj, x: isinstance(x, obj),
}  # fmt: skip
#: Operators with two sides; each has a mirror image.
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "and_", "or_", "xor", "lshift", "rshift")
#: What `with` and `await` look for.
_METHODS = ("__enter__", "__exit__", "__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__")


class Proxy:
    """Stands for the object that a function returns, each time anew.

    Args:
        local: Finds the object.
        args: Arguments for it.
        kwargs: Keyword arguments for it.
        name: `__name__` of the stand-in.
        __doc__: Its docstring.
    """

    __slots__ = ("__dict__", "__local")

    def __init__(
        self,
        local: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        __doc__: str | None = None,  # noqa: N807 -- Celery's documented name
    ) -> None:
        object.__setattr__(self, "_Proxy__local", lambda: local(*(args or ()), **(kwargs or {})))
        for key, value in (("__custom_name__", name), ("__doc__", __doc__)):
            if value is not None:
                object.__setattr__(self, key, value)

    def _get_current_object(self) -> Any:
        """The object that this stands for now."""
        return object.__getattribute__(self, "_Proxy__local")()

    @property
    def __name__(self) -> str:
        own = object.__getattribute__(self, "__dict__").get("__custom_name__")
        return str(own if own is not None else self._get_current_object().__name__)

    @property  # type: ignore[misc]  # read-only here, as it should be everywhere
    def __class__(self) -> Any:
        return type(self._get_current_object())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object."""
        return self._get_current_object()(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._get_current_object(),)

    def __repr__(self) -> str:
        try:
            return repr(self._get_current_object())
        except RuntimeError:  # there is no such object now
            return f"<{type(self).__name__} without an object>"


class PromiseProxy(Proxy):
    """Stands for the object that a function makes, which is called once, when the object is first needed."""

    __slots__ = ("__pending__", "__thing")

    def _get_current_object(self) -> Any:
        """The object, made now if it was not yet."""
        try:
            return object.__getattribute__(self, "_PromiseProxy__thing")
        except AttributeError:
            return self.__evaluate__()

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call this once the object is there; now, if it is."""
        if self.__evaluated__():
            return fun(*args, **kwargs)
        object.__getattribute__(self, "__dict__").setdefault("pending", []).append((fun, args, kwargs))
        return None

    def __evaluated__(self) -> bool:
        """Whether the object was made."""
        try:
            object.__getattribute__(self, "_PromiseProxy__thing")
        except AttributeError:
            return False
        return True

    def __maybe_evaluate__(self) -> Any:
        """The object."""
        return self._get_current_object()

    def __evaluate__(self) -> Any:
        """Make the object, and tell those that wait for it."""
        thing = Proxy._get_current_object(self)
        object.__setattr__(self, "_PromiseProxy__thing", thing)
        for fun, args, kwargs in object.__getattribute__(self, "__dict__").pop("pending", ()):
            fun(*args, **kwargs)
        return thing


def _itself(obj: Any) -> Any:
    return obj


def _by_function(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args: function(self._get_current_object(), *args)


def _mirrored(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(other, self._get_current_object())


def _by_method(name: str) -> Callable[..., Any]:
    return lambda self, *args: getattr(self._get_current_object(), name)(*args)


def _delegate() -> None:
    """Python looks special methods up in the class, so each needs a method there."""
    for name, function in _BY_FUNCTION.items():
        setattr(Proxy, name, _by_function(function))
    for name in _BINARY:
        word = name.rstrip("_")
        setattr(Proxy, f"__{word}__", _by_function(getattr(operator, name)))
        setattr(Proxy, f"__r{word}__", _mirrored(getattr(operator, name)))
        setattr(Proxy, f"__i{word}__", _by_function(getattr(operator, f"i{word}")))
    for name in _METHODS:
        setattr(Proxy, name, _by_method(name))


_delegate()


def try_import(module: str, default: Any = None) -> Any:
    """The module, or `default` if it can't be imported."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return default


def maybe_evaluate(obj: Any) -> Any:
    """The object that a `PromiseProxy` stands for; anything else as it is."""
    return obj.__maybe_evaluate__() if issubclass(type(obj), PromiseProxy) else obj
