"""The command `celeriac` itself: global options, and the table of sub-commands, which are imported when they are used.

Options of every command also read the environment: CELERIAC_<COMMAND>_<OPTION>, or CELERY_<COMMAND>_<OPTION>. Invariant:
`celeriac --help` imports no command and no user code; the help of a command imports the app if one is named, for its own options.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from celeriac import __version__
from celeriac.cli.command_context import CommandContext
from celeriac.errors import CeleriacError, near_match
from celeriac.preload import options_of, other_arguments

__all__ = ["LazyGroup", "celeriac", "hoisted", "option"]

F = TypeVar("F", bound=Callable[..., Any])

#: Name → (where it is, the line in the list of commands).
COMMANDS = {
    "call": ("celeriac.cli.call:call", "Send a task by name, and print its id."),
    "control": ("celeriac.cli.control:control", "Tell workers what to do: revoke, limits, queues, pool, shutdown."),
    "dead": ("celeriac.cli.dead:dead", "Show dead letters, send them again or delete them."),
    "demo": ("celeriac.cli.demo:demo", "See it work: many tasks, a killed runner, nothing lost."),
    "doctor": ("celeriac.cli.doctor:doctor", "Check broker, result store and settings; say what is wrong."),
    "inspect": ("celeriac.cli.inspect:inspect", "Ask workers what they run, hold and know."),
    "list": ("celeriac.cli.listing:listing", "Show queues, their bindings and their sizes."),
    "migrate": ("celeriac.cli.migrate:migrate", "Copy or move messages from one broker to another."),
    "purge": ("celeriac.cli.purge:purge", "Delete waiting messages from queues."),
    "queue": ("celeriac.cli.queue:queue", "Pause queues, and let them go on."),
    "report": ("celeriac.cli.report:report", "Print what a bug report should say about this installation."),
    "result": ("celeriac.cli.result:result", "Wait for the result of a task, and print it."),
    "status": ("celeriac.cli.status:status", "List the workers that answer."),
    "worker": ("celeriac.cli.worker:worker", "Run a worker."),
    "workflow": ("celeriac.cli.workflow:workflow", "Show the tree of a workflow: states, times, errors."),
}

#: Options that stand before the command; people who come from older versions of Celery write them after it.
_GLOBAL = {
    "-A": "--app", "-b": "--broker", "--app": "--app", "--broker": "--broker", "--config": "--config",
    "--result-backend": "--result-backend", "--workdir": "--workdir",
}  # fmt: skip


class EnvironmentOption(click.Option):
    """An option that reads CELERIAC_<COMMAND>_<OPTION>, or else CELERY_<COMMAND>_<OPTION>."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value from the environment, or None."""
        found = super().resolve_envvar_value(ctx)
        prefix = ctx.auto_envvar_prefix
        if found is None and prefix is not None and self.name is not None:
            found = os.environ.get(f"CELERY{prefix.removeprefix('CELERIAC')}_{self.name.upper()}") or None
        return found


