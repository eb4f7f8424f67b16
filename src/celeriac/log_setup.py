"""Logging as the app's settings ask for it: once the app is known, in the supervisor, the zygote and the runners.

Called by the zygote, by the command `worker` and by `app.log`. In a worker there was a first set-up with the default formats
before it, which is what messages about the import of the app itself go through. A receiver of the signal `setup_logging`
takes the place of all of it.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from celeriac import signals
from celeriac.config import Settings
from celeriac.log import TASK_LOGGER, log_level, redirected_stdouts, remove_handlers, setup_worker_logging

__all__ = ["log_as_configured", "stdouts_as_configured"]


def log_as_configured(conf: Settings, level: int | str, logfile: str | None, colour: bool | None) -> None:
    """Set up this process's logging with the formats of the settings, or let the user's receivers do it."""
    colorize = conf.worker_log_color if colour is None else colour
    told: dict[str, Any] = {"loglevel": log_level(level), "logfile": logfile, "colorize": colorize}
    if signals.setup_logging.send(sender=None, format=conf.worker_log_format, **told):
        remove_handlers()
        return
    setup_worker_logging(
        level,
        logfile,
        conf.worker_log_format,
        conf.worker_task_log_format,
        colorize,
        hijack=conf.worker_hijack_root_logger,
        datefmt=conf.worker_log_datefmt,
        task_datefmt=conf.worker_task_log_datefmt,
    )
    signals.after_setup_logger.send(sender=None, logger=logging.getLogger(), format=conf.worker_log_format, **told)
    signals.after_setup_task_logger.send(
        sender=None, logger=logging.getLogger(TASK_LOGGER), format=conf.worker_task_log_format, **told
    )


def stdouts_as_configured(conf: Settings) -> AbstractContextManager[None]:
    """Inside this block what tasks print becomes log lines, unless the settings say no or nobody would see them."""
    if not conf.worker_redirect_stdouts or not logging.getLogger().hasHandlers():
        return nullcontext()
    return redirected_stdouts(logging.getLogger("celeriac.redirected"), conf.worker_redirect_stdouts_level)
