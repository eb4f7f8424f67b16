"""The signals of a worker: each comes in its process, in its order, from its sender, with its arguments."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

Start = Callable[..., WorkerProcess]

APP = """
import json, os, sys
from pathlib import Path
from celeriac import Celeriac, signals

HERE = Path(__file__).parent
url = f"sqlite:///{HERE}/celeriac.db"
app = Celeriac("listening", broker=url, backend=url, task_unknown_delay=0.1)

def tell(name):
    def receiver(signal, sender, **named):
        shown = {key: value if isinstance(value, (str, int, type(None))) else repr(value) for key, value in named.items()}
        with open(HERE / "told", "a") as file:
            file.write(json.dumps([name, os.getpid(), str(sender), shown]) + "\\n")
    return receiver

for name in ("celeryd_init", "celeryd_after_setup", "worker_init", "worker_before_create_process",
             "worker_process_init", "worker_ready", "worker_shutting_down", "worker_shutdown", "task_received",
             "task_unknown", "task_rejected", "task_revoked", "task_prerun", "task_success"):
    signals.ALL[name].connect(tell(name), weak=False)

@signals.celeryd_init.connect
def configure(sender, conf, **_):
    conf.task_default_priority = 7

@app.task
def add(x, y):
    return x + y

@app.task
def priority():
    return app.conf.task_default_priority

@app.task
def shout():
    print("printed in a task")
    print("to standard error", file=__import__("sys").stderr)
"""


@pytest.fixture
def app(tmp_path: Path) -> Celeriac:
    (tmp_path / "listening.py").write_text(APP)
    url = f"sqlite:///{tmp_path}/celeriac.db"
    return Celeriac("client", broker=url, backend=url, set_as_current=False)


def told(folder: Path) -> list[tuple[str, int, str, dict[str, Any]]]:
    return [tuple(json.loads(line)) for line in (folder / "told").read_text().splitlines()]


@pytest.mark.behaviour("B-SIGNAL-010")
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_workers_life(worker_process: Start, app: Celeriac, tmp_path: Path, pool: str) -> None:
    worker = worker_process("listening", "-P", pool, "-c", "1", "-n", "w1@%h")
    node = worker.wait_ready()
    assert app.send_task("listening.add", (2, 3)).get(timeout=30) == 5
    assert worker.stop() == 0

    moments = told(tmp_path)
    main = [(name, sender, named) for name, pid, sender, named in moments if pid == worker.pid]
    order = [name for name, _, _ in main if name not in ("task_prerun", "task_success", "worker_process_init")]
    assert order == [
        "celeryd_init", "worker_init", "celeryd_after_setup", "worker_before_create_process", "worker_ready",
        "task_received", "worker_shutting_down", "worker_shutdown",
    ]  # fmt: skip
    by_name = {name: (sender, named) for name, sender, named in main}
    assert by_name["celeryd_init"][0] == by_name["celeryd_after_setup"][0] == node
    assert by_name["worker_shutting_down"] == (node, {"sig": "SIGTERM", "how": "Warm", "exitcode": 0})
    assert by_name["task_received"][1]["request"].startswith("listening.add[")
    runner = {pid for name, pid, _, _ in moments if name in ("task_prerun", "task_success")}
    assert len(runner) == 1
    assert (runner == {worker.pid}) == (pool == "solo")


@pytest.mark.behaviour("B-SIGNAL-011")
def test_receivers_of_celeryd_init_change_settings_for_tasks(worker_process: Start, app: Celeriac) -> None:
    worker_process("listening", "-c", "1").wait_ready()
    assert app.send_task("listening.priority").get(timeout=30) == 7


@pytest.mark.behaviour("B-REVOKE-009", "B-SIGNAL-008", "B-SIGNAL-009")
def test_messages_that_are_not_run(worker_process: Start, app: Celeriac, tmp_path: Path) -> None:
    expired = app.send_task("listening.add", (1, 1), expires=-1)
    unknown = app.send_task("listening.nobody")
    with closing(sqlite3.connect(tmp_path / "celeriac.db")) as connection:
        app.send_task("listening.add", (1, 1))
        connection.execute(
            "UPDATE celeriac_incoming SET head = ? WHERE id = (SELECT max(id) FROM celeriac_incoming)", [b"?"]
        )
        connection.commit()
    worker = worker_process("listening", "-c", "1")
    worker.wait_ready()
    names = ("task_revoked", "task_unknown", "task_rejected")
    found = eventually(lambda: len(seen := [each for each in told(tmp_path) if each[0] in names]) >= 3 and seen)
    by_name = {name: (pid, sender, named) for name, pid, sender, named in found}
    pid, sender, named = by_name["task_revoked"]
    assert (pid, named) == (
        worker.pid,
        {"request": f"listening.add[{expired.id}]", "terminated": False, "signum": None, "expired": True},
    )
    assert "listening.add" in sender
    named = by_name["task_unknown"][2]
    assert (named["name"], named["id"]) == ("listening.nobody", unknown.id)
    assert "NotRegistered" in named["exc"]
    assert "malformed message" in by_name["task_rejected"][2]["exc"]


def test_a_supervisor_without_listeners_does_not_import_the_app(worker_process: Start, tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text(
        "import os\nfrom celeriac import Celeriac\nopen('imported', 'a').write(f'{os.getpid()}\\n')\n"
        f"app = Celeriac('silent', broker='sqlite:///{tmp_path}/q.db', backend='disabled')\n"
    )
    worker = worker_process("silent", "-c", "1")
    worker.wait_ready()
    assert str(worker.pid) not in (tmp_path / "imported").read_text().split()


@pytest.mark.behaviour("B-LOG-002")
def test_what_tasks_print_becomes_log_lines(worker_process: Start, app: Celeriac) -> None:
    worker = worker_process("listening", "-c", "1")
    worker.wait_ready()
    app.send_task("listening.shout").get(timeout=30)
    worker.wait_output(r"WARNING/\S+\] printed in a task")
    worker.wait_output(r"WARNING/\S+\] to standard error")
    assert worker.stop() == 0


def test_redirecting_can_be_switched_off(worker_process: Start, app: Celeriac) -> None:
    worker = worker_process("listening", "-c", "1", "--", "worker_redirect_stdouts=false")
    worker.wait_ready()
    app.send_task("listening.shout").get(timeout=30)
    worker.wait_output(r"(?m)^to standard error")
    assert worker.stop() == 0
    assert "] printed" not in worker.output


LOGGING = """
import logging
from celeriac import Celeriac, signals
from celeriac.log import get_task_logger

