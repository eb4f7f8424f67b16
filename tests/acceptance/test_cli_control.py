"""`celeriac inspect`, `control` and `status` as subprocesses, with a real worker on SQLite."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from tests.support.command import CommandLine
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

Start = Callable[..., WorkerProcess]

OWN = """
from pathlib import Path
from celeriac import Celeriac, signals
from celeriac.commands import control_command, inspect_command

HERE = Path(__file__).parent
url = f"sqlite:///{HERE}/celeriac.db"
app = Celeriac("own", broker=url, backend=url)

@app.task
def sleep(seconds):
    import time
    time.sleep(seconds)

@signals.task_revoked.connect
def told(sender, request, terminated, signum, expired, **_):
    with open(HERE / "told", "a") as file:
        file.write(f"{sender.name} {request.id} {terminated} {signum} {expired}\\n")

@control_command(args=[("n", int), ("words", str)], variadic="words", signature="<n> [word1 [word2]]")
def repeat(state, n, words=()):
    "Repeat words."
    return {"ok": " ".join(list(words) * n)}

@inspect_command
async def tasks_here(state):
    return sorted(name for name in state.app.tasks if name.startswith("own"))
"""


@pytest.fixture
def celeriac(tmp_path: Path) -> CommandLine:
    (tmp_path / "own.py").write_text(OWN)
    return CommandLine(tmp_path)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    url = f"sqlite:///{tmp_path / 'celeriac.db'}"
    with Celeriac("client", broker=url, backend=url, set_as_current=False) as app:
        yield app


def listens(app: Celeriac) -> None:
    eventually(lambda: app.control.ping(timeout=0.2, limit=1), 20)


def test_without_workers(celeriac: CommandLine) -> None:
    """[B-CLI-007] [B-CLI-008]"""
    for words in (["status"], ["inspect", "ping"], ["control", "pool_grow"]):
        done = celeriac("-A", "tasks", *words, "-t", "0.1")
        assert (done.code, done.out) == (69, "")
        assert done.err == "Error: No nodes replied within time constraint\n"
    done = celeriac("-A", "tasks", "control", "revoke", "some-id", "-t", "0.1")
    assert (done.code, done.out) == (0, "No worker answered; it is written down in the result store.\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["inspect", "actve"], "inspect has no command 'actve'. Did you mean 'active'?\nCommands: active, "),
        (["inspect", "revoke"], "It is one of `celeriac control`."),
        (
            ["control", "rate_limit", "tasks.add"],
            "rate_limit needs more arguments. Usage: rate_limit <task_name> <rate_limit",
        ),
        (["control", "pool_grow", "many"], "n can't be 'many'. Usage: pool_grow [N=1]"),
        (["inspect", "ping", "pong"], "ping takes no 'pong'."),
    ],
)
def test_wrong_use(celeriac: CommandLine, words: list[str], text: str) -> None:
    """[B-CLI-008]"""
    done = celeriac("-A", "tasks", *words)
    assert done.code == 2
    assert text in done.err


@pytest.mark.parametrize(("kind", "line"), [("inspect", "query_task [id1"), ("control", "rate_limit <task_name>")])
def test_lists_of_commands(celeriac: CommandLine, kind: str, line: str) -> None:
    """[B-CLI-010]"""
    done = celeriac(kind, "--list")
    assert done.code == 0 and f"  {line}" in done.out
    own = celeriac("-A", "own", kind, "--list")
    assert ("repeat <n> [word1 [word2]]" in own.out) == (kind == "control")
    assert ("tasks_here" in own.out) == (kind == "inspect")


def test_a_worker_is_asked_and_told(
    celeriac: CommandLine, worker_process: Start, app: Celeriac, tmp_path: Path
) -> None:
    """[B-CLI-007] [B-CLI-009] [B-CONTROL-032] [B-REVOKE-006], commands of the app's own among others."""
    worker = worker_process("own", "-c", "1", "-n", "w1@test")
    worker.wait_ready()
    listens(app)
    at_once = ("-d", "w1@test", "-t", "20")
    assert celeriac("-A", "own", "status", *at_once).out == "->  w1@test: OK\n\n1 node online.\n"
    assert celeriac("-A", "own", "inspect", "ping", *at_once).out == "->  w1@test: OK\n        pong\n\n1 node online.\n"
    assert json.loads(celeriac("-A", "own", "inspect", "ping", "-j", *at_once).out) == {"w1@test": {"ok": "pong"}}
    done = celeriac("-A", "own", "control", "repeat", "2", "a", "b", *at_once)
    assert done.out == "->  w1@test: OK\n        a b a b\n"
    assert celeriac("-A", "own", "inspect", "tasks_here", *at_once).out.startswith("->  w1@test: OK\n    * own.sleep\n")
    error = celeriac("-A", "own", "control", "rate_limit", "own.nothing", "1/s", *at_once)
    assert (error.code, error.out) == (0, "->  w1@test: ERROR\n        unknown task\n")
    running = app.send_task("own.sleep", (600,))
    eventually(lambda: running.id in celeriac("-A", "own", "inspect", "active", *at_once).out, 20)
    waiting = app.send_task("own.sleep", (0,))
    celeriac("-A", "own", "control", "revoke", waiting.id, *at_once)
    celeriac("-A", "own", "control", "terminate", "TERM", running.id, *at_once)
    told = tmp_path / "told"
    eventually(lambda: told.exists() and len(told.read_text().splitlines()) == 2, 20)
    assert sorted(told.read_text().splitlines()) == sorted([
        f"own.sleep {running.id} True 15 False", f"own.sleep {waiting.id} False None False",
    ])  # fmt: skip
    assert celeriac("-A", "own", "control", "shutdown").out == "Told all workers to shut down.\n"
    assert worker.wait(30) == 0
