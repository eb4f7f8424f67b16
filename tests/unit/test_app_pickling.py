"""Apps that are pickled, and classes that an app is told to use."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, Task
from celeriac.app_pickling import AppPickler
from celeriac.control import Control
from celeriac.log_names import Logging
from celeriac.registry import TaskRegistry
from tests.support.command import environment


class OwnControl(Control):
    pass


class OwnTask(Task[..., Any]):
    pass


class OwnRegistry(TaskRegistry):
    pass


class OwnApp(Celeriac):
    task_cls = OwnTask
    registry_cls = OwnRegistry
    backend_cls = "cache+memory://own"


def again(app: Celeriac) -> Celeriac:
    found: Celeriac = pickle.loads(pickle.dumps(app))
    assert found is not app
    return found


def test_an_app_comes_back_with_its_settings() -> None:
    app = Celeriac(
        "shop", broker="memory://a", backend="cache+memory://b", set_as_current=False, autofinalize=False,
        strict_typing=False, control=OwnControl, task_default_priority=3,
    )  # fmt: skip
    app.conf.task_default_queue = "mail"
    app.add_defaults({"worker_concurrency": 7})
    found = again(app)
    assert (type(found), found.main, found.autofinalize, found.strict_typing) == (Celeriac, "shop", False, False)
    assert isinstance(found.control, OwnControl)
    for name in ("broker_url", "result_backend", "task_default_queue", "worker_concurrency", "task_default_priority"):
        assert found.conf[name] == app.conf[name], name


def test_settings_that_were_not_read_yet_are_read_where_it_comes_back(tmp_path: Path) -> None:
    (tmp_path / "shop_settings.py").write_text("SHOP_TASK_DEFAULT_QUEUE = 'mail'\n")
    app = Celeriac("shop", set_as_current=False, broker="memory://x")
    app.config_from_object("shop_settings", namespace="SHOP")
    data = pickle.dumps(app)
    assert "conf" not in vars(app)
    program = (
        f"import pickle, sys; sys.path.insert(0, {str(tmp_path)!r}); app = pickle.loads({data!r})\n"
        "print(app.conf.task_default_queue, app.conf.broker_url)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["mail", "memory://x"]


def test_settings_of_an_object_travel_as_values() -> None:
    app = Celeriac("shop", set_as_current=False, config_source={"task_default_queue": "mail"})
    assert again(app).conf.task_default_queue == "mail"


class Prepared(AppPickler):
    def prepare(self, app: Celeriac, **kwargs: Any) -> None:
        app.main = f"{app.main}, prepared"


def test_a_pickler_of_your_own_and_older_forms() -> None:
    app = Celeriac("shop", set_as_current=False)
    assert app.Pickler is AppPickler
    app.Pickler = Prepared
    assert again(app).main == "shop, prepared"
    made = AppPickler()(
        Celeriac, "old", {"task_default_queue": "mail"}, None, "cache+memory://b", None, None, None, None
    )
    assert (made.main, made.conf.task_default_queue, made.conf.result_backend) == ("old", "mail", "cache+memory://b")


def test_a_class_of_apps_names_its_parts() -> None:
    app = OwnApp("own", set_as_current=False)
    assert app.Task is OwnTask and isinstance(app.tasks, OwnRegistry)
    assert app.conf.result_backend == "cache+memory://own"
    assert isinstance(app.task(lambda: None, name="t"), OwnTask)
    other = type("Other", (Celeriac,), {"registry_cls": "celeriac.registry:TaskRegistry"})("o", set_as_current=False)
    assert type(other.tasks) is TaskRegistry


@pytest.mark.parametrize("given", [Logging, "celeriac.log_names:Logging"])
def test_parts_are_given_as_classes_or_by_their_paths(given: Any) -> None:
    app = Celeriac("a", set_as_current=False, log=given, loader="app", task_annotations={"*": {"rate_limit": "1/s"}})
    assert type(app.log) is Logging
    assert app.loader.app is app
    assert app.annotations == [{"*": {"rate_limit": "1/s"}}]
