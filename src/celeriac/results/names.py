"""Result stores by the names that Celery has for them: `celery.app.backends`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac.results.drivers import find_factory
from celeriac.results.open import ENTRY_POINT_GROUP, STORES

__all__ = ["by_name", "by_url"]


def by_name(backend: Any = None, loader: Any = None, extension_namespace: str = ENTRY_POINT_GROUP) -> Any:
    """What makes the store of this scheme; "disabled" or None is no store, and a class or function is itself.

    Raises:
        ImproperlyConfigured: There is no such store, or its library is not installed.
    """
    if backend in (None, "disabled"):
        return None
    if not isinstance(backend, str):
        return backend
    return find_factory(f"{backend}://", STORES, extension_namespace, "result backend")


def by_url(backend: Any = None, loader: Any = None) -> tuple[Callable[..., Any] | None, str | None]:
    """What makes the store at this URL, and the URL; of a name alone there is no URL.

    Raises:
        ImproperlyConfigured: There is no such store, or its library is not installed.
    """
    if not isinstance(backend, str) or "://" not in backend:
        return by_name(backend), None
    return find_factory(backend, STORES, ENTRY_POINT_GROUP, "result backend"), backend
