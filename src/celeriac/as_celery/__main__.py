"""`python -m celeriac.as_celery …`: runs a script, a module or the command line under the import hook."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

import click

from celeriac import cli
from celeriac.as_celery import install
from celeriac.as_celery.listing import print_names
from celeriac.cli.group import COMMANDS, hoisted

__all__ = ["main"]

USAGE = """\
Usage: python -m celeriac.as_celery SCRIPT.py [arguments]     run a script
       python -m celeriac.as_celery -m MODULE [arguments]     run a module, such as pytest
       python -m celeriac.as_celery [-A APP] COMMAND …        what `celery` does: worker, call, inspect, …
       python -m celeriac.as_celery --names                   which names of Celery's there are

Under the hook, imports of celery and kombu are celeriac's. With the module celery (-m celery …) it is the command line, too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments say; returns the exit code. A script or module that exits by itself does so here."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        click.echo(USAGE)
        return 0
    install()
    if first == "--names":
        print_names()
        return 0
    if first == "-m":
        return _run_module(arguments[1:])
    if _is_script(first):
        return _run_script(arguments)
    return cli.main(hoisted(arguments))


def _run_module(arguments: list[str]) -> int:
    if not arguments:
        click.echo(USAGE, err=True)
        return 2
    module, *rest = arguments
    if module == "celery":
        return cli.main(hoisted(rest))
    # As `python -m` has it: the working directory comes first on the path, and runpy puts the file's name in argv[0].
    sys.path[0] = os.getcwd()
    sys.argv = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _run_script(arguments: list[str]) -> int:
    script = arguments[0]
    if not os.path.exists(script):
        click.echo(f"Error: there is no script {script!r}.", err=True)
        return 2
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    sys.argv = arguments
    runpy.run_path(script, run_name="__main__")
    return 0


def _is_script(text: str) -> bool:
    return text not in COMMANDS and not text.startswith("-") and (text.endswith(".py") or os.path.exists(text))


if __name__ == "__main__":
    sys.exit(main())
