"""The settings object: reading, setting, checks, fallbacks."""

from __future__ import annotations

import ssl
import types
from collections.abc import Mapping
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac.config import Settings, load
from celeriac.errors import ImproperlyConfigured
from celeriac.setting_table import TABLE, SettingTable


def read(source: Any = None, **options: Any) -> Settings:
    """`load` with an empty environment."""
    return load(source, **{"environ": {}, **options})


def module_of(**attributes: Any) -> types.ModuleType:
    module = types.ModuleType("celeryconfig")
    vars(module).update(attributes)
    return module


# reading


def test_b_conf_001_run_time_changes_rank_above_the_source_and_that_above_defaults() -> None:
    conf = read({"task_serializer": "yaml", "result_serializer": "yaml"}, changes={"result_serializer": "pickle"})
    conf.add_defaults({"task_serializer": "msgpack", "event_serializer": "msgpack"})
    assert (conf.task_serializer, conf.result_serializer, conf.event_serializer) == ("yaml", "pickle", "msgpack")
    conf.task_serializer = "json"
    assert conf.task_serializer == "json"


def test_b_conf_002_attributes_and_items_are_equal() -> None:
    conf = read()
    conf.worker_concurrency = 3
    assert conf["worker_concurrency"] == conf.worker_concurrency == conf.get("worker_concurrency") == 3
    conf["worker_concurrency"] = 4
    assert conf.worker_concurrency == 4


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("worker_prefetch_multiplyer", "worker_prefetch_multiplier"), ("task_ack_late", "task_acks_late")],
)
def test_b_conf_002_a_misspelt_name_is_an_error_that_names_the_nearest(wrong: str, right: str) -> None:
    conf = read()
    with pytest.raises(AttributeError, match=f"{wrong}.*{right}"):
        getattr(conf, wrong)
    with pytest.raises(KeyError, match=f"{wrong}.*{right}"):
        conf[wrong]
    with pytest.raises(AttributeError, match=right):
        setattr(conf, wrong, True)
    with pytest.raises(KeyError, match=right):
        conf[wrong] = True
    with pytest.raises(ImproperlyConfigured, match=right):
        conf.update({wrong: True})
    for source in ({wrong: True}, module_of(**{wrong: True}), type("Config", (), {wrong: True})):
        with pytest.raises(ImproperlyConfigured, match=f"{wrong}.*{right}"):
            read(source)
    assert conf.changes == {}


def test_attributes_are_plain_ones() -> None:
    conf = read()
    assert conf.__dict__["task_serializer"] == "json"
    assert not hasattr(SettingTable, "task_serializer")


def test_it_is_a_mapping() -> None:
    conf = read()
    assert isinstance(conf, Mapping)
    assert len(conf) == len(TABLE) == len(list(conf)) == len(dict(conf))
    assert "task_serializer" in conf
    assert "no_such_thing" not in conf
    assert ("task_serializer", "json") in conf.items()
    assert set(conf.keys()) == set(TABLE)
    assert conf.get("no_such_thing", 7) == 7
    assert conf.setdefault("task_serializer", "yaml") == "json"
    assert list(conf.values())[list(conf).index("task_serializer")] == "json"


def test_b_conf_003_update_changes_several_and_all_or_none() -> None:
    conf = read()
    conf.update(task_serializer="yaml", worker_concurrency=2)
    conf.update({"result_serializer": "yaml"}, enable_utc=False)
    assert conf.changes == {
        "task_serializer": "yaml", "worker_concurrency": 2, "result_serializer": "yaml", "enable_utc": False,
    }  # fmt: skip
    with pytest.raises(ImproperlyConfigured):
        conf.update(task_serializer="msgpack", worker_concurrency=0)
    with pytest.raises(ImproperlyConfigured):
        conf.update(task_serializer="msgpack", event_queue_durable=True)
    assert conf.task_serializer == "yaml"
    assert conf.event_queue_durable is False


def test_deleting_goes_back_to_the_default() -> None:
    conf = read({"task_serializer": "yaml", "worker_concurrency": 2})
    assert conf.pop("task_serializer") == "yaml"
    del conf.worker_concurrency
    assert (conf.task_serializer, conf.worker_concurrency, conf.changes) == ("json", None, {})
    conf.task_always_eager = True
    conf.clear()
    assert conf.task_always_eager is False
    with pytest.raises(KeyError):
        del conf["no_such_thing"]


