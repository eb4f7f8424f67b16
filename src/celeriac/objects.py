"""Objects and classes by their names, and small helpers: Celery's documented `celery.utils`. Nothing of ours uses them.

For programs that come from Celery; what finds apps and the objects that settings name is `loading`.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

__all__ = [
    "chunks", "cwd_in_path", "gen_task_name", "get_cls_by_name", "get_full_cls_name", "import_from_cwd", "instantiate",
    "memoize", "noop",
]  # fmt: skip

T = TypeVar("T")


def get_cls_by_name(
    name: Any,
    aliases: Mapping[str, str] | None = None,
    imp: Callable[..., Any] | None = None,
    package: str | None = None,
    sep: str = ".",
    default: Any = None,
    **kwargs: Any,
) -> Any:
    """The object at "package.module.Class" or "package.module:Class"; what is no text is returned as it is.

    Args:
        aliases: Short names.
        imp: Imports a module; by default as `import` does.
        package: Of a relative name, which begins with a dot.
        default: Returned where nothing is found; without one that is an error.

    Raises:
        ImportError, AttributeError, ValueError: It is not there.
    """
    if not isinstance(name, str):
        return name
    path = (aliases or {}).get(name) or name
    module_name, _, attribute = path.partition(":") if ":" in path else path.rpartition(sep)
    try:
        if not module_name:  # a module alone
            return (imp or importlib.import_module)(attribute, package=package, **kwargs)
        module = (imp or importlib.import_module)(module_name, package=package, **kwargs)
        return getattr(module, attribute) if attribute else module
    except (ImportError, AttributeError, ValueError):
        if default is None:
            raise
        return default


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """An instance of the class of this name."""
    return get_cls_by_name(name)(*args, **kwargs)


def get_full_cls_name(obj: Any) -> str:
    """The name of a class with its module's; of an object, that of its class."""
    cls = obj if hasattr(obj, "__qualname__") else type(obj)
    return f"{cls.__module__}.{cls.__qualname__}"


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """While the block runs, modules are looked for in the working directory, too."""
    here = os.getcwd()
    if here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def import_from_cwd(module: str, imp: Callable[..., Any] | None = None, package: str | None = None) -> ModuleType:
    """Import a module that may be in the working directory."""
    with cwd_in_path():
        found: ModuleType = (imp or importlib.import_module)(module, package=package)
        return found


def gen_task_name(app: Any, name: str, module_name: str) -> str:
    """The name that an app gives a task that has none."""
    return str(app.gen_task_name(name, module_name))


def chunks(it: Iterable[T], n: int) -> Iterator[list[T]]:
    """Lists of `n` items in turn; the last may be shorter."""
    iterator = iter(it)
    while part := list(islice(iterator, n)):
        yield part


def memoize(maxsize: int | None = None, keyfun: Callable[..., Any] | None = None, Cache: Any = None) -> Any:  # noqa: N803
    """Remember the values of a function by its arguments; the decorated function has `clear()`.

    Args:
        maxsize: Values that are kept; None keeps all.
        keyfun: Makes the key of the arguments, for arguments that have no hash.
        Cache: Makes a mapping of `maxsize` values that keeps them instead.
    """

    def decorate(fun: Callable[..., Any]) -> Any:
        kept: Any = Cache(maxsize) if Cache is not None else {}

        @functools.wraps(fun)
        def remembered(*args: Any, **kwargs: Any) -> Any:
            key = keyfun(args, kwargs) if keyfun else (args, tuple(sorted(kwargs.items())))
            if key in kept:
                return kept[key]
            value = kept[key] = fun(*args, **kwargs)
            if maxsize is not None and Cache is None and len(kept) > maxsize:
                del kept[next(iter(kept))]
            return value

        remembered.clear = kept.clear  # type: ignore[attr-defined]
        return remembered

    return decorate


def noop(*args: Any, **kwargs: Any) -> None:
    """Nothing, whatever the arguments."""
