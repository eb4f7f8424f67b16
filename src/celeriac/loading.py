"""Finding things by name: the app that `-A` means, objects by path, task modules of packages."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.local import Proxy

__all__ = ["PRELOAD", "AppNotFound", "autodiscover", "find_app", "import_object"]

#: A variable that names functions, "module:function" and commas between, to be called before an app is imported.
PRELOAD = "CELERIAC_PRELOAD"


class AppNotFound(ImproperlyConfigured):
    """What `-A` names is not there. The message says what was tried."""


def import_object(path: str, what: str) -> Any:
    """The object at 'package.module:attribute', or the module at 'package.module' (or its attribute, if it has one).

    Raises:
        ImproperlyConfigured: It is not there; the message names `what` asked for it.
    """
    module_name, _, attribute = path.partition(":")
    try:
        if attribute:
            return getattr(importlib.import_module(module_name), attribute)
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            parent, _, name = module_name.rpartition(".")
            if not parent or exc.name != module_name:
                raise
            return getattr(importlib.import_module(parent), name)
    except (ImportError, AttributeError) as exc:
        raise ImproperlyConfigured(f"{what}: can't import {path!r}: {exc}") from exc


def autodiscover(packages: Iterable[str], related_name: str | None) -> list[ModuleType]:
    """Import `<package>.<related_name>` of each package that has it.

    A class that has the name of a package stands for it, as Django's "shop.apps.ShopConfig" does.
    """
    found = []
    for package in map(_package_of, packages):
        name = f"{package}.{related_name}" if related_name else package
        if importlib.util.find_spec(name) is not None:
            found.append(importlib.import_module(name))
    return found


def _package_of(name: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        parent, _, attribute = name.rpartition(".")
        if not parent or exc.name != name:
            raise
        named = getattr(getattr(importlib.import_module(parent), attribute, None), "name", None)
        if not isinstance(named, str):
            raise
        return named
    return name


def find_app(name: str) -> Any:
    """The app that `-A name` means, as Celery finds it.

    `module:attribute`; or of `module` its attribute `app`, `celeriac` or `celery`, its submodule `celeriac` or `celery`,
    or the first app among its attributes.

    Raises:
        AppNotFound: There is none.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    for path in filter(None, os.environ.get(PRELOAD, "").split(",")):
        import_object(path, PRELOAD)()
    module_name, _, attribute = name.partition(":")
    module = _import(module_name)
    if module is None:
        parent, _, last = module_name.rpartition(".")
        owner = _import(parent) if parent else None
        app = getattr(owner, last, None)
        if _is_app(app):
            return app
        raise AppNotFound(
            f"App {name!r} not found: there is no module {module_name!r} on the path (looked from the current directory)."
        )
    if attribute:
        return _attribute(module, attribute, name)
    app = _among(module)
    tried = [f"{module_name}.app", f"{module_name}.celeriac", f"{module_name}.celery"]
    for submodule in ("celeriac", "celery"):
        if app is None and hasattr(module, "__path__"):
            tried.append(f"module {module_name}.{submodule}")
            inner = _import(f"{module_name}.{submodule}")
            app = _among(inner) if inner is not None else None
    if app is None:
        raise AppNotFound(
            f"App {name!r} not found: tried {', '.join(tried)}; no attribute of {module_name!r} is a celeriac app."
        )
    return app


def _attribute(module: ModuleType, path: str, name: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise AppNotFound(
                f"App {name!r} not found: {module.__name__!r} has no attribute {path!r}.{near_match(part, vars(module))}"
            )
        found = getattr(found, part)
    if isinstance(found, ModuleType):
        inner = _among(found)
        if inner is not None:
            return inner
    if not _is_app(found):
        raise AppNotFound(f"App {name!r} is a {type(found).__name__}, not a celeriac app.")
    return found


def _among(module: ModuleType) -> Any:
    for attribute in ("app", "celeriac", "celery"):
        found = getattr(module, attribute, None)
        if _is_app(found):
            return found
        if isinstance(found, ModuleType) and _is_app(getattr(found, "app", None)):
            return found.app
    return next((value for value in vars(module).values() if _is_app(value)), None)


def _is_app(value: Any) -> bool:
    if issubclass(type(value), Proxy):  # `current_app` of a program under the import hook is not an app of its own
        return False
    return value is not None and not isinstance(value, type) and hasattr(value, "send_task") and hasattr(value, "tasks")


def _import(name: str) -> ModuleType | None:
    """The module, or None if just it is missing; errors inside it are the user's to see."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and (name == exc.name or name.startswith(exc.name + ".")):
            return None
        raise
