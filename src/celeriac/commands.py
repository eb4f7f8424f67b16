"""Control commands of a user's own: registered when the app's modules are imported, run by workers, called by clients.

`@control_command` changes something, `@inspect_command` asks. A worker whose app has any imports the app into its supervisor,
which it does not otherwise; the command line offers them with their arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

__all__ = ["CommandInfo", "Panel", "control_command", "inspect_command", "own_commands"]

F = TypeVar("F", bound=Callable[..., Any])


class CommandInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A command.

    Attributes:
        handler: Called with the worker's state and the arguments.
        type: "control" or "inspect".
        args: Names and types of its arguments on the command line.
        variadic: Name of the last argument, if that takes all that are left.
    """

    name: str
    handler: Callable[..., Any]
    type: str
    alias: str | None = None
    help: str = ""
    args: Sequence[tuple[str, Callable[[str], Any]]] = ()
    signature: str = ""
    variadic: str | None = None
    default_timeout: float = 1.0
    visible: bool = True


_own: dict[str, CommandInfo] = {}


def own_commands() -> dict[str, CommandInfo]:
    """The commands that were registered in this process."""
    return dict(_own)


def control_command(*args: Any, **options: Any) -> Any:
    """Register a command that changes something: `@control_command(args=[("n", int)], signature="[N=1]")`.

    Args:
        name: Its name (default: the function's).
        args: Names and types of its arguments on the command line.
        signature: Its arguments as help shows them.
        alias, help, variadic, default_timeout, visible: As in `CommandInfo`.
    """
    return _register(args, "control", options)


def inspect_command(*args: Any, **options: Any) -> Any:
    """Register a command that asks; see `control_command`."""
    return _register(args, "inspect", options)


def _register(args: tuple[Any, ...], kind: str, options: dict[str, Any]) -> Any:
    def register(function: F) -> F:
        given = {key: value for key, value in options.items() if value is not None}
        name = given.pop("name", None) or function.__name__
        help_ = given.pop("help", None) or (function.__doc__ or "").strip().partition("\n")[0]
        info = CommandInfo(name=name, handler=function, type=kind, help=help_, **given)
        _own[name] = info
        if info.alias:
            _own[info.alias] = msgspec.structs.replace(info, visible=False)
        return function

    return register(args[0]) if args and callable(args[0]) else register


class Panel:
    """Celery's older way of adding a command: `@Panel.register`."""

    register = staticmethod(control_command)
