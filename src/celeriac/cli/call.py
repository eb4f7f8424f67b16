"""`celeriac call`: sends a task by name and prints its id, which `celeriac result` takes.

The task need not be known here; its message is as any client's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from celeriac.cli.command_context import CommandContext
from celeriac.cli.group import option
from celeriac.cli.values import Json, Moment

__all__ = ["call"]


@click.command()
@click.argument("name")
@option("-a", "--args", type=Json(list), default="[]", help="Positional arguments, as a JSON list.")
@option("-k", "--kwargs", type=Json(dict), default="{}", help="Keyword arguments, as a JSON object.")
@option("--eta", type=Moment(), help="Not before this moment.")
@option("--countdown", type=float, help="Not before so many seconds from now.")
@option("--expires", type=Moment(seconds=True), help="Not after so many seconds from now, or this moment.")
@option("--serializer", help="How the arguments are written. [the app's, or json]")
@option("--queue", help="Queue.")
@option("--exchange", help="Exchange.")
@option("--routing-key", help="Routing key.")
@click.pass_obj
def call(
    context: CommandContext,
    /,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    eta: datetime | None,
    countdown: float | None,
    expires: datetime | float | None,
    **options: Any,
) -> int:
    """Send the task NAME, and print its id."""
    app = context.find_app()
    given = {key: value for key, value in options.items() if value is not None}
    result = app.send_task(name, args, kwargs, countdown=countdown, eta=eta, expires=expires, **given)
    click.echo(result.id)
    app.close()
    return 0
