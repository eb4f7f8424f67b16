"""`celeriac status`: which workers are there."""

from __future__ import annotations

import json
from typing import Any

import click

from celeriac.cli.command_context import CommandContext
from celeriac.cli.remote import ask_workers, remote_options, show_count
from celeriac.inspecting import flatten_reply

__all__ = ["status"]


@click.command()
@remote_options
@click.pass_obj
def status(context: CommandContext, /, timeout: float, destination: list[str] | None, as_json: bool) -> int:
    """List the workers that answer."""
    answers = ask_workers(context, "inspect", "ping", (), timeout, destination, None if as_json else _show)
    if as_json:
        click.echo(json.dumps(flatten_reply(answers)))
    else:
        show_count(len(flatten_reply(answers)))
    return 0


def _show(answer: dict[str, Any]) -> None:
    for node in answer:
        click.echo(f"->  {node}: {click.style('OK', fg='green')}")
