"""Rarely used names of tasks, requests, signatures, settings, logging and loaders that Celery documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, Task, chain, chord, group
from celeriac.config import Settings
from celeriac.config_pending import PendingConfiguration
from celeriac.context import Context
from celeriac.errors import Ignore, ImproperlyConfigured
from celeriac.loader import Loader
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with memory_app() as app:
        yield app


# tasks


def test_a_request_is_pushed_and_popped(app: Celeriac) -> None:
    task = app.task(lambda: None, name="t")
    task.push_request({"args": [1]}, id="x", retries=2)
    assert (task.request.id, task.request.args, task.request.retries) == ("x", [1], 2)
    task.push_request(id="y")
    assert len(task.request_stack) == 2
    assert [request.id for request in task.request_stack.stack] == ["x", "y"]
    assert task.request_stack.top is task.request
    popped = task.pop_request()
    assert popped is not None and popped.id == "y" and task.request.id == "x"
    task.pop_request()
    assert task.request.id is None and task.pop_request() is None


def test_a_signature_repeats_a_pushed_request(app: Celeriac) -> None:
    task = app.task(lambda *args: None, name="t")
    task.push_request(id="x", args=[1], kwargs={}, group="g", reply_to="r")
    sig = task.subtask_from_request(countdown=3)
    task.pop_request()
    assert (sig.args, sig.options["task_id"], sig.options["group_id"], sig.options["countdown"]) == ((1,), "x", "g", 3)


def test_a_context_tells_how_it_would_be_continued() -> None:
    context = Context(id="x", group="g", callbacks=["c"], reply_to="r", timelimit=[5, 3], task="t")
    options = context.as_execution_options()
    assert options["task_id"] == "x" and options["group_id"] == "g" and options["link"] == ["c"]
    assert (options["time_limit"], options["soft_time_limit"], options["headers"]) == (5, 3, {})
    context.clear()
    assert context.id is None and context.as_execution_options()["task_id"] is None


def test_options_may_come_from_settings_of_ones_own_choice() -> None:
    assert ("serializer", "task_serializer") in Task.from_config

    class Own(Task[..., Any]):
        from_config = (*Task.from_config, ("where", "task_default_queue"))

    app = memory_app(task_cls=Own, task_default_queue="here")
    task: Any = app.task(lambda: None, name="t")
    assert task.where == "here" and task.abstract is True
    app.conf.task_default_queue = "there"
    assert task.where == "there"


def test_methods_are_put_around_and_annotations_applied_again(app: Celeriac) -> None:
    task: Any = app.task(lambda: 1, name="t")
    task.add_around("run", lambda run: lambda: run() + 1)
    assert task() == 2
    app.conf.task_annotations = {"t": {"rate_limit": "3/s"}}
    task.annotate()
    assert task.rate_limit == "3/s"


def test_a_class_is_bound_to_an_app(app: Celeriac) -> None:
    bound: list[Any] = []

    class Own(Task[..., Any]):
        name = "own"

        @classmethod
        def on_bound(cls, app: Celeriac) -> None:
            bound.append(app)

    assert Own.bind(app) is app
    assert Own().app is app and bound == [app]


def test_what_takes_the_place_of_a_task_is_told_first(app: Celeriac) -> None:
    seen: list[Any] = []

    class Own(Task[..., Any]):
        def on_replace(self, sig: Any) -> Any:
            seen.append(sig.task)
            return super().on_replace(sig)

    app.task(lambda: 7, name="new")
    old = app.task(lambda self: self.replace(app.signature("new")), name="old", bind=True, base=Own)
    result = old.delay()
    run_all(app)
    assert result.get(timeout=5) == 7 and seen == ["new"]
    assert old.apply().get() == 7
    with pytest.raises(Ignore):
        old.on_replace(app.signature("new"))


# signatures


def test_a_signature_makes_results_and_is_elected(app: Celeriac) -> None:
    class OwnTask(Task[..., Any]):
        def AsyncResult(self, task_id: str, **kwargs: Any) -> Any:  # noqa: N802
            return ("own", task_id)

    task = app.task(lambda: None, name="t", base=OwnTask)
    assert task.s().AsyncResult("1") == ("own", "1")
    assert app.signature("unknown").AsyncResult("1").id == "1"
    assert task.s().set(task_id="chosen").election() == ("own", "chosen")


def test_a_chain_is_run_and_its_steps_are_told(app: Celeriac) -> None:
    add = app.task(lambda x, y: x + y, name="add")
    whole = chain(add.s(1), add.s(10))
    assert whole.run((5,), task_id="last").id == "last"
    run_all(app)
    assert app.AsyncResult("last").get(timeout=5) == 16
    steps, results = whole.prepare_steps((5,), {}, whole.tasks, link_error=add.s(), last_task_id="end", group_id="g")
    assert [step.args for step in steps] == [(10,), (5, 1)]
    assert [result.id for result in results] == [step.options["task_id"] for step in steps]
    assert results[0].parent is results[1] and results[0].id == "end"
    assert steps[0].options["group_id"] == "g" and len(steps[1].options["link_error"]) == 1


def test_a_chord_is_run_with_a_header_and_a_body(app: Celeriac) -> None:
    add = app.task(lambda *xs: sum(xs), name="add")
    total = app.task(sum, name="total", typing=False)
    maker = chord(group(add.s(0)), total.s(), app=app)
    result = maker.run([add.s(1), add.s(2)], total.s(), (10,), task_id="body")
    run_all(app)
    assert result.id == "body" and result.get(timeout=5) == 23
    assert maker.run([add.s(1), add.s(2)], total.s(), eager=True).get() == 3
    maker.run([add.s(1)], total.s(), header_delay={"countdown": 3600})
    assert sent(app) == []


# settings


def test_who_is_bound_is_told_of_changes() -> None:
    conf = Settings()
    told: list[Any] = []
    conf.bind_to(lambda *args, **kwargs: told.append((args, kwargs)))
    conf.update(task_default_queue="a")
    conf.update({"task_default_queue": "b"})
    conf.task_default_queue = "c"
    conf["task_default_queue"] = "d"
    with pytest.raises(ImproperlyConfigured):
        conf.update(task_default_queues="x")
    assert told == [
        ((), {"task_default_queue": "a"}), (({"task_default_queue": "b"},), {}), (({"task_default_queue": "c"},), {}),
        (({"task_default_queue": "d"},), {}),
    ]  # fmt: skip


def test_settings_are_a_chain_of_mappings() -> None:
    conf = Settings({"task_default_queue": "a"})
    conf.add_defaults({"task_default_priority": 3})
    changes, added, defaults = conf.maps
    assert (changes, added) == ({"task_default_queue": "a"}, {"task_default_priority": 3})
    assert defaults["task_serializer"] == "json" and conf.key_t is None
    assert conf.finalize() is conf
    assert conf.find_option("serializer", "task").key == "serializer"
    assert conf.find_value_for_key("serializer", "task") == "json"
    assert dict(conf.iteritems()) == dict(zip(conf.iterkeys(), conf.itervalues(), strict=True))
    other = Settings.fromkeys(["task_default_queue", "result_serializer"], "json")
    conf.swap_with(other)
    assert (conf.task_default_queue, conf.task_default_priority) == ("json", None)
    assert other.task_default_queue == "json"


def test_old_names_are_told_once_more_when_asked_for() -> None:
    with pytest.warns(FutureWarning, match="CELERY_DEFAULT_QUEUE is now task_default_queue"):
        conf = Settings({"CELERY_DEFAULT_QUEUE": "a"})
    with pytest.warns(FutureWarning, match="CELERY_DEFAULT_QUEUE is now task_default_queue"):
        assert conf.maybe_warn_deprecated_settings() is True
    assert conf.maybe_warn_deprecated_settings() is False


def test_settings_that_are_pending_are_read_when_asked_for() -> None:
    pending: dict[str, Any] = {"task_default_queue": "a"}
    read: list[str] = []

    def load() -> Settings:
        read.append("now")
        return Settings(pending)

    conf = PendingConfiguration(pending, load)
    conf["task_default_priority"] = 3
    conf.update(result_serializer="pickle")
    conf.task_serializer = "yaml"
    assert conf.setdefault("task_default_queue", "b") == "a"
    assert "task_default_priority" in repr(conf) and read == []
    assert conf.task_default_priority == 3 and conf["task_serializer"] == "yaml" and conf.result_serializer == "pickle"
    assert "task_default_queue" in conf and conf.get("nothing", 5) == 5
    conf.task_default_queue = "c"
    assert conf.data.task_default_queue == "c" and len(conf) == len(list(conf)) == len(conf.values())
    del conf["task_default_queue"]
    assert dict(conf.items())["task_default_queue"] == "celery" and "task_queues" in conf.keys()  # noqa: SIM118
    conf.clear()
    assert conf.task_default_priority is None and read == ["now"]
    assert not hasattr(conf, "__wrapped__")


# logging and loaders


def test_text_is_coloured_where_it_can_be(app: Celeriac, tmp_path: Path) -> None:
    plain = app.log.colored(enabled=False)
    assert str(plain.red("a ", plain.bold("b"))) == "a b" and plain.red("x") + "y" == "xy"
    assert str(app.log.colored(str(tmp_path / "log")).green("x")) == "x"
    coloured = type(plain)(enabled=True)
    text = coloured.red("a ", coloured.iblue("b"))
    assert (str(text), text.no_color()) == ("\x1b[1;31ma \x1b[7;34mb\x1b[0m", "a b")
    assert str(coloured.node(["x"], "1")) == "\x1b[1mx\x1b[0m"
    with pytest.raises(AttributeError, match="there is no colour 'rod'. Did you mean 'red'"):
        coloured.rod("x")


def test_a_loader_begins_once(app: Celeriac) -> None:
    loader = Loader(app)
    assert loader.worker_initialized is False
    loader.init_worker()
    loader.init_worker()
    loader.init_worker_process()
    loader.shutdown_worker()
    assert loader.worker_initialized is True
    assert json.dumps(sorted(loader.default_modules)) == "[]"
