"""Django's database connections and caches in processes that run tasks: what Django does around requests, around tasks.

The project calls this in the thread of the task, whose own connections these are. Coroutines have theirs in the one thread
where asgiref runs what they ask of Django. Invariant: a connection inside a transaction is never closed, and one that no longer
works is never kept for the next task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync
from django.core.cache import close_caches  # type: ignore[import-untyped]
from django.db import Error, connections  # type: ignore[import-untyped]

from celeriac.log import get_logger

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Connections"]

logger = get_logger("celeriac.contrib.django")


class Connections:
    """The connections of the app's Django project."""

    def __init__(self, app: Celeriac) -> None:
        self._app = app
        self._here = threading.local()

    def before_task(self, task: Any) -> None:
        """Close what has grown too old, or was cut, while the thread had nothing to do."""
        self._where_it_runs(task, self._before)

    def after_task(self, task: Any) -> None:
        """Close what is not to be kept (`CONN_MAX_AGE`, `CELERY_DB_REUSE_MAX`), and the caches."""
        self._where_it_runs(task, self._after)

    def close_all(self) -> None:
        """Close the connections of this thread, and the pools of this process."""
        for connection in connections.all(initialized_only=True):
            _close(connection, connection.close)
            if hasattr(connection, "close_pool"):  # PostgreSQL, since Django 5.1
                _close(connection, connection.close_pool)
        close_caches()

    def _where_it_runs(self, task: Any, step: Callable[[], None]) -> None:
        if iscoroutinefunction(task.run):
            # Not waited for: it is done before whatever the next coroutine asks, and that thread may be busy for another one.
            SyncToAsync.single_thread_executor.submit(step)
        else:
            step()

    def _before(self) -> None:
        self._close_old(is_due=not self._app.conf.db_reuse_max)

    def _after(self) -> None:
        self._close_old(is_due=self._is_due())
        close_caches()

    def _is_due(self) -> bool:
        most = self._app.conf.db_reuse_max or 1
        self._here.tasks = getattr(self._here, "tasks", 0) + 1
        if self._here.tasks < most:
            return False
        self._here.tasks = 0
        return True

    def _close_old(self, *, is_due: bool) -> None:
        for connection in connections.all(initialized_only=True):
            if is_due or connection.errors_occurred:
                _close(connection, connection.close_if_unusable_or_obsolete)


def _close(connection: Any, close: Any) -> None:
    try:
        close()
    except Error as exc:  # of a connection that the server has cut: there is nothing left to close
        logger.warning("a connection to the database %r could not be closed: %s", connection.alias, exc)
        connection.connection = None
