"""`celeriac control`: tells workers to do something, and prints their answers."""

from __future__ import annotations

import json

import click

from celeriac.cli.command_context import CommandContext
from celeriac.cli.remote import ask_workers, listed, remote_options, show

__all__ = ["control"]


@click.command()
@click.argument("command", required=False)
@click.argument("arguments", nargs=-1)
@click.option("--list", "is_list", is_flag=True, help="List the commands.")
@remote_options
@click.pass_obj
def control(
    context: CommandContext,
    /,
    command: str | None,
    arguments: tuple[str, ...],
    is_list: bool,
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
) -> int:
    """Tell workers what to do; --list shows what."""
    if is_list or command is None:
        click.echo(listed(context, "control"))
        return 0 if is_list else 2
    answers = ask_workers(context, "control", command, arguments, timeout, destination, None if as_json else show)
    if as_json:
        click.echo(json.dumps(answers))
    return 0
