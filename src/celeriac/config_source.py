"""Where settings come from: modules, classes, objects, mappings, the environment and the command line.

`config.load` calls this and builds the settings object from what it returns. Names are mapped to the settings of the
table here: Celery's old upper-case names, names with a namespace's prefix, `worker.concurrency=4`. Invariant: every name
that was meant as a setting ends in `values` or in `unknown`; nothing is dropped silently.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.setting_kind import REFUSED
from celeriac.setting_table import OLD_NAMES, TABLE

__all__ = [
    "Found", "from_cmdline", "meant", "misspelt_variables", "read_environment", "read_source", "register_installed",
]  # fmt: skip

#: Values that nobody keeps in a configuration under a setting's kind of name without meaning a setting.
_PLAIN = (str, bytes, bool, int, float, type(None), list, tuple, set, frozenset, dict, timedelta)

#: Celery's variables, which override the configuration.
_CELERY_VARIABLES = ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND")

#: How alike a variable must be to a setting's name to be taken for a slip. Other programs' variables are not ours.
_SLIP = 0.87


class Found(msgspec.Struct, frozen=True):
    """What one source holds.

    Attributes:
        values: By new name, not yet checked.
        unknown: Values that no setting has the name of.
        problems: One line for each of the unknown.
        renamed: Old names that were used, to the new ones.
    """

    values: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    problems: list[str] = []
    renamed: dict[str, str] = {}


def read_source(source: Any, namespace: str | None = None, silent: bool = False) -> Found:
    """The settings of a mapping, module, class, instance, or of what is at 'package.module' or 'package.module:attr'.

    Raises:
        ImportError: There is no such module; not with `silent`.
        ImproperlyConfigured: The source mixes old and new names.
    """
    if isinstance(source, str):
        try:
            source = _import(source)
        except ImportError:
            if silent:
                return Found()
            raise
    if namespace:
        return _read_prefixed(source, namespace if namespace.endswith("_") else f"{namespace}_")
    values = dict(source) if isinstance(source, Mapping) else _settings_of(source)
    return _read_unprefixed(values, _name_of(source), is_object=not isinstance(source, Mapping))


def _import(path: str) -> Any:
    module_name, colon, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        parent, _, attribute = module_name.rpartition(".")
        if colon or not parent or exc.name != module_name:
            raise
        module, module_name = importlib.import_module(parent), parent
    if not attribute:
        return module
    if not hasattr(module, attribute):
        hint = near_match(attribute, vars(module))
        raise ImportError(f"there is no {attribute!r} in the module {module_name!r}.{hint}", name=module_name)
    return getattr(module, attribute)


def _name_of(source: Any) -> str:
    if isinstance(source, Mapping):
        return "the settings"
    return str(getattr(source, "__name__", type(source).__name__))


def _names_of(source: Any) -> Iterable[str]:
    # A pydantic model has more public attributes than its fields.
    fields = getattr(type(source), "model_fields", None)
    names: Iterable[str] = fields if isinstance(fields, Mapping) else dir(source)
    return [name for name in names if not name.startswith("_")]


def _settings_of(source: Any) -> dict[str, Any]:
    """The attributes that count: known names, and lower-case plain values, for they were meant as settings."""
    found = {}
    for name in _names_of(source):
        if name not in TABLE and name not in OLD_NAMES and not name.islower():
            continue
        value = getattr(source, name)
        if not _is_helper(name, value):
            found[name] = value
    return found


#: What an import or a `def` leaves in a module, as `inspect.isclass` and `inspect.isroutine` know it.
_CODE = (
    types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.MethodType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.MethodWrapperType,
)  # fmt: skip


def _is_helper(name: str, value: Any) -> bool:
    if name not in TABLE and name not in OLD_NAMES:
        return type(value) not in _PLAIN
    # `from datetime import timezone` is an import, not a setting; a function is one where the setting takes it.
    is_code = isinstance(value, _CODE)
    own_name = str(getattr(value, "__name__", "")).rpartition(".")[2]
    return is_code and own_name == name and TABLE[OLD_NAMES.get(name, name)].kind.accept(value) is REFUSED


def _read_unprefixed(values: Mapping[str, Any], where: str, is_object: bool) -> Found:
    new = {name: value for name, value in values.items() if name in TABLE}
    old = {name: value for name, value in values.items() if name in OLD_NAMES}
    unknown = {name: value for name, value in values.items() if name not in new and name not in old}
    # A constant BROKER_URL beside broker_url is no setting of its own.
    renamed = {name: OLD_NAMES[name] for name in old if OLD_NAMES[name] not in new}
    if new and renamed:
        pairs = ", ".join(f"{name} to {to}" for name, to in renamed.items())
        raise ImproperlyConfigured(f"{where}: old and new names of settings are mixed. Rename {pairs}.")
    problems = [f"{where}: {name!r} is not a setting.{meant(str(name))}" for name in unknown]
    if is_object and problems:
        problems[-1] += " (The name of a helper starts with an underscore.)"
    return Found({**new, **{to: old[name] for name, to in renamed.items()}}, unknown, problems, renamed)


def _read_prefixed(source: Any, prefix: str) -> Found:
    """Only names with the prefix, in its case: CELERY_TASK_SERIALIZER is task_serializer."""
    is_mapping = isinstance(source, Mapping)
    found = Found()
    for name in source if is_mapping else dir(source):
        if not isinstance(name, str) or not name.startswith(prefix) or name.isupper() != prefix.isupper():
            continue
        value = source[name] if is_mapping else getattr(source, name)
        setting_name = name[len(prefix) :].lower()
        if setting_name in TABLE:
            found.values[setting_name] = value
        else:
            found.unknown[setting_name] = value
            found.problems.append(f"{_name_of(source)}: {name!r} is not a setting.{meant(name, prefix)}")
    return found


def register_installed() -> bool:
    """Import what installed packages name as `celeriac.settings`: modules that call `register_setting`.

    Only when a name is unknown, for looking at what is installed takes time. Returns whether there is anything new.
    """
    before = len(TABLE)
    metadata = importlib.import_module("importlib.metadata")  # takes longer to import than all of this package
    for entry in metadata.entry_points(group="celeriac.settings"):
        entry.load()
    return len(TABLE) > before


def meant(name: str, prefix: str = "") -> str:
    """A hint such as ` Did you mean 'task_acks_late'?`, in the style of names that `prefix` stands for."""

    def spelt(setting_name: str) -> str:
        return prefix + (setting_name.upper() if prefix.isupper() else setting_name)

    bare = name.removeprefix(prefix).lower()
    for exact in (bare, bare.removeprefix("celery_"), OLD_NAMES.get(name.upper(), "")):
        if exact in TABLE:
            return f" Did you mean {spelt(exact)!r}?"
    return near_match(spelt(bare), [spelt(setting_name) for setting_name in TABLE])


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Settings from CELERIAC_* variables, and from those that Celery reads; empty ones count as absent.

    Raises:
        ImproperlyConfigured: The text of a variable can't be read as its setting's type.
    """
    found = {}
    names = {f"CELERY_{name}": name.lower() for name in _CELERY_VARIABLES}
    names.update({f"CELERIAC_{name.upper()}": name for name in TABLE})
    for variable, name in names.items():
        text = environ.get(variable)
        if not text:
            continue
        try:
            found[name] = TABLE[name].parse(text)
        except ImproperlyConfigured as exc:
            raise ImproperlyConfigured(f"environment variable {variable}: {exc}") from None
    return found


