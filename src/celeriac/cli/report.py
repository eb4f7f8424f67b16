"""`celeriac report`: versions, platform and changed settings, for a bug report. Passwords and keys are masked."""

from __future__ import annotations

import click

from celeriac import __version__
from celeriac.bug_report import bug_report
from celeriac.cli.command_context import CommandContext, settings_of

__all__ = ["report"]


@click.command()
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE …]")
@click.pass_obj
def report(context: CommandContext, /, settings: tuple[str, ...]) -> int:
    """Print what a bug report should say about this installation."""
    is_app_named = context.app_name or context.app is not None or context.changes or settings
    app = context.find_app(settings_of(settings)) if is_app_named else None
    click.echo(f"celeriac   {__version__}\n{bug_report(app)}")
    return 0