def test_what_was_set_can_be_asked() -> None:
    conf = read({"task_compression": None})
    conf.add_defaults(lambda: {"task_serializer": "yaml"})
    assert conf.value_set_for("task_compression")
    assert not conf.value_set_for("task_serializer")
    assert conf.changes == {"task_compression": None}
    assert conf.without_defaults() == {"task_serializer": "yaml", "task_compression": None}
    assert conf.defaults["task_serializer"] == "yaml"
    assert conf.defaults["worker_prefetch_multiplier"] == 4
    assert conf.first("task_compression", "task_serializer", "timezone") == "yaml"
    assert conf.first("task_compression", "timezone") is None
    assert conf.get_by_parts("task", "", "serializer") == "yaml"


def test_a_default_changed_in_place_counts_as_set_and_stays_in_its_object() -> None:
    conf, other = read(), read()
    conf.beat_schedule["every"] = {"task": "add", "schedule": 10}
    conf.imports.append("proj.tasks")
    conf.worker_concurrency = 2
    assert conf.beat_schedule == {"every": {"task": "add", "schedule": 10}}
    assert set(conf.changes) == {"beat_schedule", "imports", "worker_concurrency"}
    assert set(conf.plain()[0]) == {"beat_schedule", "imports", "worker_concurrency"}
    assert other.beat_schedule == {}
    assert other.changes == {}


def test_a_copy_is_changed_on_its_own() -> None:
    conf = read({"task_routes": {"a": "b"}, "task_serializer": "yaml"})
    copied = conf.copy()
    copied.task_routes["c"] = "d"
    copied.task_serializer = "json"
    assert (conf.task_routes, conf.task_serializer) == ({"a": "b"}, "yaml")


def test_none_means_the_default_where_it_is_no_value() -> None:
    conf = read({"task_serializer": None, "broker_url": None, "result_backend": None, "task_lease": None})
    assert (conf.task_serializer, conf.broker_url, conf.task_lease) == ("json", "sqlite:///celeriac.db", 30.0)
    assert conf.result_backend is None
    assert conf.changes == {"result_backend": None}


# values


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("task_acks_late", "yes", "must be true or false, not 'yes'"),
        ("task_acks_late", 2, "must be true or false, not 2"),
        ("worker_concurrency", 0, "must be 'auto', a whole number of at least 1 or None, not 0"),
        ("worker_concurrency", True, "not True"),
        ("worker_concurrency", "4", "not '4'"),
        ("worker_concurrency", 2.5, "not 2.5"),
        ("task_max_deliveries", 0, "must be a whole number of at least 1, not 0"),
        ("task_lease", 0, "must be a number above 0, not 0"),
        ("task_lease", float("nan"), "not nan"),
        ("task_lease", float("inf"), "not inf"),
        ("broker_port", 65536, "must be a whole number from 1 to 65535 or None, not 65536"),
        ("task_default_priority", 256, "from 0 to 255"),
        ("task_default_queue_type", "stream", "must be 'classic' or 'quorum', not 'stream'"),
        ("task_default_delivery_mode", True, "must be 1, 2, 'transient' or 'persistent', not True"),
        ("task_protocol", 3, "must be 1 or 2, not 3"),
        ("accept_content", ["json", 1], "must be a list of texts"),
        ("broker_transport_options", [1], "must be a dict, not \\[1\\]"),
        ("task_queues", "celery", "must be a list, a dict or None, not 'celery'"),
        ("timezone", 1, "must be text, a tzinfo or None, not 1"),
        ("result_expires", "1d", "must be a number of at least 0, a timedelta or None, not '1d'"),
        ("task_default_exchange", 5, "must be text, not 5"),
        ("task_serializer", b"json", "must be text"),
        ("task_serializer", 10**200, "must be text, not 10{70,80}\\.\\.\\.$"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(name: str, value: Any, words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^{name} must be.*") as caught:
        read({name: value})
    assert caught.match(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("task_lease", 10, 10.0),
        ("task_lease", timedelta(minutes=1), 60.0),
        ("result_expires", timedelta(hours=1), timedelta(hours=1)),
        ("result_expires", 3600, 3600.0),
        ("worker_concurrency", "auto", None),
        ("worker_concurrency", 4.0, 4),
        ("worker_max_tasks_per_child", 0, None),
        ("task_time_limit", 0, None),
        ("task_soft_time_limit", 0.0, None),
        ("task_acks_late", 0, False),
        ("accept_content", {"yaml", "json"}, ["json", "yaml"]),
        ("accept_content", ("json",), ["json"]),
        ("imports", "proj.tasks", ["proj.tasks"]),
        ("broker_url", ("redis://a", "redis://b"), ["redis://a", "redis://b"]),
        ("task_queues", (1, 2), [1, 2]),
        ("worker_state_db", Path("/var/state"), "/var/state"),
        ("broker_transport_options", types.MappingProxyType({"a": 1}), {"a": 1}),
        ("timezone", UTC, UTC),
        ("result_backend_max_retries", float("inf"), float("inf")),
        ("database_engine_callback", print, print),
        ("broker_use_ssl", True, True),
        ("broker_use_ssl", {"cert_reqs": ssl.CERT_NONE}, {"cert_reqs": ssl.CERT_NONE}),
        ("task_default_delivery_mode", "transient", "transient"),
        ("task_default_rate_limit", "10/m", "10/m"),
        ("task_default_rate_limit", 10, 10.0),
        ("security_key_password", b"x", b"x"),
        ("task_routes", print, print),
    ],
)
def test_harmless_values_are_taken(name: str, given: Any, value: Any) -> None:
    got = read({name: given})[name]
    assert got == value
    assert type(got) is type(value)


def test_secrets_never_stand_in_errors() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"redis_password": b"hunter2"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"broker_url": ["redis://me:hunter2@host", 5]})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"broker_port": "amqp://me:hunter2@host"})
    assert "hunter2" not in str(caught.value)


