"""Which driver a database URL of a result store belongs to: `db+postgresql+psycopg2://` and the like, in all spellings.

`results.open` calls it. PostgreSQL and SQLite have drivers of their own, all others go through SQLAlchemy. So do these two
where a setting says something that only SQLAlchemy understands (engine options, an engine callback).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.results.base import ResultStore
from celeriac.results.drivers import find_factory
from celeriac.results.sql_settings import split_scheme

__all__ = ["open_sql_store"]

_DRIVERS = {
    "postgresql": "celeriac.results.sql:PostgresStore",
    "postgres": "celeriac.results.sql:PostgresStore",
    "sqlite": "celeriac.results.sqlite:SqliteStore",
}
_CORE = "celeriac.results.sql_core:CoreStore"
#: Engine options that the PostgreSQL driver understands.
_OWN_ENGINE_OPTIONS = frozenset({"pool_size", "max_overflow", "pool_recycle", "pool_pre_ping"})
#: Options that have a meaning for SQLAlchemy, or for a server, only.
_SQL_OPTIONS = frozenset({
    "engine_options", "engine_callback", "short_lived_sessions", "table_names", "table_schemas",
    "create_tables_at_setup",
})  # fmt: skip


def open_sql_store(url: str, options: Mapping[str, Any]) -> ResultStore:
    """Open the store of a database URL, without connecting yet.

    Raises:
        ImproperlyConfigured: The URL or an option is wrong, or the driver's library is not installed.
    """
    dialect, _, rest = split_scheme(url)
    engine_options = options.get("engine_options") or {}
    needs_engine = options.get("engine_callback") is not None or not _OWN_ENGINE_OPTIONS.issuperset(engine_options)
    is_sqlite = dialect == "sqlite"
    if is_sqlite and (options.get("table_names") or options.get("table_schemas")):
        needs_engine = True
    target = _CORE if needs_engine else _DRIVERS.get(dialect, _CORE)
    factory = find_factory(f"{dialect}://", {dialect: target}, "celeriac.results", "result backend")
    if is_sqlite and not needs_engine:
        options = {name: value for name, value in options.items() if name not in _SQL_OPTIONS}
        url = f"sqlite://{rest}"
    store: ResultStore = factory(url, options)
    return store
