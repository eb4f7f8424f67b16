"""Options of the user's own: `app.user_options`. Those of "preload" every command takes, those of "worker" that one.

The command line takes them out of a command's arguments. Each process that imports the app for the command, a worker's runners
among them, is told what they say before the command begins: by the signal `user_preload_options`, or by `celeryd_init` what
those of a worker say. Imported where an app has such options only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from celeriac import signals

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["command_options", "options_of", "other_arguments", "tell_preload_options"]


def options_of(app: Celeriac, command: str) -> list[click.Option]:
    """The options of the user's own that a command takes."""
    own = {*app.user_options["preload"], *app.user_options.get(command, ())}
    return sorted(own, key=lambda option: str(option.name))


def tell_preload_options(app: Celeriac, command: str, arguments: Sequence[str]) -> None:
    """Send the signal, with the values that these arguments of a command give, or else the options' defaults.

    Raises:
        click.UsageError: A value is wrong.
    """
    values = _values(app, command, arguments, app.user_options["preload"])
    signals.user_preload_options.send(sender=command, app=app, options=values)


def command_options(app: Celeriac, command: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What the options say that this command alone takes.

    Raises:
        click.UsageError: A value is wrong.
    """
    return _values(app, command, arguments, app.user_options[command])


def other_arguments(app: Celeriac, command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments that are the command's own.

    Raises:
        click.UsageError: A value is wrong.
    """
    return _parsed(app, command, arguments)[1]


def _values(app: Celeriac, command: str, arguments: Sequence[str], wanted: Iterable[click.Option]) -> dict[str, Any]:
    values, _ = _parsed(app, command, arguments)
    names = {option.name for option in wanted}
    return {name: value for name, value in values.items() if name in names}


def _parsed(app: Celeriac, command: str, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    bare = click.Command(
        command, params=list(options_of(app, command)), add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )  # fmt: skip
    # What stands behind `--` is the command's, and so is the mark itself, which click would swallow.
    own = list(arguments)
    end = own.index("--") if "--" in own else len(own)
    with bare.make_context(command, own[:end]) as context:
        return dict(context.params), [*context.args, *own[end:]]
