"""Finding things by name: the app that `-A` means, and objects by path."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.loading import AppNotFound, find_app, import_object
from celeriac.task import Task

MAKE = "from celeriac import Celeriac\n{name} = Celeriac({main!r}, set_as_current=False)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to put modules into, first on the path; what was imported from it is forgotten."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if os.fspath(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def _write(folder: Path, path: str, text: str) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    for parent in file.relative_to(folder).parents:
        if str(parent) != ".":
            (folder / parent / "__init__.py").touch()
    file.write_text(text)


@pytest.mark.parametrize(
    ("name", "path", "attribute"),
    [
        ("find_a:shop", "find_a.py", "shop"),
        ("find_b", "find_b.py", "app"),
        ("find_c", "find_c.py", "celery"),
        ("find_d", "find_d.py", "celeriac"),
        ("find_e", "find_e/celery.py", "app"),
        ("find_f", "find_f/celeriac.py", "app"),
        ("find_g.inner", "find_g/inner.py", "app"),
        ("find_h", "find_h.py", "whatever"),
        ("find_i.shop", "find_i.py", "shop"),
    ],
)
def test_where_an_app_is_looked_for(folder: Path, name: str, path: str, attribute: str) -> None:
    """[B-CLI]"""
    _write(folder, path, MAKE.format(name=attribute, main=name))
    found = find_app(name)
    assert isinstance(found, Celeriac)
    assert found.main == name


def test_an_attribute_may_be_nested_or_a_module(folder: Path) -> None:
    _write(folder, "find_j.py", MAKE.format(name="app", main="j") + "class holder:\n    inner = app\n")
    _write(folder, "find_k.py", "import find_j\n")
    assert find_app("find_j:holder.inner").main == "j"
    assert find_app("find_k:find_j").main == "j"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("find_no", None, "App 'find_no' not found: there is no module 'find_no' on the path"),
        (
            "find_l",
            "x = 1",
            "tried find_l.app, find_l.celeriac, find_l.celery; no attribute of 'find_l' is a celeriac app",
        ),
        ("find_m:shpo", "shop = 1", r"'find_m' has no attribute 'shpo'. Did you mean 'shop'\?"),
        ("find_n:shop", "shop = 1", "App 'find_n:shop' is a int, not a celeriac app"),
    ],
)
def test_what_was_tried_is_said(folder: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        _write(folder, f"{name.partition(':')[0]}.py", text)
    with pytest.raises(AppNotFound, match=words):
        find_app(name)


def test_an_error_inside_the_module_is_the_users_to_see(folder: Path) -> None:
    _write(folder, "find_o.py", "import no_such_module_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        find_app("find_o")
    _write(folder, "find_p.py", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        find_app("find_p")


def test_objects_by_path(folder: Path) -> None:
    assert import_object("celeriac.task:Task", "x") is Task
    assert import_object("celeriac.task.Task", "x") is Task
    assert import_object("celeriac.task", "x") is sys.modules["celeriac.task"]


@pytest.mark.parametrize(
    "path", ["celeriac.task:Tusk", "celeriac.tusk", "no_such_module_anywhere", "celeriac.task.Tusk"]
)
def test_an_object_that_is_not_there_is_named_with_who_wants_it(path: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"task_cls: can't import '{path}'"):
        import_object(path, "task_cls")
