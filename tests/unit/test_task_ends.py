"""How tasks end: handlers, the ends that a task names itself, results that are not wanted, waiting inside tasks."""

from __future__ import annotations

import asyncio
import decimal
import functools
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celeriac, Ignore, Reject, Task, allow_join_result, signals
from celeriac.environment import Environment
from celeriac.errors import EncodeError
from celeriac.execution import execute
from celeriac.outcome import Execution
from celeriac.results.base import Record
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


# handlers


class Handled(Task[..., Any]):
    """Notes the handlers that are called."""

    calls: list[tuple[Any, ...]]

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> Any:
        self.calls.append(("before_start", task_id, args, kwargs))
        return "ignored"

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> Any:
        self.calls.append(("on_success", retval, task_id, args, kwargs))
        return "ignored"

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("on_failure", repr(exc), task_id, args, kwargs, "Traceback" in str(einfo)))

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("on_retry", repr(exc), task_id, args, kwargs, "Traceback" in str(einfo)))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("after_return", status, task_id))


def _handled(app: Celeriac, function: Callable[..., Any], **options: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    task = app.task(function, name="t", base=Handled, **options)
    task.calls = []  # type: ignore[attr-defined]
    return task, task.calls  # type: ignore[attr-defined]


def test_handlers_of_success(app: Celeriac) -> None:
    """[B-TASK-027, B-TASK-029, B-TASK-032, B-TASK-034]"""
    task, calls = _handled(app, lambda x, y=0: x + y)
    assert task.apply((1,), {"y": 2}, task_id="a").get() == 3
    assert calls == [
        ("before_start", "a", [1], {"y": 2}),
        ("on_success", 3, "a", [1], {"y": 2}),
        ("after_return", "SUCCESS", "a"),
    ]


class Asking(Task[..., Any]):
    """Its handlers note the state that they see, and that anybody sees."""

    seen: list[tuple[str, str, str]]

    def _note(self, handler: str) -> None:
        record = self.app.backend.get([self.request.id])[0]  # type: ignore[union-attr, list-item]
        stored = record.state if record is not None else "nothing"
        self.seen.append((handler, self.AsyncResult(str(self.request.id)).state, stored))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self._note("on_success")

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._note("on_failure")

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._note("on_retry")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._note("after_return")


@pytest.mark.behaviour("B-TASK-028")
def test_the_outcome_is_stored_before_the_handlers_run(app: Celeriac) -> None:
    def run(self: Any, how: str) -> None:
        if how == "retry" and not self.request.retries:
            raise self.retry(countdown=0)
        if how == "fail":
            raise ValueError(how)

    task: Any = app.task(run, name="t", base=Asking, bind=True)
    states = {}
    for how in ("succeed", "fail", "retry"):
        task.seen = []
        task.delay(how)
        run_all(app)
        states[how] = [f"{handler} {ours} {stored}" for handler, ours, stored in task.seen]
    good = ["on_success SUCCESS SUCCESS", "after_return SUCCESS SUCCESS"]
    assert states == {
        "succeed": good,
        "fail": ["on_failure FAILURE FAILURE", "after_return FAILURE FAILURE"],
        "retry": ["on_retry RETRY RETRY", *good],
    }


def test_handlers_of_failure(app: Celeriac) -> None:
    """[B-TASK-030, B-TASK-032]"""

    def fail() -> None:
        raise ValueError("no")

    task, calls = _handled(app, fail)
    assert task.apply(task_id="a").state == "FAILURE"
    assert calls[1:] == [("on_failure", "ValueError('no')", "a", [], {}, True), ("after_return", "FAILURE", "a")]


def test_handlers_of_a_retry(app: Celeriac) -> None:
    """[B-TASK-031, B-TASK-033]"""

    def retry_once(self: Any) -> str:
        if self.request.retries == 0:
            raise self.retry(exc=KeyError("later"))
        return "done"

    task, calls = _handled(app, retry_once, bind=True)
    assert task.apply(task_id="a").get() == "done"
    assert [call[0] for call in calls] == ["before_start", "on_retry", "before_start", "on_success", "after_return"]
    assert calls[1][1:] == ("KeyError('later')", "a", [], {}, True)


@pytest.mark.parametrize("exc", [Ignore(), Reject("no", requeue=True)])
def test_after_return_is_skipped_where_nothing_has_returned(app: Celeriac, exc: Exception) -> None:
    """[B-TASK-033]"""

    def end() -> None:
        raise exc

    task, calls = _handled(app, end)
    task.delay()
    assert run_once(app) in ("IGNORED", "REJECTED")
    assert [call[0] for call in calls] == ["before_start"]


def run_once(app: Celeriac) -> str:
    """State of the outcome of the one message that waits; it is taken out whatever it says."""
    (message,) = sent(app)
    return execute(Environment(app), Execution(1, 0, message, "celery")).state


def test_an_error_in_before_start_keeps_the_task_from_running(app: Celeriac) -> None:
    """[B-TASK-027]"""

    def refuse(task_id: str, args: Any, kwargs: Any) -> None:
        raise PermissionError("not today")

    ran: list[int] = []
    task = app.task(lambda: ran.append(1), name="t", before_start=refuse)
    with pytest.raises(PermissionError, match="not today"):
        task.apply().get()
    assert ran == []


@pytest.mark.parametrize("handler", ["on_success", "after_return"])
def test_an_error_in_a_later_handler_is_logged_only(
    app: Celeriac, handler: str, caplog: pytest.LogCaptureFixture
) -> None:
    """[B-TASK-035]"""

    def broken(self: Any, *args: Any) -> None:
        raise RuntimeError("handler is broken")

    task = app.task(lambda: 1, name="t", **{handler: broken})
    assert task.apply().get() == 1
    assert "handler is broken" in caplog.text


def test_handlers_given_as_options_may_take_self_or_not(app: Celeriac) -> None:
    seen: list[Any] = []

    def with_self(task: Any, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        seen.append((task.name, retval))

    def without(retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        seen.append(retval)

    app.task(lambda: 1, name="one", on_success=with_self).apply()
    app.task(lambda: 2, name="two", on_success=without).apply()
    app.task(lambda: 3, name="three", on_success=functools.partial(without)).apply()
    assert seen == [("one", 1), 2, 3]


# ends


def test_ignore_stores_nothing_and_acknowledges(app: Celeriac) -> None:
    """[B-TASK-036]"""

    @app.task
    def work() -> None:
        raise Ignore

    result = work.delay()
    (outcome,) = run_all(app)
    assert (outcome.state, outcome.record, outcome.action) == ("IGNORED", None, "ack")
    assert result.state == "PENDING"


def test_reject_is_a_failure_and_keeps_the_message(app: Celeriac) -> None:
    """[B-TASK-037]"""

    @app.task
    def work() -> None:
        raise Reject("wrong shop")

    result = work.delay()
    run_all(app)
    assert result.state == "FAILURE"
    (dead,) = app.transport.dead_letters()
    assert (dead.message.id, dead.reason) == (result.id, "rejected: wrong shop")


def test_reject_with_requeue_delivers_again(app: Celeriac) -> None:
    """[B-TASK-038]"""
    seen: list[Any] = []

    @app.task(bind=True)
    def work(self: Any) -> str:
        seen.append(self.request.delivery_info["redelivered"])
        if len(seen) < 3:
            raise Reject("later", requeue=True)
        return "done"

    result = work.delay()
    outcomes = run_all(app)
    assert [outcome.state for outcome in outcomes] == ["REJECTED", "REJECTED", "SUCCESS"]
    assert seen == [False, True, True]
    assert result.get(timeout=1) == "done"


def test_expected_errors_are_logged_without_traceback(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    """[B-TASK-040, B-TASK-041]"""

    def fail(kind: str) -> None:
        raise KeyError("expected") if kind == "expected" else ValueError("unexpected")

    task = app.task(fail, name="t", throws=KeyError)
    with caplog.at_level(logging.INFO):
        assert [task.apply((kind,)).state for kind in ("expected", "unexpected")] == ["FAILURE", "FAILURE"]
    expected, unexpected = [r for r in caplog.records if "expected" in r.getMessage()]
    assert (expected.levelname, "Traceback" in expected.getMessage()) == ("INFO", False)
    assert (unexpected.levelname, "Traceback" in unexpected.getMessage()) == ("ERROR", True)


@pytest.mark.parametrize("option", ["throws", "autoretry_for", "dont_autoretry_for"])
def test_exception_classes_of_options_are_checked_when_the_task_is_made(app: Celeriac, option: str) -> None:
    with pytest.raises(TypeError, match=f"{option} of task t must hold exception classes, not 'ValueError'"):
        app.task(lambda: None, name="t", **{option: ("ValueError",)})
    assert getattr(app.task(lambda: None, name="t", **{option: [KeyError, OSError]}), option) == (KeyError, OSError)


def test_a_value_that_can_not_be_encoded_is_the_tasks_failure(app: Celeriac) -> None:
    """[B-TASK-042]"""
    task = app.task(lambda: {"a": [1, object()]}, name="t")
    result = task.delay()
    run_all(app)
    with pytest.raises(EncodeError, match=r"the result\['a'\]\[1\] of type object can't be serialized as json"):
        result.get(timeout=1)


def test_a_decimal_is_a_value_and_not_taken_for_a_result(app: Celeriac) -> None:
    """[B-SERIAL-005]"""
    task = app.task(lambda: decimal.Decimal("1.50"), name="t")
    result = task.delay()
    run_all(app)
    assert result.get(timeout=1) == decimal.Decimal("1.50")


@pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("gone")])
def test_a_task_that_wants_to_end_the_process_fails(app: Celeriac, exc: BaseException) -> None:
    """[B-TASK-047 differs on purpose]: such an exception ends the task, in every pool, and not the runner with its
    neighbours; a stock worker loses the child process and reports WorkerLostError."""

    def leave() -> None:
        raise exc

    app.task(leave, name="t")
    result = app.send_task("t")
    run_all(app)
    assert result.state == "FAILURE"
    with pytest.raises(Exception, match=str(exc.args[0]) if exc.args else None) as caught:
        result.get(timeout=1)
    assert type(caught.value).__name__ == type(exc).__name__


# results that are not wanted


def test_an_ignored_result_is_none_and_nothing_is_stored(app: Celeriac) -> None:
    """[B-TASK-043, B-CALL-023]"""
    task = app.task(lambda: 1, name="t", ignore_result=True)
    result = task.delay()
    (outcome,) = run_all(app)
    assert outcome.record is None
    assert result.get(timeout=0) is None
    assert result.state == "PENDING"


@pytest.mark.parametrize(
    ("setting", "option", "call", "is_stored"),
    [
        (True, None, None, False),
        (True, False, None, True),
        (True, False, True, False),
        (False, True, None, False),
        (False, True, False, True),
        (False, None, None, True),
    ],
)
def test_the_call_ranks_above_the_task_above_the_setting(setting: Any, option: Any, call: Any, is_stored: bool) -> None:
    """[B-TASK-044]"""
    app = memory_app(task_ignore_result=setting)
    task = app.task(lambda: 1, name="t", **({} if option is None else {"ignore_result": option}))
    result = task.apply_async(**({} if call is None else {"ignore_result": call}))
    run_all(app)
    assert (result.state == "SUCCESS") is is_stored


def test_errors_of_ignored_tasks_can_be_stored(app: Celeriac) -> None:
    """[B-TASK-045]"""

    def fail() -> None:
        raise ValueError

    quiet = app.task(fail, name="quiet", ignore_result=True)
    loud = app.task(fail, name="loud", ignore_result=True, store_errors_even_if_ignored=True)
    results = quiet.delay(), loud.delay()
    run_all(app)
    assert [result.state for result in results] == ["PENDING", "FAILURE"]


# waiting inside tasks


def test_waiting_for_another_task_inside_a_task_is_refused(app: Celeriac) -> None:
    """[B-TASK-064]"""
    seen: list[Any] = []
    app.backend.store([Record(id="done", state="SUCCESS", result=b"5")])  # type: ignore[union-attr]

    @app.task
    def work() -> int:
        result = app.AsyncResult("done")
        with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task"):
            result.get()
        seen.append(result.get(disable_sync_subtasks=False))
        with allow_join_result():
            seen.append(result.get())
        return int(result.maybe_throw())

    result = work.delay()
    run_all(app)
    assert result.get(timeout=1) == 5
    assert seen == [5, 5]


def test_an_eager_call_inside_a_task_may_raise_its_error(app: Celeriac) -> None:
    def fail() -> None:
        raise ValueError("inner")

    inner = app.task(fail, name="inner")
    app.task(lambda: inner.apply(throw=True), name="outer")
    result = app.send_task("outer")
    run_all(app)
    with pytest.raises(ValueError, match="inner"):
        result.get(timeout=1)


@pytest.mark.behaviour("B-TASK-030", "B-TASK-032")
def test_einfo_is_the_traceback_and_knows_its_error() -> None:
    app, seen = memory_app(), []

    class Told(Task[..., Any]):
        def on_failure(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
            seen.append((exc, einfo))

        def after_return(self, status: Any, retval: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
            seen.append((retval, einfo))

    @app.task(base=Told, name="fail")
    def fail() -> None:
        raise ValueError("no")

    def hear(exception: Any, einfo: Any, **_: Any) -> None:
        seen.append((exception, einfo))

    signals.task_failure.connect(hear, sender=fail)
    result = fail.delay()
    run_all(app)
    assert len(seen) == 3
    for exc, einfo in seen:
        assert (einfo.exception, einfo.type, einfo.internal) == (exc, ValueError, False)
        assert einfo.tb is exc.__traceback__
        assert type(einfo.traceback) is str
        assert str(einfo) == einfo.traceback == einfo == result.traceback
        assert pickle.loads(pickle.dumps(einfo)).exception.args == ("no",)  # noqa: S301 -- its own
