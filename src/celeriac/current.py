"""The current app, for users at the face: `current_app`, `shared_task`, results and signatures made without an app.

Layer 0: it holds objects and imports nothing of ours. Nothing on the way of a task reads it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

__all__ = [
    "all_apps", "app_class", "app_or_default", "current_apps", "disable_trace", "enable_trace", "get_current_app",
    "get_default_app", "on_app_finalize", "register_app", "restore_apps", "set_app_class", "set_current_app",
    "set_default_app",
]  # fmt: skip

_local = threading.local()
_default: Any = None
_app_class: Callable[..., Any] | None = None
_apps: list[Any] = []
#: Called with each app when it is finalized: how shared tasks reach apps that come later.
on_app_finalize: list[Callable[[Any], None]] = []


def register_app(app: Any) -> None:
    """Remember a living app."""
    _apps.append(app)


def forget_app(app: Any) -> None:
    """The app was closed."""
    global _default
    if app in _apps:
        _apps.remove(app)
    if _default is app:
        _default = None
    if getattr(_local, "app", None) is app:
        _local.app = None


def all_apps() -> list[Any]:
    """The living apps, oldest first."""
    return list(_apps)


def set_current_app(app: Any) -> None:
    """Make this the current app of the thread, and the default of all others if there is none yet."""
    global _default
    _local.app = app
    if _default is None:
        _default = app


def set_default_app(app: Any) -> None:
    """Make this the app of threads that have none of their own."""
    global _default
    _default = app


def set_app_class(cls: Callable[..., Any]) -> None:
    """Of which class are apps that nobody has constructed: the default one, and those that fixtures make for tests."""
    global _app_class
    _app_class = cls


def app_class() -> Callable[..., Any]:
    """See `set_app_class`.

    Raises:
        RuntimeError: celeriac itself was not imported yet.
    """
    if _app_class is None:
        raise RuntimeError("no app exists yet: construct celeriac.Celeriac(...) first")
    return _app_class


def current_apps() -> tuple[Any, Any]:
    """The app of this thread and the default one, for `restore_apps`."""
    return getattr(_local, "app", None), _default


def restore_apps(apps: tuple[Any, Any]) -> None:
    """Undo what has been set since `current_apps` gave this."""
    global _default
    _local.app, _default = apps


def get_current_app() -> Any:
    """The thread's app, else the default one, else a new default one.

    Raises:
        RuntimeError: The thread has none, and the environment variable CELERY_TRACE_APP is set.
    """
    app = getattr(_local, "app", None)
    if app is not None:
        return app
    if os.environ.get("CELERY_TRACE_APP"):
        raise RuntimeError("this thread has no app of its own, and CELERY_TRACE_APP forbids to take the default one")
    return get_default_app()


def get_default_app() -> Any:
    """The app of threads that have none of their own; made now if there is none."""
    if _default is None:
        set_default_app(app_class()("default", set_as_current=False))
    return _default


def app_or_default(app: Any = None) -> Any:
    """This app, or else the current one."""
    return get_current_app() if app is None else app


def enable_trace() -> None:
    """Make it an error to fall back on the default app, as CELERY_TRACE_APP does."""
    os.environ["CELERY_TRACE_APP"] = "1"


def disable_trace() -> None:
    """Undo `enable_trace`."""
    os.environ.pop("CELERY_TRACE_APP", None)
