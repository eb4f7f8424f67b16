"""`celeriac list`: the queues that the app knows, with their bindings or with what is in them at the moment."""

from __future__ import annotations

import click

from celeriac.cli.command_context import CommandContext
from celeriac.cli.group import Group, option
from celeriac.cli.queue_choice import chosen_queues
from celeriac.cli.table import table
from celeriac.cli.values import CommaList

__all__ = ["listing"]


@click.group(cls=Group, name="list")
def listing() -> None:
    """Show queues, their bindings and their sizes."""


@listing.command()
@click.pass_obj
def bindings(context: CommandContext, /) -> int:
    """Show queue, exchange and routing key of each binding."""
    known = context.find_app().router.queues.values()
    rows = [(each.name, each.exchange.name or "(default)", each.exchange.type, each.routing_key) for each in known]
    click.echo(table(("queue", "exchange", "type", "routing key"), rows))
    return 0


@listing.command(name="queues")
@option("-Q", "--queues", type=CommaList(), help="Only these queues.")
@click.pass_obj
def list_queues(context: CommandContext, /, queues: list[str] | None) -> int:
    """Show how many messages are ready, not yet due, and held by workers."""
    app = context.find_app()
    rows = []
    for name in chosen_queues(app, queues):
        size = app.transport.size(name)
        rows.append((name, size.ready, size.delayed, size.leased))
    click.echo(table(("queue", "ready", "delayed", "leased"), rows, right=(1, 2, 3)))
    app.close()
    return 0
