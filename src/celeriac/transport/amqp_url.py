"""Where RabbitMQ is and how to connect: `amqp://user:password@host:port/vhost?option=value;amqp://…` and options as data.

`transport.amqp` reads its URL with `parse`; `amqp_link` connects to the endpoints it names, in turn. A URL's query has
precedence over the options of the settings. Passwords stand in `Endpoint` only, and in no text that is shown.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from celeriac.config_mask import mask_url
from celeriac.errors import ImproperlyConfigured, near_match
from celeriac.results.drivers import check_options, split_query

__all__ = ["Endpoint", "Options", "Place", "parse"]

#: Longest that one operation may wait for RabbitMQ, in seconds; below the default of `publish_timeout`, 5 s.
TIMEOUT = 4.0
#: Interval of heartbeats that is asked for, in seconds; the server's own proposal counts if it is shorter.
HEARTBEAT = 60.0
#: RabbitMQ's default `consumer_timeout`: an unacknowledged message that is older costs its channel.
CONSUMER_TIMEOUT = 1800.0
#: How long nothing may come to an open consumer until the server is asked whether messages wait for it, in seconds.
STALL_TIMEOUT = 15.0

_TLS_NAMES = (
    "ca_certs",
    "cafile",
    "certfile",
    "keyfile",
    "keyfile_password",
    "cert_reqs",
    "server_hostname",
    "ciphers",
)
#: Options of stock clients that have no meaning here: retrying is the caller's, confirms are always on, and what an
#: unacknowledged message may take is the server's affair.
_IGNORED = ("confirm_publish", "interval_max", "interval_start", "interval_step", "max_retries", "polling_interval",
            "ssl_version", "visibility_timeout")  # fmt: skip
_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
#: AMQPLAIN, the stock default, sends the same as PLAIN in another form; every server that has it has PLAIN.
_LOGINS = ("PLAIN", "AMQPLAIN", "EXTERNAL")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How this driver behaves.

    Attributes:
        timeout: Longest wait for RabbitMQ, in seconds.
        consumer_timeout: The server's `consumer_timeout`, in seconds; 0 if it has none.
        delayed_queue_type: Type of the queues that hold delayed messages, "quorum" or "classic".
        stall_timeout: Seconds without a message after which the server is asked whether any wait; 0 never asks.
    """

    timeout: float = TIMEOUT
    consumer_timeout: float = CONSUMER_TIMEOUT
    delayed_queue_type: str = "quorum"
    stall_timeout: float = STALL_TIMEOUT


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One server.

    Attributes:
        masked: Its URL without the password.
        tls: How to secure the connection, or None.
    """

    host: str
    port: int
    user: str
    password: str
    vhost: str
    masked: str
    timeout: float = TIMEOUT
    heartbeat: float = HEARTBEAT
    login_method: str | None = None
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says.

    Attributes:
        masked: All of it, without passwords.
        order: The endpoints in the order in which they are tried, without end.
    """

    endpoints: list[Endpoint]
    options: Options
    masked: str
    order: Callable[[], Iterator[Endpoint]]


def parse(url: str, options: Mapping[str, Any]) -> Place:
    """Read a broker URL, or several with `;` between them.

    Raises:
        ImproperlyConfigured: Something in it is wrong; the message names it.
    """
    urls = [part.strip() for part in url.split(";") if part.strip()]
    if not urls:
        raise ImproperlyConfigured(f"{url!r} names no server, as 'amqp://localhost:5672//' does.")
    given = dict(options)
    endpoints = []
    for part in urls:
        base, query = split_query(part)
        given = {**given, **query}
        if "://" not in base:  # kombu lets the further ones leave the scheme out
            base = f"{urls[0].partition('://')[0]}://{base}"
        endpoints.append(base)
    known = (*Options.__struct_fields__, *_TLS_NAMES, *_IGNORED, "heartbeat", "login_method", "failover_strategy", "ssl",
             "connect_timeout", "read_timeout", "write_timeout", "client_properties")  # fmt: skip
    check_options(given, known, "amqp://")
    settings = Options(
        timeout=_seconds(given, "timeout", _seconds(given, "connect_timeout", TIMEOUT)) or TIMEOUT,
        consumer_timeout=_seconds(given, "consumer_timeout", CONSUMER_TIMEOUT),
        delayed_queue_type=_one_of(given, "delayed_queue_type", "quorum", ("quorum", "classic")),
        stall_timeout=_seconds(given, "stall_timeout", STALL_TIMEOUT),
    )
    found = [_endpoint(base, given, settings) for base in endpoints]
    return Place(
        endpoints=found, options=settings, masked=mask_url(url), order=_order(given.get("failover_strategy"), found)
    )


