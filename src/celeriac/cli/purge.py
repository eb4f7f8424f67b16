"""`celeriac purge`: deletes the messages that wait in queues. There is no way back, so it asks first.

Messages that a worker holds are not touched: their tasks run to their end.
"""

from __future__ import annotations

import click

from celeriac.cli.command_context import CommandContext, settings_of
from celeriac.cli.group import option
from celeriac.cli.queue_choice import chosen_queues
from celeriac.cli.values import CommaList

__all__ = ["purge"]


@click.command()
@option("-f", "--force", is_flag=True, help="Don't ask.")
@option("-Q", "--queues", type=CommaList(), help="Only these queues.")
@option("-X", "--exclude-queues", type=CommaList(), help="All but these queues.")
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE …]")
@click.pass_obj
def purge(
    context: CommandContext,
    /,
    force: bool,
    queues: list[str] | None,
    exclude_queues: list[str] | None,
    settings: tuple[str, ...],
) -> int:
    """Delete all waiting messages of the app's queues."""
    app = context.find_app(settings_of(settings))
    names = chosen_queues(app, queues, exclude_queues)
    listed = ", ".join(names)
    if not force:
        sizes = [app.transport.size(name) for name in names]
        waiting = sum(size.ready + size.delayed for size in sizes)
        click.confirm(f"Delete all {waiting} waiting messages of {listed}? They can't be had back.", abort=True)
    number = sum(app.transport.purge(name) for name in names)
    said = "No messages" if number == 0 else f"{number} message" if number == 1 else f"{number} messages"
    click.echo(f"{said} purged from {listed}.")
    app.close()
    return 0
