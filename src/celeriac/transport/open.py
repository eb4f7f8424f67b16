"""Opening a broker by its URL: called by the app for `broker_url`, and by tools that inspect a broker.

The table below is the whole list of our own transports; third parties add theirs with entry points in the group
"celeriac.transports". Opening doesn't connect: the first call of the transport does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, cast

from celeriac.config_mask import mask_url
from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.results.drivers import find_factory
from celeriac.timing import jitter
from celeriac.transport.base import Transport
from celeriac.transport.failover import FailoverTransport
from celeriac.transport.split import SplitTransport

__all__ = ["ENTRY_POINT_GROUP", "TRANSPORTS", "broker_urls", "open_transport", "open_worker_transport"]

ENTRY_POINT_GROUP = "celeriac.transports"

#: URL scheme to "module:factory"; a factory takes (url, options). "db+*" are all schemes that begin with "db+".
TRANSPORTS = {
    "amqp": "celeriac.transport.amqp:AmqpTransport",
    "amqps": "celeriac.transport.amqp:AmqpTransport",
    "db+*": "celeriac.transport.sql_open:open_sql_transport",
    "db+sqlite": "celeriac.transport.sqlite:SqliteTransport",
    "librabbitmq": "celeriac.transport.amqp:AmqpTransport",
    "mariadb": "celeriac.transport.sql_mysql:MysqlTransport",
    "mariadb+*": "celeriac.transport.sql_open:open_sql_transport",
    "filesystem": "celeriac.transport.filesystem:FilesystemTransport",
    "memory": "celeriac.transport.memory:MemoryTransport",
    "mysql": "celeriac.transport.sql_mysql:MysqlTransport",
    "mysql+*": "celeriac.transport.sql_open:open_sql_transport",
    "postgres": "celeriac.transport.sql_postgres:PostgresTransport",
    "postgresql": "celeriac.transport.sql_postgres:PostgresTransport",
    "postgresql+*": "celeriac.transport.sql_open:open_sql_transport",
    "pyamqp": "celeriac.transport.amqp:AmqpTransport",
    "redis": "celeriac.transport.redis:RedisTransport",
    "redis+cluster": "celeriac.transport.redis:RedisTransport",
    "redis+socket": "celeriac.transport.redis:RedisTransport",
    "rediss": "celeriac.transport.redis:RedisTransport",
    "rediss+cluster": "celeriac.transport.redis:RedisTransport",
    "sentinel": "celeriac.transport.redis:RedisTransport",
    "sqla+*": "celeriac.transport.sql_open:open_sql_transport",
    "sqla+sqlite": "celeriac.transport.sqlite:SqliteTransport",
    "sqlalchemy+*": "celeriac.transport.sql_open:open_sql_transport",
    "sqlite": "celeriac.transport.sqlite:SqliteTransport",
}


#: Driver → its option → the setting that it is.
SETTINGS = {
    "celeriac.transport.amqp:AmqpTransport": {
        "heartbeat": "broker_heartbeat",
        "login_method": "broker_login_method",
        "failover_strategy": "broker_failover_strategy",
        "delayed_queue_type": "broker_native_delayed_delivery_queue_type",
        "connect_timeout": "broker_connection_timeout",
    },
    "celeriac.transport.redis:RedisTransport": {
        "socket_connect_timeout": "broker_connection_timeout",
        "max_connections": "broker_pool_limit",
    },
}

#: Defaults that are the drivers' own . They are not handed over: an option of the driver may rank above them.
_OWN_DEFAULTS = {"broker_connection_timeout": 4.0, "broker_pool_limit": 10}

#: Drivers that go through the servers of a list (`;`) themselves.
_OWN_LISTS = ("amqp", "amqps", "librabbitmq", "pyamqp", "sentinel", "redis+cluster", "rediss+cluster")
#: Brokers whose URL is a path: `;` is a character of it.
_PATHS = ("sqlite", "filesystem", "memory", "db+sqlite", "sqla+sqlite", "redis+socket")
_STRATEGIES = ("round-robin", "shuffle")


def open_transport(
    url: str | Sequence[str], options: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
) -> Transport:
    """Open the broker at `url`, without connecting yet.

    Args:
        url: For example `sqlite:///celeriac.db`. Several, as a list or with `;` between them, are used in the order of
            `broker_failover_strategy`: the next one when one can't be reached.
        options: The driver's options (`broker_transport_options`); the URL's query has precedence.
        settings: The app's settings: `broker_use_ssl` is the option `ssl`, and those in the table above are options as well.

    Raises:
        ImproperlyConfigured: A URL or an option is wrong, or the driver's library is not installed.
    """
    urls = broker_urls(url) if isinstance(url, (list, tuple)) or (isinstance(url, str) and url) else [cast("str", url)]
    if len(urls) == 1:
        return _open_one(urls[0], options, settings)
    kinds = {TRANSPORTS.get(each.partition("://")[0], each.partition("://")[0]) for each in urls}
    if len(kinds) > 1:
        shown = ", ".join(mask_url(each) for each in urls)
        raise ImproperlyConfigured(f"Several brokers for one app must be of one kind, unlike {shown}.")
    brokers = {each: _open_one(each, options, settings) for each in urls}
    return FailoverTransport(brokers, _order(urls, settings["broker_failover_strategy"] if settings else "round-robin"))


def open_worker_transport(conf: Mapping[str, Any]) -> Transport:
    """The broker as a worker sees it: it reads from `broker_read_url`, and what it sends goes to `broker_write_url`."""
    options = conf["broker_transport_options"]
    reading = open_transport(conf["broker_read_url"], options, conf)
    if not conf["broker_write_url"] or conf["broker_write_url"] == conf["broker_read_url"]:
        return reading
    return SplitTransport(reading, open_transport(conf["broker_write_url"], options, conf))


def broker_urls(url: str | Sequence[str]) -> list[str]:
    """The brokers that a setting names, each as its driver takes it.

    Raises:
        ImproperlyConfigured: There is none.
    """
    given = [url] if isinstance(url, str) else list(url)
    found: list[str] = []
    for each in given:
        scheme = each.partition("://")[0] if isinstance(each, str) else ""
        if not isinstance(each, str) or "://" not in each or scheme in _PATHS or scheme in _OWN_LISTS:
            found.append(each)
            continue
        parts = filter(None, map(str.strip, each.split(";")))
        found.extend(part if "://" in part else f"{scheme}://{part}" for part in parts)
    if not found:
        raise ImproperlyConfigured("broker_url names no broker; write one as 'sqlite:///celeriac.db'.")
    first = found[0].partition("://")[0] if isinstance(found[0], str) else ""
    if len(found) > 1 and first in _OWN_LISTS and all(isinstance(each, str) for each in found):
        return [";".join(found)]
    return list(dict.fromkeys(found))


def _open_one(url: str, options: Mapping[str, Any] | None, settings: Mapping[str, Any] | None) -> Transport:
    factory = find_factory(url, TRANSPORTS, ENTRY_POINT_GROUP, "broker")
    return cast("Transport", factory(url, {**_from_settings(url, settings), **(options or {})}))


def _order(urls: list[str], strategy: Any) -> Iterator[str]:
    """URLs without end: "round-robin", "shuffle", or what a function makes of the list."""
    if callable(strategy):
        return iter(strategy(urls))
    if strategy not in _STRATEGIES:
        raise ImproperlyConfigured(
            f"broker_failover_strategy {strategy!r} is unknown; allowed are {', '.join(_STRATEGIES)} and functions."
            + near_match(str(strategy), _STRATEGIES)
        )
    return cycle(urls if strategy == "round-robin" else sorted(urls, key=lambda _: jitter()))


def _from_settings(url: str, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    if settings is None:
        return {}
    found: dict[str, Any] = {"ssl": settings["broker_use_ssl"]} if settings["broker_use_ssl"] else {}
    names = SETTINGS.get(TRANSPORTS.get(url.partition("://")[0], ""), {})
    values = {option: settings.get(name) for option, name in names.items()}
    if "heartbeat" in values:
        values["heartbeat"] = values["heartbeat"] or 0
    if not values.get("max_connections"):
        values.pop("max_connections", None)
    # A setting that is None leaves the choice to the driver, but for heartbeats it turns them off.
    return found | {
        option: value
        for option, value in values.items()
        if value is not None and value != _OWN_DEFAULTS.get(names[option])
    }
