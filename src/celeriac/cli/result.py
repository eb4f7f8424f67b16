"""`celeriac result`: waits for a task's end and prints what it returned; with `--follow` it shows how far the task is.

An id that nobody knows would be waited for for ever. So when nothing is stored, and nothing that could still become a result
is in the queues that the app knows, the command says so at once.
"""

from __future__ import annotations

import json
import sys

import click

from celeriac.app import Celeriac
from celeriac.cli.command_context import CommandContext, result_store
from celeriac.cli.group import option
from celeriac.cli.problems import Failure
from celeriac.errors import TimeoutError
from celeriac.progress import Progress
from celeriac.result import AsyncResult
from celeriac.timing import Deadline

__all__ = ["result"]

#: Characters of a progress bar.
_WIDTH = 30


@click.command()
@click.argument("task_id")
@option("-t", "--task", help="Name of the task; accepted, the id alone is enough.")
@option("--traceback", is_flag=True, help="Print the traceback instead.")
@option("-f", "--follow", is_flag=True, help="Show the task's progress (of update_state) until it ends.")
@option("--json", "as_json", is_flag=True, help="Print the value as JSON.")
@option("--timeout", type=click.FloatRange(min=0), help="Seconds to wait at most; default is as long as it takes.")
@click.pass_obj
def result(
    context: CommandContext,
    /,
    task_id: str,
    task: str | None,
    traceback: bool,
    follow: bool,
    as_json: bool,
    timeout: float | None,
) -> int:
    """Wait for the result of the task TASK_ID, and print it."""
    app = context.find_app()
    result_store(app)
    found = app.AsyncResult(task_id)
    if not found.exists():
        _refuse_hopeless(app, found)
        if timeout is None and not context.is_quiet:
            click.echo(f"Nothing is stored of {task_id} yet: waiting (--timeout would give up some time).", err=True)
    deadline = Deadline(timeout)
    if follow:
        _follow(found, timeout)
    try:
        value = found.get(timeout=deadline.left(), propagate=False)
    except TimeoutError:
        raise Failure(f"Task {task_id} has no result after {timeout:g} s; its state is {found.state}.") from None
    if traceback:
        click.echo((found.traceback or "None").rstrip())
        return 0
    if not found.successful():
        raise Failure(f"Task {task_id} ended as {found.state}: {type(value).__name__}: {value}")
    if as_json:
        click.echo(json.dumps(value, default=repr))
    else:
        click.echo(value if isinstance(value, str) else repr(value))
    sys.stdout.flush()
    return 0


def _follow(found: AsyncResult[object], timeout: float | None) -> None:
    """Draw a bar where there is a terminal, print a line for each change where there is none; on standard error."""
    is_terminal = sys.stderr.isatty()
    for progress in found.follow(timeout):
        line = _line(progress)
        if is_terminal:
            click.echo(f"\r{line}\x1b[K", err=True, nl=progress.ready)
        else:
            click.echo(line, err=True)


def _line(progress: Progress) -> str:
    share = progress.fraction
    if share is None:
        return str(progress)
    full = int(share * _WIDTH)
    bar = f"[{'#' * full}{'-' * (_WIDTH - full)}] {share:4.0%}"
    counted = "" if progress.total is None or progress.current is None else f"{progress.current:g}/{progress.total:g}"
    return "  ".join(part for part in (bar, counted, progress.state, progress.text) if part)


def _refuse_hopeless(app: Celeriac, found: AsyncResult[object]) -> None:
    """Raise if no result can come any more."""
    letter = app.transport.dead_letter(found.id) if app.transport.capabilities.dead_letters else None
    if letter is not None:
        raise Failure(
            f"Task {found.id} has no result: its message is a dead letter ({letter.reason}). "
            f"celeriac dead retry {letter.key} sends it again."
        )
    sizes = [app.transport.size(queue) for queue in app.router.queues]
    waiting = sum(size.ready + size.delayed + size.leased for size in sizes)
    # Asked again: the task may have ended between the two questions.
    if waiting == 0 and not found.exists():
        raise Failure(
            f"Task {found.id} is unknown: no result is stored under this id, and no message waits in "
            f"{', '.join(app.router.queues)}. Results expire after result_expires; tasks may ignore theirs."
        )
