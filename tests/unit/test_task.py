"""Tasks: how they are made and called, what they know of their execution, their handlers and how they may end."""

from __future__ import annotations

import asyncio
import decimal
import functools
import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celeriac, Ignore, Reject, SoftTimeLimitExceeded, Task, allow_join_result, current
from celeriac.errors import EncodeError
from celeriac.event_loop import EventLoop
from celeriac.execution import Environment, execute
from celeriac.log import get_task_logger
from celeriac.outcome import Execution
from celeriac.results.base import Record
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


# making and calling


def test_the_name_is_module_and_function_unless_given(app: Celeriac) -> None:
    """[B-TASK-001, B-TASK-002]"""

    @app.task
    def add() -> None:
        """Adds nothing."""

    @app.task(name="my name")
    def other() -> None:
        pass

    assert add.name == f"{__name__}.add"
    assert add.__doc__ == "Adds nothing."
    assert other.name == "my name"
    assert app.tasks["my name"] is other


def test_a_bound_task_gets_itself_first(app: Celeriac) -> None:
    """[B-TASK-003]"""

    @app.task(bind=True)
    def name_of(self: Any, suffix: str) -> str:
        return str(self.name + suffix)

    assert name_of("!") == f"{name_of.name}!"
    assert name_of.apply(("!",)).get() == f"{name_of.name}!"


def test_the_base_class_gives_options_and_state(app: Celeriac) -> None:
    """[B-TASK-004, B-TASK-006]"""

    class Counting(Task[..., Any]):
        abstract = True
        max_retries = 7
        count = 0

    @app.task(base=Counting, bind=True)
    def count(self: Any) -> int:
        self.count += 1
        return int(self.count)

    assert count.max_retries == 7
    assert [count.apply().get() for _ in range(3)] == [1, 2, 3]


def test_any_keyword_becomes_an_attribute(app: Celeriac) -> None:
    """[B-TASK-005]"""
    task = app.task(lambda: None, name="t", rate_limit="1/s", whatever={"a": 1})
    assert (task.rate_limit, task.whatever) == ("1/s", {"a": 1})  # type: ignore[attr-defined]


def test_called_as_a_function_it_runs_here(app: Celeriac) -> None:
    """[B-TASK-007, B-TASK-015]"""

    @app.task(bind=True)
    def look(self: Any, x: int) -> tuple[int, bool, Any, list[Any]]:
        return x, self.request.called_directly, self.request.id, self.request.args

    assert look(3) == (3, True, None, [3])
    assert sent(app) == []


