"""The task by which a worker of a test is asked whether it works."""

from __future__ import annotations

from celeriac.shared import shared_task

__all__ = ["ping"]


@shared_task(name="celery.ping")
def ping() -> str:
    """Return "pong"."""
    return "pong"
