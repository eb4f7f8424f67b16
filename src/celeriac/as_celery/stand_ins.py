"""`current_app` and `current_task` as Celery has them: objects that stand for whichever is the current one now; and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac import current
from celeriac.context import running
from celeriac.local import Proxy

__all__ = [
    "connect_on_app_finalize", "current_app", "current_task", "default_app", "get_current_task", "get_current_worker_task",
    "maybe_patch_concurrency",
]  # fmt: skip


def get_current_task() -> Any:
    """The task that runs in this thread, or None."""
    return None if running.get() is None else current.get_current_app().current_task


def get_current_worker_task() -> Any:
    """The task that a worker runs in this thread, not one that it calls as a function; or None."""
    return None if running.get() is None else current.get_current_app().current_worker_task


def connect_on_app_finalize(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Call this with each app that is finalized from now on."""
    current.on_app_finalize.append(callback)
    return callback


def maybe_patch_concurrency(*args: Any, **kwargs: Any) -> None:
    """Nothing: a worker has the runners of its pools gevent and eventlet patched before they import anything.

    To patch the process that starts the worker, as Celery does here, would stop its supervisor, which runs on asyncio.
    """


current_app = Proxy(current.get_current_app)
default_app = Proxy(current.get_default_app)
current_task = Proxy(get_current_task)