def option(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` that also reads Celery's variables."""
    return click.option(*declarations, cls=EnvironmentOption, **attributes)


class _Late:
    """A command that may turn out to be given options of the app's own, which only the app knows."""

    def __init__(self, command: click.Command) -> None:
        self._command = command

    def make_context(self, info_name: str, args: list[str], parent: click.Context, **extra: Any) -> click.Context:
        """Read the arguments; if one is unknown, ask the app whether it is one of its options."""
        context: CommandContext = parent.obj
        context.arguments[:] = args
        context.command[:] = [info_name]
        if _asks_for_help(args) and (context.app_name or context.app):
            self._help(context, info_name, args, parent)
        try:
            return self._command.make_context(info_name, list(args), parent=parent, **extra)
        except click.NoSuchOption:
            app = context.own_app()
            if app is None or not options_of(app, info_name):
                raise
            rest = other_arguments(app, info_name, args)
        return self._command.make_context(info_name, rest, parent=parent, **extra)

    def _help(self, context: CommandContext, info_name: str, args: list[str], parent: click.Context) -> None:
        """Show the command's help with the options of the app, if it has any, and end."""
        try:
            app = context.own_app()
        except (click.ClickException, CeleriacError) as exc:
            click.echo(f"Without options of the app itself: {exc}", err=True)
            return
        own = [] if app is None else options_of(app, info_name)
        if not own:
            return
        command, ctx = self._command, click.Context(self._command, info_name=info_name, parent=parent)
        for word in args:
            inner = command.get_command(ctx, word) if isinstance(command, click.Group) else None
            if inner is not None:
                command, ctx = inner, click.Context(inner, info_name=word, parent=ctx)
        shown = copy.copy(command)
        shown.params = [*command.params, *own]
        click.echo(shown.get_help(ctx), color=ctx.color)
        ctx.exit()


def _asks_for_help(args: Sequence[str]) -> bool:
    own = list(args)
    return any(word in ("-h", "--help") for word in own[: own.index("--") if "--" in own else None])


class Group(click.Group):
    """A group whose mistyped commands get a hint."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that the arguments name."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(f"No such command {args[0]!r}.{near_match(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """The group of all commands; each is imported when it is called."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that the arguments name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _Late(command), rest

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, imported now."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a global option that stands after it is explained."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as exc:
            if exc.option_name not in _GLOBAL:
                raise
            command = ctx.invoked_subcommand
            raise click.UsageError(
                f"{exc.option_name} is a global option and goes before the command: "
                f"celeriac {exc.option_name} … {command}",
                ctx,
            ) from None


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Arguments with the global options that stand after the command moved before it, as older versions of Celery took them."""
    front: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting and waiting[0] != "--":
        word = waiting.pop(0)
        option, equals, _ = word.partition("=")
        if option in _GLOBAL and (option.startswith("--") or not equals):
            front += [word] if equals else [word, *waiting[:1]]
            del waiting[: 0 if equals else 1]
        elif word.startswith("-A") and rest:  # -Aproj
            front.append(word)
        else:
            rest.append(word)
    return [*front, *rest, *waiting]


def _names(variable: str) -> list[str]:
    return [f"CELERIAC_{variable}", f"CELERY_{variable}", variable]


def _refuse_loader(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value and value != "default":
        raise click.BadParameter("celeriac has no loader classes; name the app with -A and its settings with --config")


@click.group(
    cls=LazyGroup, context_settings={"auto_envvar_prefix": "CELERIAC", "help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)  # fmt: skip
@click.option("-A", "--app", "app_name", envvar=_names("APP"), help="The app: module, or module:attribute.")
@click.option("-b", "--broker", envvar=_names("BROKER_URL"), help="URL of the broker.")
@click.option("--result-backend", envvar=_names("RESULT_BACKEND"), help="URL of the result store.")
@click.option("--loader", envvar=_names("LOADER"), callback=_refuse_loader, expose_value=False, hidden=True)
@click.option("--config", envvar=_names("CONFIG_MODULE"), help="Module with the settings.")
@click.option("--workdir", type=click.Path(exists=True, file_okay=False), help="Change to this directory first.")
@click.option("-C", "--no-color", is_flag=True, envvar=_names("NO_COLOR"), help="No colours.")
@click.option("-q", "--quiet", is_flag=True, help="Say less.")
@click.option("--skip-checks", is_flag=True, envvar=_names("SKIP_CHECKS"), help="No system checks of Django.")
@click.version_option(__version__, message="celeriac %(version)s")
@click.pass_context
def celeriac(
    ctx: click.Context,
    app_name: str | None,
    broker: str | None,
    result_backend: str | None,
    config: str | None,
    workdir: str | None,
    no_color: bool,
    quiet: bool,
    skip_checks: bool,
) -> None:
    """A distributed task queue that keeps what it accepted.

    Most commands need an app: celeriac -A module COMMAND. Every option of a command can be given by the environment as
    CELERIAC_<COMMAND>_<OPTION>.
    """
    started_in = Path.cwd()
    if workdir:
        os.chdir(workdir)
        sys.path.insert(0, "")
    if no_color:
        ctx.color = False
        os.environ["NO_COLOR"] = "1"
    if config:
        os.environ["CELERIAC_CONFIG_MODULE"] = config  # where the app looks, in this process and its children
    if skip_checks:
        os.environ["CELERY_SKIP_CHECKS"] = "1"
    urls = {"broker_url": broker, "result_backend": result_backend}
    ctx.obj = CommandContext(
        app_name=app_name,
        app=ctx.obj,
        changes={name: value for name, value in urls.items() if value},
        has_config=bool(config),
        is_quiet=quiet,
        colour=False if no_color else None,
        started_in=started_in,
    )
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
