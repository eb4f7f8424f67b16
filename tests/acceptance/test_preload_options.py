"""Options of the app's own, of every command or of the worker, and the signals that tell what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import Celeriac
from tests.support.command import CommandLine
from tests.support.worker import WorkerProcess

APP = """
from click import Option
from celeriac import Celeriac, signals

app = Celeriac("preloading", broker="sqlite:///{folder}/q.db", backend="sqlite:///{folder}/q.db")
app.user_options["preload"].add(Option(["-Z", "--template"], default="usual", help="Which template."))
app.user_options["preload"].add(Option(["--copies"], type=int, default=1))
app.user_options["worker"].add(Option(["--region"], default="eu", help="Where it is."))
chosen, regions = [], []

@signals.celeryd_init.connect
def on_worker(sender, options, conf, **_):
    regions.append(options["region"])
    assert "template" not in options and "loglevel" in options

@signals.user_preload_options.connect
def on_options(app, options, sender, **_):
    chosen.append((app.main, sender, options["template"], options["copies"]))
    print("told", sender, options["template"], options["copies"])

@app.task
def choice():
    return chosen

@app.task
def region():
    return regions
"""


@pytest.fixture
def app(tmp_path: Path) -> Celeriac:
    (tmp_path / "preloading.py").write_text(APP.format(folder=tmp_path))
    url = f"sqlite:///{tmp_path}/q.db"
    return Celeriac("client", broker=url, backend=url, set_as_current=False)


@pytest.mark.behaviour("B-SIGNAL-015")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((), ["usual", 1]), (("-Z", "mine", "-c", "1", "--copies=2", "--", "task_default_priority=3"), ["mine", 2])],
)
def test_tasks_of_a_worker_know_them(
    worker_process: Callable[..., WorkerProcess], app: Celeriac, arguments: tuple[str, ...], expected: list[object]
) -> None:
    worker = worker_process("preloading", *arguments)
    worker.wait_ready()
    assert app.send_task("preloading.choice").get(timeout=30) == [["preloading", "worker", *expected]]
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_has_options_of_its_own(
    worker_process: Callable[..., WorkerProcess], app: Celeriac, tmp_path: Path, pool: str
) -> None:
    worker = worker_process("preloading", "-P", pool, "--region", "us", "-Z", "mine", "-c", "1")
    worker.wait_ready()
    assert app.send_task("preloading.region").get(timeout=30) == ["us"]
    assert app.send_task("preloading.choice").get(timeout=30) == [["preloading", "worker", "mine", 1]]
    assert worker.stop() == 0
    celeriac = CommandLine(tmp_path)
    other = celeriac("-A", "preloading", "purge", "--region", "us")
    assert (other.code, "No such option '--region'" in other.err) == (2, True)
    assert "Where it is." in celeriac("-A", "preloading", "worker", "--help").out
    assert "Where it is." not in celeriac("-A", "preloading", "purge", "--help").out


@pytest.mark.behaviour("B-SIGNAL-015")
def test_every_command_takes_them(app: Celeriac, tmp_path: Path) -> None:
    celeriac = CommandLine(tmp_path)
    found = celeriac("-A", "preloading", "purge", "--template", "mine", "-f")
    assert found.code == 0, found.err
    assert found.out.count("told purge mine 1") == 1
    assert "told purge usual 1" in celeriac("-A", "preloading", "purge", "-f").out


@pytest.mark.parametrize("command", [("purge",), ("worker",), ("queue",), ("queue", "pause")])
def test_the_help_of_commands_lists_them(app: Celeriac, tmp_path: Path, command: tuple[str, ...]) -> None:
    celeriac = CommandLine(tmp_path)
    found = celeriac("-A", "preloading", *command, "--help")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith(f"Usage: celeriac {' '.join(command)} ")
    assert "-Z, --template" in found.out and "Which template." in found.out and "--copies" in found.out
    assert "told purge" not in found.out and "told worker" not in found.out
    assert "--template" not in celeriac(*command, "-h").out


def test_help_is_there_although_the_app_is_not(app: Celeriac, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    found = CommandLine(tmp_path)("-A", "broken", "purge", "--help")
    assert found.code == 0 and "--exclude-queues" in found.out
    assert (
        found.err
        == "Without options of the app itself: importing 'broken' failed: ZeroDivisionError: division by zero\n"
    )


def test_what_nobody_knows_is_refused(app: Celeriac, tmp_path: Path) -> None:
    celeriac = CommandLine(tmp_path)
    for arguments, text in (
        (("--nothing", "x"), "No such option '--nothing'"),
        (("--copies", "many"), "'many' is not a valid integer"),
    ):
        found = celeriac("-A", "preloading", "purge", *arguments)
        assert found.code == 2
        assert text in found.err
