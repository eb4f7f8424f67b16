"""Logging under Celery's names."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, log_names, signals
from celeriac.log import TASK_LOGGER, current_task_info, remove_handlers
from celeriac.log_names import Logging


@pytest.fixture
def app() -> Iterator[Celeriac]:
    """An app whose `log` was not used yet. Loggers are put back after the test."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers.clear()
    yield Celeriac("logs", set_as_current=False, worker_hijack_root_logger=True)
    remove_handlers()
    root.handlers[:] = before
    root.setLevel(level)
    Logging.already_setup = False


def record(text: str = "hello", level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("a", level, "file.py", 1, text, (), None)


def test_levels_by_name_and_number() -> None:
    assert (log_names.LOG_LEVELS["INFO"], log_names.LOG_LEVELS[20]) == (20, "INFO")
    assert (log_names.mlevel("debug"), log_names.mlevel(30), log_names.mlevel(None)) == (10, 30, None)


def test_formatters_colour_and_know_the_task() -> None:
    assert log_names.ColorFormatter("%(message)s", use_color=False).format(record()) == "hello"
    assert log_names.ColorFormatter().format(record()) == "\033[31mhello\033[0m"
    token = current_task_info.set(("1", "add"))
    try:
        line = log_names.TaskFormatter("%(task_name)s[%(task_id)s] %(message)s", use_color=False).format(record())
    finally:
        current_task_info.reset(token)
    assert line == "add[1] hello"


def test_app_log_sets_up_as_the_settings_say_and_once(app: Celeriac, tmp_path: Path) -> None:
    app.conf.worker_log_format = "ROOT %(message)s"
    app.conf.worker_task_log_format = "TASK %(message)s"
    path = tmp_path / "log"
    assert app.log.setup(loglevel="INFO", logfile=str(path)) is True
    assert app.log.setup(loglevel="DEBUG") is False
    assert app.log.already_setup
    app.log.get_default_logger().info("one")
    logging.getLogger(f"{TASK_LOGGER}.x").info("two")
    logging.getLogger("x").debug("hidden")
    assert path.read_text() == "ROOT one\nTASK two\n"


def test_a_format_of_ones_own_and_a_receiver_that_takes_over(app: Celeriac, tmp_path: Path) -> None:
    path = tmp_path / "log"
    app.log.setup_logging_subsystem("INFO", str(path), format="MINE %(message)s")
    logging.getLogger("x").info("one")
    assert path.read_text() == "MINE one\n"
    told: list[Any] = []

    def take_over(loglevel: int, **_: Any) -> None:
        told.append(loglevel)

    signals.setup_logging.connect(take_over)
    Logging.already_setup = False
    try:
        Celeriac("other", set_as_current=False).log.setup("ERROR")
    finally:
        signals.setup_logging.disconnect(take_over)
    assert told == [logging.ERROR]
    assert logging.getLogger().handlers == []


def test_task_loggers_alone(app: Celeriac, tmp_path: Path) -> None:
    path = tmp_path / "log"
    logger = app.log.setup_task_loggers("INFO", str(path), format="T %(message)s", colorize=False)
    try:
        logging.getLogger(f"{TASK_LOGGER}.x").info("one")
        assert path.read_text() == "T one\n"
        assert logger.name == TASK_LOGGER and logger.propagate is False
        assert app.log.setup_handlers(logger, io.StringIO(), "%(message)s", False).handlers == logger.handlers[:1]
    finally:
        logger.handlers.pop().close()
        logger.propagate = True


def test_what_is_printed_becomes_log_lines(
    app: Celeriac, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = sys.stdout, sys.stderr
    with app.log._redirected, caplog.at_level(logging.DEBUG):
        app.log.redirect_stdouts("INFO", name="printed")
        print("from print")
    assert (sys.stdout, sys.stderr) == (out, err)
    assert [(entry.name, entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        ("printed", logging.INFO, "from print")
    ]


def test_colours_are_for_terminals(app: Celeriac) -> None:
    assert app.log.supports_color(True) is True
    assert app.log.supports_color(False) is False
    app.conf.worker_log_color = None
    assert app.log.supports_color(None, "file") is False


def test_small_names() -> None:
    assert log_names.base_logger.name == "celeriac"
    assert log_names.get_multiprocessing_logger().name == "multiprocessing"
    log_names.reset_multiprocessing_logger()
    assert not log_names.in_sighandler()
    log_names.set_in_sighandler(True)
    assert log_names.in_sighandler()
    log_names.set_in_sighandler(False)
    assert log_names.UnitLogging(Celeriac("u", set_as_current=False)).setup() is False
