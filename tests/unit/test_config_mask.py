"""What settings show to people, and what they hide."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.config import Settings, load, mask_url
from celeriac.config_mask import censor
from celeriac.setting_table import TABLE


def read(source: Any = None, **options: Any) -> Settings:
    """`load` with an empty environment."""
    return load(source, **{"environ": {}, **options})


def test_b_conf_007_b_conf_008_humanize_and_table_show_what_was_set() -> None:
    conf = read({"task_serializer": "yaml", "s3_secret_access_key": "hidden"})
    assert conf.table() == {"task_serializer": "yaml", "s3_secret_access_key": "********"}
    assert conf.humanize() == "task_serializer: 'yaml'\ns3_secret_access_key: '********'"
    assert conf.table(censored=False)["s3_secret_access_key"] == "hidden"
    assert "hidden" in conf.humanize(censored=False)
    assert set(conf.table(with_defaults=True)) == set(TABLE)
    assert "worker_prefetch_multiplier: 4" in conf.humanize(with_defaults=True).splitlines()
    assert "hidden" not in repr(conf)


@pytest.mark.parametrize(
    "name",
    [
        "s3_access_key_id", "s3_secret_access_key", "redis_password", "broker_password", "security_key",
        "security_key_password", "database_url", "my_api_url", "my_token", "some_signature",
    ],
)  # fmt: skip
def test_b_conf_009_secret_names_are_masked(name: str) -> None:
    assert censor({name: "hidden", "x": {name: "hidden"}, "y": [{name: "hidden"}]}) == {
        name: "********", "x": {name: "********"}, "y": [{name: "********"}],
    }  # fmt: skip


def test_b_conf_009_harmless_names_are_not() -> None:
    values = {
        "task_default_routing_key": "celery", "cassandra_keyspace": "ks", "database_table_names": {"task": "t"},
        "task_routes": {"a": {"routing_key": "b"}}, "redis_password": None, "database_short_lived_sessions": True,
    }  # fmt: skip
    assert censor(values) == values


def test_b_conf_010_passwords_in_urls_are_masked_everywhere() -> None:
    conf = read({
        "broker_url": ["amqp://me:hunter2@a//", "amqp://me:hunter2@b//"],
        "result_backend": "db+postgresql://me:hunter2@h/db",
        "broker_transport_options": {"master": {"url": "redis://:hunter2@h"}, "all": ("redis://:hunter2@h",)},
    })  # fmt: skip
    assert "hunter2" not in conf.humanize()
    assert "hunter2" not in repr(conf.table(with_defaults=True))
    assert conf.table()["broker_url"][0] == "amqp://me:********@a//"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://me:pw@h:6379/0", "redis://me:**@h:6379/0"),
        ("redis://:pw@h", "redis://:**@h"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://me@h", "redis://me@h"),
        ("sqs://AKIA:sec/ret+@", "sqs://AKIA:**@"),
        ("redis://me:p@ss@h", "redis://me:**@h"),
        ("redis://me:p?ss@h", "redis://me:**@h"),
        ("redis://me:p@s?s@h/1?x=a@b", "redis://me:**@h/1?x=a@b"),
        ("redis://me:p#s/s@h/1?x=1", "redis://me:**@h/1?x=1"),
        ("sentinel://:pw@a:1;sentinel://:pw@b:1", "sentinel://:**@a:1;sentinel://:**@b:1"),
        ("mongodb://me:pw@a,b/db?password=pw&x=1", "mongodb://me:**@a,b/db?password=**&x=1"),
        ("redis://h/0?ssl_cert_reqs=none&password=pw", "redis://h/0?ssl_cert_reqs=none&password=**"),
        ("sqlite:///celeriac.db", "sqlite:///celeriac.db"),
        ("memory", "memory"),
    ],
)
def test_b_conf_010_mask_url(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@given(st.text(min_size=3).filter(lambda text: ";" not in text))
def test_b_conf_010_no_password_is_shown(password: str) -> None:
    # Letters that the rest of the URL does not have.
    assert "Ω" + password not in mask_url(f"amqp://me:Ω{password}@host/vhost?x=1")
