"""What an app has beside settings, tasks and connections."""

from __future__ import annotations

import pickle
import threading
from pathlib import PurePosixPath
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.config import Settings
from celeriac.errors import ImproperlyConfigured


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("parts", set_as_current=False)


class Holder:
    """Is given an app."""

    app: Any = None

    def __init__(self, value: int) -> None:
        self.value = value


HOLDING = Celeriac("holding", set_as_current=False)


def test_settings_from_the_command_line(app: Celeriac) -> None:
    app.config_from_cmdline(["task.serializer=pickle", "worker_prefetch_multiplier=3"])
    assert (app.conf.task_serializer, app.conf.worker_prefetch_multiplier) == ("pickle", 3)
    with pytest.raises(ImproperlyConfigured, match="'task_serialiser' is not a setting"):
        app.config_from_cmdline(["task_serialiser=json"])


def test_settings_pass_through_prepare_config() -> None:
    class Mine(Celeriac):
        def prepare_config(self, c: Settings) -> Settings:
            c.task_default_queue = f"{c.task_default_queue}-mine"
            return c

    assert Mine("a", set_as_current=False, changes={"task_default_queue": "q"}).conf.task_default_queue == "q-mine"


def test_time_zones(app: Celeriac) -> None:
    assert app.uses_utc_timezone()
    app.conf.timezone = "Europe/Paris"
    assert not app.uses_utc_timezone()
    app.conf.timezone = "UTC"
    assert app.uses_utc_timezone()


def test_a_checker_takes_what_the_function_takes(app: Celeriac) -> None:
    check = app.type_checker(lambda self, x, y=2: None, bound=True)
    check(1)
    check(1, y=3)
    with pytest.raises(TypeError):
        check()


def test_a_subclass_holds_the_app_and_is_pickled_by_name() -> None:
    cls = HOLDING.subclass_with_self(Holder, reverse="Holding", extra=3)
    vars(HOLDING)["Holding"] = cls
    held = cls(7)
    assert (held.app, held.extra, held.value, cls.__name__) == (HOLDING, 3, 7, "Holder")
    function, (found, attribute), state = held.__reduce__()
    again = function(found, attribute)
    again.__dict__.update(state)
    assert isinstance(again, cls) and again.value == 7
    kept = HOLDING.subclass_with_self("pathlib:PurePosixPath", name="Kept", keep_reduce=True)
    assert (kept.__name__, kept.app) == ("Kept", HOLDING)
    assert issubclass(kept, PurePosixPath)


def test_ids_of_threads_are_their_own(app: Celeriac) -> None:
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(app.thread_oid))
    thread.start()
    thread.join()
    assert app.thread_oid == app.thread_oid != seen[0]


def test_the_system_is_named(app: Celeriac) -> None:
    assert app.SYSTEM and not (app.IS_macOS and app.IS_WINDOWS)
    assert app.create_task_cls() is app.Task


def test_an_app_with_its_parts_can_be_pickled(app: Celeriac) -> None:
    _ = app.log, app.loader, app.thread_oid
    assert pickle.loads(pickle.dumps(app)).main == "parts"


def test_tasks_by_type(app: Celeriac) -> None:
    app.task(lambda: None, name="one")
    app.task(lambda: None, name="two", type="periodic")
    assert "one" in app.tasks.regular() and "two" not in app.tasks.regular()
    assert list(app.tasks.periodic()) == ["two"]
