"""What a Redis URL and its options say: where the server is, who we are there, TLS, and how long to wait.

The Redis transport and the Redis result store call `parse_url`; `redis_connection` reads the outcome. The forms are those
of Celery's URLs (`redis://`, `rediss://`, `redis+socket://`, `socket://`, `unix://`, `sentinel://a:26379;b:26379`), and
`redis+cluster://`, `rediss+cluster://` for a Redis Cluster. Options come from the query and from the settings; the query
has precedence. Invariant: nothing here connects, and the password never leaves `Settings` (`Settings.url` is masked).
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.results.drivers import check_options, mask_url, split_query

__all__ = ["CONNECTION_OPTIONS", "Settings", "as_bool", "as_number", "parse_url"]

#: Options about connections, shared by transport and store. Those without effect here are accepted, as Celery's are.
CONNECTION_OPTIONS = frozenset({
    "client_name", "credential_provider", "db", "hash_tag", "health_check_interval", "host", "master_name",
    "max_connections", "password", "port", "retry_on_timeout", "sentinel_kwargs", "socket_connect_timeout", "socket_keepalive",
    "socket_keepalive_options", "socket_timeout", "ssl", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile",
    "ssl_check_hostname", "ssl_keyfile", "timeout", "username", "virtual_host",
    # of all of Celery's transports, without a meaning for this one
    "connection_class", "interval_max", "interval_start", "interval_step", "max_retries", "retry_policy",
})  # fmt: skip
#: Seconds that one operation may take: below `publish_timeout`, so that a publish to a silent server ends in time.
TIMEOUT = 4.0
#: Names that the settings `redis_…` have once their prefix is off.
_ALIASES = {
    "backend_credential_provider": "credential_provider", "backend_health_check_interval": "health_check_interval",
    "backend_use_ssl": "ssl",
}  # fmt: skip
_PORTS = {"sentinel": 26379}
_SOCKETS = ("redis+socket", "socket", "unix")
_CERT_REQS = {
    "none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED,
    "cert_none": ssl.CERT_NONE, "cert_optional": ssl.CERT_OPTIONAL, "cert_required": ssl.CERT_REQUIRED,
}  # fmt: skip


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is and how to talk to it.

    Attributes:
        url: For messages, with the password masked.
        kind: "server", "socket", "sentinel" or "cluster".
        addresses: (host, port) of the server, the sentinels, or some nodes of the cluster.
        path: Of a Unix socket.
        tag: Hash tag that keeps all our keys in one slot of a cluster; "" elsewhere.
        tls: TLS options, or None for plain TCP.
        credential_provider: Object with `get_credentials()`, or the import path of its class.
        sentinel_kwargs: `username`, `password` for the sentinels themselves.
    """

    url: str
    kind: str = "server"
    addresses: tuple[tuple[str, int], ...] = ()
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tag: str = ""
    tls: dict[str, Any] | None = None
    timeout: float = TIMEOUT
    connect_timeout: float = TIMEOUT
    keepalive: bool = True
    client_name: str = ""
    health_check_interval: float = 25.0
    max_connections: int = 10
    master_name: str = ""
    credential_provider: Any = None
    sentinel_kwargs: dict[str, Any] = {}

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for two URLs of one database."""
        return (self.kind, self.addresses, self.path, self.db, self.tag, self.master_name)


def parse_url(url: str, options: Mapping[str, Any], known: Iterable[str]) -> tuple[Settings, dict[str, Any]]:
    """The connection's settings, and the driver's own options (those in `known`).

    Raises:
        ImproperlyConfigured: The URL or an option is wrong.
    """
    scheme = url.partition("://")[0]
    base, query = split_query(url)
    merged = {_ALIASES.get(name, name): value for name, value in options.items()} | query
    own = set(known)
    check_options(merged, own | CONNECTION_OPTIONS, f"{scheme}://")
    fields: dict[str, Any] = {"url": mask_url(url), "tls": _tls(scheme, merged)}
    if scheme in _SOCKETS:
        fields |= _socket_fields(base)
    else:
        fields |= _network_fields(scheme, base, merged)
    fields |= _plain_fields(merged)
    if fields.get("kind") == "sentinel" and not fields.get("master_name"):
        raise ImproperlyConfigured(
            f"{mask_url(url)!r} needs the option master_name: what the sentinels call the master."
        )
    if fields.get("kind") == "cluster":
        fields["tag"] = str(merged.get("hash_tag") or "celeriac")
        fields["db"] = 0
    return Settings(**fields), {name: value for name, value in merged.items() if name in own}


def _socket_fields(base: str) -> dict[str, Any]:
    userinfo, path = _userinfo(base.partition("://")[2])
    path = unquote(path)
    if not path.startswith("/"):
        raise ImproperlyConfigured(f"{mask_url(base)!r} names no socket, as in 'redis+socket:///run/redis.sock'.")
    return {"kind": "socket", "path": path, **userinfo}


def _network_fields(scheme: str, base: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Hosts are separated by `;` (each may repeat the scheme) or `,`; user, password and database stand anywhere."""
    kind = "sentinel" if scheme == "sentinel" else "cluster" if scheme.endswith("+cluster") else "server"
    fields: dict[str, Any] = {"kind": kind}
    addresses = []
    for part in base.replace(",", ";").split(";"):
        userinfo, rest = _userinfo(part.rpartition("://")[2])
        host, _, path = rest.partition("/")
        if not host and options.get("host"):  # Celery's old settings redis_host and redis_port
            host = f"{options['host']}:{options.get('port') or _PORTS.get(kind, 6379)}"
        addresses.append(_address(host, _PORTS.get(kind, 6379), base))
        fields |= userinfo
        if path.strip("/"):
            fields["db"] = _database(path.strip("/"))
    fields["addresses"] = tuple(addresses)
    return fields


