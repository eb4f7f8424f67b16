"""Runs `celeriac …` as people do, in a folder with a small app, and checks what must hold for every command.

Whatever a command says, it shows neither a traceback of ours nor a password.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SECRET", "CommandLine", "Done", "environment"]

_ROOT = Path(__file__).resolve().parents[2]
#: The password that tests put into URLs.
SECRET = "hunter2"
#: The app: each test has its own copy in its own folder, with its own database.
TASKS = """
import os, sys, threading, time
from celeriac import Celeriac

app = Celeriac("tasks")

@app.task
def add(x, y):
    return x + y

@app.task
def fail(text):
    raise ValueError(text)

@app.task
def where():
    return os.getpid(), threading.current_thread() is threading.main_thread()

@app.task(time_limit=0.05)
def past_its_limit():
    time.sleep(0.2)
    return "ended by itself"

@app.task
def sleep(seconds):
    open("begun", "w").close()
    time.sleep(seconds)
    return "slept"

@app.task(bind=True)
def step_by_step(self):
    for number in range(1, 4):
        self.update_state(state="PROGRESS", meta={"current": number, "total": 4, "message": "pages"})
        while not os.path.exists(f"go-on-{number}"):
            time.sleep(0.01)
    return {"pages": 4}

if __name__ == "__main__":
    sys.exit(app.worker_main())
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """The command line in one folder.

    Args:
        folder: Where commands run; `tasks.py` is written there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tasks.py").write_text(TASKS)

    def __call__(
        self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None, is_users_error: bool = False
    ) -> Done:
        """Run a command to its end.

        Args:
            is_users_error: A traceback of the user's own module is expected.
        """
        done = subprocess.run(
            [sys.executable, "-m", "celeriac", *arguments],
            cwd=self.folder,
            env={**environment(), **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        said = done.stdout + done.stderr
        assert is_users_error or "Traceback" not in said, said
        assert SECRET not in said, said
        return Done(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    """This process's environment without settings of celeriac, able to import it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CELERIAC_", "CELERY_")) and name not in ("APP", "BROKER_URL", "RESULT_BACKEND")
    }
    return {**kept, "PYTHONPATH": os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])}
