"""What a URL of a SQL server says: family, where it is, and our own options apart from those of its client library.

The drivers of PostgreSQL and MySQL (transport and result store) call `parse_url`. Spellings with a prefix (`db+`, `sqla+`)
or with a SQLAlchemy driver (`+psycopg2`, `+pymysql`) mean the same server. Invariant: nothing but `masked` is ever shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.results.drivers import check_options, mask_url

__all__ = ["SqlSettings", "parse_url", "split_scheme"]

#: Our own options with their defaults; anything else in the URL's query belongs to the client library.
OPTIONS: dict[str, Any] = {
    "timeout": 4.0, "schema": "", "pool_size": 5, "max_overflow": 10, "pool_recycle": 3600.0, "pool_pre_ping": True,
    "prepare_threshold": 5, "engine_options": None, "engine_callback": None, "short_lived_sessions": False,
    "table_names": None, "table_schemas": None, "ssl": None,
}  # fmt: skip
#: Options that Celery documents for all transports and that have no meaning here; configurations carry them along.
IGNORED = frozenset({
    "visibility_timeout", "polling_interval", "max_retries", "interval_start", "interval_step", "interval_max",
    "client_name", "queue_tablename", "message_tablename", "create_tables_at_setup", "confirm_publish",
})  # fmt: skip

#: TLS options as `broker_use_ssl` names them, and the client libraries' names for them.
_TLS = {
    "postgresql": {"ca_certs": "sslrootcert", "certfile": "sslcert", "keyfile": "sslkey"},
    "mysql": {"ca_certs": "ssl_ca", "certfile": "ssl_cert", "keyfile": "ssl_key"},
}

_PREFIXES = ("db+", "sqla+", "sqlalchemy+")
_FAMILIES = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql"}


class SqlSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A URL and its options.

    Attributes:
        url: What the client library or SQLAlchemy is given, secrets and all.
        masked: The URL as the user wrote it, without its password.
        driver: The part behind `+` in the scheme ("psycopg2"), or "".
        timeout: Longest time that one call may take, in seconds.
        schema: Schema of our own tables; "" for the connection's default.
        pool_size: Connections that are kept open.
        max_overflow: How many more there may be at one moment.
        pool_recycle: Age in seconds at which a connection is replaced; below 0 for never.
        prepare_threshold: Uses of a statement before the server is asked to prepare it; None for never (pgbouncer).
        engine_options: Options of SQLAlchemy's engine.
        engine_callback: Called with SQLAlchemy's engine.
        short_lived_sessions: Whether each operation connects anew.
        table_names: Names of the result tables: keys "task" and "group".
        table_schemas: Their schemas.
    """

    url: str
    masked: str
    family: str
    driver: str = ""
    timeout: float = 4.0
    schema: str = ""
    pool_size: int = 5
    max_overflow: int = 10
    pool_recycle: float = 3600.0
    pool_pre_ping: bool = True
    prepare_threshold: int | None = 5
    engine_options: dict[str, Any] = {}
    engine_callback: Any = None
    short_lived_sessions: bool = False
    table_names: dict[str, str] = {}
    table_schemas: dict[str, str] = {}


def split_scheme(url: str) -> tuple[str, str, str]:
    """(dialect, driver, rest) of a URL: `db+postgresql+psycopg2://h/d` is ("postgresql", "psycopg2", "h/d")."""
    scheme, _, rest = url.partition("://")
    for prefix in _PREFIXES:
        scheme = scheme.removeprefix(prefix)
    dialect, _, driver = scheme.partition("+")
    return dialect, driver, rest


