"""Logging under the names that Celery documents: `app.log`, `celery.utils.log`. For programs that set it up themselves.

`log` does the work; here are its pieces with Celery's arguments.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from logging import getLogger as get_logger
from typing import TYPE_CHECKING, Any, TextIO, cast

from celeriac import log
from celeriac.log import LogStream, log_level
from celeriac.log_colours import Colored
from celeriac.log_setup import log_as_configured

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = [
    "LOG_LEVELS", "ColorFormatter", "Logging", "LoggingProxy", "TaskFormatter", "UnitLogging", "base_logger",
    "get_logger", "get_multiprocessing_logger", "in_sighandler", "mlevel", "reset_multiprocessing_logger",
    "set_in_sighandler",
]  # fmt: skip

_NAMES = {"CRITICAL": 50, "FATAL": 50, "ERROR": 40, "WARN": 30, "WARNING": 30, "INFO": 20, "DEBUG": 10, "NOTSET": 0}
#: Levels by name, and names by level.
LOG_LEVELS: dict[Any, Any] = {**_NAMES, **{level: logging.getLevelName(level) for level in (50, 40, 30, 20, 10, 0)}}

#: The logger above those of the worker.
base_logger = logging.getLogger("celeriac")

LoggingProxy = LogStream

_is_in_handler = False


def mlevel(level: Any) -> Any:
    """A level as a number; nothing stays nothing."""
    return log_level(level) if level else level


class ColorFormatter(logging.Formatter):
    """Colours lines by level.

    Args:
        fmt: Format of a line.
        use_color: False leaves them plain.
        datefmt: How `%(asctime)s` is written.
    """

    def __init__(self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None) -> None:
        self._formatter = log.TaskFormatter(fmt or "%(message)s", datefmt, colour=use_color)
        super().__init__(fmt, datefmt)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return self._formatter.format(record)


class TaskFormatter(ColorFormatter):
    """The same, with `%(task_id)s` and `%(task_name)s`."""

    def __init__(self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None) -> None:
        super().__init__(fmt or log.TASK_LOG_FORMAT, use_color, datefmt)


def get_multiprocessing_logger() -> logging.Logger:
    """The logger of `multiprocessing`, which runners are not made by."""
    return logging.getLogger("multiprocessing")


def reset_multiprocessing_logger() -> None:
    """Take the handlers of that logger away."""
    get_multiprocessing_logger().handlers.clear()


def in_sighandler() -> bool:
    """Whether a signal handler has said that it runs."""
    return _is_in_handler


def set_in_sighandler(value: bool) -> None:
    """Say that a signal handler runs, or that it has ended."""
    global _is_in_handler
    _is_in_handler = value


class Logging:
    """Sets up the logging of a program: `app.log`. A worker does that by itself.

    Attributes:
        already_setup: Whether it was done; it is done once.
    """

    already_setup = False

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.loglevel: int = logging.WARNING
        self._redirected = ExitStack()

    def colored(self, logfile: str | None = None, enabled: bool | None = None) -> Colored:
        """Colours text for a terminal: `app.log.colored().red("no")`; plain text where `logfile` or standard error is none."""
        return Colored(enabled=self.supports_color(enabled, logfile))

    def setup(
        self, loglevel: Any = None, logfile: str | None = None, redirect_stdouts: bool = False,
        redirect_level: str = "WARNING", colorize: bool | None = None, hostname: str | None = None,
    ) -> bool:  # fmt: skip
        """Set up all loggers; with `redirect_stdouts`, what is printed becomes log lines from now on."""
        done = self.setup_logging_subsystem(loglevel, logfile, colorize=colorize, hostname=hostname)
        if redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        return done

    def setup_logging_subsystem(
        self, loglevel: Any = None, logfile: str | None = None, format: str | None = None,
        colorize: bool | None = None, hostname: str | None = None, datefmt: str | None = None, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Set up the root logger and those of tasks; returns whether it was not done before.

        Formats that are not given come from the settings.
        """
        if type(self).already_setup:
            return False
        type(self).already_setup = True
        self.loglevel = log_level(loglevel or logging.WARNING)
        conf = self.app.conf
        if format or datefmt:
            conf = conf.copy()
            conf.update(worker_log_format=format or conf.worker_log_format, worker_log_datefmt=datefmt)
        log_as_configured(conf, self.loglevel, logfile, colorize)
        return True

    def setup_task_loggers(
        self, loglevel: Any = None, logfile: str | None = None, format: str | None = None,
        colorize: bool | None = None, propagate: bool = False, datefmt: str | None = None, **kwargs: Any,
    ) -> logging.Logger:  # fmt: skip
        """Set up the loggers of tasks alone; returns the one above them."""
        logger = logging.getLogger(log.TASK_LOGGER)
        logger.setLevel(log_level(loglevel or self.loglevel))
        form = format or self.app.conf.worker_task_log_format
        self.setup_handlers(logger, logfile, form, self.supports_color(colorize, logfile), TaskFormatter, datefmt)
        logger.propagate = propagate
        return logger

    def setup_handlers(
        self, logger: logging.Logger, logfile: Any, format: str | None, colorize: bool | None,
        formatter: Callable[..., logging.Formatter] = ColorFormatter, datefmt: str | None = None, **kwargs: Any,
    ) -> logging.Logger:  # fmt: skip
        """Give a logger a handler, unless it has one: a file's, a stream's, or that of standard error."""
        if not [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]:
            is_stream = logfile is None or hasattr(logfile, "write")
            handler = logging.StreamHandler(logfile) if is_stream else logging.FileHandler(logfile, encoding="utf-8")
            handler.setFormatter(formatter(format, use_color=bool(colorize), datefmt=datefmt))
            logger.addHandler(handler)
        return logger

    def redirect_stdouts(self, loglevel: Any = None, name: str = "celeriac.redirected") -> None:
        """Let what is printed become log lines from now on."""
        self.redirect_stdouts_to_logger(get_logger(name), loglevel or logging.WARNING)

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> LogStream:
        """The same, to this logger; returns the stream."""
        stream = LogStream(logger, mlevel(loglevel) or logging.WARNING)
        if stdout:
            self._redirected.enter_context(redirect_stdout(cast(TextIO, stream)))
        if stderr:
            self._redirected.enter_context(redirect_stderr(cast(TextIO, stream)))
        return stream

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Whether lines are to be coloured: on a terminal only, unless it is asked for."""
        wanted = self.app.conf.worker_log_color if colorize is None else colorize
        return bool(wanted) if wanted is not None else logfile is None and log.is_terminal(sys.stderr)

    def get_default_logger(self, name: str = "celeriac", **kwargs: Any) -> logging.Logger:
        """The logger of this name."""
        return get_logger(name)


class UnitLogging(Logging):
    """The logging of an app for tests: it leaves everything as it is."""

    already_setup = True
