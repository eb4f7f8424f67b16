"""`celeriac demo`: every source file of the standard library goes through a task, a runner is killed, and nothing is lost.

It starts a real worker as a subprocess on a SQLite file in a new temporary folder, and takes the worker down again however it
ends. The file and the worker's log stay, to be looked at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from celeriac.cli.command_context import CommandContext
from celeriac.cli.demo_tasks import app, measure
from celeriac.cli.group import option
from celeriac.cli.problems import Failure
from celeriac.cli.table import table
from celeriac.errors import TimeoutError
from celeriac.result import AsyncResult

__all__ = ["demo"]

#: Seconds without any new result after which the rest counts as missing.
PATIENCE = 60.0
#: Seconds after an answer in which its runner has surely begun its next task: a file takes 5 to 100 ms.
IN_THE_MIDDLE = 0.01
#: Seconds between two lines about progress where there is no terminal for a bar.
SAY_EVERY = 3.0

Answer = dict[str, Any]


@click.command()
@option("--runners", type=click.IntRange(min=1), default=2, show_default=True, help="Runner processes.")
@option("--files", type=click.IntRange(min=10), help="How many files at most; default is all.")
@click.pass_obj
def demo(context: CommandContext, /, runners: int, files: int | None) -> int:
    """See it work: measure Python's standard library on two runners, kill one, lose nothing."""
    paths = _source_files()[:files]
    folder = Path(tempfile.mkdtemp(prefix="celeriac-demo-"))
    url = f"sqlite:///{folder / 'celeriac.db'}"
    app.conf.update(broker_url=url, result_backend=url)
    click.echo(f"{len(paths)} Python files of the standard library, one task each, on {runners} runner processes.")
    with _worker(url, runners, folder / "worker.log") as worker:
        started = time.monotonic()
        results = app.publish_many([measure.s(str(path)) for path in paths])
        answers, killed = _collect(results, worker)
        seconds = time.monotonic() - started
    app.close()
    _print_summary(answers, seconds)
    _print_promise(len(paths), answers, killed)
    click.echo(f"Broker and results: {folder / 'celeriac.db'} (the worker's log is beside it).")
    if len(answers) < len(paths):
        raise Failure(f"{len(paths) - len(answers)} of {len(paths)} results are missing.")
    return 0


def _source_files() -> list[Path]:
    """The standard library with its tests; the largest first, so that no large one is left for the end."""
    root = Path(sysconfig.get_path("stdlib"))
    found = [
        path
        for path in root.rglob("*.py")
        if not {"site-packages", "dist-packages"} & set(path.parts) and path.is_file()
    ]
    return sorted(found, key=lambda path: (-path.stat().st_size, path))


@contextlib.contextmanager
def _worker(url: str, runners: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process; ended warmly, or killed if that does not help."""
    command = [
        sys.executable, "-m", "celeriac", "-A", "celeriac.cli.demo_tasks", "-b", url, "--result-backend", url,
        "worker", "-c", str(runners), "-n", "demo@%h",
    ]  # fmt: skip
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches the demo, and the demo ends its worker.
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield worker
    finally:
        worker.terminate()
        try:
            worker.wait(10)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _collect(
    results: list[AsyncResult[Any]], worker: subprocess.Popen[bytes]
) -> tuple[list[Answer], tuple[int, int] | None]:
    """The answers that came, and (pid, number of answers before) of the runner that was killed."""
    answers: list[Answer] = []
    killed = None
    with _Progress(len(results)) as progress:
        for result in results:
            answer = _wait(result, worker)
            if answer is None:
                continue
            answers.append(answer)
            progress.step()
            if killed is None and len(answers) >= len(results) // 2:
                time.sleep(IN_THE_MIDDLE)
                killed = (answer["pid"], len(answers)) if _kill(answer["pid"]) else None
    return answers, killed


def _wait(result: AsyncResult[Any], worker: subprocess.Popen[bytes]) -> Answer | None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            answer: Answer = result.get(timeout=1.0)
            return answer
        except TimeoutError:
            if worker.poll() is not None:
                raise Failure(f"The demo's worker has ended with exit code {worker.returncode}.") from None
            if time.monotonic() > end:
                return None


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False  # it was replaced; the next answer names another
    return True


class _Progress:
    """A bar on a terminal; elsewhere a line every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stdout.isatty():
            self._bar = click.progressbar(length=self._total, label="tasks", show_pos=True)
            self._bar.__enter__()
        return self

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(1)
        elif time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            click.echo(f"{self._done} of {self._total} tasks")

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exc)


def _print_summary(answers: list[Answer], seconds: float) -> None:
    largest = sorted(answers, key=lambda answer: -answer["lines"])[:10]
    head = ("largest modules", "lines", "tokens", "functions", "longest function", "lines")
    rows = [(_short(a), a["lines"], a["tokens"], a["functions"], a["name"], a["longest"]) for a in largest]
    unreadable = sum(not answer["is_readable"] for answer in answers)
    lines, functions, tokens = (sum(answer[key] for answer in answers) for key in ("lines", "functions", "tokens"))
    click.echo(f"\n{table(head, rows, right=(1, 2, 3, 5))}\n")
    click.echo(
        f"{len(answers)} files ({unreadable} that Python can't read, on purpose), "
        f"{lines:,} lines, {functions:,} functions, {tokens:,} tokens."
    )
    longest = max(answers, key=lambda answer: answer["longest"], default=None)
    if longest is not None:
        click.echo(f"Longest function: {longest['name']}, {longest['longest']} lines, in {_short(longest)}.")
    click.echo(f"{len(answers) / seconds:.0f} tasks per second.")


def _short(answer: Answer) -> str:
    return str(Path(answer["path"]).relative_to(sysconfig.get_path("stdlib")))


def _print_promise(total: int, answers: list[Answer], killed: tuple[int, int] | None) -> None:
    missing = total - len(answers)
    repeated = sum(bool(answer["is_repeated"]) for answer in answers)
    again = "its task was run again" if repeated else "it was between two tasks"
    if killed is None:
        click.echo(f"No runner could be killed; {missing} missing.")
    else:
        pid, count = killed
        click.echo(f"Killed runner PID {pid} (kill -9) after {count} results; {again}; {missing} missing.")
