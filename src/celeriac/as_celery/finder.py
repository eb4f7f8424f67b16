"""Makes the modules `celery.*` and `kombu.*` from the table in `names`.

A module is made when it is imported and holds nothing; a name is looked up when it is first used. What is not there yet
raises an ImportError that says so, what does not exist at all the usual one. All modules count as packages, so that
`from celery.x import y` asks this finder for a `y` that the module does not have, and gets the better message.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from celeriac.as_celery.later import LATER
from celeriac.as_celery.names import NAMES
from celeriac.errors import near_match

__all__ = ["ROOTS", "AliasFinder", "AliasModule", "resolve"]

#: The packages that are ours under the hook.
ROOTS = ("celery", "kombu")
#: Modules whose names Celery documents as there to be assigned: what a program puts there is put into ours.
ASSIGNED = ("celery.app.trace",)


class AliasModule(ModuleType):
    """A module whose names are celeriac's."""

    def __getattr__(self, name: str) -> Any:
        path = f"{self.__name__}.{name}"
        names = NAMES[self.__name__]
        if name in names:
            value = resolve(names[name])
        elif name == "__all__":
            value = sorted(key for key in names if not key.startswith("_"))
        elif path in NAMES:
            value = importlib.import_module(path)
        else:
            raise AttributeError(_missing(path), name=name, obj=self)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__name__ in ASSIGNED and name in NAMES[self.__name__]:
            module, _, attribute = NAMES[self.__name__][name].partition(":")
            setattr(importlib.import_module(module), attribute, value)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *NAMES[self.__name__]})


class AliasFinder(MetaPathFinder, Loader):
    """Finds the modules under `ROOTS`, whatever else is installed under these names."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """The module's spec.

        Raises:
            ImportError: The name is Celery's, but this version does not have it; or it is nobody's.
        """
        if fullname.partition(".")[0] not in ROOTS:
            return None
        if fullname in NAMES:
            return ModuleSpec(fullname, self, origin="celeriac.as_celery", is_package=True)
        # Python takes the first for "try something else", and shows the second to whoever imports.
        kind = ImportError if fullname in LATER else ModuleNotFoundError
        raise kind(_missing(fullname), name=fullname)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module."""
        return AliasModule(spec.name, f"`{spec.name}`, as celeriac has it.")

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names are looked up when they are used."""


def resolve(target: str) -> Any:
    """The object at "module:attribute"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _missing(path: str) -> str:
    if path in LATER:
        return f"{path}: this version of celeriac does not have it yet; it comes with {LATER[path]}"
    parent, _, name = path.rpartition(".")
    if name.startswith("__"):
        return f"module {parent!r} has no attribute {name!r}"
    inner = (known.rpartition(".") for known in (*NAMES, *LATER))
    siblings = {*NAMES.get(parent, ()), *(last for place, _, last in inner if place == parent)}
    return f"celeriac has nothing in the place of {path}.{near_match(name, siblings)}"