# fallbacks and what excludes each other


def test_b_conf_015_exchange_and_routing_key_fall_back_to_the_default_queue() -> None:
    conf = read({"task_default_queue": "mine"})
    assert conf.task_default_exchange == conf["task_default_routing_key"] == "mine"
    conf.task_default_queue = "other"
    conf.task_default_exchange = "exchange"
    assert (conf.task_default_exchange, conf.task_default_routing_key) == ("exchange", "other")
    conf.task_default_exchange = None  # type: ignore[assignment]
    assert conf.task_default_exchange == "other"


def test_broker_urls_of_readers_and_writers_fall_back() -> None:
    conf = read({"broker_url": "redis://a"})
    assert conf.broker_read_url == conf.broker_write_url == "redis://a"
    conf.broker_write_url = "redis://b"
    assert (conf.broker_read_url, conf.broker_write_url) == ("redis://a", "redis://b")


def test_other_fallbacks() -> None:
    conf = read({"accept_content": ["yaml"], "gcs_project": "p", "broker_connection_retry": False})
    assert conf.result_accept_content == ["yaml"]
    assert conf.firestore_project == "p"
    assert conf.broker_connection_retry_on_startup is False
    conf.result_accept_content = ["json"]
    assert conf.result_accept_content == ["json"]


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        ({"broker_host": "h"}, "amqp://h/"),
        (
            {
                "broker_transport": "redis", "broker_host": "h", "broker_port": 6379, "broker_user": "u",
                "broker_password": "p/w", "broker_vhost": "0",
            },
            "redis://u:p%2Fw@h:6379/0",
        ),
        ({"broker_vhost": "/prod"}, "amqp://localhost//prod"),
        ({"broker_host": "h", "broker_url": "redis://other"}, "redis://other"),
    ],
)  # fmt: skip
def test_a_broker_given_in_parts_makes_its_url(parts: dict[str, Any], url: str) -> None:
    conf = read(parts)
    assert conf.broker_url == conf.broker_read_url == url


@pytest.mark.parametrize("kind", ["event", "control"])
def test_b_conf_016_b_conf_017_durable_and_exclusive_exclude_each_other(kind: str) -> None:
    durable, exclusive = f"{kind}_queue_durable", f"{kind}_queue_exclusive"
    with pytest.raises(ImproperlyConfigured, match=f"{durable} and {exclusive}"):
        read({durable: True, exclusive: True})
    with pytest.raises(ImproperlyConfigured, match=f"set {exclusive} to false"):
        read({durable: True})  # exclusive is the default
    conf = read({durable: True, exclusive: False})
    with pytest.raises(ImproperlyConfigured):
        conf[exclusive] = True
    assert conf[exclusive] is False


def test_b_conf_016_assignments_one_after_the_other_may_pass_through() -> None:
    conf = read()
    conf.event_queue_durable = True
    with pytest.raises(ImproperlyConfigured):
        conf.validate()
    conf.event_queue_exclusive = False
    conf.validate()
