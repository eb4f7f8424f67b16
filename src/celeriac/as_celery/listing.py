"""Which of the names that Celery documents there are: what `python -m celeriac.as_celery --names` prints."""

from __future__ import annotations

from collections.abc import Mapping

import click
import msgspec

from celeriac.as_celery.finder import resolve
from celeriac.as_celery.later import WAITING
from celeriac.as_celery.names import NAMES

__all__ = ["ModuleNames", "module_names", "print_names"]


class ModuleNames(msgspec.Struct, frozen=True):
    """What became of the names of one module.

    Attributes:
        found: Names that resolve.
        broken: Names that the table has and that don't, with the reason: a mistake of ours.
        later: Names that this version does not have, with what they wait for.
    """

    found: list[str]
    broken: dict[str, str]
    later: dict[str, str]


def module_names() -> dict[str, ModuleNames]:
    """The modules of both tables by path, with their names looked up now. Modules that hold only modules are left out."""
    later: dict[str, dict[str, str]] = {}
    for reason, modules in WAITING.items():
        for path, names in modules.items():
            later.setdefault(path, {}).update(dict.fromkeys(names.split(), reason))
    looked_up = {path: _looked_up(NAMES.get(path, {}), later.get(path, {})) for path in sorted({*NAMES, *later})}
    return {path: names for path, names in looked_up.items() if names.found or names.broken or names.later}


def _looked_up(targets: Mapping[str, str], later: dict[str, str]) -> ModuleNames:
    found, broken = [], {}
    for name, target in targets.items():
        try:
            resolve(target)
        except (ImportError, AttributeError) as exc:
            broken[name] = str(exc)
        else:
            found.append(name)
    return ModuleNames(found, broken, later)


def print_names() -> None:
    """Print a line for each module: how many names there are, and which are missing."""
    modules = module_names()
    for path, names in modules.items():
        missing = [*(f"{name} ({reason})" for name, reason in names.broken.items()), *names.later]
        line = f"{path:36} {len(names.found):4} there {len(missing):4} missing"
        click.echo(f"{line}  {', '.join(missing)}".rstrip())
    there = sum(len(names.found) for names in modules.values())
    broken = sum(len(names.broken) for names in modules.values())
    later = sum(len(names.later) for names in modules.values())
    click.echo(f"{len(modules)} modules: {there} names resolve, {later} come later, {broken} are broken.")
