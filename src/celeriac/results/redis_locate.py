"""Opening redis-py connections: to a fixed server, to the master that sentinels name, or to a node of a cluster.

`redis_connection` calls `open_redis` for each new connection, so that after a failover the next one goes to the new
master. In a cluster all keys of an app carry one hash tag and so live on one node; that node is looked for.
"""

from __future__ import annotations

import binascii
import contextlib
import importlib
from typing import Any

from msgspec.structs import replace
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from celeriac.errors import ImproperlyConfigured
from celeriac.results.redis_url import Settings
from celeriac.timing import shortened

__all__ = ["open_redis", "provider_of", "slot_of"]


class _Selectable:
    """Adds what `select` needs."""

    def fileno(self) -> int:
        """Number of the socket."""
        sock: Any = getattr(self, "_sock", None)
        if sock is None:
            raise RedisConnectionError("the connection is closed")
        number: int = sock.fileno()
        return number


class _Plain(_Selectable, Connection):
    """By TCP."""


class _Secure(_Selectable, SSLConnection):
    """By TLS."""


class _Local(_Selectable, UnixDomainSocketConnection):
    """By a Unix socket."""


#: What redis-py tells the server about itself. Left alone, it would look up its own version for each connection: 5 ms of CPU.
_ABOUT: dict[str, Any] = {}
with contextlib.suppress(ImportError):  # an older redis-py looks once
    _ABOUT["driver_info"] = importlib.import_module("redis.driver_info").DriverInfo()

#: redis-py leaves its constructors without types.
_KINDS: dict[str, Any] = {"tcp": _Plain, "tls": _Secure, "socket": _Local}


def open_redis(settings: Settings, protocol: int = 2) -> Any:
    """A redis-py connection, open and logged in. Raises redis-py's errors."""
    timeout, connect_timeout = shortened(settings.timeout), shortened(settings.connect_timeout)
    if timeout < settings.timeout or connect_timeout < settings.connect_timeout:
        settings = replace(settings, timeout=timeout, connect_timeout=connect_timeout)
    if settings.kind == "sentinel":
        return _open(settings, _master(settings), protocol)
    if settings.kind == "cluster":
        return _open(settings, _owner(settings), protocol)
    return _open(settings, settings.addresses[0] if settings.addresses else None, protocol)


def _open(settings: Settings, address: tuple[str, int] | None, protocol: int = 2) -> Any:
    # Trying again is the caller's: within one call nothing may take longer than the deadline says.
    options: dict[str, Any] = {
        "db": settings.db, "protocol": protocol, "retry": Retry(NoBackoff(), 0), "health_check_interval": 0,
        "socket_timeout": settings.timeout, "socket_connect_timeout": settings.connect_timeout,
        "client_name": settings.client_name or None, **_ABOUT,
    }  # fmt: skip
    if settings.credential_provider is not None:
        options["credential_provider"] = provider_of(settings.credential_provider)
    elif settings.password or settings.username:
        options |= {"username": settings.username or None, "password": settings.password}
    connection: Any
    if address is None:
        del options["socket_connect_timeout"]
        connection = _KINDS["socket"](path=settings.path, **options)
    else:
        options |= {"host": address[0], "port": address[1], "socket_keepalive": settings.keepalive}
        connection = _KINDS["tcp" if settings.tls is None else "tls"](**options, **(settings.tls or {}))
    try:
        connection.connect()
    except BaseException:
        connection.disconnect()
        raise
    return connection


def _share(settings: Settings) -> Settings:
    """Settings for asking one of several: all of them together may be silent no longer than one server."""
    seconds = settings.timeout / (len(settings.addresses) + 1)
    return replace(settings, timeout=seconds, connect_timeout=min(seconds, settings.connect_timeout))


def _master(settings: Settings) -> tuple[str, int]:
    """What the sentinels say."""
    share = _share(settings)
    about: dict[str, Any] = {
        "socket_timeout": share.timeout, "socket_connect_timeout": share.connect_timeout, "retry": Retry(NoBackoff(), 0),
    }  # fmt: skip
    if settings.tls is not None and settings.sentinel_kwargs.get("ssl", True):
        about |= {"ssl": True, **settings.tls}
    make: Any = Sentinel
    sentinel = make(list(settings.addresses), sentinel_kwargs={**about, **settings.sentinel_kwargs})
    try:
        host, port = sentinel.discover_master(settings.master_name)
    except MasterNotFoundError as exc:  # its text is pages of redis-py's objects
        raise RedisConnectionError(f"no sentinel answers and knows a master {settings.master_name!r}") from exc
    finally:
        for client in sentinel.sentinels:
            client.close()
    return str(host), int(port)


def _owner(settings: Settings) -> tuple[str, int]:
    """The node that has our slot, by the first node that knows."""
    slot, problems = slot_of(settings.tag), []
    for address in settings.addresses:
        try:
            node = _open(_share(settings), address)
        except (OSError, RedisError) as exc:
            problems.append(f"{address[0]}:{address[1]}: {exc}")
            continue
        try:
            node.send_command("CLUSTER", "SLOTS")
            for first, last, owner, *_ in node.read_response(disable_decoding=True):
                if first <= slot <= last:
                    return (owner[0] or b"").decode() or address[0], int(owner[1])
        finally:
            node.disconnect()
        problems.append(f"{address[0]}:{address[1]}: no node has slot {slot}")
    raise RedisConnectionError("; ".join(problems))


def slot_of(tag: str) -> int:
    """The cluster's slot of all keys with this hash tag."""
    return binascii.crc_hqx(tag.encode(), 0) % 16384


def provider_of(given: Any) -> CredentialProvider:
    """A credential provider, given as such or as the import path of its class."""
    if not isinstance(given, str):
        return given  # type: ignore[no-any-return]
    module, _, name = given.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)()  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f"credential_provider: can't import {given!r}: {exc}") from exc
