"""Opening a broker by its URL: called by the app for `broker_url`, and by tools that inspect a broker.

The table below is the whole list of our own transports; third parties add theirs with entry points in the group
"celeriac.transports". Opening doesn't connect: the first call of the transport does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from celeriac.results.drivers import find_factory
from celeriac.transport.base import Transport

__all__ = ["ENTRY_POINT_GROUP", "TRANSPORTS", "open_transport"]

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
    }
}


def open_transport(
    url: str, options: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
) -> Transport:
    """Open the broker at `url`, without connecting yet.

    Args:
        url: For example `sqlite:///celeriac.db`.
        options: The driver's options (`broker_transport_options`); the URL's query has precedence.
        settings: The app's settings: `broker_use_ssl` is the option `ssl`, and those in the table above are options as well.

    Raises:
        ImproperlyConfigured: The URL or an option is wrong, or the driver's library is not installed.
    """
    factory = find_factory(url, TRANSPORTS, ENTRY_POINT_GROUP, "broker")
    return cast("Transport", factory(url, {**_from_settings(url, settings), **(options or {})}))


def _from_settings(url: str, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    if settings is None:
        return {}
    found: dict[str, Any] = {"ssl": settings["broker_use_ssl"]} if settings["broker_use_ssl"] else {}
    names = SETTINGS.get(TRANSPORTS.get(url.partition("://")[0], ""), {})
    # A setting that is None leaves the choice to the driver, but for heartbeats it turns them off.
    values = {option: settings[name] for option, name in names.items()}
    if "heartbeat" in values:
        values["heartbeat"] = values["heartbeat"] or 0
    return found | {option: value for option, value in values.items() if value is not None}
