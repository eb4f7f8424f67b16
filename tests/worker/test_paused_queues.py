"""Paused queues: nothing is taken from them, by any worker, until they are resumed; whatever restarts meanwhile."""

from __future__ import annotations

import time

import pytest

from celeriac import Celeriac
from celeriac.cli import main
from celeriac.coordination.pauses import pause, paused, resume
from celeriac.testing.worker import start_worker
from celeriac.worker.intake import Intake
from tests.support.files import eventually


def add_task(app: Celeriac) -> None:
    app.task(lambda name: name, name="say")


def is_left_out(intake: Intake, queue: str) -> bool:
    return queue in intake.queues and queue not in intake._open_queues()


def test_a_worker_leaves_out_what_is_paused_and_goes_on_after(each_app: Celeriac) -> None:
    add_task(each_app)
    place = each_app.coordination
    assert place is not None
    with start_worker(each_app, queues=["a", "b"]) as worker:
        intake = worker._supervisor.intake
        assert each_app.send_task("say", ("first",), queue="a").get(timeout=20) == "first"
        pause(place, ["a"])
        eventually(lambda: is_left_out(intake, "a"))
        waits = each_app.send_task("say", ("waits",), queue="a")
        for _ in range(3):
            assert each_app.send_task("say", ("other",), queue="b").get(timeout=20) == "other"
        # What a fetch already under way still brought was given back.
        eventually(lambda: each_app.transport.size("a").ready == 1)
        assert waits.state == "PENDING"
        resume(place, ["a"])
        assert waits.get(timeout=20) == "waits"


def test_a_pause_outlives_restarts(each_app: Celeriac) -> None:
    """A worker that starts sees it before it takes anything."""
    add_task(each_app)
    place = each_app.coordination
    assert place is not None
    pause(place, ["celery"])
    waits = each_app.send_task("say", ("waits",))
    for _ in range(2):
        with start_worker(each_app, queues=["celery", "other"]):
            assert each_app.send_task("say", ("other",), queue="other").get(timeout=20) == "other"
            assert each_app.transport.size("celery").ready == 1
        each_app.close()  # and all its connections
    with start_worker(each_app):
        place = each_app.coordination
        assert place is not None
        resume(place, ["celery"])
        assert waits.get(timeout=20) == "waits"


def test_a_pause_for_a_time_ends_by_itself(app: Celeriac) -> None:
    add_task(app)
    assert app.coordination is not None
    pause(app.coordination, ["celery"], 0.5)
    began = time.time()
    with start_worker(app):
        assert app.send_task("say", ("waits",)).get(timeout=20) == "waits"
    assert time.time() - began >= 0.5


def test_the_command_line(each_app: Celeriac, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> str:
        assert main(["queue", *arguments], app=each_app) == 0
        return capsys.readouterr().out

    each_app.send_task("say", ("x",), queue="a")
    assert run("pause", "a", "b") == "a, b paused.\n"
    assert run("pause", "c", "--for", "1h") == "c paused for 3600 s.\n"
    listed = [line.split() for line in run("list").splitlines()[1:]]
    assert ["a", "1", "0", "0", "paused"] in listed
    assert ["celery", "0", "0", "0", "active"] in listed
    assert [line[4:6] for line in listed if line[0] == "c"] == [["paused", "until"]]
    assert run("resume", "a", "x") == "a goes on.\nx was not paused.\n"
    assert run("resume", "--all") == "b goes on.\nc goes on.\n"
    assert each_app.coordination is not None
    assert paused(each_app.coordination) == {}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["pause"], "Missing argument 'QUEUE …'"),
        (["pause", "a", "--for", "soon"], "'soon' is no length of time, such as 90, 10m, 2h or 1d."),
        (["pause", "a", "--for", "0"], "'0' is no length of time"),
        (["resume"], "Name the queues (celeriac queue list shows them), or say --all."),
        (["resum", "a"], "Did you mean 'resume'?"),
    ],
)
def test_a_wrong_use_is_one_clear_line(
    app: Celeriac, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(["queue", *arguments], app=app) == 2
    assert problem in capsys.readouterr().err


def test_a_pause_needs_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    app = Celeriac("pauses", broker="amqp://127.0.0.1:1", backend="rpc://", set_as_current=False)
    assert main(["queue", "pause", "a"], app=app) == 1
    assert "Pausing a queue needs a place that all workers share" in capsys.readouterr().err
