"""The class `Celery` of programs that run under the hook: the same app, with the defaults that Celery documents."""

from __future__ import annotations

from typing import Any, ClassVar

from celeriac.app import Celeriac

__all__ = ["CELERY_DEFAULTS", "Celery"]

#: Where our defaults differ, Celery's: docs/settings.md says why ours do. Classes that a setting names stay ours.
CELERY_DEFAULTS: dict[str, Any] = {
    "broker_connection_max_retries": 100,
    "broker_url": "amqp://",
    "result_backend": None,
    "task_acks_late": False,
    "task_reject_on_worker_lost": False,
    "worker_hijack_root_logger": True,
}


class Celery(Celeriac):
    """A celeriac app with Celery's defaults: a broker at amqp://, no result store, tasks acknowledged when they start."""

    default_settings: ClassVar[dict[str, Any]] = CELERY_DEFAULTS
