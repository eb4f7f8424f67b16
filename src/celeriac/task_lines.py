"""The lines that a runner logs about tasks, made of the texts in `celeriac.log` (`LOG_SUCCESS` and the others).

`execution` calls it once for each end of a task. Each line names the task and its id itself, so it says what it means in
whatever format and by whatever handler it is written.
"""

from __future__ import annotations

import logging
from typing import Any

from celeriac import log
from celeriac.context import Context
from celeriac.safe_repr import saferepr

__all__ = ["log_end", "log_failure", "log_success"]

logger = log.get_logger("celeriac.execution")


def log_success(context: Context, task: Any, value: Any, runtime: float) -> None:
    """It has returned a value."""
    if logger.isEnabledFor(logging.INFO):
        shown = saferepr(value, task.resultrepr_maxsize) if "return_value" in log.LOG_SUCCESS else ""
        log_end(logging.INFO, log.LOG_SUCCESS, context, runtime=runtime, return_value=shown)


def log_failure(context: Context, task: Any, exc: BaseException, trace: str | None) -> None:
    """It has failed.

    Args:
        trace: Where it raised; None if it did not raise, but was ended.
    """
    level, what = logging.ERROR, "ended by" if trace is None else "raised unexpected"
    if task is not None and isinstance(exc, tuple(task.throws)):
        level, what, trace = logging.INFO, "raised expected", None
    log_end(level, log.LOG_FAILURE, context, exc=saferepr(exc), description=what, traceback=trace or "")


def log_end(level: int, line: str, context: Context, **more: Any) -> None:
    """Log one of these lines."""
    if logger.isEnabledFor(level):
        fields = {"id": context.id, "name": context.task, "args": context.argsrepr, "kwargs": context.kwargsrepr}
        log.log_task(logger, level, line, {**fields, "hostname": context.hostname, **more})
