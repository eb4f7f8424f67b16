"""Tasks: how they are made and called, and what they know of their execution."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import Any

import pytest

from celeriac import Celeriac, Task, current
from celeriac.log import get_task_logger
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
