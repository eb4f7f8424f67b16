"""Logging: loggers, formatters that know the running task, and the set-up that a worker does once per process.

Modules of ours call `get_logger`; users call `get_task_logger`; the worker and its runners call `setup_worker_logging`,
whose formats are the settings `worker_log_format` and `worker_task_log_format`. The runner sets `current_task_info`
around each execution. Handlers that the user has set up are left alone unless hijacking is asked for. Layer 0: nothing
of ours is imported but errors.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOBase
from threading import local
from typing import Any, TextIO, cast

from celeriac.errors import ImproperlyConfigured, near_match

__all__ = [
    "LOG_FAILURE",
    "LOG_FORMAT",
    "LOG_IGNORED",
    "LOG_INTERNAL_ERROR",
    "LOG_RECEIVED",
    "LOG_REJECTED",
    "LOG_RETRY",
    "LOG_SUCCESS",
    "JsonFormatter",
    "TASK_LOGGER",
    "TASK_LOG_FORMAT",
    "LogStream",
    "TaskFormatter",
    "current_task_info",
    "expand_index",
    "get_logger",
    "get_task_logger",
    "is_terminal",
    "log_level",
    "log_task",
    "redirected_stdouts",
    "remove_handlers",
    "set_process_index",
    "setup_worker_logging",
]

#: (id, name) of the task that this thread, greenlet or coroutine runs; None outside of tasks.
current_task_info: ContextVar[tuple[str, str] | None] = ContextVar("current_task_info", default=None)

LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

#: The lines about tasks. An app changes them by assigning others: `celeriac.log.LOG_SUCCESS = "%(name)s is done"`. All have
#: the fields id, name, args, kwargs (texts of the arguments) and hostname; those of a success runtime and return_value,
#: those of an error exc, description and traceback.
LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime).6f s"
LOG_FAILURE = "Task %(name)s[%(id)s] failed: %(description)s %(exc)s\n%(traceback)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] ignored"
LOG_REJECTED = "Task %(name)s[%(id)s] rejected: %(exc)s\n%(traceback)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s]: can't be run: %(exc)s\n%(traceback)s"

TASK_LOGGER = "celeriac.task"
#: What a task's id and name read as outside of tasks.
_NO_TASK = ("???", "???")
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}
#: ANSI colour of a line by level; other levels stay plain.
_COLOURS = {"DEBUG": "\033[34m", "WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[1;35m"}
_RESET = "\033[0m"

_process_index = 0
#: What `setup_worker_logging` has added in this process, so that calling it again replaces it.
_installed: list[tuple[logging.Logger, logging.Handler]] = []


def get_logger(name: str) -> logging.Logger:
    """The logger of one of our modules, named as the module (`celeriac.worker.intake`)."""
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """A logger for use in tasks: its lines carry the id and the name of the task that runs.

    Example:
        >>> logger = get_task_logger("shop.tasks")
        >>> logger.name
        'celeriac.task.shop.tasks'
    """
    if name == TASK_LOGGER or name.startswith(TASK_LOGGER + "."):
        return logging.getLogger(name)
    return logging.getLogger(f"{TASK_LOGGER}.{name}")


def log_level(level: int | str) -> int:
    """A level as a number, from a number or a name in any case.

    Raises:
        ImproperlyConfigured: The name is no level.
    """
    if isinstance(level, int):
        return level
    name = level.strip().upper()
    if name.isdecimal():
        return int(name)
    if name not in _LEVELS:
        hint = near_match(name, _LEVELS)
        raise ImproperlyConfigured(f"log level must be one of {', '.join(_LEVELS)} or a number, not {level!r}.{hint}")
    return _LEVELS[name]


def log_task(logger: logging.Logger, level: int, line: str, fields: Mapping[str, Any]) -> None:
    """Log one of the lines about tasks. One that can't be filled in is said so, and the task is named all the same."""
    name, task_id = fields["name"], fields["id"]
    try:
        text = line % fields
    except (KeyError, TypeError, ValueError) as exc:  # the user's own line
        text = f"Task {name}[{task_id}]: the log line {line!r} can't be filled in: {type(exc).__name__}: {exc}"
    logger.log(level, "%s", text.rstrip(), extra={"task_id": task_id, "task_name": name})


class TaskFormatter(logging.Formatter):
    """Fills `%(task_id)s` and `%(task_name)s`, and colours lines by level if told to."""

    def __init__(self, fmt: str = TASK_LOG_FORMAT, datefmt: str | None = None, *, colour: bool = False) -> None:
        try:
            super().__init__(fmt, datefmt)
        except ValueError as exc:
            raise ImproperlyConfigured(f"log format {fmt!r} has no field such as %(message)s") from exc
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line, with '???' for id and name outside of tasks."""
        task_id, task_name = current_task_info.get() or _NO_TASK
        # A caller may have named the task itself (`extra={"task_id": …}`), as the worker does for tasks it does not run.
        record.__dict__.setdefault("task_id", task_id)
        record.__dict__.setdefault("task_name", task_name)
        line = super().format(record)
        code = _COLOURS.get(record.levelname) if self.colour else None
        return f"{code}{line}{_RESET}" if code else line


class JsonFormatter(TaskFormatter):
    """One JSON object a line: what `worker_log_format = "json"` asks for."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; inside of tasks with `task_id` and `task_name`."""
        task_id, task_name = current_task_info.get() or (None, None)
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            "task_id": getattr(record, "task_id", task_id),
            "task_name": getattr(record, "task_name", task_name),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)


