"""`celeriac inspect`: asks workers what they run, hold and know, and prints their answers."""

from __future__ import annotations

import json

import click

from celeriac.cli.command_context import CommandContext
from celeriac.cli.remote import ask_workers, listed, remote_options, show, show_count
from celeriac.inspecting import flatten_reply

__all__ = ["inspect"]


@click.command()
@click.argument("command", required=False)
@click.argument("arguments", nargs=-1)
@click.option("--list", "is_list", is_flag=True, help="List the commands.")
@remote_options
@click.pass_obj
def inspect(
    context: CommandContext,
    /,
    command: str | None,
    arguments: tuple[str, ...],
    is_list: bool,
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
) -> int:
    """Ask workers; --list shows what."""
    if is_list or command is None:
        click.echo(listed(context, "inspect"))
        return 0 if is_list else 2
    answers = ask_workers(context, "inspect", command, arguments, timeout, destination, None if as_json else show)
    if as_json:
        click.echo(json.dumps(flatten_reply(answers)))
    else:
        show_count(len(flatten_reply(answers)))
    return 0
