"""`celeriac doctor`: examines broker, result store, settings and durability, and says in plain words what is wrong.

The examination itself is `celeriac.doctor`. Here is what people and programs get of it: a table, or JSON; exit code 1 if
anything does not work. Invariant: every text goes through `one_line`, so no password of a URL is shown.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import warnings
from collections.abc import Iterator

import click

from celeriac import __version__
from celeriac.app import Celeriac
from celeriac.bug_report import installed_packages
from celeriac.cli.command_context import CommandContext, settings_of
from celeriac.cli.group import option
from celeriac.cli.problems import one_line
from celeriac.doctor import Finding, Level, examine
from celeriac.errors import CeleriacError

__all__ = ["doctor"]

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command()
@option("-j", "--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE …]")
@click.pass_obj
def doctor(context: CommandContext, /, as_json: bool, settings: tuple[str, ...]) -> int:
    """Check broker, result store and settings; say what is wrong and what to do.

    The exit code is 1 if something does not work, else 0, also with warnings.
    """
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for finding in _examined(context, settings, caught):
            found.append(finding)
            if not as_json:
                _print(context, finding)
    failures = sum(finding.level is Level.FAIL for finding in found)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
    elif not context.is_quiet:
        concerns = sum(finding.level is Level.WARN for finding in found)
        click.echo(f"\n{_count(failures, 'failure')}, {_count(concerns, 'warning')}")
    return 1 if failures else 0


def _examined(
    context: CommandContext, settings: tuple[str, ...], caught: list[warnings.WarningMessage]
) -> Iterator[Finding]:
    yield Finding(Level.OK, "versions", _versions())
    try:
        app = context.find_app(settings_of(settings))
        assert isinstance(app, Celeriac)
        _ = app.conf  # read now, so that what it warns of comes first
    except CeleriacError as exc:
        yield Finding(Level.FAIL, "settings", str(exc), "Correct it: no program of this app starts with that.")
        return
    seen = 0
    for finding in examine(app):
        yield from _warned(caught[seen:])
        seen = len(caught)
        yield finding
    yield from _warned(caught[seen:])
    app.close()


def _warned(caught: list[warnings.WarningMessage]) -> Iterator[Finding]:
    for each in caught:
        if not issubclass(each.category, (ResourceWarning, ImportWarning)):
            yield Finding(Level.WARN, "settings", str(each.message))


def _versions() -> str:
    own = [f"celeriac {__version__}", f"python {platform.python_version()}", f"sqlite {sqlite3.sqlite_version}"]
    return ", ".join([*own, *installed_packages()])


def _print(context: CommandContext, finding: Finding) -> None:
    if context.is_quiet and finding.level is Level.OK:
        return
    word = click.style(finding.level.value.ljust(4), fg=_COLOURS[finding.level])
    click.echo(f"{word}  {finding.topic.ljust(12)}  {one_line(finding.text)}", color=context.colour)
    if finding.advice:
        click.echo(f"{'':20}→ {one_line(finding.advice)}", color=context.colour)


def _as_json(found: list[Finding]) -> dict[str, object]:
    return {
        "ok": all(finding.level is not Level.FAIL for finding in found),
        "findings": [
            {
                "level": finding.level.value,
                "topic": finding.topic,
                "text": one_line(finding.text),
                "advice": one_line(finding.advice) if finding.advice else "",
            }
            for finding in found
        ],
    }


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
