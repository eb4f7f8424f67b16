"""Which server to connect to, and with which password: fixed, or asked of sentinels, or of the nodes of a cluster.

`redis_connection` calls `locate` for each new connection, so that after a failover the next one goes to the new master.
In a cluster all keys of an app carry one hash tag and so live on one node; `locate` finds that node.
"""

from __future__ import annotations

import binascii
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.results.redis_url import Settings

__all__ = ["credentials", "locate", "slot_of"]

_Ask = Callable[[Settings, tuple[str, int], Sequence[Sequence[Any]]], list[Any]]


def locate(settings: Settings, ask: _Ask) -> tuple[str, int] | str:
    """The address to connect to: (host, port), or the path of a socket."""
    if settings.kind == "socket":
        return settings.path
    if settings.kind == "server":
        return settings.addresses[0]
    find = _master if settings.kind == "sentinel" else _owner
    problems = []
    for address in settings.addresses:
        try:
            return find(settings, address, ask)
        except (OSError, OperationalError) as exc:
            problems.append(f"{address[0]}:{address[1]}: {exc}")
    raise OSError("; ".join(problems))


def _master(settings: Settings, address: tuple[str, int], ask: _Ask) -> tuple[str, int]:
    """What one sentinel says about the master."""
    about = settings.sentinel_kwargs
    plain = msgspec.structs.replace(settings, tls=settings.tls if about.get("ssl", settings.tls) else None)
    commands: list[tuple[Any, ...]] = []
    if about.get("password"):
        user = about.get("username")
        commands.append(("AUTH", user, about["password"]) if user else ("AUTH", about["password"]))
    commands.append(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.master_name))
    reply = ask(plain, address, commands)[-1]
    if isinstance(reply, Exception):
        raise OSError(str(reply))
    if reply is None:
        raise OSError(f"the sentinel knows no master {settings.master_name!r}")
    return reply[0].decode(), int(reply[1])


def _owner(settings: Settings, address: tuple[str, int], ask: _Ask) -> tuple[str, int]:
    """What one node says about the owner of our slot."""
    user, password = credentials(settings)
    commands: list[tuple[Any, ...]] = []
    if password:
        commands.append(("AUTH", user, password) if user else ("AUTH", password))
    commands.append(("CLUSTER", "SLOTS"))
    reply = ask(settings, address, commands)[-1]
    if isinstance(reply, Exception):
        raise OSError(str(reply))
    slot = slot_of(settings.tag)
    for first, last, node, *_ in reply:
        if first <= slot <= last:
            return (node[0] or b"").decode() or address[0], int(node[1])
    raise OSError(f"no node has slot {slot}")


def slot_of(tag: str) -> int:
    """The cluster's slot of all keys with this hash tag."""
    return binascii.crc_hqx(tag.encode(), 0) % 16384


def credentials(settings: Settings) -> tuple[str, str]:
    """User and password, from the URL or the credential provider; empty where there is none."""
    provider = settings.credential_provider
    if provider is None:
        return settings.username, settings.password
    if isinstance(provider, str):
        module, _, name = provider.replace(":", ".").rpartition(".")
        try:
            provider = getattr(importlib.import_module(module), name)()
        except (ImportError, AttributeError, ValueError) as exc:
            raise ImproperlyConfigured(f"credential_provider: can't import {provider!r}: {exc}") from exc
    given = provider.get_credentials()
    return (str(given[0]), str(given[1])) if len(given) > 1 else ("", str(given[0]))