def _endpoint(url: str, given: Mapping[str, Any], settings: Options) -> Endpoint:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may show the password
        raise ImproperlyConfigured(
            f"{mask_url(url)!r}: the host can't be read; an IPv6 address stands in brackets, as in 'amqp://[::1]:5672/'."
        ) from None
    try:
        port = parts.port
    except ValueError as exc:
        raise ImproperlyConfigured(f"{mask_url(url)!r}: the port must be a number from 1 to 65535.") from exc
    host = parts.hostname or "localhost"
    tls = _tls(given, parts.scheme == "amqps")
    login = given.get("login_method")
    return Endpoint(
        host=host,
        port=port or (5671 if tls is not None else 5672),
        user=unquote(parts.username) if parts.username else "guest",
        password=unquote(parts.password) if parts.password is not None else "guest",
        vhost=_vhost(parts.path),
        masked=mask_url(url),
        timeout=settings.timeout,
        heartbeat=_seconds(given, "heartbeat", HEARTBEAT),
        login_method=_one_of({"login_method": str(login).upper()}, "login_method", "", _LOGINS) if login else None,
        tls=tls,
        server_hostname=(given.get("server_hostname") or host) if tls is not None else None,
    )


def _vhost(path: str) -> str:
    """The virtual host: `/name`, and `/`, `//` or nothing for the one that is called "/"."""
    return unquote(path[1:]) or "/"


def _seconds(given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise ImproperlyConfigured(f"amqp:// option {name}={value!r} is not a number of seconds.")
    return seconds


def _one_of(given: Mapping[str, Any], name: str, default: str, allowed: Sequence[str]) -> str:
    value = given.get(name) or default
    if value not in allowed:
        raise ImproperlyConfigured(
            f"amqp:// option {name}={value!r} is unknown; allowed are {', '.join(allowed)}.{near_match(str(value), allowed)}"
        )
    return str(value)


def _order(strategy: Any, endpoints: list[Endpoint]) -> Callable[[], Iterator[Endpoint]]:
    """How the next endpoint is chosen: "round-robin", "shuffle", or a function from a list to an endless iterator."""
    if callable(strategy):
        return lambda: iter(strategy(endpoints))
    if (
        _one_of({"failover_strategy": strategy}, "failover_strategy", "round-robin", ("round-robin", "shuffle"))
        == "shuffle"
    ):
        return lambda: cycle(random.sample(endpoints, len(endpoints)))
    return lambda: cycle(endpoints)


def _tls(given: Mapping[str, Any], is_wanted: bool) -> ssl.SSLContext | None:
    """How to secure the connection: from `ssl` (True or a dict, as `broker_use_ssl` has it) and from single options."""
    option = given.get("ssl")
    if isinstance(option, str):
        option = option.lower() in ("1", "true", "yes", "on")
    if not is_wanted and not option:
        return None
    choice = {
        **{name: given[name] for name in _TLS_NAMES if name in given},
        **(option if isinstance(option, Mapping) else {}),
    }
    check_options(choice, (*_TLS_NAMES, "ssl_version", "context", "password"), "amqps:// (ssl)")
    if isinstance(choice.get("context"), ssl.SSLContext):
        context: ssl.SSLContext = choice["context"]
        return context
    try:
        context = ssl.create_default_context(cafile=choice.get("ca_certs") or choice.get("cafile"))
        if choice.get("certfile"):
            password = choice.get("keyfile_password") or choice.get("password")
            context.load_cert_chain(choice["certfile"], choice.get("keyfile"), password)
        if choice.get("ciphers"):
            context.set_ciphers(choice["ciphers"])
    except (OSError, ValueError, TypeError) as exc:
        raise ImproperlyConfigured(f"amqps://: a certificate, key or cipher list can't be used: {exc}") from exc
    verify_mode, context.check_hostname = _verification(choice.get("cert_reqs"))
    context.verify_mode = verify_mode
    return context


def _verification(value: Any) -> tuple[ssl.VerifyMode, bool]:
    """From `ssl.CERT_NONE`, "CERT_NONE" or "none"; the default is to verify."""
    if value is None:
        return ssl.CERT_REQUIRED, True
    if isinstance(value, int) and value in _VERIFY.values():
        return ssl.VerifyMode(value), value == ssl.CERT_REQUIRED
    name = str(value).lower().removeprefix("ssl.").removeprefix("cert_")
    if name not in _VERIFY:
        raise ImproperlyConfigured(f"amqps:// option cert_reqs={value!r} is unknown; allowed are {', '.join(_VERIFY)}.")
    return _VERIFY[name], name == "required"
