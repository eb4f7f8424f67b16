"""Formats with the running task, handlers that are left alone or replaced, colours, and redirected prints."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from celeriac import log
from celeriac.errors import ImproperlyConfigured


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Put the handlers and levels back after each test."""
    loggers = [logging.getLogger(), logging.getLogger("celeriac.task")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    log.remove_handlers()
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def setup(stderr: io.StringIO, *args: Any, **kwargs: Any) -> None:
    """Set logging up as in a process of its own: this standard error, and none of the handlers that pytest adds."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
    with redirect_stderr(stderr):
        log.setup_worker_logging(*args, **kwargs)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_task_logger_is_below_celeriac_task() -> None:
    assert log.get_task_logger("shop.tasks").name == "celeriac.task.shop.tasks"
    assert log.get_task_logger("celeriac.task.x").name == "celeriac.task.x"
    assert log.get_task_logger("celeriac.task").name == "celeriac.task"


def test_b_log_003_task_lines_carry_name_and_id() -> None:
    stderr = io.StringIO()
    setup(stderr, "INFO", task_format="%(task_name)s[%(task_id)s]: %(message)s")
    token = log.current_task_info.set(("id-1", "shop.add"))
    try:
        log.get_task_logger("shop").info("adding %d", 2)
    finally:
        log.current_task_info.reset(token)
    log.get_task_logger("shop").info("outside")
    assert stderr.getvalue() == "shop.add[id-1]: adding 2\n???[???]: outside\n"


def test_extra_names_the_task_instead() -> None:
    stderr = io.StringIO()
    setup(stderr, "INFO", task_format="%(task_name)s[%(task_id)s]")
    log.get_task_logger("shop").info("", extra={"task_id": "other", "task_name": "shop.sub"})
    assert stderr.getvalue() == "shop.sub[other]\n"


def test_default_format_names_level_and_process() -> None:
    stderr = io.StringIO()
    setup(stderr)
    logging.getLogger("shop").warning("look")
    logging.getLogger("shop").info("below the level")
    assert stderr.getvalue().endswith(": WARNING/MainProcess] look\n")
    assert stderr.getvalue().count("\n") == 1


def test_a_second_setup_replaces_the_first() -> None:
    stderr = io.StringIO()
    setup(stderr, "INFO", format="first %(message)s", task_format="first task %(message)s")
    setup(stderr, "INFO", format="second %(message)s", task_format="second task %(message)s")
    logging.getLogger("shop").info("hello")
    log.get_task_logger("shop").info("hello")
    assert stderr.getvalue() == "second hello\nsecond task hello\n"


def test_handlers_of_the_user_are_left_alone() -> None:
    stderr = io.StringIO()
    own = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(own))
    setup(stderr, "INFO")
    logging.getLogger("shop").info("hello")
    log.get_task_logger("shop").info("from a task")
    assert own.getvalue() == "hello\nfrom a task\n"
    assert stderr.getvalue() == ""


def test_b_log_001_hijack_takes_the_place_of_other_handlers() -> None:
    stderr = io.StringIO()
    own = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(own))
    setup(stderr, "INFO", format="%(message)s", hijack=True)
    logging.getLogger("shop").info("hello")
    assert (own.getvalue(), stderr.getvalue()) == ("", "hello\n")


@pytest.mark.parametrize("colour", [None, True])
def test_b_log_004_colours_on_a_terminal(colour: bool | None) -> None:
    terminal = Terminal()
    setup(terminal, format="%(message)s", colour=colour)
    logging.getLogger("shop").error("bad")
    assert terminal.getvalue() == "\033[31mbad\033[0m\n"


def test_b_log_004_no_colours_when_refused_or_not_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    setup(terminal, format="%(message)s", colour=False)
    logging.getLogger("shop").error("bad")
    monkeypatch.setenv("NO_COLOR", "1")
    setup(terminal, format="%(message)s")
    logging.getLogger("shop").error("worse")
    assert terminal.getvalue() == "bad\nworse\n"
    monkeypatch.delenv("NO_COLOR")
    plain = io.StringIO()
    setup(plain, format="%(message)s", colour=True)
    logging.getLogger("shop").error("worst")
    assert plain.getvalue() == "worst\n"


def test_log_file_gets_no_colours_and_survives_rotation(tmp_path: Path) -> None:
    terminal = Terminal()
    path = tmp_path / "worker.log"
    setup(terminal, "INFO", path, format="%(message)s")
    logging.getLogger("shop").info("one")
    path.rename(tmp_path / "worker.log.1")
    logging.getLogger("shop").info("two")
    log.get_task_logger("shop").error("three")
    assert (tmp_path / "worker.log.1").read_text() == "one\n"
    assert path.read_text().splitlines()[0] == "two"
    assert path.read_text().endswith(": three\n")
    assert terminal.getvalue() == ""


def test_levels_by_name_and_number() -> None:
    assert [log.log_level(level) for level in ("info", "WARN", " Fatal ", "15", 7)] == [20, 30, 50, 15, 7]


def test_unknown_level_names_the_nearest() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"not 'WARNNING'\. Did you mean 'WARNING'\?"):
        log.log_level("WARNNING")


def test_a_format_without_a_field_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="'hello' has no field"):
        log.TaskFormatter("hello")


def test_b_log_002_prints_become_log_lines() -> None:
    stderr = io.StringIO()
    setup(stderr, "INFO", format="%(levelname)s %(message)s")
    with log.redirected_stdouts(logging.getLogger("celeriac.redirected"), "WARNING"):
        print("one\n\ntwo  ")
        print("three", end="", file=sys.stderr)
    assert stderr.getvalue() == "WARNING one\nWARNING two\nWARNING three\n"


def test_a_handler_that_prints_does_not_loop() -> None:
    seen: list[str] = []

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            print("from the handler")

    logger = logging.getLogger("celeriac.redirected")
    handler = Printing()
    logger.addHandler(handler)
    try:
        with log.redirected_stdouts(logger):
            print("hello")
    finally:
        logger.removeHandler(handler)
    assert seen == ["hello"]
