"""Exceptions that pickle can carry, and truth in words: Celery's documented `utils.serialization`.

Result stores don't need it (`wire.exceptions` is how exceptions travel); programs that pickle an exception themselves do.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.safe_repr import saferepr

__all__ = [
    "UnpickleableExceptionWrapper", "create_exception_cls", "find_pickleable_exception", "get_pickleable_etype",
    "get_pickleable_exception", "get_pickled_exception", "strtobool", "subclass_exception",
]  # fmt: skip

_TRUE = dict.fromkeys(("true", "yes", "y", "on", "1", "t"), True)
_FALSE = dict.fromkeys(("false", "no", "n", "off", "0", "f", ""), False)


def subclass_exception(name: str, parent: type[BaseException], module: str) -> type[BaseException]:
    """A new exception class that says it is of `module`."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(name: str, module: str, parent: type[BaseException] | None = None) -> type[BaseException]:
    """The same, for an exception whose own class is not here."""
    return subclass_exception(name, parent or Exception, module)


class UnpickleableExceptionWrapper(Exception):
    """Stands for an exception that pickle can't carry.

    Attributes:
        exc_module: Module of its class.
        exc_cls_name: Name of its class.
        exc_args: Its arguments; those that can't travel as text.
    """

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: Any, text: str | None = None) -> None:
        self.exc_module, self.exc_cls_name, self.text = exc_module, exc_cls_name, text
        self.exc_args = [arg if _is_portable(arg) else saferepr(arg) for arg in exc_args]
        super().__init__(exc_module, exc_cls_name, self.exc_args, text)

    def restore(self) -> BaseException:
        """An exception of a class of that name."""
        return create_exception_cls(self.exc_cls_name, self.exc_module)(*self.exc_args)

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """The stand-in of this exception."""
        kind = type(exc)
        return cls(kind.__module__, kind.__name__, getattr(exc, "args", ()), saferepr(exc))

    def __str__(self) -> str:
        return self.text or f"{self.exc_cls_name}{tuple(self.exc_args)}"


def find_pickleable_exception(
    exc: BaseException,
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> BaseException | None:
    """The exception as an instance of the nearest of its base classes that pickle can carry; None if there is none."""
    for kind in type(exc).__mro__:
        if kind in (Exception, BaseException, object):
            return None
        try:
            found: BaseException = kind(*exc.args)
            loads(dumps(found))
        except Exception:  # constructors of users raise what they like
            continue
        return found
    return None


def get_pickleable_etype(
    cls: type[BaseException],
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> type[BaseException]:
    """The nearest base class that pickle can carry, `cls` itself if it can."""
    for kind in cls.__mro__:
        if _is_portable(kind, loads, dumps):
            found: type[BaseException] = kind
            return found
    return Exception


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """The exception if pickle can carry it, else what comes nearest to it."""
    if _is_portable(exc):
        return exc
    return find_pickleable_exception(exc) or UnpickleableExceptionWrapper.from_exception(exc)


def get_pickled_exception(exc: BaseException) -> BaseException:
    """The exception for which `get_pickleable_exception` found a stand-in."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def strtobool(term: str | bool, table: Mapping[str, bool] | None = None) -> bool:
    """True or False from a word such as "yes" or "off".

    Raises:
        TypeError: It is no such word.
    """
    if isinstance(term, bool):
        return term
    words = {**_TRUE, **_FALSE} if table is None else table
    try:
        return words[term.lower()]
    except KeyError:
        raise TypeError(f"{term!r} is neither true nor false: say one of {', '.join(filter(None, words))}") from None


def _is_portable(
    value: Any,
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> bool:
    try:
        loads(dumps(value))
    except Exception:  # methods of users raise what they like
        return False
    return True