def _formatter(format: str, datefmt: str | None, colour: bool) -> logging.Formatter:
    return JsonFormatter() if format.strip().lower() == "json" else TaskFormatter(format, datefmt, colour=colour)


def set_process_index(index: int) -> None:
    """This process's number in its worker: 0 for the supervisor and the zygote, 1 and up for runners."""
    global _process_index
    _process_index = index


def expand_index(path: str) -> str:
    """A log file's name with %i (number of the process) and %I (the same with a dash; nothing for 0) put in."""
    return path.replace("%i", str(_process_index)).replace("%I", f"-{_process_index}" if _process_index else "")


def setup_worker_logging(
    level: int | str = logging.WARNING,
    logfile: str | os.PathLike[str] | None = None,
    format: str = LOG_FORMAT,
    task_format: str = TASK_LOG_FORMAT,
    colour: bool | None = None,
    *,
    hijack: bool = False,
    datefmt: str | None = None,
    task_datefmt: str | None = None,
) -> None:
    """Set up the root logger and the task loggers of this process. May be called again.

    Args:
        level: Number or name.
        logfile: Where lines are appended; None is standard error. A file that is moved away is opened anew.
        format: Format of lines (`worker_log_format`), or "json" for an object a line.
        task_format: Format of lines of task loggers (`worker_task_log_format`).
        colour: False is never; True and None are only on a terminal and without a log file.
        hijack: Take the place of handlers that others have added (`worker_hijack_root_logger`). Otherwise a logger that
            has a handler keeps it and gets none of ours.
        datefmt: How `%(asctime)s` is written in lines.
        task_datefmt: The same for task loggers.
    """
    number = log_level(level)
    remove_handlers()
    root, tasks = logging.getLogger(), logging.getLogger(TASK_LOGGER)
    root.setLevel(number)
    tasks.setLevel(number)
    colours = colour is not False and logfile is None and is_terminal(sys.stderr)
    _add_handler(root, logfile, _formatter(format, datefmt, colours), hijack)
    # Where the user's own handlers stay at the root, they get the lines of tasks too, as he has set it up.
    if any(logger is root for logger, _ in _installed):
        _add_handler(tasks, logfile, _formatter(task_format, task_datefmt, colours), hijack)
        tasks.propagate = False


class LogStream(TextIOBase):
    """A text stream whose lines become log records: what `print` in a task writes to."""

    def __init__(self, logger: logging.Logger, level: int | str = logging.WARNING) -> None:
        self._logger = logger
        self._level = log_level(level)
        self._active = local()

    def writable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Nothing: the stream is shared by all tasks of the process, and one that closes it must not silence the others."""

    def write(self, text: str) -> int:
        """Log each line that is not blank."""
        # A handler that fails prints its error to standard error, which may be this stream: it would never end.
        if getattr(self._active, "is_writing", False):
            return 0
        self._active.is_writing = True
        try:
            self._log_lines(text.splitlines())
        finally:
            self._active.is_writing = False
        return len(text)

    def _log_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip():
                self._logger.log(self._level, "%s", line.rstrip())


@contextmanager
def redirected_stdouts(logger: logging.Logger, level: int | str = logging.WARNING) -> Iterator[None]:
    """Let what is written to standard output and error become log lines (`worker_redirect_stdouts`)."""
    stream = cast(TextIO, LogStream(logger, level))
    with redirect_stdout(stream), redirect_stderr(stream):
        yield


class _ReopenedFileHandler(logging.FileHandler):
    """Opens its file again when the file was moved away, as logrotate does.

    The standard library has such a class, in a module whose import would cost every client 5 ms.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_current():
            moved = self.setStream(self._open())
            if moved is not None:
                moved.close()
        super().emit(record)

    def _is_current(self) -> bool:
        if self.stream is None:
            return False
        try:
            return os.path.samestat(os.stat(self.baseFilename), os.fstat(self.stream.fileno()))
        except FileNotFoundError:
            return False


def _add_handler(
    logger: logging.Logger, logfile: str | os.PathLike[str] | None, formatter: logging.Formatter, hijack: bool
) -> None:
    others = [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]
    if others and not hijack:
        return
    handler = (
        _ReopenedFileHandler(expand_index(os.fspath(logfile)), encoding="utf-8")
        if logfile
        else logging.StreamHandler(sys.stderr)
    )
    for other in others:
        logger.removeHandler(other)  # not closed: it may be in use elsewhere
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    _installed.append((logger, handler))


def remove_handlers() -> None:
    """Undo `setup_worker_logging`."""
    while _installed:
        logger, handler = _installed.pop()
        logger.removeHandler(handler)
        handler.close()
        if logger.name == TASK_LOGGER:
            logger.propagate = True


def is_terminal(stream: TextIO) -> bool:
    """Whether lines that go there may be coloured."""
    return stream.isatty() and "NO_COLOR" not in os.environ
