"""What the global options say, and the app that a command works with.

Made by the group, handed to every command. Commands that talk to a broker can do without an app if they are told where the
broker is; a command that would have to guess says so instead.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.app import Celeriac
from celeriac.cli.problems import ImportProblem
from celeriac.config import from_cmdline
from celeriac.errors import CeleriacError, ImproperlyConfigured
from celeriac.loading import AppNotFound, find_app

if TYPE_CHECKING:
    from celeriac.results.base import ResultStore

__all__ = ["CommandContext", "result_store", "settings_of"]

#: Variables that say where the broker is.
_BROKER_VARIABLES = ("CELERIAC_BROKER_URL", "CELERY_BROKER_URL", "CELERIAC_CONFIG_MODULE", "CELERY_CONFIG_MODULE")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """The global options.

    Attributes:
        app_name: What `-A` names.
        app: The app that the command line was called with (`app.start()`).
        changes: Settings from global options.
        started_in: The directory before `--workdir`.
        command, arguments: Name of the command and what stands behind it; filled in when it is read.
    """

    app_name: str | None = None
    app: Celeriac | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    has_config: bool = False
    is_quiet: bool = False
    colour: bool | None = None
    started_in: Path = Path()
    command: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def find_app(self, changes: Mapping[str, Any] | None = None) -> Celeriac:
        """The app, with the settings of the command line laid over its own.

        Raises:
            UsageError: There is no such app, or none was named and nothing says where the broker is.
            ImportProblem: Importing it raised.
        """
        app = self.own_app()
        if app is None:
            if not (self.changes.get("broker_url") or self.has_config or any(map(os.environ.get, _BROKER_VARIABLES))):
                raise click.UsageError("Which app? Name it with -A module, or the broker alone with -b URL.")
            app = Celeriac("default", set_as_current=False)
        over = {**self.changes, **(changes or {})}
        if over:
            app.conf.update(over)
        app.finalize()
        if self.command:  # once
            app.tell_preload_options(self.command.pop(), self.arguments)
        return app

    def own_app(self) -> Celeriac | None:
        """The app as it is; None if none was named."""
        return self._named_app() if self.app_name else self.app

    def _named_app(self) -> Celeriac:
        try:
            app: Celeriac = find_app(str(self.app_name))
        except AppNotFound as exc:
            raise click.UsageError(str(exc)) from exc
        except CeleriacError:
            raise
        except Exception as exc:  # the user's modules: any error of theirs is shown with its traceback
            text = f"importing {self.app_name!r} failed: {type(exc).__name__}: {exc}"
            raise ImportProblem(text, traceback.format_exc()) from exc
        return app

    def say(self, text: str) -> None:
        """Print what is not the result itself; nothing with `-q`."""
        if not self.is_quiet:
            click.echo(text)


def settings_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Settings from the arguments `name=value` that stand after `--`.

    Raises:
        UsageError: One is no setting, or its value is not allowed.
    """
    try:
        return from_cmdline(arguments)
    except ImproperlyConfigured as exc:
        raise click.UsageError(str(exc)) from exc


def result_store(app: Celeriac) -> ResultStore:
    """The app's result store.

    Raises:
        UsageError: It has none.
    """
    store = app.backend
    if store is None:
        raise click.UsageError(
            "This app keeps no results: result_backend is disabled. Name a store with --result-backend."
        )
    return store
