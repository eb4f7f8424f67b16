"""The settings of an app: one object with a typed attribute for each, and `load`, which reads them from their sources.

The app loads and owns a `Settings` (`app.conf`); everything else is handed it, or values from it. Rank, highest first:
what is set on the object; the environment; `changes`; the configuration source; `add_defaults`; the table. Invariant:
every value is of its setting's type and in its range, checked when it is set, so that reading is a plain attribute read.

`python -m celeriac.config` prints the documentation page of all settings.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote

from celeriac.config_mask import censor, mask_url
from celeriac.config_plain import NotPlain, decode, encode
from celeriac.config_source import (
    from_cmdline,
    meant,
    misspelt_variables,
    read_environment,
    read_source,
    register_installed,
)
from celeriac.errors import CeleriacWarning, ImproperlyConfigured
from celeriac.setting_table import OLD_NAMES, TABLE, SettingTable, register_setting
from celeriac.setting_table_page import settings_page

__all__ = ["Settings", "from_cmdline", "load", "mask_url", "register_setting"]

#: Pairs that brokers refuse to have both.
_EXCLUDING = (
    ("event_queue_durable", "event_queue_exclusive"),
    ("control_queue_durable", "control_queue_exclusive"),
)

#: The parts of a broker URL that older configurations set one by one.
_URL_PARTS = ("broker_host", "broker_port", "broker_user", "broker_password", "broker_vhost")


class Settings(SettingTable, MutableMapping[str, Any]):
    """Settings as attributes and as items.

    Example:
        >>> conf = Settings({"task_serializer": "json"})
        >>> conf.worker_concurrency = 4
        >>> conf["worker_concurrency"], conf.changes
        (4, {'task_serializer': 'json', 'worker_concurrency': 4})
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        """Take the defaults of the table and, above them, `values`."""
        self._own_defaults: dict[str, Any] = {}
        self._added: dict[str, Any] = {}
        self._configured: dict[str, Any] = {}
        self._on_change: Callable[[], None] | None = None
        self._observers: list[Callable[..., Any]] = []
        self._renamed: dict[str, str] = {}
        self.update(values or {})

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call this whenever a setting has changed: the app forgets what it has made of the settings."""
        self._on_change = callback

    # reading

    def __getitem__(self, key: str) -> Any:
        found = self._find(key)
        if found is None:
            raise KeyError(f"there is no setting {key!r}.{meant(str(key))}")
        return self.__dict__[found]

    if not TYPE_CHECKING:  # type checkers shall see the declared settings only

        def __getattr__(self, name: str) -> Any:
            # Only unknown names, old names and late registered settings get here.
            found = None if name.startswith("_") else self._find(name)
            if found is None:
                raise AttributeError(f"there is no setting {name!r}.{meant(name)}", name=name, obj=self)
            return self.__dict__[found]

    def _find(self, key: str) -> str | None:
        """The setting that `key` means, with its value in `__dict__`; None if there is none."""
        if key in OLD_NAMES:
            _warn_renamed({key: OLD_NAMES[key]}, stacklevel=4)
            key = OLD_NAMES[key]
        if key in TABLE and key not in self.__dict__:
            self._resolve()  # registered after this object was made
        return key if key in TABLE or key in self._configured or key in self._added else None

    def __contains__(self, key: object) -> bool:
        return key in TABLE or key in OLD_NAMES or key in self._configured or key in self._added

    def __iter__(self) -> Iterator[str]:
        return iter({**TABLE, **self._added, **self._configured})

    def __len__(self) -> int:
        return len({**TABLE, **self._added, **self._configured})

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self.changes) or 'defaults'}>"

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` if there is no such setting."""
        found = self._find(key)
        return default if found is None else self.__dict__[found]

    def first(self, *keys: str) -> Any:
        """The value of the first of these settings that is not None."""
        return next((value for key in keys if (value := self.get(key)) is not None), None)

    def get_by_parts(self, *parts: str) -> Any:
        """The setting whose name has these parts: ("task", "serializer")."""
        return self["_".join(part for part in parts if part)]

    def value_set_for(self, key: str) -> bool:
        """Whether the setting has been set, to whatever value."""
        return OLD_NAMES.get(key, key) in self.changes

    @property
    def changes(self) -> dict[str, Any]:
        """What was set, by name; with defaults that were changed in place, such as `conf.beat_schedule[...] = ...`."""
        mutated = {name: value for name, value in self._own_defaults.items() if value != TABLE[name].default}
        return {**mutated, **self._configured}

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of each setting."""
        return {**{name: row.fresh_default() for name, row in TABLE.items()}, **self._added}

    def without_defaults(self) -> dict[str, Any]:
        """What differs from the table: what was set, and what `add_defaults` added."""
        return {**self._added, **self.changes}

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Settings by name, those that were set or all, with secrets masked unless `censored` is false."""
        values = dict(self.items()) if with_defaults else self.without_defaults()
        return censor(values) if censored else values

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """`table` as text, one setting a line."""
        return "\n".join(f"{name}: {value!r}" for name, value in self.table(with_defaults, censored).items())

    def copy(self) -> Settings:
        """Another object with the same values, to be changed on its own."""
        other = type(self)()
        other._added = dict(self._added)
        other._configured = {n: copy.copy(v) if isinstance(v, (dict, list)) else v for n, v in self.changes.items()}
        other._resolve()
        return other

    # writing

    if not TYPE_CHECKING:  # assigning an undeclared attribute shall be a type error

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                object.__setattr__(self, name, value)
                return
            if name not in self and self._is_strict({}):
                raise AttributeError(f"there is no setting {name!r}.{meant(name)}", name=name, obj=self)
            self._set({name: value})
            self._tell({name: value})

        def __delattr__(self, name: str) -> None:
            del self[name]

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self and self._is_strict({}):
            raise KeyError(f"there is no setting {key!r}.{meant(str(key))}")
        self._set({key: value})
        self._tell({key: value})

    def __delitem__(self, key: str) -> None:
        """Back to the default."""
        if key not in self:
            raise KeyError(key)
        name = OLD_NAMES.get(key, key)
        self._configured.pop(name, None)
        self._own_defaults.pop(name, None)
        self.__dict__.pop(name, None)
        self._resolve()

    def clear(self) -> None:
        """Everything back to the defaults."""
        for name in self.changes:
            del self[name]

    def update(self, changes: Any = (), /, **settings: Any) -> None:
        """Change several settings at once: all of them, or none if one is wrong.

        Raises:
            ImproperlyConfigured: A name is not a setting, or a value not allowed.
        """
        before = self._configured
        self._set({**dict(changes), **settings})
        try:
            self.validate()
        except ImproperlyConfigured:
            self._configured = before
            self._resolve()
            raise
        self._tell(*([changes] if changes else ()), **settings)

    def _tell(self, *changes: Any, **settings: Any) -> None:
        for callback in self._observers:
            callback(*changes, **settings)

    def add_defaults(self, d: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add values that rank below configured ones and above the table's, from a mapping or a function."""
        values = d() if callable(d) else d
        # None is kept where it is a value of its own, such as "no result store"; elsewhere it says nothing.
        self._added.update({n: v for n, v in self._checked(values).items() if v is not None or _has_none(n)})
        self._resolve()

    def validate(self) -> None:
        """Check what must fit together. `load` and `update` do; after single assignments, call it before use.

        Raises:
            ImproperlyConfigured: Two settings exclude each other.
        """
        for durable, exclusive in _EXCLUDING:
            if self[durable] and self[exclusive]:
                raise _excluded(durable, exclusive)

    def _set(self, changes: Mapping[str, Any]) -> None:
        checked = self._checked(changes)
        configured = {**self._configured, **checked}
        for name in checked:
            if configured[name] is None and name in TABLE and not TABLE[name].has_none:
                del configured[name]  # None where it is no value of its own: the default
        for durable, exclusive in _EXCLUDING:
            # Assigned one after the other, the first of the two may go through a state that is not allowed.
            if configured.get(durable) and configured.get(exclusive):
                raise _excluded(durable, exclusive)
        self._configured = configured
        self._resolve()

    def _checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        renamed = {name: OLD_NAMES[name] for name in changes if name in OLD_NAMES}
        if renamed:
            _warn_renamed(renamed, stacklevel=5)
            self._renamed.update(renamed)
        changes = {OLD_NAMES.get(name, name): value for name, value in changes.items()}
        unknown = [name for name in changes if name not in TABLE and name not in self._configured]
        if unknown:
            problems = [f"{name!r} is not a setting.{meant(str(name))}" for name in unknown]
            _report_unknown(problems, self._is_strict(changes), stacklevel=5)
        return {
            name: value
            if name not in TABLE or (value is None and not TABLE[name].has_none)
            else TABLE[name].check(value)
            for name, value in changes.items()
        }

    def _is_strict(self, changes: Mapping[str, Any]) -> bool:
        return bool(changes.get("strict_settings", self.__dict__.get("strict_settings", True)))

    def _resolve(self) -> None:
        """Write the value of each setting where attribute access finds it."""
        for name, row in TABLE.items():
            if name not in self._own_defaults:
                self._own_defaults[name] = row.fresh_default()
        values = {**self._own_defaults, **self._added, **self._configured}
        if "broker_url" not in {**self._added, **self._configured} and any(
            values[part] is not None for part in _URL_PARTS
        ):
            values["broker_url"] = _broker_url_of(values)
        for name, row in TABLE.items():
            if row.fallback and values[name] is None:
                values[name] = values[row.fallback]
        self.__dict__.update(values)
        if self._on_change is not None:
            self._on_change()

    # under Celery's names; nothing of ours uses them

    #: Celery's function that changes keys; there is none.
    key_t: ClassVar[None] = None

    def bind_to(self, callback: Callable[..., Any]) -> None:
        """Call this after each change, with what `update` was given, or with a dict of the setting that was assigned."""
        self._observers.append(callback)

    @property
    def maps(self) -> list[dict[str, Any]]:
        """What was set, what `add_defaults` added, the defaults: where a setting is looked for, in turn."""
        return [self.changes, dict(self._added), self.defaults]

    def finalize(self) -> Self:
        """Check what must fit together.

        Raises:
            ImproperlyConfigured: Two settings exclude each other.
        """
        self.validate()
        return self

    def find_option(self, name: str, namespace: str = "") -> Any:
        """A setting by its name, by its old name, or by the rest of its name in a namespace; see `celery.app.defaults.find`."""
        return importlib.import_module("celeriac.setting_namespaces").find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """The value of what `find_option` finds: ("serializer", "task") is `task_serializer`."""
        found = self.find_option(name, namespace)
        return self.get_by_parts(found.namespace or "", found.key)

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn of old names that were used, once; returns whether there were any."""
        found, self._renamed = self._renamed, {}
        if found:
            _warn_renamed(found, stacklevel=3)
        return bool(found)

    def swap_with(self, other: Any) -> None:
        """Take the values of other settings, and forget one's own."""
        self._added, self._configured = dict(other._added), dict(other.changes)
        self._own_defaults = {}
        self._resolve()

    @classmethod
    def fromkeys(cls, iterable: Iterable[str], *args: Any) -> Self:
        """Settings that all have this value."""
        return cls(dict.fromkeys(iterable, *args))

    def iteritems(self) -> Iterator[tuple[str, Any]]:
        """Names and values."""
        return iter(self.items())

    def iterkeys(self) -> Iterator[str]:
        """Names."""
        return (name for name, _ in self.items())

    def itervalues(self) -> Iterator[Any]:
        """Values."""
        return (value for _, value in self.items())

    # between processes

    def plain(self) -> tuple[dict[str, Any], list[str]]:
        """What differs from the table, as plain data, and the names of settings that can't be plain data."""
        values: dict[str, Any] = {}
        others: list[str] = []
        for name, value in self.without_defaults().items():
            try:
                values[name] = encode(value)
            except NotPlain:
                others.append(name)
        return values, others

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Settings:
        """The settings whose `plain` gave these values. Names that are not known here are kept as they are."""
        settings = cls()
        decoded = {name: decode(value) for name, value in values.items()}
        settings._configured = {n: TABLE[n].check(value) if n in TABLE else value for n, value in decoded.items()}
        settings._resolve()
        return settings


def _has_none(name: str) -> bool:
    return name in TABLE and TABLE[name].has_none


def load(
    source: Any = None,
    *,
    namespace: str | None = None,
    changes: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    strict: bool | None = None,
    silent: bool = False,
) -> Settings:
    """Read settings.

    Args:
        source: A mapping, module, class or instance, or the path of one: 'package.module' or 'package.module:attr'.
        namespace: Read only names with this prefix: with "CELERY", CELERY_TASK_SERIALIZER is task_serializer.
        changes: Values that rank above the source.
        environ: The environment, which ranks above both; by default the process's.
        strict: Whether an unknown name is an error; by default the setting `strict_settings`.
        silent: A source that can't be imported counts as empty.

    Raises:
        ImportError: The source can't be imported.
        ImproperlyConfigured: A name or value is wrong, or the source mixes old and new names.
    """
    environ = os.environ if environ is None else environ
    found, over = read_source({} if source is None else source, namespace, silent), read_source(changes or {})
    if (found.problems or over.problems) and register_installed():
        found, over = read_source({} if source is None else source, namespace, silent), read_source(changes or {})
    _warn_renamed({**found.renamed, **over.renamed}, stacklevel=3)
    values = {**found.values, **over.values, **read_environment(environ)}
    if strict is not None:
        values["strict_settings"] = strict
    settings = Settings(values)
    settings._renamed.update({**found.renamed, **over.renamed})
    problems = [*found.problems, *over.problems]
    if problems:
        _report_unknown(problems, settings.strict_settings, stacklevel=3)
        settings._configured = {**found.unknown, **over.unknown, **settings._configured}
        settings._resolve()
    for line in misspelt_variables(environ):
        warnings.warn(line, CeleriacWarning, stacklevel=2)
    return settings


def _report_unknown(problems: list[str], strict: bool, stacklevel: int) -> None:
    if strict:
        raise ImproperlyConfigured(" ".join(problems))
    warnings.warn(" ".join(problems), CeleriacWarning, stacklevel=stacklevel)


def _warn_renamed(renamed: Mapping[str, str], stacklevel: int) -> None:
    if renamed:
        pairs = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
        warnings.warn(f"old names of settings are deprecated: {pairs}", FutureWarning, stacklevel=stacklevel)


def _excluded(durable: str, exclusive: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{durable} and {exclusive} can't both be true: set {exclusive} to false")


def _broker_url_of(values: Mapping[str, Any]) -> str:
    user, password = values["broker_user"], values["broker_password"]
    login = quote(user or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    port = f":{values['broker_port']}" if values["broker_port"] else ""
    vhost = quote(values["broker_vhost"] or "", safe="/")
    place = f"{login}@" if login else ""
    return f"{values['broker_transport'] or 'amqp'}://{place}{values['broker_host'] or 'localhost'}{port}/{vhost}"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
