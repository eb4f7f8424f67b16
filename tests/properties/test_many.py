"""Sending many is sending each: on Redis, the elements of a batch are, byte by byte, those of single calls."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac import Celeriac, group, signals
from tests.properties.test_round_trip import JSON, NAMES, VALUES
from tests.support.redis_server import RedisServer

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_MOMENTS = st.datetimes(dt.datetime(2030, 1, 1), dt.datetime(2090, 1, 1), timezones=st.just(dt.UTC))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "group_id": st.sampled_from(["one", "two%s"]),
        "root_id": st.sampled_from(["root", 'ro"ot']),
        "parent_id": st.just("parent"),
        "priority": st.sampled_from([0, 3, 9]),
        "time_limit": st.sampled_from([10, 10.0]),
        "ignore_result": st.booleans(),
        "argsrepr": st.just("(...)"),
        "compression": st.sampled_from(["gzip", None]),
        "serializer": st.sampled_from(["json", "pickle"]),
        "shadow": st.sampled_from(["", "50 %"]),
        "headers": st.dictionaries(st.sampled_from(["id", "compression", "x", "%d"]), JSON, max_size=2),
        "link": st.just([{"task": "after", "args": [], "kwargs": {}, "options": {}}]),
        "eta": _MOMENTS,
        "extra": st.integers(0, 1),
    },
)
#: In these, calls that are otherwise alike differ.
OF_EACH = st.fixed_dictionaries(
    {},
    optional={"task_id": st.uuids().map(str) | _TEXT.filter(bool), "group_index": st.integers(0, 3) | st.none()},
)


@st.composite
def batches(draw: st.DrawFn) -> list[Any]:
    """Calls of which many are alike."""
    kinds = draw(
        st.lists(
            st.tuples(st.sampled_from(["known", "other", "50 % away"]), st.just({}) | OPTIONS), min_size=1, max_size=3
        )
    )
    calls = []
    for name, options in draw(st.lists(st.sampled_from(kinds), max_size=8)):
        args, kwargs = draw(st.lists(VALUES, max_size=3)), draw(st.dictionaries(NAMES, VALUES, max_size=2))
        calls.append((name, args, kwargs, {**options, **draw(OF_EACH)}))
    return calls


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), options=["--appendonly", "no"]) as server:
        yield server


@pytest.fixture(scope="module")
def app(server: RedisServer) -> Iterator[Celeriac]:
    with Celeriac("many", broker=server.url(0), backend="disabled://", set_as_current=False) as app:
        app.conf.broker_transport_options = {"delay_at_publish": False}
        app.task(lambda *args, **kwargs: None, name="known", typing=False, ignore_result=True)
        app.task(lambda *args, **kwargs: None, name="other", typing=False, priority=5)
        yield app


def elements(server: RedisServer) -> list[bytes]:
    """What came into the lists, without what is made anew each time: tags, and ids that nobody gave."""
    found = []
    for key in sorted(server.call("KEYS", "celery*")):
        for element in server.call("LRANGE", key, 0, -1):
            element = re.sub(rb'"delivery_tag": "[0-9a-f-]{36}"', b'"delivery_tag": ""', element)
            found.append(re.sub(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", b"ID", element))
    server.call("FLUSHDB")
    return found


@given(calls=batches())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_a_batch_is_written_as_its_calls_are(server: RedisServer, app: Celeriac, calls: list[Any]) -> None:
    signatures = [app.signature(name, args, kwargs, options) for name, args, kwargs, options in calls]
    results = app.publish_many(signatures)
    batch = elements(server)
    app.plain_calls.clear()
    for signature in signatures:
        signature.clone().apply_async()
        app.plain_calls.clear()  # each is made anew
    assert batch == elements(server)
    given_ids = [options.get("task_id") for _, _, _, options in calls]
    assert [result.id for result, given_id in zip(results, given_ids, strict=True) if given_id] == [
        each for each in given_ids if each
    ]


@given(
    arguments=st.lists(
        st.tuples(st.lists(VALUES, max_size=2), st.sampled_from(["known", "other"]), st.booleans(), st.booleans()),
        max_size=6,
    ),
    added=st.lists(VALUES, max_size=2),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_group_is_written_as_its_calls_are(
    server: RedisServer, app: Celeriac, arguments: list[Any], added: list[Any]
) -> None:
    """Also where only some members are nothing but calls."""
    members = [
        app.signature(name, args, options={"priority": None} if has_options else {}, immutable=is_immutable)
        for args, name, is_immutable, has_options in arguments
    ]
    result = group(members, app=app).apply_async(added)
    whole = elements(server)
    app.plain_calls.clear()
    for index, member in enumerate(members):
        args = member.args if member.immutable else (*added, *member.args)
        app.publish([
            app.prepare(
                member.task, args, {}, None, task=app.tasks[member.task],
                options={"group_id": result.id, "group_index": index},
            )[0]
        ])  # fmt: skip
    assert whole == elements(server)


def test_a_call_that_is_alone_is_not_prepared_for_many(app: Celeriac) -> None:
    """Encoding common headers apart takes ten times as long as encoding them, so it has to be worth it."""
    alone, _ = app.prepare("known", (), {}, options={"priority": 3})
    assert type(alone.headers) is dict


def test_signatures_are_taken_as_they_are_sent(server: RedisServer, app: Celeriac) -> None:
    waiting: list[int] = []
    batch = app.transport.capabilities.batch

    def coming() -> Iterator[Any]:
        for number in range(3 * batch):
            waiting.append(number - server.call("LLEN", "celery"))
            yield app.signature("known", (number,))

    results = app.publish_many(coming())
    assert max(waiting) <= batch, "more was taken than one batch"
    assert server.call("LLEN", "celery") == len({result.id for result in results}) == 3 * batch
    assert b"[[0], {}" not in server.call("LINDEX", "celery", 0)
    server.call("FLUSHDB")


def test_a_receiver_may_change_the_headers_of_each(server: RedisServer, app: Celeriac) -> None:
    def change(sender: Any, headers: dict[str, Any], properties: dict[str, Any], **_: Any) -> None:
        headers["mine"] = headers["id"]
        headers["timelimit"][0] = len(headers["id"])
        properties["priority_of_mine"] = headers["id"]

    app.publish_many([app.signature("known")])
    signals.before_task_publish.connect(change)
    try:
        app.publish_many([app.signature("known", options={"task_id": task_id}) for task_id in ("a", "bb")])
    finally:
        signals.before_task_publish.disconnect(change)
    app.publish_many([app.signature("known", options={"task_id": "c"})])
    last, second, first, _ = server.call("LRANGE", "celery", 0, -1)
    assert b'"mine": "a"' in first
    assert b'"timelimit": [1, null]' in first
    assert b'"mine": "bb"' in second
    assert b'"timelimit": [2, null]' in second
    assert b'"priority_of_mine": "bb"' in second
    assert b"mine" not in last
    assert b'"timelimit": [null, null]' in last
    server.call("FLUSHDB")
