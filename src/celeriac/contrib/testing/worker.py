"""A worker inside a test, under Celery's name and with Celery's defaults: `celery.contrib.testing.worker.start_worker`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celeriac.testing import worker as own
from celeriac.testing.worker import EmbeddedWorker

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["setup_app_for_worker", "start_worker"]


def setup_app_for_worker(app: Celeriac, loglevel: str | int, logfile: str | None) -> None:
    """Make an app ready for a worker in this process: finalized, and the one of all threads.

    Args:
        loglevel, logfile: No effect: a worker inside a program leaves its logging alone.
    """
    app.finalize()
    app.set_current()
    app.set_default()


@contextmanager
def start_worker(
    app: Celeriac | str,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: str | int = "error",
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[EmbeddedWorker]:
    """Run a worker in a thread while the block runs; see `celeriac.testing.worker.start_worker`.

    Args:
        loglevel, logfile: No effect: a worker inside a program leaves its logging alone.
        perform_ping_check: Send the task `celery.ping` and wait for its result before the block begins.
    """
    with own.start_worker(
        app, pool=pool, concurrency=concurrency, perform_ping_check=perform_ping_check,
        ping_task_timeout=ping_task_timeout, shutdown_timeout=shutdown_timeout, **kwargs,
    ) as worker:  # fmt: skip
        yield worker
