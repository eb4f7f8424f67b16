"""`app.loader`: modules are imported and settings read under Celery's names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.loader import Loader, get_loader_cls


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules, forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("CELERY_CONFIG_MODULE", raising=False)
    (tmp_path / "loaded_one.py").write_text("value = 1")
    (tmp_path / "loaded_pack").mkdir()
    (tmp_path / "loaded_pack" / "__init__.py").write_text("")
    (tmp_path / "loaded_pack" / "tasks.py").write_text("value = 2")
    (tmp_path / "loaded_settings.py").write_text("task_default_queue = 'theirs'\n_hidden = 1")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("loaded_", "celeryconfig"))]:
        del sys.modules[name]


def test_the_modules_of_a_worker_are_imported_without_one(folder: Path) -> None:
    app = Celeriac("a", set_as_current=False, include=["loaded_one"])
    app.autodiscover_tasks(["loaded_pack"])
    modules = app.loader.import_default_modules()
    assert [module.value for module in modules] == [1]
    assert "loaded_pack.tasks" in sys.modules
    assert app.loader.default_modules == {"loaded_one"}


def test_modules_are_imported_and_found_one_by_one(folder: Path) -> None:
    loader = Celeriac("a", set_as_current=False).loader
    assert loader.find_module("loaded_one").name == "loaded_one"
    assert "loaded_one" not in sys.modules
    assert loader.import_task_module("loaded_one").value == 1
    assert loader.import_module("loaded_pack.tasks").value == 2
    loader.autodiscover_tasks(["loaded_pack"])
    assert loader.task_modules == {"loaded_one", "loaded_pack.tasks"}


def test_settings_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Celeriac("a", set_as_current=False).loader
    assert not loader.configured
    assert loader.config_from_object("loaded_settings") is True
    assert loader.configured and loader.conf.task_default_queue == "theirs"
    assert loader.config_from_object("loaded_nothing", silent=True) is False
    with pytest.raises(ImportError):
        loader.config_from_object("loaded_nothing")
    assert loader.cmdline_config_parser(["worker.prefetch_multiplier=3"]) == {"worker_prefetch_multiplier": 3}
    assert loader.read_configuration() == {}
    (folder / "celeryconfig.py").write_text("timezone = 'UTC'")
    assert loader.read_configuration() == {"timezone": "UTC"}
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "loaded_settings")
    assert loader.read_configuration() == {"task_default_queue": "theirs"}


def test_moments_have_no_zone() -> None:
    assert Loader(Celeriac("a", set_as_current=False)).now().tzinfo is None
    assert Loader(Celeriac("a", set_as_current=False)).now(utc=False).tzinfo is None


def test_classes_by_name() -> None:
    assert get_loader_cls("app") is get_loader_cls("default") is Loader
    assert get_loader_cls("celeriac.loader:Loader") is Loader
    with pytest.raises(ImproperlyConfigured, match=r"loader: can't import 'nowhere\.Loader'"):
        get_loader_cls("nowhere.Loader")
