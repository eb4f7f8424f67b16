"""The import hook: which names it gives, where it says that there is nothing yet, and that it comes and goes whole."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

import celeriac
from celeriac import Celeriac, as_celery, current, errors, log
from celeriac.as_celery.app import CELERY_DEFAULTS, Celery
from celeriac.as_celery.later import LATER
from celeriac.as_celery.listing import module_names
from celeriac.as_celery.names import NAMES
from celeriac.cli.group import hoisted
from celeriac.config import Settings
from celeriac.errors import ImproperlyConfigured
from celeriac.loading import PRELOAD, find_app
from celeriac.setting_table import TABLE
from celeriac.wire.exceptions import exception_form, exception_from_form
from tests.support.command import environment

DATA = Path(__file__).parent / "data"
#: What Celery documents: path of a module → its names.
DOCUMENTED: dict[str, list[str]] = json.loads((DATA / "celery_names.json").read_text())
#: The names among these that this version does not have.
NOT_YET = (DATA / "celery_names_later.txt").read_text().split()
SETTINGS: dict[str, Any] = json.loads((DATA / "settings.json").read_text())


@pytest.fixture
def hook() -> Iterator[None]:
    """The hook, in this process, while the test runs. No shared task outlives it."""
    apps, finalizers = current.current_apps(), list(current.on_app_finalize)
    current.restore_apps((None, None))
    as_celery.install()
    yield
    as_celery.uninstall()
    current.restore_apps(apps)
    current.on_app_finalize[:] = finalizers


def run(program: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What a program prints that has a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**environment(), **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# names


@pytest.mark.parametrize("path", DOCUMENTED)
def test_each_documented_name_is_there_or_is_listed_as_to_come(path: str, hook: None) -> None:
    missing = [name for name in DOCUMENTED[path] if name not in NAMES.get(path, {})]
    assert [f"{path}.{name}" for name in missing] == [entry for entry in NOT_YET if entry.rpartition(".")[0] == path]
    if path in NAMES:
        module = importlib.import_module(path)
        assert [name for name in DOCUMENTED[path] if name not in missing and not hasattr(module, name)] == []


def test_the_table_points_at_nothing_that_is_not_there() -> None:
    assert {path: names.broken for path, names in module_names().items() if names.broken} == {}


@pytest.mark.parametrize("entry", NOT_YET)
def test_a_name_that_is_to_come_is_an_import_error_that_names_it(entry: str, hook: None) -> None:
    module, _, name = entry.rpartition(".")
    with pytest.raises(ImportError, match=r"^celery\.|^kombu") as caught:
        exec(f"from {module} import {name}")
    assert "this version of celeriac does not have it yet; it comes with" in str(caught.value)
    assert caught.value.name is not None and entry.startswith(caught.value.name)


def test_what_is_to_come_is_no_attribute_either(hook: None) -> None:
    import celery

    assert not hasattr(celery, "beat")
    with pytest.raises(AttributeError, match=r"celery\.beat: this version of celeriac does not have it yet"):
        _ = celery.beat


def test_what_never_was_is_not_found_and_the_nearest_is_named(hook: None) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"in the place of celery\.canvass\. Did you mean 'canvas'\?"):
        importlib.import_module("celery.canvass")
    with pytest.raises(AttributeError, match=r"celery\.shared_tasks\. Did you mean 'shared_task'\?"):
        _ = importlib.import_module("celery").shared_tasks
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from celery import nothing")


def test_no_name_is_both_there_and_to_come() -> None:
    assert [f"{path}.{name}" for path, names in NAMES.items() for name in names if f"{path}.{name}" in LATER] == []


def test_names_are_the_very_objects_of_celeriac(hook: None) -> None:
    from celery import Task, exceptions, group, signals, states
    from celery.app.task import Task as SameTask
    from celery.utils.log import get_task_logger
    from kombu import Queue

    assert Task is SameTask is celeriac.Task
    assert exceptions.Retry is errors.Retry
    assert exceptions.CeleryError is errors.CeleriacError
    assert group is celeriac.group
    assert signals.task_prerun.name == "task_prerun"
    assert states.SUCCESS == "SUCCESS"
    assert get_task_logger("a").name == "celeriac.task.a"
    assert Queue is celeriac.Queue


def test_modules_can_be_reached_listed_and_patched_like_others(hook: None) -> None:
    import celery

    assert celery.app.task.Task is celeriac.Task  # without having been imported by itself
    assert {"Celery", "chord", "shared_task"} <= set(dir(celery))
    names: dict[str, Any] = {}
    exec("from celery.exceptions import *", names)
    assert names["Ignore"] is errors.Ignore
    with mock.patch("celery.app.task.Task.apply_async", return_value="patched"):
        assert celeriac.Task.apply_async(None) == "patched"  # type: ignore[arg-type]
    assert not hasattr(celery, "__warningregistry__")
    assert celery.VERSION >= (5, 7)
    assert celery.__version__ == "5.7.0"


def test_importing_through_the_hook_loads_what_is_used_and_no_more() -> None:
    program = (
        "import sys, celeriac.as_celery as hook; hook.install(); before = set(sys.modules)\n"
        "import celery, celery.signals, celery.contrib.pytest, celery.utils.debug, kombu.serialization\n"
        "print(sorted(name for name in set(sys.modules) - before if name.split('.')[0] not in ('celery', 'kombu')))"
    )
    assert run(program) == "[]"


# the class


def test_celery_has_the_defaults_that_celery_documents() -> None:
    # Classes that a setting names stay ours; the other one says for each store what Celery says for it.
    same = {"worker_autoscaler", "worker_consumer", "beat_scheduler", "result_backend_always_retry"}
    assert set(CELERY_DEFAULTS) == {name for name, row in TABLE.items() if row.differs} - same
    for name, value in CELERY_DEFAULTS.items():
        documented = SETTINGS[name]["defaults"]
        meant = {"broker_url": "amqp://", "task_reject_on_worker_lost": False}  # what Celery's None stands for there
        assert value in documented or (value == meant.get(name) and None in documented), (name, documented)
        with Celery("a", set_as_current=False) as app:
            assert app.conf[name] == value


def test_what_a_program_sets_ranks_above_celerys_defaults() -> None:
    app = Celery("a", broker="memory://a", set_as_current=False, changes={"task_acks_late": True})
    app.add_defaults({"result_backend": "cache+memory://a"})
    assert app.conf.task_acks_late is True
    assert app.conf.broker_url == "memory://a"
    assert app.conf.result_backend == "cache+memory://a"
    assert app.conf.task_reject_on_worker_lost is False


def test_the_processes_of_a_worker_get_the_same_settings() -> None:
    plain, others = Celery("a", set_as_current=False).conf.plain()
    assert others == []
    conf = Settings.from_plain(plain)
    assert {name: conf[name] for name in CELERY_DEFAULTS} == CELERY_DEFAULTS


def test_tasks_of_a_celery_app_have_its_defaults() -> None:
    app = Celery("a", set_as_current=False)
    task = app.task(lambda: None, name="t")
    assert task.acks_late is False
    assert task.max_retries == 3
    assert app.backend is None
    with pytest.raises(NotImplementedError, match="No result backend"):
        app.AsyncResult("x").get()


def test_apps_that_nobody_constructs_are_of_the_class_celery_under_the_hook(hook: None) -> None:
    from celery import Celery as Hooked
    from celery import current_app
    from celery.contrib.testing.app import TestApp

    assert Hooked is Celery
    assert isinstance(current_app, Celery)
    assert current_app.conf.task_acks_late is False
    assert isinstance(TestApp(), Celery)
    as_celery.uninstall()
    current.restore_apps((None, None))
    assert type(celeriac.current_app()) is Celeriac


def test_current_app_and_current_task_are_objects(hook: None) -> None:
    from celery import current_app, current_task, shared_task

    app = Celery("mine", broker="memory://", changes={"task_always_eager": True})

    @shared_task(bind=True)
    def name(self: Any) -> list[str]:
        return [current_task.name, current_task.request.id, current_app.main]

    assert current_app.main == "mine"
    assert current_app == app
    current_app.conf.task_default_queue = "other"
    assert app.conf.task_default_queue == "other"
    assert not current_task
    result = name.apply(task_id="1")
    assert result.get() == [name.name, "1", "mine"]


def test_signals_of_celery_fire(hook: None) -> None:
    from celery.signals import task_prerun, task_success

    seen = []
    app = Celery("signals", set_as_current=False)

    @task_prerun.connect
    def before(sender: Any = None, task_id: str = "", **_: Any) -> None:
        seen.append((sender.name, task_id))

    @task_success.connect(sender="other")
    def never(**_: Any) -> None:
        seen.append("never")

    try:
        app.task(lambda: 1, name="one").apply(task_id="x")
    finally:
        task_prerun.disconnect(before)
    assert seen == [("one", "x")]


# what travels


def test_exceptions_travel_under_the_same_names_with_and_without_the_hook(hook: None) -> None:
    import celery.exceptions

    form = exception_form(celery.exceptions.MaxRetriesExceededError("no more"))
    assert (form["exc_type"], form["exc_module"]) == ("MaxRetriesExceededError", "celery.exceptions")
    assert type(exception_from_form(form)) is errors.MaxRetriesExceededError
    as_celery.uninstall()
    assert exception_form(errors.MaxRetriesExceededError("no more")) == form
    assert type(exception_from_form(form)) is errors.MaxRetriesExceededError


def test_pickles_made_under_the_hook_are_read_without_it() -> None:
    made = (
        "import sys, pickle, celeriac.as_celery as hook; hook.install(); from celery import Celery, exceptions, signature\n"
        "things = [Celery('a', set_as_current=False), exceptions.Retry('x'), signature('t', (1,)), Celery]\n"
        "sys.stdout.write(pickle.dumps(things).hex())"
    )
    app, retry, signature, cls = pickle.loads(bytes.fromhex(run(made)))
    assert type(app) is cls is Celery
    assert app.main == "a"
    assert type(retry) is errors.Retry
    assert signature == celeriac.signature("t", (1,))


def test_pickles_that_name_celerys_classes_are_read_under_the_hook(hook: None) -> None:
    data = b"ccelery.exceptions\nIgnore\n."  # what Celery's own pickles say
    assert pickle.loads(data) is errors.Ignore


# coming and going


def test_install_comes_too_late_after_celery_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kombu", ModuleType("kombu"))
    with pytest.raises(
        ImproperlyConfigured, match=r"install\(\) comes too late: 'kombu' was imported already"
    ) as caught:
        as_celery.install()
    assert "\n" not in str(caught.value)
    assert not as_celery.is_installed()
    assert PRELOAD not in os.environ


def test_ours_win_where_celery_is_installed(tmp_path: Path) -> None:
    (tmp_path / "celery").mkdir()
    (tmp_path / "celery" / "__init__.py").write_text("raise SystemExit('this is the other one')")
    (tmp_path / "kombu.py").write_text("raise SystemExit('this is the other one')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import celeriac.as_celery as hook; hook.install()\n"
        "import celery, kombu, celery.canvas; print(celery.SERIES, kombu.Queue.__module__)"
    )
    assert run(program) == "celeriac celeriac.routing"


def test_install_twice_is_once_and_uninstall_takes_everything_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRELOAD, "os:getpid")
    as_celery.install()
    as_celery.install()
    import celery

    assert os.environ[PRELOAD] == "os:getpid,celeriac.as_celery:install"
    assert sum("AliasFinder" in type(finder).__name__ for finder in sys.meta_path) == 1
    as_celery.uninstall()
    assert os.environ[PRELOAD] == "os:getpid"
    assert not [name for name in sys.modules if name.partition(".")[0] in ("celery", "kombu")]
    assert celery.group is celeriac.group  # who has it keeps it
    spec = importlib.util.find_spec("celery")
    assert spec is None or spec.origin != "celeriac.as_celery"


def test_an_app_is_found_after_what_is_to_come_before_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "preloaded_tasks.py").write_text(
        "from celery import Celery, current_app, shared_task\nimport celery\nmine = Celery('found', set_as_current=False)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(PRELOAD, "celeriac.as_celery:install")
    try:
        assert find_app("preloaded_tasks").main == "found"  # not what the stand-in `current_app` stands for
    finally:
        as_celery.uninstall()
        sys.modules.pop("preloaded_tasks", None)
    monkeypatch.setenv(PRELOAD, "nowhere:install")
    with pytest.raises(ImproperlyConfigured, match="CELERIAC_PRELOAD: can't import 'nowhere:install'"):
        find_app("preloaded_tasks")


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("-A proj worker -c 2", "-A proj worker -c 2"),
        ("worker -A proj -c 2", "-A proj worker -c 2"),
        ("worker -Aproj", "-Aproj worker"),
        ("worker --app=proj -l info --broker redis://", "--app=proj --broker redis:// worker -l info"),
        ("worker -c 2 -- -A proj", "worker -c 2 -- -A proj"),
        ("worker -A", "-A worker"),
        ("--version", "--version"),
    ],
)
def test_global_options_may_stand_after_the_command(given: str, means: str) -> None:
    assert hoisted(given.split()) == means.split()


def test_a_program_that_asks_for_a_patch_is_left_as_it_is(hook: None) -> None:
    import socket

    from celery import maybe_patch_concurrency

    before = socket.socket
    maybe_patch_concurrency(["worker", "-P", "gevent"])
    assert socket.socket is before


def test_the_texts_of_lines_about_tasks_are_changed_where_celery_has_them(
    hook: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[B-LOG-005]"""
    from celery.app import trace

    monkeypatch.setattr(log, "LOG_SUCCESS", log.LOG_SUCCESS)
    trace.LOG_SUCCESS = "%(name)s is done"
    assert log.LOG_SUCCESS == trace.LOG_SUCCESS == "%(name)s is done"
    trace.own = 1
    assert not hasattr(log, "own")


def test_no_name_of_a_module_hides_a_module() -> None:
    assert [path for path in NAMES if path.rpartition(".")[2] in NAMES.get(path.rpartition(".")[0], ())] == []
