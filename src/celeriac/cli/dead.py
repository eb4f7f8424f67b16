"""`celeriac dead`: the messages that were put aside, with the reason; shows them, sends them again, deletes them.

A body is opened only if its content type is one that the app accepts: what can't be trusted is not decoded here either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from celeriac.app import Celeriac
from celeriac.cli.command_context import CommandContext
from celeriac.cli.group import Group, option
from celeriac.cli.problems import Failure
from celeriac.cli.table import age, table
from celeriac.errors import DecodeError, InvalidTaskError
from celeriac.hiding import texts_of
from celeriac.message import DeadLetter, Message
from celeriac.safe_repr import saferepr
from celeriac.signature import maybe_signature
from celeriac.wire.messages import decode_body

__all__ = ["dead"]

#: Letters that are fetched at once for `--all`.
BATCH = 500
#: Characters of a reason in the table.
_REASON = 80


@click.group(cls=Group)
def dead() -> None:
    """Show dead letters, send them again or delete them."""


def _app_with_dead_letters(context: CommandContext) -> Celeriac:
    app = context.find_app()
    if not app.transport.capabilities.dead_letters:
        raise Failure(f"The broker {app.transport.url} keeps no dead letters that can be listed.")
    return app


@dead.command(name="list")
@option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@option("-Q", "--queue", help="Only those of this queue.")
@click.pass_obj
def list_letters(context: CommandContext, /, limit: int, queue: str | None) -> int:
    """Show dead letters, newest first."""
    letters = _app_with_dead_letters(context).transport.dead_letters(limit, queue)
    if not letters:
        context.say("There are no dead letters.")
        return 0
    now = time.time()
    rows = [
        (each.key, each.message.task or "?", each.message.id or "?", each.queue, age(now - each.died_at), _short(each))
        for each in letters
    ]
    click.echo(table(("key", "task", "id", "queue", "age", "reason"), rows))
    return 0


def _short(letter: DeadLetter) -> str:
    reason = " ".join(letter.reason.split())
    return reason if len(reason) <= _REASON else reason[: _REASON - 1] + "…"


@dead.command()
@click.argument("key")
@click.pass_obj
def show(context: CommandContext, /, key: str) -> int:
    """Show the dead letter KEY (its key or its task's id): headers, body, and why it died."""
    app = _app_with_dead_letters(context)
    letter = app.transport.dead_letter(key)
    if letter is None:
        raise Failure(f"There is no dead letter {key!r}.")
    message = letter.message
    facts: dict[str, Any] = {
        "key": letter.key,
        "task": message.task or "?",
        "id": message.id or "?",
        "queue": letter.queue,
        "reason": letter.reason,
        "died at": datetime.fromtimestamp(letter.died_at, UTC).isoformat(timespec="seconds"),
        "deliveries": letter.deliveries,
        "starts": letter.starts,
        "content": f"{message.content_type}, {message.content_encoding}, {len(message.body)} bytes",
    }
    click.echo("\n".join(f"{name:<11} {value}" for name, value in facts.items()))
    click.echo("\nheaders")
    click.echo("\n".join(f"  {name}: {saferepr(value)}" for name, value in sorted(message.headers.items())) or "  none")
    click.echo("\nbody")
    click.echo("\n".join(f"  {line}" for line in _body_lines(app, message)))
    return 0


def _body_lines(app: Celeriac, message: Message) -> list[str]:
    try:
        body = decode_body(message, app.accept, app.conf.message_max_unpacked_bytes, app.conf.message_max_depth)
    except (DecodeError, InvalidTaskError) as exc:
        return [f"not opened: {exc}"]
    task = app.tasks.get(message.task)
    hidden = texts_of(task.secrets, body.args, body.kwargs) if task is not None and task.secrets else {}
    lines = [
        f"args: {hidden.get('argsrepr') or saferepr(body.args)}",
        f"kwargs: {hidden.get('kwargsrepr') or saferepr(body.kwargs)}",
    ]
    more = {
        name: [maybe_signature(each, app) for each in found]
        for name, found in (("callbacks", body.callbacks), ("errbacks", body.errbacks), ("chain", body.chain))
        if found
    }
    if body.chord:
        more["chord"] = [maybe_signature(body.chord, app)]
    return lines + [f"{name}: {saferepr(value)}" for name, value in more.items() if value]


_KEYS = click.argument("keys", nargs=-1, metavar="[KEY …]")


@dead.command()
@_KEYS
@option("--all", is_flag=True, help="All of them.")
@option("-Q", "--queue", help="With --all: only those of this queue.")
@click.pass_obj
def retry(context: CommandContext, /, keys: tuple[str, ...], all: bool, queue: str | None) -> int:
    """Put dead letters back on their queues, as if they had never been tried."""
    app = _app_with_dead_letters(context)
    return _apply(app, app.transport.replay, "sent again", keys, all, queue)


@dead.command()
@_KEYS
@option("--all", is_flag=True, help="All of them.")
@option("-Q", "--queue", help="With --all: only those of this queue.")
@click.pass_obj
def discard(context: CommandContext, /, keys: tuple[str, ...], all: bool, queue: str | None) -> int:
    """Delete dead letters for good."""
    app = _app_with_dead_letters(context)
    return _apply(app, app.transport.discard, "deleted", keys, all, queue)


def _apply(
    app: Celeriac,
    act: Callable[[Sequence[str]], int],
    done: str,
    keys: tuple[str, ...],
    is_all: bool,
    queue: str | None,
) -> int:
    """Do something to the letters with these keys, or to all; what is not there is named afterwards."""
    if bool(keys) == is_all:
        raise click.UsageError("Name the keys (celeriac dead list shows them), or say --all.")
    number, missing = 0, []
    if is_all:
        # Those that die meanwhile are left: a task that dies again at once would keep this busy for ever.
        total = [letter.key for letter in app.transport.dead_letters(_ALL, queue)]
        for start in range(0, len(total), BATCH):
            number += act(total[start : start + BATCH])
    for key in dict.fromkeys(keys):
        count = act([key])
        number += count
        if not count:
            missing.append(key)
    click.echo(f"{number} dead letter{'' if number == 1 else 's'} {done}.")
    app.close()
    if missing:
        raise Failure(f"There is no dead letter {', '.join(map(repr, missing))}.")
    return 0


#: As many as there are.
_ALL = 2**31 - 1
