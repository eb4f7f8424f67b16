"""Which app a worker runs: the name by which its zygote imports it, or the object that the command line was called with.

`worker` calls `worker_app`. A worker whose app has no importable name can only be a solo one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from celeriac.cli.command_context import CommandContext
from celeriac.loading import import_object
from celeriac.runner.zygote import tell_init
from celeriac.worker.options import WorkerOptions

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["WorkerApp", "worker_app"]


@dataclass(frozen=True, slots=True)
class WorkerApp:
    """The app of a worker.

    Attributes:
        name: By which it can be imported in another process; None if it can't.
    """

    name: str | None

    def load(self, context: CommandContext, options: WorkerOptions) -> Celeriac:
        """Import the app and its task modules here, with the settings of the command line."""
        app = context.find_app(options.changes)
        tell_init(app, options, context.arguments)
        app.import_modules()
        for module in options.include:
            import_object(module, "--include")
        return app


def worker_app(context: CommandContext) -> WorkerApp:
    """The app that the worker is to run.

    Raises:
        UsageError: None was named.
    """
    if context.app_name:
        return WorkerApp(context.app_name)
    if context.app is None:
        raise click.UsageError("Which app? A worker needs one: celeriac -A module worker.")
    return WorkerApp(_importable_name(context.app))


def _importable_name(app: Celeriac) -> str | None:
    """module:attribute of an app that is a global of some module, `__main__` under its real name."""
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return f"{_real_name(name)}:{attribute}" if _real_name(name) else None
    return None


def _real_name(name: str) -> str | None:
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)  # python -m package.module
    path = getattr(main, "__file__", None)
    if not path:
        return None  # an interactive session
    # `python folder/tasks.py` looks for modules in that folder first; so must the zygote.
    folder = str(Path(path).absolute().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    return Path(path).stem
