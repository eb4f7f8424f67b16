"""Middleware takes part in sending and running, in order, and what it does is seen by tasks and callers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from celeriac import Celeriac, Context, Middleware
from celeriac.contrib.opentelemetry import OpenTelemetryMiddleware
from celeriac.contrib.structlog import add_task_context
from celeriac.errors import Ignore
from celeriac.log import JsonFormatter, current_task_info
from celeriac.message import Message
from celeriac.middleware import with_headers
from tests.support.apps import memory_app, run_all


class Noting(Middleware):
    """Notes when it is called, and marks messages."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def send(self, message: Message) -> Message:
        self.notes.append(f"send {self.name}")
        return with_headers(message, {self.name: len(self.notes)})

    def execute(self, context: Context, run: Callable[[], Any]) -> Any:
        self.notes.append(f"before {self.name}")
        value = run()
        self.notes.append(f"after {self.name}")
        return value


def test_the_first_is_the_outermost() -> None:
    notes: list[str] = []
    app = memory_app(middleware=[Noting("a", notes), Noting("b", notes)])

    @app.task(bind=True, name="t")
    def task(self: Any) -> Any:
        notes.append("task")
        return self.request.headers

    result = task.delay()
    run_all(app)
    assert notes == ["send b", "send a", "before a", "before b", "task", "after b", "after a"]
    assert result.get(timeout=1) == {"b": 1, "a": 2}


def test_retries_callbacks_and_batches_pass_through_it() -> None:
    notes: list[str] = []
    app = memory_app(middleware=[Noting("m", notes)])
    runs: list[Any] = []

    @app.task(bind=True, name="t", max_retries=1)
    def task(self: Any, x: int) -> int:
        runs.append(self.request.headers)
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return x

    task.apply_async((1,), link=task.signature((2,), immutable=True))
    app.publish_many([task.s(3), task.s(4)])
    run_all(app)
    assert notes.count("send m") == len(runs) == 8
    assert all(headers and "m" in headers for headers in runs)


def test_it_can_answer_without_the_task_and_change_its_value() -> None:
    class Cached(Middleware):
        def execute(self, context: Context, run: Callable[[], Any]) -> Any:
            return "cached" if context.args == [1] else run() * 2

    app = memory_app(middleware=[Cached()])
    double = app.task(lambda x: x, name="t")
    results = [double.delay(1), double.delay(2)]
    run_all(app)
    assert [result.get(timeout=1) for result in results] == ["cached", 4]
    assert double.apply((2,)).get() == 4


def test_what_it_raises_is_the_tasks_error_or_the_callers() -> None:
    class Strict(Middleware):
        def send(self, message: Message) -> Message:
            if message.task == "forbidden":
                raise PermissionError("not you")
            return message

        def execute(self, context: Context, run: Callable[[], Any]) -> Any:
            raise ValueError(f"no {context.task}")

    app = memory_app(middleware=[Strict()])
    with pytest.raises(PermissionError, match="not you"):
        app.send_task("forbidden")
    result = app.task(lambda: 1, name="t").delay()
    run_all(app)
    with pytest.raises(ValueError, match="no t"):
        result.get(timeout=1)


async def _answer() -> str:
    return "awaited"


def test_async_tasks_run_inside_it() -> None:
    notes: list[str] = []
    app = memory_app(middleware=[Noting("m", notes)])
    result = app.task(_answer, name="t").delay()
    run_all(app)
    assert (result.get(timeout=1), notes) == ("awaited", ["send m", "before m", "after m"])


# OpenTelemetry


@pytest.fixture
def traced() -> tuple[Celeriac, InMemorySpanExporter, TracerProvider]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return memory_app(middleware=[OpenTelemetryMiddleware(provider)]), exporter, provider


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_one_trace_from_the_request_to_the_last_task(traced: Any) -> None:
    app, exporter, provider = traced

    @app.task(name="second")
    def second() -> None: ...

    @app.task(name="first")
    def first() -> None:
        second.delay()

    with provider.get_tracer("web").start_as_current_span("request"):
        first.delay()
    run_all(app)
    found = spans(exporter)
    parents = {name: span.parent.span_id if span.parent else None for name, span in found.items()}
    ids = {name: span.context.span_id for name, span in found.items()}
    assert parents == {
        "request": None, "send first": ids["request"], "run first": ids["send first"],
        "send second": ids["run first"], "run second": ids["send second"],
    }  # fmt: skip
    assert len({span.context.trace_id for span in found.values()}) == 1
    assert (
        found["run first"].attributes["messaging.message.id"] == found["send first"].attributes["messaging.message.id"]
    )


def test_an_error_is_in_the_span_and_a_retry_is_none(traced: Any) -> None:
    app, exporter, _ = traced

    @app.task(name="fails")
    def fails() -> None:
        raise ValueError("broken")

    @app.task(name="ignored")
    def ignored() -> None:
        raise Ignore

    fails.delay()
    ignored.delay()
    run_all(app)
    found = spans(exporter)
    assert found["run fails"].status.status_code.name == "ERROR"
    assert found["run fails"].events[0].attributes["exception.message"] == "broken"
    assert found["run ignored"].status.status_code.name == "UNSET"


# logs


def test_log_entries_say_which_task_that_is() -> None:
    assert add_task_context(None, "info", {"event": "x"}) == {"event": "x"}
    token = current_task_info.set(("id-1", "shop.buy"))
    try:
        entry = add_task_context(None, "info", {"event": "x", "task_name": "mine"})
        assert entry == {"event": "x", "task_id": "id-1", "task_name": "mine"}
        record = logging.LogRecord("shop", logging.WARNING, __file__, 1, "naïve %s\n", ("☃",), None)
        fields = json.loads(JsonFormatter().format(record))
    finally:
        current_task_info.reset(token)
    assert fields["time"].endswith("+00:00")
    del fields["time"], fields["process"]
    assert fields == {
        "level": "WARNING", "logger": "shop", "message": "naïve ☃\n", "task_id": "id-1", "task_name": "shop.buy",
    }  # fmt: skip


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError as exc:
        record = logging.LogRecord(
            "shop", logging.ERROR, __file__, 1, "failed", (), (type(exc), exc, exc.__traceback__)
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["exception"].endswith("ValueError: broken")
    assert "task_id" not in fields