def _userinfo(text: str) -> tuple[dict[str, str], str]:
    info, at, rest = text.rpartition("@")
    if not at:
        return {}, text
    user, _, password = info.partition(":")
    return {"username": unquote(user), "password": unquote(password)}, rest


def _address(text: str, default_port: int, url: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    if port and not (port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise ImproperlyConfigured(f"{mask_url(url)!r}: the port must be a number from 1 to 65535, not {port!r}.")
    return unquote(host.strip("[]")) or "localhost", int(port or default_port)


def _plain_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in ("username", "password", "client_name", "master_name"):
        if options.get(name) is not None:
            fields[name] = str(options[name])
    for name in ("credential_provider", "sentinel_kwargs"):
        if options.get(name):
            fields[name] = options[name]
    for name in ("virtual_host", "db"):
        if str(options.get(name) or "").strip("/"):
            fields["db"] = _database(str(options[name]).strip("/"))
    for name in ("socket_timeout", "timeout"):
        if options.get(name) is not None:
            fields["timeout"] = fields["connect_timeout"] = as_number(name, options[name], low=0.001)
    if options.get("socket_connect_timeout") is not None:
        fields["connect_timeout"] = as_number("socket_connect_timeout", options["socket_connect_timeout"], low=0.001)
    if options.get("health_check_interval") is not None:
        fields["health_check_interval"] = as_number("health_check_interval", options["health_check_interval"])
    if options.get("max_connections") is not None:
        fields["max_connections"] = int(as_number("max_connections", options["max_connections"], low=1))
    if options.get("socket_keepalive") is not None:
        fields["keepalive"] = as_bool("socket_keepalive", options["socket_keepalive"])
    return fields


def _database(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise ImproperlyConfigured(f"The Redis database is a number such as 0, not {text!r}.")
    return int(text)


def _tls(scheme: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """TLS options, or None for plain TCP. `ssl` is True or a dict, as in `broker_use_ssl`."""
    given = options.get("ssl")
    if isinstance(given, str):
        given = as_bool("ssl", given)
    if not given and not scheme.startswith("rediss"):
        return None
    found = dict(given) if isinstance(given, Mapping) else {}
    found |= {name: value for name, value in options.items() if name.startswith("ssl_")}
    check_options(found, [name for name in CONNECTION_OPTIONS if name.startswith("ssl_")], "TLS of Redis")
    reqs = found.get("ssl_cert_reqs", ssl.CERT_REQUIRED)
    if not isinstance(reqs, ssl.VerifyMode):
        if isinstance(reqs, int) and reqs in _CERT_REQS.values():
            reqs = ssl.VerifyMode(reqs)
        elif str(reqs).lower() in _CERT_REQS:
            reqs = _CERT_REQS[str(reqs).lower()]
        else:
            raise ImproperlyConfigured(f"ssl_cert_reqs is 'required', 'optional' or 'none', not {reqs!r}.")
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = as_bool("ssl_check_hostname", found["ssl_check_hostname"])
    return {**found, "ssl_cert_reqs": reqs}


def as_number(name: str, value: Any, *, low: float = 0.0) -> float:
    """An option as a number of at least `low`."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if low <= number < 1e9:
            return number
    raise ImproperlyConfigured(f"Redis option {name} is a number of at least {low:g}, not {value!r}.")


def as_bool(name: str, value: Any) -> bool:
    """An option as true or false; texts as they stand in URLs."""
    if isinstance(value, (bool, int)):
        return bool(value)
    if str(value).lower() in ("true", "yes", "on", "1"):
        return True
    if str(value).lower() in ("false", "no", "off", "0", ""):
        return False
    raise ImproperlyConfigured(f"Redis option {name} is true or false, not {value!r}.")