def parse_url(url: str, options: Mapping[str, Any]) -> SqlSettings:
    """The settings of a URL. What stands in its query has precedence over `options`.

    Raises:
        ImproperlyConfigured: An option is unknown or out of range.
    """
    dialect, driver, rest = split_scheme(url)
    family = _FAMILIES.get(dialect, dialect)
    given = {name: value for name, value in options.items() if name not in IGNORED}
    check_options(given, OPTIONS, "The SQL driver")
    base, _, query = rest.partition("?")
    theirs = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in OPTIONS and name not in ("engine_callback", "engine_options", "table_names", "table_schemas", "ssl"):
            given[name] = value
        elif name not in IGNORED:
            theirs.append((name, value))
    theirs += [pair for pair in _tls(family, given.get("ssl")) if pair[0] not in dict(theirs)]
    full = f"{family}{'+' + driver if driver else ''}://{base}" + (
        "?" + urlencode(theirs, errors="surrogatepass") if theirs else ""
    )
    engine_options = dict(given.get("engine_options") or {})
    for name in ("pool_size", "max_overflow", "pool_recycle", "pool_pre_ping"):
        if name in engine_options and name not in given:
            given[name] = engine_options[name]
    return SqlSettings(
        url=full,
        masked=mask_url(url),
        family=family,
        driver=driver,
        timeout=_number(given, "timeout", 0.05, 3600.0),
        schema=_name(str(given.get("schema") or "")),
        pool_size=int(_number(given, "pool_size", 0, 10_000)),
        max_overflow=int(_number(given, "max_overflow", -1, 10_000)),
        pool_recycle=_number(given, "pool_recycle", -1, 1e9),
        pool_pre_ping=_flag(given, "pool_pre_ping"),
        prepare_threshold=_threshold(given.get("prepare_threshold", 5)),
        engine_options=engine_options,
        engine_callback=given.get("engine_callback"),
        short_lived_sessions=_flag(given, "short_lived_sessions"),
        table_names=_tables(given, "table_names"),
        table_schemas=_tables(given, "table_schemas"),
    )


def _tls(family: str, given: Any) -> list[tuple[str, str]]:
    """The client library's options for `broker_use_ssl`: who gives an authority has the server checked, name and all."""
    if not given:
        return []
    if family not in _TLS:
        raise ImproperlyConfigured(f"TLS to {family}:// is set up by options of its client library, in the URL.")
    options = given if isinstance(given, Mapping) else {}
    names = _TLS[family]
    check_options(options, names, f"TLS of {family}://")
    if family == "mysql" and not options.get("ca_certs"):
        raise ImproperlyConfigured(
            "TLS to mysql:// needs ca_certs, the file of the authority that vouches for the server."
        )
    found = [(names[name], str(value)) for name, value in options.items() if value]
    if family == "postgresql":
        found.append(("sslmode", "verify-full" if options.get("ca_certs") else "require"))
    return found


def _number(given: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = given.get(name, OPTIONS[name])
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if low <= number <= high:
            return number
    raise ImproperlyConfigured(f"The SQL driver's option {name} is a number from {low:g} to {high:g}, not {value!r}.")


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, OPTIONS[name])
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ImproperlyConfigured(f"The SQL driver's option {name} is true or false, not {value!r}.")
    return known[str(value).lower()]


def _threshold(value: Any) -> int | None:
    if value is None or str(value).lower() in ("none", ""):
        return None
    return int(_number({"prepare_threshold": value}, "prepare_threshold", 0, 1_000_000))


def _name(value: str) -> str:
    """A name that is put between quotes in a statement."""
    if any(mark in value for mark in "\"'`%{}\0"):
        raise ImproperlyConfigured(f"A name of a schema or table has no quotes, braces and no %: {value!r}.")
    return value


def _tables(given: Mapping[str, Any], name: str) -> dict[str, str]:
    tables = given.get(name) or {}
    if not isinstance(tables, Mapping):
        raise ImproperlyConfigured(f"database_{name} maps 'task' and 'group' to names, not {tables!r}.")
    for key in tables:
        if key not in ("task", "group"):
            hint = near_match(str(key), ("task", "group"))
            raise ImproperlyConfigured(f"database_{name} has the keys 'task' and 'group', not {key!r}.{hint}")
    return {key: _name(str(value)) for key, value in tables.items() if value}
