"""The app: construction, settings, registry, names, finalizing, modules. Names of the tests' behaviours are in brackets."""

from __future__ import annotations

import pickle
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, Task, current, signals
from celeriac.errors import (
    AlwaysEagerIgnored,
    DuplicateTaskNameWarning,
    ImproperlyConfigured,
    NotRegistered,
)
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture(autouse=True)
def _same_current_app() -> Any:
    before = getattr(current._local, "app", None), current._default
    yield
    current._local.app, current._default = before


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An importable module without content."""
    made = types.ModuleType("settings_of_a_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


# construction


def test_constructing_reads_and_opens_nothing() -> None:
    """[B-APP-001]"""
    app = Celeriac("lazy", config_source="no_such_module_anywhere", broker="nonsense://", set_as_current=False)
    assert "conf" not in app.__dict__
    assert "transport" not in app.__dict__
    assert not app.finalized


def test_a_new_app_is_the_current_one_unless_told_otherwise() -> None:
    """[B-APP-001, B-APP-002]"""
    first = Celeriac("first")
    assert current.get_current_app() is first
    Celeriac("second", set_as_current=False)
    assert current.get_current_app() is first


def test_each_thread_has_its_own_current_app_and_falls_back_to_the_default() -> None:
    """[B-APP-036]"""
    mine, other = Celeriac("mine"), Celeriac("other", set_as_current=False)
    mine.set_default()
    seen: list[Any] = []

    def look() -> None:
        seen.append(current.get_current_app())
        other.set_current()
        seen.append(current.get_current_app())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [mine, other]
    assert current.get_current_app() is mine


def test_repr_shows_class_and_name() -> None:
    """[B-APP-003]"""
    assert repr(memory_app("shop")).startswith("<Celeriac shop at 0x")
    assert repr(memory_app(None)).startswith("<Celeriac __main__ at 0x")


def test_an_app_can_be_pickled_with_its_settings() -> None:
    app = memory_app("shop", task_default_queue="shop")
    again = pickle.loads(pickle.dumps(app))
    assert (again.main, again.conf.task_default_queue) == ("shop", "shop")


def test_as_context_manager_it_closes_and_can_be_used_again() -> None:
    """[B-APP-030]"""
    with memory_app() as app:
        transport = app.transport
    assert app.transport is not transport
    app.send_task("any")
    assert len(sent(app)) == 1


# settings


def test_settings_come_from_a_module_an_object_a_mapping_or_a_path(module: types.ModuleType) -> None:
    """[B-APP-022]"""

    class Source:
        task_serializer = "yaml"

    module.task_serializer = "msgpack"  # type: ignore[attr-defined]
    module.inner = Source  # type: ignore[attr-defined]
    for source, expected in (
        (module, "msgpack"),
        (module.__name__, "msgpack"),
        (f"{module.__name__}:inner", "yaml"),
        (Source, "yaml"),
        (Source(), "yaml"),
        ({"task_serializer": "pickle"}, "pickle"),
    ):
        app = memory_app()
        app.config_from_object(source)
        assert app.conf.task_serializer == expected


def test_a_new_source_replaces_the_former_one() -> None:
    """[B-APP-023]"""
    app = memory_app()
    app.config_from_object({"task_default_queue": "one", "task_serializer": "yaml"})
    assert app.conf.task_serializer == "yaml"
    app.config_from_object({"task_default_queue": "two"})
    assert (app.conf.task_default_queue, app.conf.task_serializer) == ("two", "json")


def test_a_source_is_read_late_unless_forced() -> None:
    """[B-APP-024, B-APP-025]"""
    app = memory_app()
    app.config_from_object("no_such_module_anywhere")
    with pytest.raises(ImportError, match="no_such_module_anywhere"):
        app.config_from_object("no_such_module_anywhere", force=True)
    app.config_from_object("no_such_module_anywhere", silent=True, force=True)
    assert app.conf.task_serializer == "json"


def test_the_environment_can_name_the_source(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """[B-APP-026]"""
    app = memory_app()
    monkeypatch.delenv("SHOP_SETTINGS", raising=False)
    with pytest.raises(ImproperlyConfigured, match="'SHOP_SETTINGS' is not set"):
        app.config_from_envvar("SHOP_SETTINGS")
    assert app.config_from_envvar("SHOP_SETTINGS", silent=True) is False
    module.task_default_queue = "shop"  # type: ignore[attr-defined]
    monkeypatch.setenv("SHOP_SETTINGS", module.__name__)
    assert app.config_from_envvar("SHOP_SETTINGS") is True
    assert app.conf.task_default_queue == "shop"


def test_added_defaults_rank_below_what_is_configured() -> None:
    """[B-APP-027, B-CONF-001]"""
    app = memory_app(task_default_queue="configured")
    app.add_defaults({"task_default_queue": "added", "task_serializer": "yaml"})
    app.add_defaults(lambda: {"task_compression": "gzip"})
    conf = app.conf
    assert (conf.task_default_queue, conf.task_serializer, conf.task_compression) == ("configured", "yaml", "gzip")
    app.add_defaults({"task_default_priority": 3})
    assert conf.task_default_priority == 3


def test_hooks_fire_before_and_after_settings_are_read_and_after_finalizing() -> None:
    """[B-APP-028, B-APP-029]"""
    app = memory_app()
    fired: list[str] = []
    app.on_configure.connect(lambda **_: fired.append("configure"), weak=False)
    app.on_after_configure.connect(lambda source, **_: fired.append(source.task_serializer), weak=False)
    app.on_after_finalize.connect(lambda **_: fired.append("finalized"), weak=False)
    assert fired == []
    _ = app.conf, app.conf
    assert fired == ["configure", "json"]
    _ = app.tasks, app.tasks
    assert fired == ["configure", "json", "finalized"]


def test_either_is_the_first_that_is_not_none() -> None:
    """[B-APP-038]"""
    app = memory_app(task_default_queue="q")
    assert app.either("task_default_queue", "other") == "q"
    assert app.either("task_compression", None, "gzip") == "gzip"
    assert app.either("task_compression") is None


def test_settings_changed_after_first_use_hold_from_then_on() -> None:
    app = memory_app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(serializer="json")
    def fixed() -> None:
        pass

    add.delay(1, 2)
    fixed.delay()
    app.conf.update(task_serializer="msgpack", accept_content=["json", "msgpack"])
    app.conf.task_routes = {add.name: "fast"}
    add.delay(3, 4)
    fixed.delay()
    assert [message.content_type for message in sent(app)] == ["application/json"] * 3
    (routed,) = sent(app, "fast")
    assert routed.content_type == "application/x-msgpack"
    add.delay(3, 4)
    assert [outcome.state for outcome in run_all(app, "fast")] == ["SUCCESS"]


def test_options_set_on_a_task_outlive_a_change_of_settings() -> None:
    app = memory_app()

    @app.task
    def add() -> None:
        pass

    assert add.serializer == "json"
    add.serializer = "yaml"  # type: ignore[assignment]
    app.conf.task_compression = "gzip"
    assert (add.serializer, add.compression) == ("yaml", "gzip")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task_rutes": {}}, ["'task_rutes' is not a setting", "Did you mean 'task_routes'?"]),
        ({"timezone": "Europe/Londn"}, ["'Europe/Londn' is not a known time zone"]),
        ({"task_routes": 5}, ["task_routes: 5 is neither"]),
        ({"task_routes": {"t": 5}}, ["the route of 't' is 5, neither a queue nor a mapping"]),
        ({"task_routes": "no.such.router"}, ["task_routes: can't import 'no.such.router'"]),
        ({"task_serializer": "jsn"}, ["unknown serializer 'jsn'", "Did you mean 'json'?"]),
        ({"task_compression": "gzp"}, ["unknown compression 'gzp'", "Did you mean 'gzip'?"]),
        ({"task_time_limit": "soon"}, ["task_time_limit must be a number", "'soon'"]),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings: dict[str, Any], words: list[str]) -> None:
    app = memory_app(**settings)
    task = app.task(lambda: None, name="t")
    with pytest.raises(ImproperlyConfigured) as caught:
        task.delay()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_wrong_url_is_one_clear_line_without_its_password() -> None:
    app = memory_app(broker="amqpp://user:secret@host")
    with pytest.raises(ImproperlyConfigured, match="No broker driver for 'amqpp'") as caught:
        app.send_task("t")
    assert "secret" not in str(caught.value)


# tasks


def test_looking_up_tasks_finalizes() -> None:
    """[B-APP-004, B-APP-006]"""
    app = memory_app()
    assert not app.finalized
    _ = app.tasks
    assert app.finalized


def test_without_autofinalize_tasks_can_not_be_looked_up_before_finalizing() -> None:
    """[B-APP-005]"""
    app = memory_app(autofinalize=False)
    with pytest.raises(RuntimeError, match="finalize"):
        _ = app.tasks
    app.finalize()
    assert isinstance(app.tasks, dict)


def test_the_decorator_gives_a_task_at_once() -> None:
    """[B-APP-007 differs on purpose, B-APP-008]: there is no lazy proxy, so `isinstance` and pickling just work."""
    app = memory_app()

    @app.task
    def add() -> None:
        pass

    assert isinstance(add, Task)
    assert add.app is app


def test_the_decorator_takes_one_function() -> None:
    """[B-APP-010]"""
    with pytest.raises(TypeError, match="takes one function"):
        memory_app().task("name")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="takes one function"):
        memory_app().task(len, len)  # type: ignore[call-overload]


def test_decorating_the_same_function_again_gives_the_same_task() -> None:
    """[B-APP-011]"""
    app = memory_app()

    def add() -> None:
        pass

    assert app.task(add) is app.task(add)


def test_two_functions_under_one_name_warn() -> None:
    """[B-APP-012]"""
    app = memory_app()
    app.task(lambda: 1, name="same")

    def other() -> int:
        return 2

    with pytest.warns(DuplicateTaskNameWarning, match="'same'"):
        app.task(other, name="same")
    assert app.tasks["same"]() == 2


def test_an_unknown_task_is_not_registered() -> None:
    """[B-APP-015, B-APP-016]"""
    app = memory_app()
    with pytest.raises(NotRegistered, match="'missing' is not registered"):
        app.tasks["missing"]
    with pytest.raises(NotRegistered):
        app.tasks.unregister("missing")
    assert app.tasks.get("missing") is None


def test_tasks_can_be_unregistered() -> None:
    app = memory_app()
    task = app.task(lambda: None, name="t")
    app.tasks.unregister(task)
    assert "t" not in app.tasks


def test_names_of_tasks_in_main_take_the_apps_name() -> None:
    """[B-APP-018]"""
    assert memory_app("shop").gen_task_name("add", "__main__") == "shop.add"
    assert memory_app(None).gen_task_name("add", "__main__") == "__main__.add"
    assert memory_app("shop").gen_task_name("add", "other.tasks") == "other.tasks.add"


def test_automatic_names_can_be_changed() -> None:
    """[B-APP-019]"""

    class Mine(Celeriac):
        def gen_task_name(self, name: str, module: str) -> str:
            return f"mine.{name}"

    app = Mine(broker="memory://", set_as_current=False)

    @app.task
    def add() -> None:
        pass

    assert add.name == "mine.add"


def test_the_base_class_of_tasks_can_be_replaced() -> None:
    """[B-APP-020, B-APP-021]"""

    class Base(Task[..., Any]):
        queue = "base"

    app = memory_app()
    app.Task = Base
    assert isinstance(app.task(lambda: None, name="a"), Base)
    assert isinstance(memory_app(task_cls=Base).task(lambda: None, name="a"), Base)
    by_path = memory_app(task_cls="celeriac.task:Task").task(lambda: None, name="a")
    assert type(by_path).__mro__[1] is Task
    with pytest.raises(ImproperlyConfigured, match="task_cls: can't import"):
        memory_app(task_cls="celeriac.task:Tusk").task(lambda: None, name="a")


# modules


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, one with `tasks` and one with `jobs`; each module notes its import in `noted`."""
    for package, related in (("auto_one", "tasks"), ("auto_two", "jobs")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / f"{related}.py").write_text("import noted\nnoted.names.append(__name__)\n")
    (tmp_path / "plain_module.py").write_text("import noted\nnoted.names.append(__name__)\n")
    (tmp_path / "noted.py").write_text("names = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path  # type: ignore[misc]
    for name in ("auto_one", "auto_one.tasks", "auto_two", "auto_two.jobs", "plain_module", "noted"):
        sys.modules.pop(name, None)


def _noted() -> list[str]:
    import noted  # type: ignore[import-not-found]

    return list(noted.names)


@pytest.mark.parametrize("named", [["auto_one", "auto_two"], "auto_one", lambda: ["auto_one"]])
def test_autodiscovery_waits_until_modules_are_imported(packages: Path, named: Any) -> None:
    """[B-APP-032, B-APP-033]"""
    app = memory_app()
    app.autodiscover_tasks(named)
    assert _noted() == []
    app.import_modules()
    assert _noted() == ["auto_one.tasks"]


def test_autodiscovery_can_be_forced_and_look_for_another_module(packages: Path) -> None:
    """[B-APP-032, B-APP-033]"""
    memory_app().autodiscover_tasks(["auto_one", "auto_two"], related_name="jobs", force=True)
    assert _noted() == ["auto_two.jobs"]


def test_an_import_error_inside_a_discovered_module_is_not_hidden(packages: Path) -> None:
    (packages / "auto_one" / "tasks.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        memory_app().autodiscover_tasks(["auto_one"], force=True)


def test_modules_are_imported_in_order_after_the_signal(packages: Path) -> None:
    """[B-CONF-018, B-SIGNAL-014]"""
    app = memory_app(imports=["auto_two.jobs"], include=["plain_module"])
    app.autodiscover_tasks(["auto_one"])
    seen: list[list[str]] = []

    def receive(**_: Any) -> None:
        seen.append(_noted())

    signals.import_modules.connect(receive, sender=app)
    app.import_modules()
    assert seen == [[]]
    assert _noted() == ["auto_two.jobs", "plain_module", "auto_one.tasks"]


def test_a_receiver_of_import_modules_that_fails_stops_the_start() -> None:
    app = memory_app()

    def receive(**_: Any) -> None:
        raise ImportError("a needed module")

    signals.import_modules.connect(receive, sender=app)
    with pytest.raises(ImportError, match="a needed module"):
        app.import_modules()


# annotations


def test_annotations_change_options_of_all_or_named_tasks() -> None:
    """[B-CONF-012]"""
    app = memory_app(task_annotations={"*": {"rate_limit": "10/s"}, "one": {"rate_limit": "1/s", "time_limit": 5}})
    one, two = app.task(lambda: None, name="one"), app.task(lambda: None, name="two")
    _ = app.conf
    assert (one.rate_limit, one.time_limit) == ("1/s", 5)
    assert (two.rate_limit, two.time_limit) == ("10/s", None)
    assert app.task(lambda: None, name="later").rate_limit == "10/s"


def test_annotations_replace_methods() -> None:
    """[B-CONF-013]"""
    seen: list[Any] = []

    def on_failure(self: Any, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        seen.append((self.name, str(exc), task_id))

    def without_self(retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        seen.append((retval, task_id))

    app = memory_app(task_annotations={"*": {"on_failure": on_failure, "on_success": without_self}})

    @app.task(name="fails")
    def fails(text: str) -> None:
        raise ValueError(text)

    fails.apply(("no",), task_id="id-1")
    app.task(lambda: 3, name="works").apply(task_id="id-2")
    assert seen == [("fails", "no", "id-1"), (3, "id-2")]


def test_annotations_can_decorate_a_method() -> None:
    def shouting(run: Any) -> Any:
        return lambda *args: run(*args).upper()

    app = memory_app(task_annotations={"say": {"@run": shouting}})
    say = app.task(lambda word: word, name="say")
    assert say.apply(("hi",)).get() == "HI"


def test_annotations_can_be_objects_or_their_paths() -> None:
    """[B-CONF-014]"""

    class Slow:
        def annotate(self, task: Any) -> dict[str, Any] | None:
            return {"rate_limit": "1/m"} if task.name.startswith("slow.") else None

    app = memory_app(task_annotations=[Slow(), {"fast.a": {"rate_limit": "9/s"}}])
    slow, fast = app.task(lambda: None, name="slow.a"), app.task(lambda: None, name="fast.a")
    _ = app.conf
    assert (slow.rate_limit, fast.rate_limit) == ("1/m", "9/s")


# running


def test_current_task_is_the_one_that_runs_here() -> None:
    """[B-APP-034]"""
    app = memory_app()
    seen: list[Any] = []

    @app.task(name="look")
    def look() -> None:
        seen.append((app.current_task, app.current_worker_task))

    assert (app.current_task, app.current_worker_task) == (None, None)
    look()
    look.apply()
    assert seen == [(look, None), (look, look)]
    assert app.current_task is None


def test_worker_main_wants_the_command() -> None:
    """[B-APP-037]"""
    with pytest.raises(ValueError, match="needs 'worker' among its arguments"):
        memory_app().worker_main(["-c", "2"])


def test_send_task_warns_that_always_eager_has_no_effect() -> None:
    """[B-CALL-018]"""
    app = memory_app(task_always_eager=True)
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("t")
    assert [message.task for message in sent(app)] == ["t"]


def test_many_calls_can_be_sent_in_one_batch() -> None:
    app = memory_app()

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    results = app.publish_many([add.s(1, 2), add.s(3, 4).set(task_id="given")])
    run_all(app)
    assert [result.get(timeout=1) for result in results] == [3, 7]
    assert results[1].id == "given"


def test_workflows_and_unique_tasks_may_be_among_many() -> None:
    app = memory_app()
    add = app.task(lambda x, y: x + y, name="add")
    once = app.task(lambda: "once", name="once", unique="until_start", on_conflict="ignore")
    results = app.publish_many([add.s(1, 2), add.s(1, 1) | add.s(2), once.s(), once.s(), add.s(5, 6)])
    assert results[2].id == results[3].id
    run_all(app)
    run_all(app)
    assert [result.get(timeout=1) for result in results] == [3, 4, "once", "once", 11]


def test_many_calls_run_here_when_everything_is_eager() -> None:
    app = memory_app(task_always_eager=True)
    add = app.task(lambda x, y: x + y, name="add")
    assert [result.get() for result in app.publish_many([add.s(1, 2), add.s(3, 4)])] == [3, 7]


def test_two_apps_live_side_by_side() -> None:
    """[B-APP-036]"""
    one, two = memory_app("one"), memory_app("two")
    in_one, in_two = one.task(lambda: "one", name="t"), two.task(lambda: "two", name="t")
    results = in_one.delay(), in_two.delay()
    run_all(one)
    run_all(two)
    assert [result.get(timeout=1) for result in results] == ["one", "two"]
