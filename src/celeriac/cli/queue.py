"""`celeriac queue`: pauses queues and lets them go on, for all workers, whether or not any is up.

A pause is kept in the coordination store (the broker, the result store, or what `coordination_url` names) and outlives
workers and their restarts. Messages can be sent to a paused queue; what workers have taken already runs to its end.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

from celeriac.app import Celeriac
from celeriac.cli.command_context import CommandContext
from celeriac.cli.group import Group, option
from celeriac.cli.queue_choice import chosen_queues
from celeriac.cli.table import table
from celeriac.coordination.base import FOREVER, Coordination
from celeriac.coordination.open import no_place
from celeriac.coordination.pauses import pause, paused, resume
from celeriac.errors import ImproperlyConfigured

__all__ = ["queue"]

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def length(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds of a text such as `90`, `10m`, `2h`, `1d`."""
    if value is None:
        return None
    found = _LENGTH.fullmatch(value.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds < FOREVER:
        raise click.BadParameter(f"{value!r} is no length of time, such as 90, 10m, 2h or 1d.")
    return seconds


def _place_of(app: Celeriac) -> Coordination:
    place = app.coordination
    if place is None:
        raise ImproperlyConfigured(no_place(app.conf, "Pausing a queue"))
    return place


@click.group(cls=Group)
def queue() -> None:
    """Pause queues, and let them go on."""


@queue.command(name="pause")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE …")
@option("--for", "seconds", callback=length, metavar="TIME", help="Go on by itself after this: 90, 10m, 2h, 1d.")
@click.pass_obj
def pause_queue(context: CommandContext, /, names: tuple[str, ...], seconds: float | None) -> int:
    """Have no worker take messages from QUEUE until it is resumed."""
    app = context.find_app()
    pause(_place_of(app), chosen_queues(app, names), seconds)
    click.echo(f"{', '.join(names)} paused{'' if seconds is None else f' for {seconds:g} s'}.")
    app.close()
    return 0


@queue.command(name="resume")
@click.argument("names", nargs=-1, metavar="[QUEUE …]")
@option("--all", "is_all", is_flag=True, help="All that are paused.")
@click.pass_obj
def resume_queue(context: CommandContext, /, names: tuple[str, ...], is_all: bool) -> int:
    """Let workers take messages from QUEUE again."""
    if bool(names) == is_all:
        raise click.UsageError("Name the queues (celeriac queue list shows them), or say --all.")
    app = context.find_app()
    place = _place_of(app)
    known = paused(place)
    resume(place, names or list(known))
    for name in names or sorted(known):
        click.echo(f"{name} goes on." if name in known else f"{name} was not paused.")
    app.close()
    return 0


@queue.command(name="list")
@click.pass_obj
def list_queues(context: CommandContext, /) -> int:
    """Show the queues, how many messages wait in each, and which are paused."""
    app = context.find_app()
    known = paused(_place_of(app))
    rows = []
    for name in sorted({*app.router.queues, *known}):
        size = app.transport.size(name)
        rows.append((name, size.ready, size.delayed, size.leased, _state(known.get(name))))
    click.echo(table(("queue", "ready", "delayed", "leased", "state"), rows, right=(1, 2, 3)))
    app.close()
    return 0


def _state(until: float | None) -> str:
    if until is None:
        return "active"
    if until - time.time() > FOREVER / 2:
        return "paused"
    return f"paused until {datetime.fromtimestamp(until, UTC).isoformat(timespec='seconds')}"
