"""The Sphinx extension, by pages that Sphinx itself makes of a module with tasks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment

MODULE = '''
"""Jobs of the shop."""

from celeriac import Celeriac, Task, shared_task

app = Celeriac("shop", broker="memory://", backend="memory://")


@app.task
def add(x: int, y: int = 1) -> int:
    """Add two numbers."""
    return x + y


@app.task(bind=True)
def bound(self, order: str) -> None:
    """Ship an order."""


@shared_task
def shared(text: str) -> str:
    """Say it louder."""
    return text.upper()


@app.task
async def later(seconds: float) -> None:
    """Wait."""


@app.task
def undocumented(x):
    return x


@app.task
def _private():
    """Not for others."""


@app.task
def excluded():
    """Left out."""


class Class(Task):
    """A class of its own."""

    name = "class"

    def run(self, z: int) -> None:
        return None


by_class = app.register_task(Class())


def function(a: str) -> str:
    """No task."""
    return a
'''
PAGE = """
Shop
====

.. automodule:: jobs
   :members:
   :exclude-members: excluded, Class

By hand
-------

.. currentmodule:: other

.. task:: described(p, q)

   In words.

See :task:`jobs.add`, :task:`~other.described`.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "jobs.py").write_text(MODULE)
    (folder / "index.rst").write_text(PAGE)
    return folder


def build(folder: Path, builder: str, **settings: object) -> str:
    """The page as this builder makes it; a warning is an error."""
    conf = {"extensions": ["celeriac.contrib.sphinx"], "project": "shop", **settings}
    (folder / "conf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in conf.items()))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-E", "-b", builder, str(folder), str(folder / builder)],
        env={**environment(), "PYTHONPATH": f"{folder}:{environment()['PYTHONPATH']}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return next((folder / builder).glob("index.*")).read_text()


@pytest.mark.behaviour("B-CONTRIB-004")
def test_tasks_are_documented_with_their_arguments_and_a_prefix(folder: Path) -> None:
    """[B-CONTRIB-004] by automodule, as they are written, with the prefix of the settings"""
    text = build(folder, "text")
    described = re.findall(r"^(\(task\) .*|jobs\.\w+\(.*)$", text, re.MULTILINE)
    assert described == [
        "(task) jobs.add(x: int, y: int = 1) -> int",
        "(task) jobs.bound(order: str) -> None",
        "(task) jobs.by_class(z: int) -> None",
        "jobs.function(a: str) -> str",
        "(task) async jobs.later(seconds: float) -> None",
        "(task) jobs.shared(text: str) -> str",
        "(task) other.described(p, q)",
    ]
    for line in ("Add two numbers.", "Ship an order.", "A class of its own.", "Wait.", "Say it louder.", "In words."):
        assert f"   {line}" in text
    assert "Not for others" not in text
    assert "Left out" not in text


@pytest.mark.behaviour("B-CONTRIB-004")
@pytest.mark.parametrize(
    ("prefix", "shown"), [("job", "job jobs.add(x: int, y: int = 1)"), ("", "jobs.add(x: int, y: int = 1)")]
)
def test_the_prefix_is_a_setting_and_autotask_documents_one(folder: Path, prefix: str, shown: str) -> None:
    """[B-CONTRIB-004] celery_task_prefix; the directive autotask"""
    (folder / "index.rst").write_text("Shop\n====\n\n.. autotask:: jobs.add\n\n.. autotask:: jobs.undocumented\n")
    try:
        text = build(folder, "text", celery_task_prefix=prefix)
    finally:
        (folder / "index.rst").write_text(PAGE)
    assert f"\n{shown}" in text
    assert "jobs.undocumented(x)" in text


@pytest.mark.behaviour("B-CONTRIB-004")
def test_the_role_refers_to_tasks(folder: Path) -> None:
    """[B-CONTRIB-004] the role task"""
    page = build(folder, "html", nitpicky=True)
    for target, shown in (("jobs.add", "jobs.add"), ("other.described", "described")):
        link = rf'<a class="reference internal" href="#{re.escape(target)}"[^>]*><code[^>]*><span[^>]*>{re.escape(shown)}</span>'
        assert re.search(link, page), target