def test_an_overridden_call_wraps_run(app: Celeriac) -> None:
    """[B-TASK-008]"""

    class Shouting(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.run(*args, **kwargs).upper()

    class Deferring(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    shout = app.task(lambda word: word, name="shout", base=Shouting)

    @app.task(bind=True, base=Deferring)
    def who(self: Any) -> tuple[Any, bool]:
        return self.request.id, self.request.called_directly

    assert shout("a") == shout.apply(("a",)).get() == "A"
    assert who.apply(task_id="the id").get() == ["the id", False]
    assert who() == (None, True)


def test_a_task_that_calls_itself_is_called_directly_there(app: Celeriac) -> None:
    @app.task(bind=True)
    def countdown(self: Any, number: int) -> list[Any]:
        rest = countdown(number - 1) if number else []
        return [(self.request.called_directly, self.request.id), *rest]

    assert countdown.apply((2,), task_id="a").get() == [[False, "a"], [True, None], [True, None]]


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1,), {}, "missing 1 required positional argument: 'y'"),
        ((1, 2, 3), {}, "takes 2 positional arguments but 3 were given"),
        ((1, 2), {"z": 3}, "unexpected keyword argument 'z'"),
        ((1, 2), {"y": 3}, "multiple values for argument 'y'"),
    ],
)
def test_wrong_arguments_are_the_callers_error(
    app: Celeriac, args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    """[B-TASK-009]"""

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    for send in (add.delay, lambda *a, **k: add.apply_async(a, k), lambda *a, **k: asyncio.run(add.adelay(*a, **k))):
        with pytest.raises(TypeError, match=words):
            send(*args, **kwargs)  # type: ignore[operator]
    assert sent(app) == []


def test_arguments_of_methods_of_a_class_are_checked_too(app: Celeriac) -> None:
    """[B-TASK-009, B-TASK-073]"""

    class Add(Task[..., Any]):
        def run(self, x: int, y: int = 1) -> int:
            return x + y

    add = app.register_task(Add())
    assert add.name == f"{__name__}.Add"
    assert add.apply((2,)).get() == 3
    with pytest.raises(TypeError, match="missing 1 required"):
        add.delay()
    assert app.register_task(Add, name="again").name == "again"


def test_a_class_without_run_says_so(app: Celeriac) -> None:
    class Empty(Task[..., Any]):
        typing = False

    result = app.register_task(Empty()).apply()
    with pytest.raises(TypeError, match="task class Empty defines no method 'run'"):
        result.get()


@pytest.mark.parametrize("where", ["task", "app"])
def test_the_check_of_arguments_can_be_switched_off(where: str) -> None:
    """[B-TASK-010]"""
    app = memory_app(strict_typing=where != "app")
    task = app.task(lambda x: x, name="t", **({"typing": False} if where == "task" else {}))
    task.delay()
    assert [outcome.state for outcome in run_all(app)] == ["FAILURE"]


@pytest.mark.parametrize("typing", [True, False])
@pytest.mark.parametrize(("args", "kwargs"), [("abc", {}), ({"a": 1}, {}), (5, {})])
def test_args_must_be_a_list_or_tuple(app: Celeriac, args: Any, kwargs: Any, typing: bool) -> None:
    """[B-TASK-011]"""
    task = app.task(lambda *args, **kwargs: None, name="t", typing=typing)
    with pytest.raises(TypeError, match="must be a list or tuple"):
        task.apply_async(args, kwargs)


def test_kwargs_must_be_a_mapping(app: Celeriac) -> None:
    """[B-TASK-012]"""
    task = app.task(lambda **kwargs: None, name="t")
    with pytest.raises(TypeError, match="kwargs a mapping, not"):
        task.apply_async((), ["a"])  # type: ignore[arg-type]


def test_a_soft_limit_above_the_hard_one_is_refused(app: Celeriac) -> None:
    """[B-TASK-013]"""
    task = app.task(lambda: None, name="t", time_limit=5, soft_time_limit=9)
    with pytest.raises(ValueError, match=r"soft_time_limit \(9\) must not be above time_limit \(5\)"):
        task.delay()
    fine = app.task(lambda: None, name="fine")
    with pytest.raises(ValueError, match="must not be above"):
        fine.apply_async(time_limit=1, soft_time_limit=2)
    fine.apply_async(time_limit=2, soft_time_limit=1)


def test_a_task_pickles_to_its_name() -> None:
    """[B-TASK-070]"""
    before = getattr(current._local, "app", None), current._default
    try:
        app = memory_app()
        app.set_current()
        task = app.task(lambda: None, name="t")
        assert pickle.loads(pickle.dumps(task)) is task
    finally:
        current._local.app, current._default = before


# what a task knows


def test_the_request_describes_the_execution(app: Celeriac) -> None:
    """[B-TASK-014, B-TASK-017, B-TASK-018, B-TASK-019, B-TASK-020, B-TASK-023]"""
    seen: dict[str, Any] = {}

    @app.task(bind=True)
    def look(self: Any, x: int, y: int = 0) -> None:
        seen.update(vars(self.request), limits=(self.request.time_limit, self.request.soft_time_limit))

    result = look.apply_async((1,), {"y": 2}, priority=3, time_limit=9, soft_time_limit=8, shadow="shown")
    run_all(app)
    assert seen["id"] == result.id == seen["root_id"] == seen["correlation_id"]
    assert seen["parent_id"] is None
    assert (seen["args"], seen["kwargs"], seen["retries"], seen["is_eager"]) == ([1], {"y": 2}, 0, False)
    assert seen["called_directly"] is False
    assert seen["hostname"] == "unit@test"
    assert seen["delivery_info"] == {"exchange": "", "routing_key": "celery", "priority": 3, "redelivered": False}
    assert seen["limits"] == (9, 8)
    assert (seen["timelimit"], seen["shadow"]) == ([9, 8], "shown")


def test_custom_headers_and_nothing_else_are_in_request_headers(app: Celeriac) -> None:
    """[B-TASK-022, B-CALL-020]"""
    seen: list[Any] = []

    @app.task(bind=True)
    def look(self: Any) -> None:
        seen.append(self.request.headers)

    look.apply_async(headers={"tenant": "acme"})
    look.delay()
    run_all(app)
    assert seen == [{"tenant": "acme"}, None]


def test_what_a_task_sends_knows_where_it_comes_from(app: Celeriac) -> None:
    """[B-TASK-021, B-TASK-065, B-TASK-066]"""
    seen: list[Any] = []

    @app.task(bind=True, name="child")
    def child(self: Any) -> None:
        seen.append((self.request.root_id, self.request.parent_id))

    @app.task(bind=True, name="middle")
    def middle(self: Any) -> str:
        child.apply_async(add_to_parent=False)
        return str(child.delay().id)

    @app.task(name="top")
    def top() -> str:
        return str(middle.delay().id)

    result = top.delay()
    run_all(app)
    middle_id = result.get(timeout=1)
    assert seen == [(result.id, middle_id)] * 2
    assert result.children is not None
    assert [each.id for each in result.children] == [middle_id]
    assert [each.id for each in result.children[0].children] == [result.children[0].get(timeout=1)]


def test_without_trail_children_are_not_recorded(app: Celeriac) -> None:
    """[B-TASK-065]"""
    child = app.task(lambda: None, name="child")
    parent = app.task(lambda: child.delay() and None, name="parent", trail=False)
    result = parent.delay()
    run_all(app)
    assert not result.children


def test_children_inherit_the_priority_if_asked_to() -> None:
    """[B-CALL-022]"""
    app = memory_app(task_inherit_parent_priority=True)
    child = app.task(lambda: None, name="child", priority=1)
    app.task(lambda: child.apply_async(queue="out") and None, name="parent")
    app.send_task("parent", priority=7)
    app.send_task("parent")
    run_all(app)
    assert [message.priority for message in sent(app, "out")] == [7, 1]


def test_two_threads_see_their_own_request(app: Celeriac) -> None:
    met = threading.Barrier(2, timeout=10)

    @app.task(bind=True)
    def look(self: Any) -> str:
        met.wait()
        return str(self.request.id)

    seen: list[tuple[str, Any]] = []
    threads = [
        threading.Thread(target=lambda id=id: seen.append((id, look.apply(task_id=id).get()))) for id in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [("a", "a"), ("b", "b")]


def test_update_state_stores_a_state_and_what_it_means(app: Celeriac) -> None:
    """[B-TASK-026]"""
    seen: list[Any] = []

    @app.task(bind=True)
    def work(self: Any) -> int:
        self.update_state(state="PROGRESS", meta={"done": 3})
        result = self.AsyncResult(self.request.id)
        seen.append((result.state, result.info))
        return 1

    result = work.delay()
    run_all(app)
    assert seen == [("PROGRESS", {"done": 3})]
    assert (result.state, result.get(timeout=1)) == ("SUCCESS", 1)


def test_update_state_says_what_it_needs(app: Celeriac) -> None:
    task = app.task(lambda: None, name="t")
    with pytest.raises(TypeError, match="takes a state"):
        task.update_state("id", state=5)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="needs a task id"):
        task.update_state(state="PROGRESS")
    task.update_state("the id", "PROGRESS", [1])
    assert app.AsyncResult("the id").info == [1]


def test_update_state_of_a_task_called_as_a_function_is_nobodys_business(app: Celeriac) -> None:
    @app.task(bind=True)
    def work(self: Any) -> int:
        self.update_state(state="PROGRESS")
        return 1

    assert work() == 1


def test_started_is_stored_with_pid_and_node_if_tracked(app: Celeriac) -> None:
    """[B-TASK-046]"""
    seen: list[Any] = []

    @app.task(bind=True, track_started=True)
    def work(self: Any) -> None:
        result = self.AsyncResult(self.request.id)
        seen.append((result.state, result.info["hostname"], sorted(result.info)))

    work.delay()
    run_all(app)
    assert seen == [("STARTED", "unit@test", ["hostname", "pid"])]


def test_task_logs_name_the_task(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    """[B-TASK-072]"""
    logger = get_task_logger("shop")
    assert logger.name.startswith("celeriac.task")
    app.task(lambda: logger.warning("careful"), name="t").apply()
    assert any(record.getMessage() == "careful" for record in caplog.records)


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
    """[B-TASK-027, B-TASK-029, B-TASK-032, B-TASK-034]. B-TASK-028 differs on purpose: an outcome is stored by the
    worker's one committer, after the handlers have run."""
    task, calls = _handled(app, lambda x, y=0: x + y)
    assert task.apply((1,), {"y": 2}, task_id="a").get() == 3
    assert calls == [
        ("before_start", "a", [1], {"y": 2}),
        ("on_success", 3, "a", [1], {"y": 2}),
        ("after_return", "SUCCESS", "a"),
    ]


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


# representations


def test_representations_can_be_given_and_the_shown_name(app: Celeriac) -> None:
    """[B-TASK-054, B-TASK-055, B-TASK-056]"""

    class Shadowed(Task[..., Any]):
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
            return f"{self.name} of {args[0]}"

    task = app.task(lambda x: x, name="t", base=Shadowed)
    task.apply_async((1,), argsrepr="(...)", kwargsrepr="{***}")
    task.apply_async((1,), shadow="other")
    task.delay(2)
    task.s(3).set(shadow="of the signature").delay()
    messages = sent(app)
    assert [m.headers["shadow"] for m in messages] == ["t of 1", "other", "t of 2", "of the signature"]
    assert (messages[0].headers["argsrepr"], messages[0].headers["kwargsrepr"]) == ("(...)", "{***}")
    assert {m.headers["task"] for m in messages} == {"t"}


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


# coroutines


def test_coroutine_functions_are_tasks_and_see_their_own_request(app: Celeriac) -> None:
    @app.task(bind=True)
    async def work(self: Any, x: int) -> list[Any]:
        await asyncio.sleep(0)
        inner = await asyncio.gather(_id_of(self), _id_of(self))
        return [self.request.id, *inner, x]

    results = [work.apply_async((number,), task_id=f"id-{number}") for number in range(3)]
    run_all(app)
    assert [r.get(timeout=1) for r in results] == [[f"id-{n}", f"id-{n}", f"id-{n}", n] for n in range(3)]


async def _id_of(task: Any) -> str:
    await asyncio.sleep(0)
    return str(task.request.id)


def test_a_coroutine_that_fails_fails_the_task(app: Celeriac) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise LookupError("async")

    app.task(work, name="t")
    result = app.send_task("t")
    run_all(app)
    with pytest.raises(LookupError, match="async"):
        result.get(timeout=1)


def test_a_soft_limit_is_raised_in_a_coroutine_that_waits(app: Celeriac) -> None:
    """[B-LIMIT-001]"""
    loop = EventLoop()
    seen: list[str] = []

    async def patient() -> str:
        asyncio.get_running_loop().call_soon(lambda: seen.append(str(loop.limit_softly())))
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            seen.append("limited")
            await asyncio.sleep(0)
        return "cleaned up"

    assert loop.run(patient()) == "cleaned up"
    assert seen == ["True", "limited"]
    with pytest.raises(SoftTimeLimitExceeded):
        loop.run(_wait_for_ever(loop))
    assert loop.run(_one()) == 1
    assert loop.limit_softly() is False
    loop.close()


async def _wait_for_ever(loop: Any) -> None:
    asyncio.get_running_loop().call_soon(loop.limit_softly)
    await asyncio.Event().wait()


async def _one() -> int:
    return 1


def test_sending_and_waiting_as_a_coroutine(app: Celeriac) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    async def talk() -> list[int]:
        results = await asyncio.gather(
            *(add.adelay(n, n) for n in range(10)), add.aapply_async((1, 2), task_id="given")
        )
        await asyncio.to_thread(run_all, app)
        return [await result.aget(timeout=5) for result in results]

    assert asyncio.run(talk()) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 3]
    assert asyncio.run(talk())[:2] == [0, 2]


def test_several_event_loops_may_send_at_the_same_time(app: Celeriac) -> None:
    add = app.task(lambda x: x, name="t")

    async def send_many() -> None:
        await asyncio.gather(*(add.adelay(n) for n in range(50)))

    threads = [threading.Thread(target=lambda: asyncio.run(send_many())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent(app)) + len(sent(app)) == 150


def test_a_coroutine_gets_the_error_of_its_own_call_only(app: Celeriac) -> None:
    task = app.task(lambda x: x, name="t")

    async def talk() -> list[Any]:
        calls = task.adelay(1), task.aapply_async((2,), headers={"bad": object()}), task.adelay(3)
        return list(await asyncio.gather(*calls, return_exceptions=True))

    first, second, third = asyncio.run(talk())
    assert isinstance(second, EncodeError)
    assert "header 'bad' (object) is not plain data" in str(second)
    assert [outcome.state for outcome in run_all(app)] == ["SUCCESS", "SUCCESS"]
    assert (first.get(timeout=1), third.get(timeout=1)) == (1, 3)
