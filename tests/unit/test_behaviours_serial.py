"""What Celery documents of serializers, seen from a task and its caller."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import codec, compression
from celeriac.errors import ContentDisallowed, EncodeError, ImproperlyConfigured
from tests.support.apps import memory_app, run_all, sent


@pytest.mark.behaviour("B-SERIAL-001")
def test_json_is_written_and_nothing_else_is_read_unless_told() -> None:
    app = memory_app()
    seen: list[Any] = []
    app.task(seen.append, name="see", ignore_result=True)
    app.send_task("see", (1,))
    app.send_task("see", (2,), serializer="pickle")
    app.send_task("see", (3,), serializer="yaml")
    assert {outcome.reason.partition(":")[0] for outcome in run_all(app)} == {"", "ContentDisallowed"}
    assert seen == [1]
    app.send_task("see", (4,))
    [message] = sent(app)
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")


@pytest.mark.behaviour("B-SERIAL-004")
def test_results_have_a_list_of_their_own() -> None:
    app = memory_app(result_serializer="yaml", accept_content=["json"], result_accept_content=["json"])
    result = app.task(lambda: [1], name="t").delay()
    run_all(app)
    assert result.get(timeout=1) == [1], "what we write ourselves is read"
    strict = memory_app(broker=app.conf.broker_url, backend=app.conf.result_backend, result_accept_content=["json"])
    with pytest.raises(ContentDisallowed, match="application/x-yaml"):
        strict.AsyncResult(result.id).get(timeout=1)
    lenient = memory_app(
        broker=app.conf.broker_url, backend=app.conf.result_backend, accept_content=["json"],
        result_accept_content=["json", "yaml"],
    )  # fmt: skip
    assert lenient.AsyncResult(result.id).get(timeout=1) == [1]


@pytest.mark.behaviour("B-SERIAL-006")
@pytest.mark.parametrize("value", [{1, 2}, dt.timedelta(1), 1j], ids=["set", "timedelta", "complex"])
def test_what_json_has_no_form_for_is_named_where_it_sits(value: Any) -> None:
    app = memory_app()
    with pytest.raises(EncodeError, match=rf"t: args\[1\]\['x'\].*{type(value).__name__}"):
        app.send_task("t", (0, {"x": value}))
    result = app.task(lambda: value, name="t").delay()
    run_all(app)
    with pytest.raises(EncodeError, match=type(value).__name__):
        result.get(timeout=1)


@pytest.mark.behaviour("B-SERIAL-006")
def test_json_makes_lists_of_tuples_and_text_of_keys() -> None:
    app = memory_app()
    result = app.task(lambda x: x, name="t").delay(((1, (2,)), {3: "three", None: 0}))
    run_all(app)
    assert result.get(timeout=1) == [[1, [2]], {"3": "three", "null": 0}]


@pytest.fixture
def own_formats() -> Iterator[None]:
    """A serializer and a compression of one's own."""
    codec.register(
        "reversed",
        lambda value: codec.json_dumps(value)[::-1],
        lambda body: codec.json_loads(body[::-1]),
        "text/x-reversed",
    )
    compression.register(lambda body: b"<" + body, lambda body: body[1:], "application/x-mark", ["mark"])
    yield
    codec.unregister("reversed")
    compression.unregister("application/x-mark")


@pytest.mark.behaviour("B-SERIAL-008")
def test_serializers_and_compressions_of_ones_own(own_formats: None) -> None:
    app = memory_app(
        task_serializer="reversed", result_serializer="reversed", task_compression="mark", accept_content=["reversed"]
    )
    add = app.task(lambda x, y: x + y, name="add")
    add.delay(2, 3)
    [message] = sent(app)
    assert message.content_type == "text/x-reversed"
    assert message.body.startswith(b"<]}")
    result = add.delay(2, 3)
    run_all(app)
    assert result.get(timeout=1) == 5


@pytest.mark.behaviour("B-SERIAL-009")
def test_yaml_needs_its_extra_and_msgpack_none(monkeypatch: pytest.MonkeyPatch) -> None:
    app = memory_app(accept_content=["json", "msgpack"])
    result = app.task(lambda x: x, name="t").apply_async(({"a": [1, 2]},), serializer="msgpack")
    run_all(app)
    assert result.get(timeout=1) == {"a": [1, 2]}
    monkeypatch.setitem(sys.modules, "yaml", None)
    codec._yaml.cache_clear()
    with pytest.raises(ImproperlyConfigured, match=r"pip install celeriac\[yaml\]"):
        app.send_task("t", serializer="yaml")
    codec._yaml.cache_clear()
