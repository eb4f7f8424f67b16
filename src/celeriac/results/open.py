"""Opening a result store by its URL: called by the app for `result_backend`.

The table below is the whole list of our own stores; third parties add theirs with entry points in the group
"celeriac.results". Opening doesn't connect: the first call of the store does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from celeriac.errors import ImproperlyConfigured
from celeriac.results.base import ResultStore
from celeriac.results.drivers import find_factory

__all__ = ["ADDRESSED", "ENTRY_POINT_GROUP", "STORES", "open_store", "store_options"]

ENTRY_POINT_GROUP = "celeriac.results"

#: URL scheme to "module:factory"; a factory takes (url, options). "db+*" are all schemes that begin with "db+".
STORES = {
    "cache+memcached": "celeriac.results.memcached:MemcachedStore",
    "cache+memory": "celeriac.results.memory:MemoryStore",
    "cache+pylibmc": "celeriac.results.memcached:MemcachedStore",
    "cache+pymemcache": "celeriac.results.memcached:MemcachedStore",
    "db+*": "celeriac.results.sql_open:open_sql_store",
    "db+sqlite": "celeriac.results.sql_open:open_sql_store",
    "file": "celeriac.results.filesystem:FilesystemStore",
    "mariadb": "celeriac.results.sql_open:open_sql_store",
    "mariadb+*": "celeriac.results.sql_open:open_sql_store",
    "memory": "celeriac.results.memory:MemoryStore",
    "mysql": "celeriac.results.sql_open:open_sql_store",
    "mysql+*": "celeriac.results.sql_open:open_sql_store",
    "postgres": "celeriac.results.sql_open:open_sql_store",
    "postgresql": "celeriac.results.sql_open:open_sql_store",
    "postgresql+*": "celeriac.results.sql_open:open_sql_store",
    "redis": "celeriac.results.redis:RedisStore",
    "redis+cluster": "celeriac.results.redis:RedisStore",
    "redis+socket": "celeriac.results.redis:RedisStore",
    "rediss": "celeriac.results.redis:RedisStore",
    "rediss+cluster": "celeriac.results.redis:RedisStore",
    "rpc": "celeriac.results.rpc:RpcStore",
    "sentinel": "celeriac.results.redis:RedisStore",
    "socket": "celeriac.results.redis:RedisStore",
    "sqla+*": "celeriac.results.sql_open:open_sql_store",
    "sqla+sqlite": "celeriac.results.sqlite:SqliteStore",
    "sqlite": "celeriac.results.sqlite:SqliteStore",
}

#: Schemes whose results are sent to an address, the store's `box`, which a message has to name and which has to exist before.
ADDRESSED = frozenset({"rpc"})

#: Option of rpc:// → the setting that it is: results travel over the broker.
RPC = {
    "broker_url": "broker_write_url",
    "broker_options": "broker_transport_options",
    "persistent": "result_persistent",
    "expires": "result_expires",
    "accept": "result_accept_content",
    "serializer": "result_serializer",
    "ssl": "broker_use_ssl",
    "login_method": "broker_login_method",
    "failover_strategy": "broker_failover_strategy",
}
#: First part of a scheme → prefix of the settings that its driver takes as options, without that prefix.
SETTINGS = {
    **dict.fromkeys(("db", "mariadb", "mysql", "postgres", "postgresql", "sqla"), "database_"),
    **dict.fromkeys(("redis", "rediss", "sentinel", "socket"), "redis_"),
}
#: Drivers whose values `result_compression` compresses.
COMPRESSING = frozenset({"FilesystemStore", "MemcachedStore", "RedisStore"})
#: Driver → the setting that is a dict of its options.
OPTION_SETTINGS = {"MemcachedStore": "cache_backend_options"}


def open_store(
    url: str, options: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
) -> ResultStore:
    """Open the result store at `url`, without connecting yet.

    Args:
        url: For example `sqlite:///celeriac.db`.
        options: The driver's options (`result_backend_transport_options`); the URL's query has precedence.
        settings: The app's settings: those of the driver's kind (`database_table_names`, …) are options as well.

    Raises:
        ImproperlyConfigured: The URL or an option is wrong, or the driver's library is not installed.
    """
    override = (settings or {}).get("override_backends") or {}
    alias = url.partition("://")[0]
    if alias in override:
        return cast("ResultStore", _overriding(alias, override[alias])(url, dict(options or {})))
    factory = find_factory(url, STORES, ENTRY_POINT_GROUP, "result backend")
    return cast("ResultStore", factory(url, {**store_options(url, settings or {}), **(options or {})}))


def _overriding(alias: str, driver: Any) -> Any:
    """The class, or whatever makes the store, that `override_backends` names: an object, or its path."""
    if not isinstance(driver, str):
        return driver
    module, _, attribute = driver.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f"override_backends[{alias!r}]: can't import {driver!r}: {exc}") from exc


def store_options(url: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a store that are settings of the app."""
    kind = url.partition("://")[0].partition("+")[0]
    if kind == "rpc":
        return {option: settings[name] for option, name in RPC.items() if name in settings}
    driver = STORES.get(url.partition("://")[0], "").rpartition(":")[2]
    found: dict[str, Any] = {}
    if driver in COMPRESSING and settings.get("result_compression"):
        found["compression"] = settings["result_compression"]
    if driver in OPTION_SETTINGS:
        found |= settings.get(OPTION_SETTINGS[driver]) or {}
    prefix = SETTINGS.get(kind)
    if prefix is None:
        return found
    # A default is the driver's own business, and a setting that is None or empty says nothing; the URL of Celery 3 has
    # another place by now.
    return found | {
        name.removeprefix(prefix): settings[name]
        for name in getattr(settings, "changes", settings)
        if name.startswith(prefix) and name != "database_url" and settings[name]
    }
