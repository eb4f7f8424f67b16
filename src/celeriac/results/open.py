"""Opening a result store by its URL: called by the app for `result_backend`.

The table below is the whole list of our own stores; third parties add theirs with entry points in the group
"celeriac.results". Opening doesn't connect: the first call of the store does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from celeriac.results.base import ResultStore
from celeriac.results.drivers import find_factory

__all__ = ["ENTRY_POINT_GROUP", "STORES", "open_store"]

ENTRY_POINT_GROUP = "celeriac.results"

#: URL scheme to "module:factory"; a factory takes (url, options).
STORES = {
    "cache+memcached": "celeriac.results.memcached:MemcachedStore",
    "cache+memory": "celeriac.results.memory:MemoryStore",
    "cache+pylibmc": "celeriac.results.memcached:MemcachedStore",
    "cache+pymemcache": "celeriac.results.memcached:MemcachedStore",
    "db+sqlite": "celeriac.results.sqlite:SqliteStore",
    "file": "celeriac.results.filesystem:FilesystemStore",
    "memory": "celeriac.results.memory:MemoryStore",
    "redis": "celeriac.results.redis:RedisStore",
    "redis+cluster": "celeriac.results.redis:RedisStore",
    "redis+socket": "celeriac.results.redis:RedisStore",
    "rediss": "celeriac.results.redis:RedisStore",
    "rediss+cluster": "celeriac.results.redis:RedisStore",
    "sentinel": "celeriac.results.redis:RedisStore",
    "socket": "celeriac.results.redis:RedisStore",
    "sqla+sqlite": "celeriac.results.sqlite:SqliteStore",
    "sqlite": "celeriac.results.sqlite:SqliteStore",
}


def open_store(url: str, options: Mapping[str, Any] | None = None) -> ResultStore:
    """Open the result store at `url`, without connecting yet.

    Args:
        url: For example `sqlite:///celeriac.db`.
        options: The driver's options (`result_backend_transport_options`); the URL's query has precedence.

    Raises:
        ImproperlyConfigured: The URL or an option is wrong, or the driver's library is not installed.
    """
    factory = find_factory(url, STORES, ENTRY_POINT_GROUP, "result backend")
    return cast("ResultStore", factory(url, dict(options or {})))
