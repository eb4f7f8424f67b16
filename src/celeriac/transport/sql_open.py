"""Which driver a database URL of a broker belongs to: `sqla+postgresql+psycopg2://` and the like, in all spellings.

`transport.open` calls it for URLs that begin with `sqla+`, `sqlalchemy+` or `db+`, or that name a driver of SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.results.drivers import find_factory
from celeriac.results.sql_settings import split_scheme
from celeriac.transport.base import Transport

__all__ = ["open_sql_transport"]

_DRIVERS = {
    "mariadb": "celeriac.transport.sql_mysql:MysqlTransport",
    "mysql": "celeriac.transport.sql_mysql:MysqlTransport",
    "postgres": "celeriac.transport.sql_postgres:PostgresTransport",
    "postgresql": "celeriac.transport.sql_postgres:PostgresTransport",
    "sqlite": "celeriac.transport.sqlite:SqliteTransport",
}


def open_sql_transport(url: str, options: Mapping[str, Any]) -> Transport:
    """Open the broker of a database URL, without connecting yet.

    Raises:
        ImproperlyConfigured: The URL or an option is wrong, or no driver speaks to such a database.
    """
    dialect, _, rest = split_scheme(url)
    factory = find_factory(f"{dialect}://{rest}", _DRIVERS, "celeriac.transports", "broker")
    transport: Transport = factory(f"sqlite://{rest}" if dialect == "sqlite" else url, options)
    return transport
