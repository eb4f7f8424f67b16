"""OpenTelemetry: a span for each task that is sent and for each that runs, one trace from the request to its last task.

    app.middleware.append(OpenTelemetryMiddleware())

The context travels in the message's headers as W3C names it (`traceparent`, `tracestate`, `baggage`), as the instrumentation of
stock Celery has it, so traces go on across mixed fleets. Needs the extra `opentelemetry`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from celeriac.errors import TaskPredicate
from celeriac.message import Message
from celeriac.middleware import Middleware, with_headers

if TYPE_CHECKING:
    from celeriac.context import Context

__all__ = ["OpenTelemetryMiddleware"]


class OpenTelemetryMiddleware(Middleware):
    """Spans around sending and running.

    Args:
        tracer_provider: Default is the global one.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._provider = tracer_provider

    @property
    def _tracer(self) -> trace.Tracer:
        # Asked for each time: a runner is a fork, and its provider may be another than the zygote's.
        return trace.get_tracer("celeriac", tracer_provider=self._provider)

    def send(self, message: Message) -> Message:
        """A span "send NAME", whose context goes with the message."""
        attributes = {
            "messaging.system": "celeriac",
            "messaging.operation.type": "send",
            "messaging.destination.name": message.queue or message.exchange,
            "messaging.message.id": message.id,
            "celeriac.task": message.task,
        }
        with self._tracer.start_as_current_span(f"send {message.task}", kind=SpanKind.PRODUCER, attributes=attributes):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
        return with_headers(message, carrier)

    def execute(self, context: Context, run: Callable[[], Any]) -> Any:
        """A span "run NAME" below that of its sender. A retry, `Ignore` and `Reject` are no errors."""
        carrier = {name: value for name, value in (context.headers or {}).items() if isinstance(value, str)}
        attributes: dict[str, str | int] = {
            "messaging.system": "celeriac",
            "messaging.operation.type": "process",
            "messaging.message.id": context.id or "",
            "celeriac.task": context.task or "",
            "celeriac.retries": context.retries,
        }
        with self._tracer.start_as_current_span(
            f"run {context.task}", propagate.extract(carrier), SpanKind.CONSUMER, attributes,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            try:
                return run()
            except TaskPredicate as exc:
                span.add_event(type(exc).__name__)
                raise
            except BaseException as exc:
                span.record_exception(exc)
                span.set_status(Status(StatusCode.ERROR, type(exc).__name__))
                raise
