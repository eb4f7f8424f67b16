"""Targets: what people write: rates, URLs, settings, options of the command line, routes, keys and certificates."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Any

import click
from cryptography.hazmat.primitives.asymmetric import ed25519

from celeriac import rates
from celeriac.cli import values
from celeriac.config_mask import mask_url
from celeriac.config_source import from_cmdline, read_environment, read_source
from celeriac.errors import DecodeError, ImproperlyConfigured, QueueNotFound, SecurityError
from celeriac.message import Message
from celeriac.options import check_options, signatures_of, task_id_of
from celeriac.queue_forms import queues_from_setting
from celeriac.results import filesystem, memcached, redis_url, sql_settings, sqlite_database
from celeriac.results.drivers import find_factory
from celeriac.results.open import STORES
from celeriac.router import Router
from celeriac.routing import Exchange, Queue, binding_matches
from celeriac.security import Certificate, CertStore, PrivateKey, SecureSerializer
from celeriac.setting_table import TABLE
from celeriac.task_limits import OPTIONS, check_option
from celeriac.transport import amqp_url, filesystem_url
from celeriac.transport.binding import Binding, queues_for
from celeriac.transport.open import TRANSPORTS, broker_urls
from tests.fuzz.feed import Feed
from tests.fuzz.target import target
from tests.support.signing_keys import certificate, key_pem
from tests.wire import golden

_TLS = ("ssl", "ca_certs", "certfile", "keyfile", "cert_reqs", "required", "none", "ssl_cert_reqs", "true")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@target("celeriac.rates", refuses=(ValueError,), starts=lambda: [b"10/s", b"100/m", b"5/h", b"1e-300/h", b"0.5"])
def rate(data: bytes) -> None:
    _took(rates.parse_rate(_text(data)))


@target("celeriac.rates", refuses=(ValueError,))
def rate_value(data: bytes) -> None:
    _took(rates.parse_rate(Feed(data, ("10/s", "100/m", "5/h", "1e308/s", "1e-320")).value()))


def _took(found: float) -> None:
    assert 0 <= found < math.inf
    if not found:
        return
    interval = rates.interval_of(found)
    taken = rates.take(0.0, 1.9e9, interval, rates.tolerance_of(interval), 10)
    assert 1 <= taken.granted <= 10
    assert taken.wait >= 0.0
    assert not math.isnan(taken.next_at)


@target("celeriac.task_limits", refuses=(ImproperlyConfigured,))
def task_option(data: bytes) -> None:
    feed = Feed(
        data,
        ("10/s", "cluster", "worker", "until_start", "until_done", "ignore", "raise", "tenant:{x}", "{}"),
        is_deep=False,
    )
    check_option("add", feed.choice(tuple(OPTIONS)), feed.value())


@target("celeriac.options", refuses=(ValueError, TypeError))
def call_options(data: bytes) -> None:
    names = ("priority", "time_limit", "soft_time_limit", "headers", "retry_policy", "stamps", "queue", "contdown", "link",
             "task_id", "stamped_headers", "countdown", "tenant_id")  # fmt: skip
    feed = Feed(data, names, is_deep=False)
    table = feed.table()
    check_options(table)
    signatures_of("link", table.get("link"))
    task_id_of(table.get("task_id", "i"))


# --- URLs ---

_URLS = (
    b"redis://user:p%40ss@localhost:6379/0?ssl_cert_reqs=none", b"rediss://h/1", b"redis+socket:///run/r.sock?db=2",
    b"sentinel://a:26379;b:26379/0?master_name=m", b"redis+cluster://a,b/?hash_tag=x", b"amqp://u:p@h:5672//?heartbeat=30",
    b"amqps://h/v%2Fhost?cert_reqs=none;h2", b"amqp://[::1]:5672/;amqp://b", b"filesystem:///var/q?store_processed=true",
    b"db+postgresql+psycopg2://u:p@h:5432/d?sslmode=require&pool_size=3", b"mysql://h/d?timeout=2", b"sqlite:///x.db",
    b"sqlite:////tmp/x.db?synchronous=NORMAL&busy_timeout=3", b"cache+memcached://a:11211;b/", b"memory://", b"redis", b"file:///var/r",
)  # fmt: skip


@target("celeriac.results.redis_url", refuses=(ImproperlyConfigured,), starts=lambda: _URLS)
def url_of_redis(data: bytes) -> None:
    settings, _ = redis_url.parse_url(_text(data), {}, ("global_keyprefix",))
    assert settings.db >= 0
    assert all(0 < port < 65536 for _, port in settings.addresses)
    hash(settings.identity)


@target("celeriac.results.redis_url", refuses=(ImproperlyConfigured,))
def options_of_redis(data: bytes) -> None:
    names = (*sorted(redis_url.CONNECTION_OPTIONS), *_TLS, "m", "1", "yes", "localhost")
    feed = Feed(data, names, is_deep=False)
    options = {str(feed.choice(names)): feed.value(4) for _ in range(feed.byte() % 4)}
    redis_url.parse_url(feed.choice(("redis://h", "rediss://h", "sentinel://h", "redis+cluster://h")), options, ())


@target("celeriac.transport.amqp_url", refuses=(ImproperlyConfigured,), starts=lambda: _URLS)
def url_of_rabbitmq(data: bytes) -> None:
    place = amqp_url.parse(_text(data), {})
    first = next(place.order())
    assert 0 < first.port < 65536


@target("celeriac.transport.amqp_url", refuses=(ImproperlyConfigured,))
def options_of_rabbitmq(data: bytes) -> None:
    names = ("heartbeat", "login_method", "failover_strategy", "connect_timeout", "consumer_timeout", "stall_timeout",
             "delayed_queue_type", "PLAIN", "shuffle", "quorum", *_TLS)  # fmt: skip
    feed = Feed(data, names, is_deep=False)
    options = {str(feed.choice(names)): feed.value(4) for _ in range(feed.byte() % 4)}
    amqp_url.parse(feed.choice(("amqp://h", "amqps://h")), options)


@target("celeriac.transport.filesystem_url", refuses=(ImproperlyConfigured,), starts=lambda: _URLS)
def url_of_folder(data: bytes) -> None:
    try:
        filesystem_url.parse_url(_text(data), {})
    finally:
        filesystem.FilesystemStore(_text(data))


@target("celeriac.results.sql_settings", refuses=(ImproperlyConfigured,), starts=lambda: _URLS)
def url_of_sql(data: bytes) -> None:
    sql_settings.parse_url(_text(data), {})


@target("celeriac.results.sqlite_database", refuses=(ImproperlyConfigured,), starts=lambda: _URLS)
def url_of_sqlite(data: bytes) -> None:
    sqlite_database.parse_url(_text(data), {})


@target("celeriac.results.memcached", refuses=(ImproperlyConfigured,), starts=lambda: _URLS)
def url_of_memcached(data: bytes) -> None:
    memcached.MemcachedStore(_text(data)).close()


@target("celeriac.transport.open", "celeriac.results.drivers", refuses=(ImproperlyConfigured,), starts=lambda: _URLS)
def url_of_any(data: bytes) -> None:
    text = _text(data)
    assert isinstance(mask_url(text), str)
    for url in broker_urls(text):
        find_factory(url, TRANSPORTS, "celeriac.transports", "broker")
    find_factory(text, STORES, "celeriac.results", "result backend")


@target("celeriac.results.sql_settings", "celeriac.transport.filesystem_url", refuses=(ImproperlyConfigured,))
def options_of_others(data: bytes) -> None:
    sql = sql_settings.OPTIONS
    feed = Feed(
        data,
        (*sql, "polling_interval", "store_processed", "synchronous", "FULL", "task", "group", *_TLS),
        is_deep=False,
    )
    options = {name: feed.value(4) for name in sql if feed.byte() % 8 == 1 and name != "engine_options"}
    folders = {
        name: feed.value(4) for name in ("polling_interval", "store_processed", "synchronous") if feed.byte() % 4 == 1
    }
    try:
        filesystem_url.parse_url("filesystem:///var/q", folders)
    finally:
        sql_settings.parse_url(feed.choice(("postgresql://h/d", "mysql://h/d")), options)


# --- settings and the command line ---

_SETTINGS = tuple(TABLE)


@target("celeriac.setting_kind", "celeriac.setting_table_base", refuses=(ImproperlyConfigured,))
def setting_text(data: bytes) -> None:
    feed = Feed(data)
    TABLE[_SETTINGS[(feed.byte() + feed.byte()) % len(_SETTINGS)]].parse(_text(feed.rest()))


@target("celeriac.setting_kind", "celeriac.setting_table_base", refuses=(ImproperlyConfigured,))
def setting_value(data: bytes) -> None:
    feed = Feed(data, ("true", "auto", "json", "pickle", "sqlite:///x.db", "1", "none"), is_deep=False)
    TABLE[_SETTINGS[(feed.byte() + feed.byte()) % len(_SETTINGS)]].check(feed.value())


@target(
    "celeriac.config_source",
    refuses=(ImproperlyConfigured,),
    starts=lambda: [b"worker.concurrency=4\0task_acks_late=true"],
)
def setting_names(data: bytes) -> None:
    arguments = _text(data).split("\0")
    try:
        from_cmdline(arguments)
    finally:
        read_environment(
            {f"CELERIAC_{name.upper()}": text for name, _, text in (each.partition("=") for each in arguments)}
        )
        read_source(dict.fromkeys(arguments, 1))


_OPTION_TYPES = (
    values.CommaList(), values.OneOf(["prefork", "solo"], {"p": "prefork"}), values.LogLevel(), values.Concurrency(),
    values.Json(list), values.Json(dict), values.Moment(), values.Moment(seconds=True),
)  # fmt: skip


@target(
    "celeriac.cli.values",
    refuses=(click.UsageError,),
    starts=lambda: [b"\4[1]", b"\5{}", b"\x032", b"\7nan", b"\2INFO"],
)
def cli_value(data: bytes) -> None:
    _OPTION_TYPES[(data[:1] or b"\0")[0] % len(_OPTION_TYPES)].convert(_text(data[1:]), None, None)


# --- routes ---


@target("celeriac.router", "celeriac.queue_forms", "celeriac.routing", refuses=(ImproperlyConfigured, QueueNotFound))
def routes(data: bytes) -> None:
    names = ("queue", "exchange", "exchange_type", "routing_key", "priority", "direct", "topic", "fanout", "headers", "tasks.*",
             "tasks.add", "celery", "default", "binding_key", "queue_arguments", "max_priority")  # fmt: skip
    feed = Feed(data, names, is_deep=False)
    default = Queue("celery", Exchange("celery"), "celery")
    queues = {feed.text(): feed.table() if feed.byte() % 4 else feed.value(4) for _ in range(feed.byte() % 3)}
    table = {feed.text(): feed.table() if feed.byte() % 4 else feed.value(4) for _ in range(feed.byte() % 3)}
    known = queues_from_setting(queues if feed.byte() % 8 else feed.value(), default)
    router = Router(known, table if feed.byte() % 8 else [list(pair) for pair in table.items()], default)
    router.route("tasks.add", (), {}, feed.table() if feed.byte() % 2 else {})


@target(
    "celeriac.routing",
    "celeriac.transport.binding",
    starts=lambda: [b"tasks.*.#\0tasks.a.b.c", b"#.a.#.a.#.b\0a.a.a.a.a"],
)
def topic(data: bytes) -> None:
    pattern, _, key = _text(data).partition("\0")
    binding_matches("topic", pattern, key[:255])


@target("celeriac.transport.binding", refuses=(QueueNotFound,))
def headers_exchange(data: bytes) -> None:
    feed = Feed(data, ("x-match", "any", "all", "x-", "tenant"), is_deep=False)
    message = Message(id="i", headers=feed.table(), body=b"", exchange="e")
    queues_for(message, [Binding("q", "headers", "", feed.table())])


# --- keys and certificates ---

_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_PEM = certificate(_KEY, days=36500)
_SIGNER = SecureSerializer(PrivateKey(key_pem(_KEY)), Certificate(_PEM), CertStore([Certificate(_PEM)]))


def _pems() -> Iterator[bytes]:
    folder = golden.FOLDER / "security"
    for pem in (_PEM, (folder / "worker.crt").read_bytes()):
        yield base64.b64decode(b"".join(line for line in pem.splitlines() if not line.startswith(b"-")))


def _certificate(pem: bytes) -> None:
    found = Certificate(pem)
    CertStore([found])[found.get_id()].verify(b"data", b"signature", codec_digest())


def codec_digest() -> Any:
    """The digest that is the default."""
    return _SIGNER._digest


@target("celeriac.security.certificate", refuses=(SecurityError,), starts=_pems)
def certificate_der(data: bytes) -> None:
    _certificate(b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n" % base64.encodebytes(data))


@target("celeriac.security.certificate", refuses=(SecurityError,), starts=lambda: [_PEM])
def certificate_pem(data: bytes) -> None:
    _certificate(data)


@target("celeriac.security.key", refuses=(SecurityError,), starts=lambda: [key_pem(_KEY)])
def private_key(data: bytes) -> None:
    PrivateKey(data)


def _signed() -> Iterator[bytes]:
    yield _SIGNER.serialize([[], {}, {}]).encode()


@target("celeriac.security.signing", refuses=(SecurityError, DecodeError), starts=_signed)
def signed_bytes(data: bytes) -> None:
    _SIGNER.deserialize(data)


@target("celeriac.security.signing", refuses=(SecurityError, DecodeError))
def signed_shaped(data: bytes) -> None:
    feed = Feed(data, ("application/json", "application/x-yaml", "application/data", "utf-8", "binary"))
    body = feed.take(feed.byte())
    fields = [
        base64.b64encode(b"signer 7"), base64.b64encode(_KEY.sign(body)), feed.text().encode("utf-8", "replace"),
        feed.text().encode("utf-8", "replace"), body,
    ]  # fmt: skip
    _SIGNER.deserialize(base64.b64encode(b"\x00\x01".join(fields)))
