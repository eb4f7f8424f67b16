"""What `inspect`, `control` and `status` share: finding a command, reading its arguments, asking workers, showing answers.

The output is that of Celery's commands, so that scripts that read it go on working. Exit code 69 means that nobody answered.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from celeriac.app import Celeriac
from celeriac.cli.command_context import CommandContext
from celeriac.cli.group import option
from celeriac.cli.problems import Failure
from celeriac.cli.values import CommaList
from celeriac.commands import CommandInfo, own_commands
from celeriac.errors import near_match
from celeriac.worker.control_change import COMMANDS as CHANGE
from celeriac.worker.control_inspect import COMMANDS as INSPECT
from celeriac.worker.control_revoke import COMMANDS as REVOKE

__all__ = ["UNAVAILABLE", "ask_workers", "listed", "remote_options", "show", "show_count"]

#: Exit code when nobody answered (EX_UNAVAILABLE).
UNAVAILABLE = 69
_INDENT = "        "

F = TypeVar("F", bound=Callable[..., Any])


def remote_options(command: F) -> F:
    """The options that the three commands share."""
    for each in reversed(
        (
            option(
                "-t", "--timeout", type=click.FloatRange(min=0), default=1.0, help="Seconds to wait for answers. [1.0]"
            ),
            option("-d", "--destination", type=CommaList(), help="Only these nodes."),
            option("-j", "--json", "as_json", is_flag=True, help="Print the answers as JSON."),
        )
    ):
        command = each(command)
    return command


def _commands(kind: str) -> dict[str, CommandInfo]:
    table = {**INSPECT, **CHANGE, **REVOKE, **own_commands()}
    return {name: info for name, info in sorted(table.items()) if info.type == kind}


def listed(context: CommandContext, kind: str) -> str:
    """The commands of this kind with their arguments, a line each."""
    if context.app_name or context.app is not None:
        context.find_app().import_modules()  # it may have commands of its own
    rows = [info for name, info in _commands(kind).items() if info.visible and name == info.name]
    return "\n".join(f"  {f'{info.name} {info.signature}'.strip():<58} {info.help}" for info in rows)


def _find(app: Celeriac, kind: str, name: str) -> CommandInfo:
    if name not in _commands(kind):
        app.import_modules()  # it may be one of the app's own
    known = _commands(kind)
    if name in known and known[name].visible:
        return known[name]
    other = "control" if kind == "inspect" else "inspect"
    hint = f" It is one of `celeriac {other}`." if name in _commands(other) else near_match(name, known)
    names = ", ".join(each for each, info in known.items() if info.visible and each == info.name)
    raise click.UsageError(f"{kind} has no command {name!r}.{hint}\nCommands: {names}")


def _arguments(info: CommandInfo, given: Sequence[str]) -> dict[str, Any]:
    """The arguments of a command from its words.

    Raises:
        UsageError: There are too few or too many, or one is not what it has to be.
    """
    rest, found = list(given), {}
    usage = f"Usage: {info.name} {info.signature}".rstrip()
    if len(rest) < info.signature.count("<"):
        raise click.UsageError(f"{info.name} needs more arguments. {usage}")
    for name, convert in info.args:
        try:
            if name == info.variadic:
                found[name], rest = [convert(word) for word in rest], []
            elif rest:
                found[name] = convert(rest.pop(0))
        except (TypeError, ValueError):
            raise click.UsageError(f"{name} can't be {given[len(found)]!r}. {usage}") from None
    if rest:
        raise click.UsageError(f"{info.name} takes no {rest[0]!r}. {usage}")
    return found


def ask_workers(
    context: CommandContext,
    kind: str,
    command: str,
    words: Sequence[str],
    timeout: float,
    destination: list[str] | None,
    on_answer: Callable[[dict[str, Any]], None] | None,
) -> list[dict[str, Any]]:
    """Ask and return the answers, one node each.

    Raises:
        UsageError: There is no such command, or its arguments are wrong.
        Failure: Nobody answered.
    """
    app = context.find_app()
    info = _find(app, kind, command)
    arguments = _arguments(info, words)
    if timeout == 1.0:
        timeout = info.default_timeout
    try:
        if info.name == "shutdown":  # who goes does not answer
            app.control.shutdown(destination)
            click.echo(f"Told {', '.join(destination) if destination else 'all workers'} to shut down.")
            return []
        answers = _send(app, info, arguments, timeout, destination, on_answer)
    finally:
        app.close()
    if not answers and info.name == "revoke" and destination is None and app.backend is not None:
        click.echo("No worker answered; it is written down in the result store.")
        return []
    if not answers:
        raise Failure("No nodes replied within time constraint", UNAVAILABLE)
    for node in destination or ():
        if not any(node in answer for answer in answers):
            click.echo(f"{node} did not answer.", err=True)
    return answers


def _send(
    app: Celeriac,
    info: CommandInfo,
    arguments: dict[str, Any],
    timeout: float,
    destination: list[str] | None,
    on_answer: Callable[[dict[str, Any]], None] | None,
) -> list[dict[str, Any]]:
    control = app.control
    options: dict[str, Any] = {
        "destination": destination, "timeout": timeout, "reply": True, "callback": on_answer,
    }  # fmt: skip
    if info.name == "revoke":  # written down as well, so that it holds although no worker is up
        return control.revoke(arguments["task_id"], **options) or []
    return control.broadcast(info.name, arguments, **options) or []


def show(answer: dict[str, Any]) -> None:
    """Print an answer as Celery does."""
    for node, value in answer.items():
        if isinstance(value, dict) and "error" in value:
            click.echo(f"->  {node}: {click.style('ERROR', fg='red')}")
            click.echo(textwrap.indent(str(value["error"]), _INDENT))
        elif isinstance(value, dict) and "ok" in value:
            click.echo(f"->  {node}: {click.style('OK', fg='green')}")
            click.echo(textwrap.indent(str(value["ok"]), _INDENT))
        else:
            click.echo(f"->  {node}: {click.style('OK', fg='green')}")
            click.echo(_shown(value))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(f"    * {each}" for each in value) or "    - empty -"
    if isinstance(value, dict):
        return textwrap.indent(json.dumps(value, indent=4, sort_keys=True), "    ")
    return textwrap.indent(str(value), _INDENT)


def show_count(count: int) -> None:
    """Print how many nodes there are."""
    click.echo(f"\n{count} {'node' if count == 1 else 'nodes'} online.")
