"""Where an app's workers and clients coordinate: the broker if it can, else the result store, or what a setting names.

The app, the worker and `celeriac queue` call `open_coordination`. Opening doesn't connect. Third parties add drivers with
entry points in the group "celeriac.coordination".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from celeriac.coordination.base import Coordination
from celeriac.results.drivers import find_factory, mask_url
from celeriac.results.open import store_options
from celeriac.results.sql_settings import split_scheme

__all__ = ["ENTRY_POINT_GROUP", "PLACES", "no_place", "not_shared", "open_coordination"]

ENTRY_POINT_GROUP = "celeriac.coordination"

_REDIS = "celeriac.coordination.redis:RedisCoordination"
_SQL = "celeriac.coordination.open:open_sql"
#: URL scheme to "module:factory"; a factory takes (url, options). "db+*" are all schemes that begin with "db+".
PLACES = {
    **dict.fromkeys(("redis", "rediss", "redis+socket", "redis+cluster", "rediss+cluster", "sentinel", "socket"), _REDIS),
    **dict.fromkeys(("postgres", "postgresql", "mysql", "mariadb", "sqlite"), _SQL),
    **dict.fromkeys(("db+*", "mariadb+*", "mysql+*", "postgresql+*", "sqla+*", "sqlalchemy+*"), _SQL),
    "memory": "celeriac.coordination.memory:MemoryCoordination",
}  # fmt: skip
_DIALECTS = {
    "postgresql": "celeriac.coordination.sql_postgres:PostgresCoordination",
    "postgres": "celeriac.coordination.sql_postgres:PostgresCoordination",
    "sqlite": "celeriac.coordination.sqlite:SqliteCoordination",
}
#: Schemes whose URLs name several hosts of one place with `;` in between, and those of files, whose names may have one.
_LISTS = frozenset(
    {"sentinel", "redis+cluster", "rediss+cluster", "sqlite", "db+sqlite", "sqla+sqlite", "redis+socket"}
)
#: Schemes of what only one machine sees.
_LOCAL = frozenset({"sqlite", "db+sqlite", "sqla+sqlite", "memory", "filesystem"})
_CORE = "celeriac.coordination.sql_core:CoreCoordination"


def open_coordination(settings: Mapping[str, Any]) -> Coordination | None:
    """The place that the settings give, without connecting yet; None if there is none.

    Raises:
        ImproperlyConfigured: The URL or an option is wrong, or the driver's library is not installed.
    """
    for url, options in _candidates(settings):
        scheme = url.partition("://")[0]
        if scheme in PLACES or scheme.partition("+")[0] + "+*" in PLACES or url == settings["coordination_url"]:
            factory = find_factory(url, PLACES, ENTRY_POINT_GROUP, "coordination")
            return cast("Coordination", factory(url, options))
    return None


def _candidates(settings: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """URLs with their options, the first choice first."""
    given = settings["coordination_url"]
    if given:
        return [(given, {})]
    brokers, store = _brokers(settings["broker_write_url"]), _first(settings["result_backend"])
    ssl = {"ssl": settings["broker_use_ssl"]} if settings["broker_use_ssl"] else {}
    at_broker = (brokers[0], {**ssl, **(settings["broker_transport_options"] or {})})
    own = {**store_options(store, settings), **(settings["result_backend_transport_options"] or {})}
    # Several brokers take turns, so that none of them is always the same for all: the result store is.
    return [at_broker, (store, own)] if len(brokers) == 1 else [(store, own), at_broker]


def _brokers(value: Any) -> list[str]:
    """The brokers that a setting names: a list, or text with `;` in between. Some URLs have such lists of their own."""
    given = [str(each) for each in value] if isinstance(value, (list, tuple)) else [str(value or "")]
    if given[0].partition("://")[0] in _LISTS:
        return [";".join(given)]
    return [part.strip() for each in given for part in each.split(";") if part.strip()] or [""]


def _first(url: Any) -> str:
    return str((url[0] if url else "") if isinstance(url, (list, tuple)) else url or "")


def not_shared(settings: Mapping[str, Any], place: Coordination | None) -> str:
    """Why workers on several machines would not see one place, in one line for people; "" if they do, or none is there."""
    broker = _brokers(settings["broker_write_url"])[0]
    if place is None or place.url.partition("://")[0] not in _LOCAL or broker.partition("://")[0] in _LOCAL:
        return ""
    return (
        f"limits of all workers, unique tasks and paused queues are kept in {place.url}, which other machines do not see, while"
        f" they share the broker {mask_url(broker)}"
    )


def no_place(settings: Mapping[str, Any], what: str) -> str:
    """Why something can't be had without a place for coordination, in one line for people."""
    broker, store = mask_url(_brokers(settings["broker_write_url"])[0]), mask_url(_first(settings["result_backend"]))
    return (
        f"{what} needs a place that all workers share, and neither the broker {broker} nor the result backend"
        f" {store or 'None'} is one: set coordination_url to the URL of a Redis, PostgreSQL, MySQL or SQLite database."
    )


def open_sql(url: str, options: Mapping[str, Any]) -> Coordination:
    """The driver of a database URL, in all spellings."""
    dialect = split_scheme(url)[0]
    factory = find_factory(f"{dialect}://", {dialect: _DIALECTS.get(dialect, _CORE)}, ENTRY_POINT_GROUP, "coordination")
    return cast("Coordination", factory(url, options))
