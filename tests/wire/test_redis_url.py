"""What Redis URLs and options mean, and what is refused."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.results.open import open_store
from celeriac.results.redis import RedisStore
from celeriac.results.redis_locate import provider_of, slot_of
from celeriac.results.redis_url import Settings, parse_url
from celeriac.transport.open import open_transport
from celeriac.transport.redis import RedisTransport


def parsed(url: str, **options: Any) -> Settings:
    return parse_url(url, options, ())[0]


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("redis://", {"addresses": (("localhost", 6379),), "db": 0}),
        ("redis://h:1234/5", {"addresses": (("h", 1234),), "db": 5}),
        ("redis://:p%40ss@h/1", {"password": "p@ss", "username": "", "db": 1}),
        ("redis://u:p@h", {"password": "p", "username": "u"}),
        ("redis://[::1]:7/2", {"addresses": (("::1", 7),), "db": 2}),
        ("redis://h/0?timeout=2.5&client_name=me", {"timeout": 2.5, "connect_timeout": 2.5, "client_name": "me"}),
        ("redis://h?socket_timeout=9&socket_connect_timeout=1", {"timeout": 9.0, "connect_timeout": 1.0}),
        ("redis+socket:///run/r.sock?virtual_host=3", {"kind": "socket", "path": "/run/r.sock", "db": 3}),
        ("socket:///run/r.sock?db=2", {"kind": "socket", "path": "/run/r.sock", "db": 2}),
        (
            "sentinel://a:1/3;sentinel://b;c:9?master_name=m",
            {"kind": "sentinel", "addresses": (("a", 1), ("b", 26379), ("c", 9)), "db": 3, "master_name": "m"},
        ),
        ("redis+cluster://a:1,b?hash_tag=t", {"kind": "cluster", "addresses": (("a", 1), ("b", 6379)), "tag": "t"}),
    ],
)
def test_urls(url: str, fields: dict[str, Any]) -> None:
    settings = parsed(url)
    assert {name: getattr(settings, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("redis://h:port", {}, "port must be a number from 1 to 65535, not 'port'"),
        ("redis://h:70000", {}, "not '70000'"),
        ("redis://h/mail", {}, "database is a number such as 0, not 'mail'"),
        ("redis://h", {"timeot": 1}, "no option 'timeot'.*Did you mean 'timeout'"),
        ("redis://h", {"timeout": "soon"}, "timeout is a number of at least 0.001, not 'soon'"),
        ("redis://h", {"socket_keepalive": "maybe"}, "true or false, not 'maybe'"),
        ("redis+socket://", {}, "names no socket"),
        ("sentinel://h", {}, "needs the option master_name"),
        ("rediss://h", {"ssl_cert_reqs": "perhaps"}, "'required', 'optional' or 'none', not 'perhaps'"),
        ("rediss://h", {"ssl": {"ssl_cafile": "x"}}, "no option 'ssl_cafile'"),
    ],
)
def test_mistakes_are_named(url: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        parsed(url, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"priority_steps": "many"}, "priority_steps is a list of numbers"),
        ({"queue_order_strategy": "random"}, "queue_order_strategy is one of"),
        ({"visibility_timeout": 0}, "visibility_timeout is a number"),
        ({"visiblity_timeout": 5}, "Did you mean 'visibility_timeout'"),
    ],
)
def test_mistakes_in_transport_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        RedisTransport("redis://h", options)


def test_secrets_are_masked() -> None:
    for opened in (open_transport("redis://u:geheim@h/0?password=geheim"), open_store("redis://u:geheim@h/0")):
        assert "geheim" not in opened.url


def test_tls_options() -> None:
    assert parsed("redis://h").tls is None
    assert parsed("redis://h", ssl=False).tls is None
    assert parsed("rediss://h").tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    none = {"ssl_cert_reqs": ssl.CERT_NONE}
    for tls in (
        parsed("rediss://h?ssl_cert_reqs=none").tls,
        parsed("rediss://h?ssl_cert_reqs=CERT_NONE").tls,
        parsed("redis://h", ssl=none).tls,
        parsed("redis://h", backend_use_ssl=none).tls,
    ):
        assert tls == none
    assert parsed("rediss://h?ssl_check_hostname=false&ssl_ca_certs=x").tls == {
        "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": False, "ssl_ca_certs": "x",
    }  # fmt: skip


class Provider:
    def get_credentials(self) -> tuple[str, str]:
        return "user", "fresh"


def test_credential_providers() -> None:
    given = Provider()
    assert provider_of(given) is given
    assert provider_of(f"{__name__}.Provider").get_credentials() == ("user", "fresh")
    with pytest.raises(ImproperlyConfigured, match="can't import 'no.such'"):
        provider_of("no.such")


def test_old_settings_fill_an_empty_url() -> None:
    settings = parsed("redis://", host="h", port=7, db=2, password="p")
    assert (settings.addresses, settings.db, settings.password) == ((("h", 7),), 2, "p")
    assert parsed("redis://other/1", host="h").addresses == (("other", 6379),)


def test_slots_are_redis_clusters() -> None:
    assert slot_of("123456789") == 0x31C3 % 16384
    assert slot_of("foo") == 12182


def test_broker_and_store_commit_together_only_on_one_database() -> None:
    transport = RedisTransport("redis://:a@h:6379/1")
    assert transport.commits_with(RedisStore("redis://:b@h/1"))
    assert not transport.commits_with(RedisStore("redis://h/2"))
    assert not transport.commits_with(RedisStore("redis://other/1"))
