"""Broker URLs of RabbitMQ, as Celery documents them, and their options."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.transport.amqp import AmqpTransport
from celeriac.transport.amqp_url import Endpoint, parse
from celeriac.transport.open import open_transport


def one(url: str, **options: Any) -> Endpoint:
    [endpoint] = parse(url, options).endpoints
    return endpoint


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "password", "vhost"),
    [
        ("amqp://", "localhost", 5672, "guest", "guest", "/"),
        ("amqp://host", "host", 5672, "guest", "guest", "/"),
        ("pyamqp://u:p@host:5673/v", "host", 5673, "u", "p", "v"),
        ("librabbitmq://u:p@host//", "host", 5672, "u", "p", "/"),
        ("amqp://u:p@host/%2F", "host", 5672, "u", "p", "/"),
        ("amqp://u%40x:p%3Aq%2Fr@host/a%20b", "host", 5672, "u@x", "p:q/r", "a b"),
        ("amqp://u:@[::1]:5673/v", "::1", 5673, "u", "", "v"),
        ("amqps://host/v", "host", 5671, "guest", "guest", "v"),
    ],
)
def test_parts(url: str, host: str, port: int, user: str, password: str, vhost: str) -> None:
    endpoint = one(url)
    assert (endpoint.host, endpoint.port, endpoint.user) == (host, port, user)
    assert (endpoint.password, endpoint.vhost) == (password, vhost)
    assert (endpoint.tls is not None) == url.startswith("amqps")


def test_several_hosts_in_turn() -> None:
    place = parse("amqp://u:p@a//; b:1234/v;amqp://c", {})
    assert [(each.host, each.port) for each in place.endpoints] == [("a", 5672), ("b", 1234), ("c", 5672)]
    assert [each.host for each in itertools.islice(place.order(), 5)] == ["a", "b", "c", "a", "b"]
    assert "p@" not in place.masked


def test_failover_strategies() -> None:
    url = "amqp://a;amqp://b;amqp://c"
    shuffled = parse(url, {"failover_strategy": "shuffle"})
    assert {each.host for each in itertools.islice(shuffled.order(), 3)} == {"a", "b", "c"}

    def last_only(endpoints: list[Endpoint]) -> Iterator[Endpoint]:
        return itertools.repeat(endpoints[-1])

    assert next(parse(url, {"failover_strategy": last_only}).order()).host == "c"


def test_options_of_the_query_come_first() -> None:
    place = parse(
        "amqp://host//?timeout=1.5&heartbeat=7&delayed_queue_type=classic", {"timeout": 9, "consumer_timeout": 60}
    )
    assert (place.options.timeout, place.options.consumer_timeout) == (1.5, 60.0)
    assert place.options.delayed_queue_type == "classic"
    assert place.endpoints[0].heartbeat == 7.0


def test_options_of_stock_clients_are_taken() -> None:
    options = {
        "confirm_publish": True,
        "max_retries": 3,
        "interval_start": 0,
        "read_timeout": 5,
        "client_properties": {},
    }
    assert one("amqp://host", **options).host == "host"


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("amqp://host:x/v", {}, "port"),
        ("amqp://host?tmeout=3", {}, "'tmeout'.*Did you mean 'timeout'"),
        ("amqp://host", {"timeout": "soon"}, "timeout='soon' is not a number of seconds"),
        ("amqp://host", {"delayed_queue_type": "quorun"}, "Did you mean 'quorum'"),
        ("amqp://host", {"login_method": "magic"}, "MAGIC.*allowed are PLAIN, AMQPLAIN, EXTERNAL"),
        ("amqp://host", {"failover_strategy": "random"}, "allowed are round-robin, shuffle"),
        ("amqps://host", {"cert_reqs": "maybe"}, "allowed are required, optional, none"),
        ("amqps://host", {"ca_certs": "/nowhere.pem"}, "can't be used"),
        ("amqps://host", {"ssl": {"certfle": "x"}}, "Did you mean 'certfile'"),
    ],
)
def test_mistakes_are_named(url: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        parse(url, options)


@pytest.mark.parametrize(
    ("options", "mode", "checks_name"),
    [
        ({}, ssl.CERT_REQUIRED, True),
        ({"cert_reqs": "CERT_NONE"}, ssl.CERT_NONE, False),
        ({"ssl": {"cert_reqs": ssl.CERT_NONE}}, ssl.CERT_NONE, False),
        ({"cert_reqs": "ssl.CERT_OPTIONAL"}, ssl.CERT_OPTIONAL, False),
    ],
)
def test_certificates_are_verified_unless_told_not_to(
    options: dict[str, Any], mode: ssl.VerifyMode, checks_name: bool
) -> None:
    tls = one("amqps://host", **options).tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (mode, checks_name)


def test_tls_by_setting() -> None:
    assert one("amqp://host", ssl=True).tls is not None
    assert one("amqp://host", ssl=False).tls is None
    assert one("amqp://host?ssl=true").port == 5671


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "pyamqp", "librabbitmq"])
def test_schemes(scheme: str) -> None:
    transport = open_transport(f"{scheme}://u:secret@host//", {})
    assert isinstance(transport, AmqpTransport)
    assert "secret" not in transport.url
    assert "secret" not in repr(transport)


def test_settings_of_the_app_are_options() -> None:
    app = Celeriac(
        "x", broker="amqp://host//", broker_heartbeat=None, broker_login_method="PLAIN", broker_use_ssl=True,
        broker_native_delayed_delivery_queue_type="classic", set_as_current=False,
    )  # fmt: skip
    transport = open_transport("amqp://host//", {"timeout": 2}, app.conf)
    assert isinstance(transport, AmqpTransport)
    [endpoint] = transport._place.endpoints
    assert (endpoint.heartbeat, endpoint.login_method, endpoint.timeout) == (0.0, "PLAIN", 2.0)
    assert endpoint.tls is not None
    assert transport._place.options.delayed_queue_type == "classic"
