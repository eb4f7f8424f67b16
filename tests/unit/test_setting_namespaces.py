"""The table of settings in namespaces, and result stores by name: `celery.app.defaults`, `celery.app.backends`."""

from __future__ import annotations

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.results.memory import MemoryStore
from celeriac.results.names import by_name, by_url
from celeriac.results.sqlite import SqliteStore
from celeriac.setting_namespaces import NAMESPACES, find, flatten
from celeriac.setting_table import TABLE


def test_the_namespaces_hold_every_setting_once() -> None:
    flat = list(flatten(NAMESPACES))
    assert dict(flat) == TABLE
    assert len(flat) == len(TABLE)
    assert NAMESPACES["task"]["serializer"].default == "json"
    assert NAMESPACES["timezone"] is TABLE["timezone"]


def test_a_setting_is_found_by_each_of_its_names() -> None:
    assert find("serializer", namespace="task") == ("task", "serializer", TABLE["task_serializer"])
    assert find("task_serializer") == (None, "task_serializer", TABLE["task_serializer"])
    assert find("CELERY_TASK_SERIALIZER") == (None, "task_serializer", TABLE["task_serializer"])
    with pytest.raises(KeyError):
        find("no_such_setting")


def test_result_stores_are_found_by_name_and_url() -> None:
    assert by_name("sqlite") is SqliteStore
    assert by_name("disabled") is by_name(None) is None
    assert by_name(MemoryStore) is MemoryStore
    assert by_url("sqlite:///a.db") == (SqliteStore, "sqlite:///a.db")
    assert by_url("sqlite") == (SqliteStore, None)
    with pytest.raises(ImproperlyConfigured, match="No result backend driver for 'sqlight'"):
        by_name("sqlight")
