"""Logging as the app's settings ask for it: once the app is known, in the supervisor, the zygote and the runners.

Called by the zygote and by the command `worker`, after a first set-up with the default formats, which is what messages about
the import of the app itself go through.
"""

from __future__ import annotations

from celeriac.config import Settings
from celeriac.log import setup_worker_logging

__all__ = ["log_as_configured"]


def log_as_configured(conf: Settings, level: str, logfile: str | None, colour: bool | None) -> None:
    """Set up this process's logging with the formats of the settings."""
    setup_worker_logging(
        level,
        logfile,
        conf.worker_log_format,
        conf.worker_task_log_format,
        conf.worker_log_color if colour is None else colour,
        hijack=conf.worker_hijack_root_logger,
        datefmt=conf.worker_log_datefmt,
        task_datefmt=conf.worker_task_log_datefmt,
    )