app = Celeriac("logs", broker="sqlite:///q.db", backend="sqlite:///q.db")
"""


@pytest.mark.behaviour("B-SIGNAL-013")
def test_receivers_add_handlers(worker_process: Start, tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text(
        LOGGING
        + """
@signals.after_setup_logger.connect
def add(logger, loglevel, logfile, format, colorize, **_):
    handler = logging.FileHandler("own.log")
    handler.setFormatter(logging.Formatter("OWN %(message)s"))
    logger.addHandler(handler)

@signals.after_setup_task_logger.connect
def add_for_tasks(logger, **_):
    handler = logging.FileHandler("tasks.log")
    handler.setFormatter(logging.Formatter("TASK %(message)s"))
    logger.addHandler(handler)

@app.task
def work():
    get_task_logger("x").warning("from a task")
"""
    )
    worker = worker_process("logs", "-c", "1", "-l", "INFO")
    worker.wait_ready()
    with Celeriac(
        "c", broker=f"sqlite:///{tmp_path}/q.db", backend=f"sqlite:///{tmp_path}/q.db", set_as_current=False
    ) as app:
        app.send_task("logs.work").get(timeout=30)
    assert worker.stop() == 0
    assert (tmp_path / "own.log").read_text().count("OWN celery@") >= 1, "the supervisor's lines, too"
    assert (tmp_path / "tasks.log").read_text().splitlines()[0] == "TASK from a task"
    assert "from a task" in worker.output


@pytest.mark.behaviour("B-SIGNAL-012")
def test_a_receiver_of_setup_logging_does_it_all(worker_process: Start, tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text(
        LOGGING
        + """
@signals.setup_logging.connect
def all_of_it(**_):
    logging.basicConfig(filename="all.log", level=logging.INFO, format="%(name)s %(message)s", force=True)

@app.task
def work():
    get_task_logger("x").warning("from a task")
"""
    )
    worker = worker_process("logs", "-c", "1", "-l", "INFO")
    worker.wait_ready()
    with Celeriac(
        "c", broker=f"sqlite:///{tmp_path}/q.db", backend=f"sqlite:///{tmp_path}/q.db", set_as_current=False
    ) as app:
        app.send_task("logs.work").get(timeout=30)
    assert worker.stop() == 0
    lines = (tmp_path / "all.log").read_text()
    assert "celeriac.task.x from a task" in lines
    assert "celeriac.worker celery@" in lines
    assert "from a task" not in worker.output