def misspelt_variables(environ: Mapping[str, str]) -> list[str]:
    """One line for each CELERIAC_* variable that is nearly, but not quite, a setting."""
    lines = []
    for variable in environ:
        prefix, _, rest = variable.partition("_")
        if prefix != "CELERIAC" or rest.lower() in TABLE:
            continue
        import difflib  # here, since few need it and every import of celeriac would pay for it

        close = difflib.get_close_matches(rest.lower(), TABLE, n=1, cutoff=_SLIP)
        lines += [f"environment variable {variable} is no setting; did you mean CELERIAC_{c.upper()}?" for c in close]
    return lines


def from_cmdline(argv: Sequence[str]) -> dict[str, Any]:
    """Settings from arguments such as `worker.prefetch_multiplier=10` or `task_acks_late=true`.

    Raises:
        ImproperlyConfigured: An argument has no `=`, an unknown name, or a value that its setting does not take.
    """
    found = {}
    for argument in argv:
        key, equals, text = argument.partition("=")
        name = key.strip().replace(".", "_").lower()
        if not equals:
            raise ImproperlyConfigured(f"{argument!r} is not of the form setting=value")
        if name not in TABLE:
            raise ImproperlyConfigured(f"{key!r} is not a setting.{meant(name)}")
        found[name] = TABLE[name].parse(text)
    return found
