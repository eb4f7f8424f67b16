"""`celeriac demo` end to end: what it promises on the screen, twice at the same time, and after Ctrl-C."""

from __future__ import annotations

import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.cli.demo_tasks import measure
from tests.support import processes
from tests.support.command import CommandLine
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

COMMAND = ("-m", "celeriac", "demo", "--files", "40")


@pytest.fixture
def start(worker_process: Callable[..., WorkerProcess], tmp_path: Path) -> Callable[..., WorkerProcess]:
    def start_demo(*arguments: str) -> WorkerProcess:
        return worker_process(command=[sys.executable, *COMMAND, *arguments], env={"TMPDIR": str(tmp_path)})

    return start_demo


def test_nothing_is_missing_after_a_runner_was_killed(start: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    demos = [start(), start()]
    for demo in demos:
        assert demo.wait(50) == 0, demo.output
        assert "40 Python files of the standard library, one task each, on 2 runner processes." in demo.output
        assert re.search(r"Killed runner PID \d+ \(kill -9\) after \d+ results; .*; 0 missing\.", demo.output)
        assert re.search(r"40 files \(.*\), [\d,]+ lines, [\d,]+ functions, [\d,]+ tokens\.", demo.output)
        assert re.search(r"Longest function: \w+, \d+ lines, in \S+\.py\.", demo.output)
        assert re.search(r"\d+ tasks per second\.", demo.output)
        assert "Traceback" not in demo.output
        path = Path(re.search(r"Broker and results: (\S+)", demo.output)[1])  # type: ignore[index]
        assert path.is_relative_to(tmp_path)
        with sqlite3.connect(path) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        database.close()
        assert "celeriac_messages" in tables
    logs = [path.read_text() for path in tmp_path.glob("celeriac-demo-*/worker.log")]
    assert len(logs) == 2
    assert all("by signal 9 (SIGKILL)" in log for log in logs)


def test_ctrl_c_takes_the_worker_down(start: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    demo = start("--runners", "1", "--files", "2000")  # more than are done before the signal comes
    log = eventually(lambda: next(iter(tmp_path.glob("celeriac-demo-*/worker.log")), None))
    eventually(lambda: "ready." in log.read_text(), 30)
    pid = int(re.search(r"\(pid (\d+)", log.read_text())[1])  # type: ignore[index]
    demo.kill(signal.SIGINT)
    assert demo.wait(30) == 1
    assert "Traceback" not in demo.output
    assert processes.facts(pid) is None


def test_a_file_that_python_cannot_read_is_an_outcome(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_bytes(b"def f(:\n\xff")
    (tmp_path / "good.py").write_text("def f():\n    return 1\n\n\nasync def longer():\n    x = 1\n    return x\n")
    bad, good = (measure.apply([str(tmp_path / name)]).get() for name in ("bad.py", "good.py"))
    assert (bad["is_readable"], bad["lines"]) == (False, 1)
    assert (good["is_readable"], good["functions"], good["name"], good["longest"]) == (True, 2, "longer", 3)
    assert good["tokens"] > 20


def test_help(tmp_path: Path) -> None:
    done = CommandLine(tmp_path)("demo", "--help")
    assert done.code == 0
    assert "kill one" in done.out
