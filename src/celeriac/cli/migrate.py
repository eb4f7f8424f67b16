"""`celeriac migrate`: copies the messages of queues from one broker to another, or moves them. It needs no app.

With `--ack-messages` a message leaves the source once the destination has it for good; without, the source keeps all.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from celeriac.app import Celeriac
from celeriac.broker_connection import Connection
from celeriac.cli.command_context import CommandContext
from celeriac.cli.group import option
from celeriac.cli.values import CommaList
from celeriac.migrating import State, migrate_tasks

__all__ = ["migrate"]


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@option("-n", "--limit", type=click.IntRange(min=1), help="How many messages at most.")
@option("-t", "--timeout", type=click.FloatRange(min=0), default=1.0, show_default=True,
        help="Seconds without a message after which it ends.")  # fmt: skip
@option("-a", "--ack-messages", is_flag=True, help="Remove messages from SOURCE once DESTINATION has them.")
@option("-T", "--tasks", type=CommaList(), help="Only messages of these tasks.")
@option("-Q", "--queues", type=CommaList(), help="Only these queues; a:b is queue a, which DESTINATION calls b.")
@option("-F", "--forever", is_flag=True, help="Go on until stopped.")
@click.pass_obj
def migrate(
    context: CommandContext,
    /,
    source: str,
    destination: str,
    limit: int | None,
    timeout: float,
    ack_messages: bool,
    tasks: list[str] | None,
    queues: list[str] | None,
    forever: bool,
) -> int:
    """Copy messages from the broker SOURCE to the broker DESTINATION, both named by URL.

    Without -Q these are the messages of the app's queues (-A), or of the queue "celery".
    """
    has_app = context.app_name or context.app
    app = context.find_app() if has_app else Celeriac("migrate", broker=source, set_as_current=False)
    state = State()
    progress = _progress(context)
    with _connect(app, source) as here, _connect(app, destination) as there:
        if here.as_uri(include_password=True) == there.as_uri(include_password=True):
            raise click.UsageError("SOURCE and DESTINATION are one broker; to move messages between its queues, see"
                                   " celeriac.contrib.migrate.move.")  # fmt: skip
        for connection in (here, there):
            connection.connect()
        try:
            migrate_tasks(
                here, there, app=app, queues=queues, state=state, limit=limit, timeout=timeout, tasks=tasks,
                ack_messages=ack_messages, forever=forever, callback=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            click.echo(err=True)
        else:
            if progress is not None and state.count:  # its line has no end yet
                click.echo(err=True)
        _report(state, ack_messages, here, there)
    app.close()
    return 0


def _connect(app: Celeriac, url: str) -> Connection:
    """A connection; the app's options are for brokers of its kind."""
    own = str(app.conf.broker_url).partition("://")[0]
    is_own = url.partition("://")[0] == own
    return Connection(
        url, transport_options=app.conf.broker_transport_options if is_own else {}, settings=app.conf,
        connect_timeout=app.conf.broker_connection_timeout or 5.0,
    )  # fmt: skip


def _progress(context: CommandContext) -> Any:
    """A line that counts on a terminal; elsewhere nothing."""
    if context.is_quiet or not sys.stderr.isatty():
        return None

    def show(state: State, body: Any, message: Any) -> None:
        if state.count % 100 == 0 or state.count == state.total_apx:
            click.echo(f"\r{state.count}/{state.strtotal}", nl=False, err=True)

    return show


def _report(state: State, is_moved: bool, here: Connection, there: Connection) -> None:
    said = "1 message" if state.count == 1 else f"{state.count} messages"
    verb, rest = ("moved", "") if is_moved else ("copied", "; the source has them still (-a removes them)")
    click.echo(f"{said} {verb} from {here.as_uri()} to {there.as_uri()}{rest if state.count else ''}.")
    if state.delayed:
        click.echo(f"{state.delayed} not yet due stay at the source; -F waits for them.")
