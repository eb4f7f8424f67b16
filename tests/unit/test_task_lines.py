"""What a runner logs about tasks: each line names the task, and an app can have lines of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac, Ignore, Reject, log
from celeriac.environment import Environment
from celeriac.execution import execute
from celeriac.outcome import Execution, Verdict
from tests.support.apps import memory_app, run_all, sent

LINES = [name for name in vars(log) if name.startswith("LOG_") and name != "LOG_FORMAT"]


@pytest.fixture
def app() -> Celeriac:
    app = memory_app()
    app.task(lambda value=None: value, name="good", resultrepr_maxsize=20)

    @app.task(name="bad", throws=(KeyError,))
    def bad(kind: str) -> None:
        raise {"value": ValueError, "key": KeyError, "ignore": Ignore, "reject": Reject}[kind](kind)

    @app.task(name="again", bind=True, default_retry_delay=60)
    def again(self: Any) -> None:
        raise self.retry(exc=ValueError("later"))

    return app


@pytest.fixture
def own_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch


def lines(app: Celeriac, caplog: pytest.LogCaptureFixture, name: str, *args: Any) -> tuple[str, list[tuple[int, str]]]:
    """The task's id, and what was logged while it ran: level and text."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "celeriac.execution"):
        result = app.send_task(name, args)
        run_all(app)
    return result.id, [(record.levelno, record.getMessage()) for record in caplog.records]


@pytest.mark.behaviour("B-LOG-006")
def test_each_end_of_a_task_is_a_line_that_names_it(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    task_id, [(level, text)] = lines(app, caplog, "good")
    assert level == logging.INFO
    head, _, seconds = text.partition(" succeeded in ")
    assert head == f"Task good[{task_id}]"
    assert float(seconds.removesuffix(" s")) >= 0
    task_id, [(level, text)] = lines(app, caplog, "bad", "value")
    assert level == logging.ERROR
    assert text.startswith(f"Task bad[{task_id}] failed: raised unexpected ValueError('value')\nTraceback")
    task_id, [(level, text)] = lines(app, caplog, "bad", "key")
    assert (level, text) == (logging.INFO, f"Task bad[{task_id}] failed: raised expected KeyError('key')")
    task_id, [(level, text)] = lines(app, caplog, "bad", "ignore")
    assert (level, text) == (logging.INFO, f"Task bad[{task_id}] ignored")
    task_id, [(level, text)] = lines(app, caplog, "bad", "reject")
    assert text.startswith(f"Task bad[{task_id}] rejected: 'reject'\nTraceback")
    task_id, [(level, text)] = lines(app, caplog, "again")
    assert (level, text[: len(task_id) + 20]) == (logging.INFO, f"Task again[{task_id}] retry: ")


def test_one_that_was_ended_from_outside_did_not_raise(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    result = app.send_task("good")
    [message] = sent(app)
    verdict = Verdict("FAILURE", "TimeLimitExceeded", [5])
    execute(Environment(app), Execution(1, 0, message, "celery", 1, verdict))
    assert caplog.messages == [f"Task good[{result.id}] failed: ended by TimeLimitExceeded(5)"]


@pytest.mark.behaviour("B-LOG-005")
def test_an_app_writes_lines_of_its_own(
    app: Celeriac, caplog: pytest.LogCaptureFixture, own_lines: pytest.MonkeyPatch
) -> None:
    for name in LINES:
        own_lines.setattr(log, name, f"{name} %(name)s %(args)s %(kwargs)s %(hostname)s")
    own_lines.setattr(log, "LOG_SUCCESS", "%(name)s%(args)s = %(return_value)s")
    own_lines.setattr(log, "LOG_FAILURE", "%(id)s %(exc)s %(description)s")
    assert lines(app, caplog, "good", "x" * 50)[1][0][1].endswith(f"',) = '{20 * 'x'}...'")
    assert lines(app, caplog, "good", [1])[1] == [(logging.INFO, "good([1],) = [1]")]
    task_id, found = lines(app, caplog, "bad", "value")
    assert found == [(logging.ERROR, f"{task_id} ValueError('value') raised unexpected")]
    assert lines(app, caplog, "bad", "ignore")[1] == [(logging.INFO, "LOG_IGNORED bad ('ignore',) {} unit@test")]
    assert lines(app, caplog, "again")[1] == [(logging.INFO, "LOG_RETRY again () {} unit@test")]


@pytest.mark.parametrize("line", ["%(nothing)s", "%(runtime)d items %s", "%(name)"])
def test_a_line_that_can_not_be_filled_in_is_named(
    app: Celeriac, caplog: pytest.LogCaptureFixture, own_lines: pytest.MonkeyPatch, line: str
) -> None:
    own_lines.setattr(log, "LOG_SUCCESS", line)
    task_id, [(_, text)] = lines(app, caplog, "good")
    assert text.startswith(f"Task good[{task_id}]: the log line {line!r} can't be filled in: ")
