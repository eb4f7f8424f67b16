"""Options of the user's own that every command takes: `app.user_options["preload"]`, told by the signal `user_preload_options`.

The command line takes them out of a command's arguments; each process that imports the app for the command, a worker's
runners among them, is told what they say before the command begins. Imported where an app has such options only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from celeriac import signals

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["other_arguments", "tell_preload_options"]


def tell_preload_options(app: Celeriac, command: str, arguments: Sequence[str]) -> None:
    """Send the signal, with the values that these arguments of a command give, or else the options' defaults.

    Raises:
        click.UsageError: A value is wrong.
    """
    values, _ = _parsed(app, command, arguments)
    signals.user_preload_options.send(sender=command, app=app, options=values)


def other_arguments(app: Celeriac, command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments that are the command's own.

    Raises:
        click.UsageError: A value is wrong.
    """
    return _parsed(app, command, arguments)[1]


def _parsed(app: Celeriac, command: str, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    options = sorted(app.user_options["preload"], key=lambda option: str(option.name))
    bare = click.Command(
        command, params=options, add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )  # fmt: skip
    # What stands behind `--` is the command's, and so is the mark itself, which click would swallow.
    own = list(arguments)
    end = own.index("--") if "--" in own else len(own)
    with bare.make_context(command, own[:end]) as context:
        return dict(context.params), [*context.args, *own[end:]]
