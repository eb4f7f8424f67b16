"""The debugger inside of tasks, used over its socket as with telnet."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.contrib.rdb import Rdb
from celeriac.errors import CeleriacError
from tests.support.command import environment
from tests.support.talk import Talk
from tests.support.worker import WorkerProcess

Start = Callable[..., WorkerProcess]
APP = """
import os
from celeriac import Celeriac
from celeriac.contrib import rdb

app = Celeriac("debugged", broker={url!r}, backend={url!r})

@app.task
def double(number):
    doubled = number * 2
    rdb.set_trace()
    text = f"{{doubled}} is twice {{number}}"
    return text

@app.task
def stuck(number):
    never, end = os.pipe()
    print(f"stuck in {{os.getpid()}}")
    os.read(never, 1)  # no lock is held here, whenever the signal comes
    return number

@app.task
def add(x, y):
    return x + y
"""
WAITS = r"a debugger waits in process (\d+) until somebody connects: telnet 127\.0\.0\.1 (\d+)"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    url = f"sqlite:///{tmp_path}/q.db"
    (tmp_path / "debugged.py").write_text(APP.format(url=url))
    with Celeriac("client", broker=url, backend=url, set_as_current=False) as app:
        yield app


def waiting(worker: WorkerProcess, pid: int | str = r"\d+") -> tuple[int, int]:
    """Process and port of a debugger that waits."""
    match = worker.wait_output(WAITS.replace(r"\d+", str(pid), 1))
    return int(match[1]), int(match[2])


@pytest.mark.behaviour("B-CONTRIB-002")
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_is_looked_at_and_goes_on(app: Celeriac, worker_process: Start, pool: str) -> None:
    """[B-CONTRIB-002] set_trace opens a pdb for telnet on a free port"""
    worker = worker_process("debugged", "-c", "1", "-P", pool)
    worker.wait_ready()
    result = app.send_task("debugged.double", (4,))
    _, port = waiting(worker)
    assert port >= 6899
    with Talk(port) as talk:
        shown = talk.say("n") if sys.version_info >= (3, 13) else talk.greeting
        assert '-> text = f"{doubled} is twice {number}"' in shown
        assert talk.say("p doubled, number") == "(8, 4)\n"
        assert "double(4)" not in talk.say("w").splitlines()[-1]
        talk.say("number = 5")
        assert talk.say("print('seen')") == "seen\n"
        assert "-> return text" in talk.say("n")
        assert talk.leave("c") == ""
    assert result.get(timeout=30) == "8 is twice 5"
    assert app.send_task("debugged.add", (1, 2)).get(timeout=30) == 3
    assert worker.stop() == 0


@pytest.mark.behaviour("B-CONTRIB-002")
@pytest.mark.parametrize("leave", ["q", "hang up"])
def test_who_leaves_lets_the_task_go_on(app: Celeriac, worker_process: Start, leave: str) -> None:
    worker = worker_process("debugged", "-c", "1")
    worker.wait_ready()
    result = app.send_task("debugged.double", (4,))
    with Talk(waiting(worker)[1]) as talk:
        if leave == "q":
            talk.leave("q")
    assert result.get(timeout=30) == "8 is twice 4"


@pytest.mark.behaviour("B-CONTRIB-002")
def test_each_of_several_tasks_has_a_port_of_its_own(app: Celeriac, worker_process: Start) -> None:
    """[B-CONTRIB-002] it searches upward"""
    worker = worker_process("debugged", "-c", "2")
    worker.wait_ready()
    results = [app.send_task("debugged.double", (number,)) for number in (1, 2)]
    pids = worker.wait_runners(2)
    ports = dict(waiting(worker, pid) for pid in pids)
    assert len(set(ports.values())) == 2
    for port in ports.values():
        with Talk(port) as talk:
            talk.leave("c")
    assert [result.get(timeout=30) for result in results] == ["2 is twice 1", "4 is twice 2"]


@pytest.mark.behaviour("B-CONTRIB-002")
def test_a_breakpoint_keeps_the_session(app: Celeriac, worker_process: Start, tmp_path: Path) -> None:
    line = (tmp_path / "debugged.py").read_text().splitlines().index("    return x + y") + 1
    worker = worker_process("debugged", "-c", "1")
    worker.wait_ready()
    first = app.send_task("debugged.double", (4,))
    with Talk(waiting(worker)[1]) as talk:
        assert "Breakpoint 1 at" in talk.say(f"b {line}")
        second = app.send_task("debugged.add", (1, 2))
        assert "-> return x + y" in talk.say("c")
        assert first.get(timeout=30) == "8 is twice 4"
        talk.say("x = 10")
        talk.leave("q")
    assert second.get(timeout=30) == 12


@pytest.mark.behaviour("B-CONTRIB-002")
def test_a_signal_opens_it_in_the_middle_of_a_task(app: Celeriac, worker_process: Start) -> None:
    """[B-CONTRIB-002] with CELERY_RDBSIG, SIGUSR2 shows where a process is, in the middle of a call that never returns"""
    worker = worker_process("debugged", "-c", "1", env={"CELERY_RDBSIG": "1"})
    worker.wait_ready()
    result = app.send_task("debugged.stuck", (1,))
    pid = int(worker.wait_output(r"stuck in (\d+)")[1])
    os.kill(pid, signal.SIGUSR2)
    process, port = waiting(worker, pid)
    assert process == pid
    with Talk(port) as talk:
        shown = talk.say("w")
        assert "stuck()" in shown
        while "stuck()" not in shown.splitlines()[-2]:
            shown = talk.say("u")
            assert "Oldest frame" not in shown
        talk.say("os.write(end, b'.')")
        talk.leave("c")
    assert result.get(timeout=30) == 1
    assert worker.stop() == 0


@pytest.mark.behaviour("B-CONTRIB-002")
def test_a_signal_opens_it_in_the_main_process(app: Celeriac, worker_process: Start) -> None:
    worker = worker_process("debugged", "-c", "1", env={"CELERY_RDBSIG": "1"})
    worker.wait_ready()
    worker.kill(signal.SIGUSR2)
    _, port = waiting(worker, worker.pid)
    with Talk(port) as talk:
        assert "run_worker" in talk.say("w")
        talk.leave("c")
    assert app.send_task("debugged.add", (1, 2)).get(timeout=30) == 3
    assert worker.stop() == 0


def python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**environment(), **env}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


@pytest.mark.behaviour("B-CONTRIB-002")
def test_variables_say_where_it_listens() -> None:
    """[B-CONTRIB-002] CELERY_RDB_HOST and CELERY_RDB_PORT; the loopback interface alone if nothing is said"""
    show = "from celeriac.contrib import rdb; print(rdb.CELERY_RDB_HOST, rdb.CELERY_RDB_PORT)"
    assert python(show).stdout == "127.0.0.1 6899\n"
    assert python(show, CELERY_RDB_HOST="127.0.0.2", CELERY_RDB_PORT="7000").stdout == "127.0.0.2 7000\n"
    wrong = python(show, CELERY_RDB_PORT="many").stderr.splitlines()[-1]
    assert wrong.endswith("CELERY_RDB_PORT must be a number from 0 (any port) to 65535, not 'many'")


@pytest.mark.behaviour("B-CONTRIB-002")
def test_ports_in_use_are_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = f"from celeriac.contrib.rdb import Rdb; Rdb(port={port}, port_search_limit=1)"
        error = python(program).stderr.splitlines()[-1]
    assert error == (
        "celeriac.errors.CeleriacError: a debugger finds no free port at 127.0.0.1 among the 1 from "
        f"{port} on: set CELERY_RDB_PORT to another"
    )


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(CeleriacError, match=r"can't listen at no host:6899: "):
        Rdb(host="no host", port=6899)


def test_it_is_a_breakpoint_of_python_too(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("number = 3\nbreakpoint()\nprint(number)\n")
    with subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**environment(), "PYTHONBREAKPOINT": "celeriac.contrib.rdb.set_trace", "CELERY_RDB_PORT": "0"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        match = re.search(WAITS, process.stderr.readline())
        assert match is not None
        with Talk(int(match[2])) as talk:
            talk.say("number = 4")
            talk.leave("c")
        assert process.communicate(timeout=30)[0] == "4\n"
