"""The table of settings as Celery documents it: in namespaces by the first word of a name. `celery.app.defaults`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from celeriac.setting_table import OLD_NAMES, TABLE, Setting

__all__ = ["NAMESPACES", "Found", "find", "flatten"]

#: First words that several settings share; a setting whose name is one word stands for itself.
_PREFIXES = (
    "beat", "broker", "cache", "cassandra", "control", "couchbase", "arangodb", "mongodb", "cosmosdbsql", "event", "redis",
    "result", "elasticsearch", "security", "database", "task", "worker", "s3", "azureblockblob", "gcs", "dynamodb",
)  # fmt: skip


class Found(NamedTuple):
    """Where `find` has found a setting."""

    namespace: str | None
    key: str
    type: Setting


def _by_namespace() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, row in TABLE.items():
        first, _, rest = name.partition("_")
        if rest and first in _PREFIXES:
            found.setdefault(first, {})[rest] = row
        else:
            found[name] = row
    return found


#: Setting, or namespace → its settings by the rest of their names.
NAMESPACES: dict[str, Any] = _by_namespace()


def find(name: str, namespace: str = "celery") -> Found:
    """A setting by its name, by its old name, or by the rest of its name in a namespace.

    Raises:
        KeyError: There is none.
    """
    inner = NAMESPACES.get(namespace.lower())
    if isinstance(inner, Mapping) and name.lower() in inner:
        return Found(namespace.lower(), name.lower(), inner[name.lower()])
    key = OLD_NAMES.get(name, name.lower())
    return Found(None, key, TABLE[key])


def flatten(d: Mapping[str, Any], root: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested namespaces under their whole names."""
    for key, value in d.items():
        name = f"{root}_{key}" if root else key
        if isinstance(value, Mapping):
            yield from flatten(value, name)
        else:
            yield name, value
