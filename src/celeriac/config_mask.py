"""Hides secrets: passwords in URLs, and values whose name says that they are secret.

Everything that shows a setting or a URL to people (errors, logs, `table`, `humanize`, the banner) goes through here.
Invariant: in doubt more is hidden than needed. Imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

__all__ = ["MASK", "censor", "censor_value", "mask_url", "safequote"]

#: Stands for a hidden value. A password inside a URL becomes `**`, as in Celery's banner.
MASK = "********"

#: Names of secrets, as Celery documents them.
_SECRET_NAME = re.compile("API|TOKEN|KEY|SECRET|PASS|SIGNATURE|DATABASE", re.IGNORECASE)

#: Names that match only by accident.
_HARMLESS = frozenset({
    "binding_key", "cassandra_keyspace", "cosmosdbsql_database_name", "database_create_tables_at_setup",
    "database_short_lived_sessions", "database_table_names", "database_table_schemas", "routing_key",
    "task_default_routing_key",
})  # fmt: skip

#: Between the URLs of a list such as `redis://one;redis://two`.
_NEXT_URL = re.compile(r";(?=[a-zA-Z][\w+.-]*://)")

#: Where the parameters begin.
_QUERY = re.compile(r"\?[\w.%-]+=")

#: `?password=...` and the like: drivers take secrets there, too.
_SECRET_PARAMETER = re.compile(r"([?&][^=&]*(?:token|key|secret|pass|signature)[^=&]*=)([^&]+)", re.IGNORECASE)


def mask_url(url: str, mask: str = "**") -> str:
    """The URL (or several, separated by `;`) without its passwords.

    Example:
        >>> mask_url("redis://user:secret@localhost/0")
        'redis://user:**@localhost/0'
    """
    if "://" not in url:
        return url
    return ";".join(_mask_one(part, mask) for part in _NEXT_URL.split(url))


def _mask_one(url: str, mask: str) -> str:
    scheme, _, rest = url.partition("://")
    # A password may hold '/', '?' or '@' that nobody quoted: up to the last '@' that can end it, it is hidden.
    query = _QUERY.search(rest)
    end = query.start() if query and "@" in rest[: query.start()] else len(rest)
    userinfo, at, place = rest[:end].rpartition("@")
    user, colon, _ = userinfo.partition(":")
    login = f"{user}:{mask}" if colon else userinfo
    return _SECRET_PARAMETER.sub(rf"\g<1>{mask}", f"{scheme}://{login}{at}{place}{rest[end:]}")


def censor(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy in which secret values, also nested ones, are masked."""
    return {name: censor_value(name, value) for name, value in values.items()}


def censor_value(name: Any, value: Any) -> Any:
    """The value as people may see it, given the name that it has."""
    if isinstance(value, Mapping):
        return censor(value)
    if value and isinstance(name, str) and name not in _HARMLESS and _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, str):
        return mask_url(value, MASK)
    if isinstance(value, (list, tuple)):
        return [censor_value(None, item) for item in value]
    return value


def safequote(text: str) -> str:
    """A user name or password as it has to be written in a URL."""
    return quote(text, safe="")
