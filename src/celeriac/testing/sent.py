"""What a program has sent, for assertions: `with record_sent(app) as sent`.

Messages go their way all the same. Each is opened again as a worker would open it, so what is compared has passed the serializer:
tuples have become lists, for example. Sent by workers, such as callbacks, is not seen here.

Example:
    with record_sent(app) as sent:
        sign_up("ada@example.org")
    sent.assert_sent("mail.welcome", "ada@example.org", queue="mail")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.codec import registry
from celeriac.message import Message
from celeriac.wire.bodies import decode_body

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.transport.base import Transport

__all__ = ["SentTask", "SentTasks", "record_sent"]

#: Largest body that is opened, in bytes.
LIMIT = 1 << 30


class SentTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task that was sent.

    Attributes:
        args, kwargs: As a worker reads them.
        queue: Where it was sent.
        eta: Not to be run before (seconds since 1970), or None.
        message: All of it.
    """

    name: str
    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    eta: float | None
    message: Message

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"{self.name}({', '.join(given)}) to {self.queue!r}"


class SentTasks(list[SentTask]):
    """Tasks in the order in which they were sent."""

    def named(self, name: str) -> list[SentTask]:
        """Those of one task."""
        return [each for each in self if each.name == name]

    def assert_sent(self, name: str, *args: Any, queue: str | None = None, **kwargs: Any) -> SentTask:
        """The task that was sent so.

        Args:
            queue: Its queue, if that matters.

        Raises:
            AssertionError: None was; says what was sent instead.
        """
        for each in self:
            if (each.name, each.args, each.kwargs) == (name, list(args), kwargs) and queue in (None, each.queue):
                return each
        wanted = SentTask(
            name=name, id="", args=list(args), kwargs=kwargs, queue=queue or "any queue", eta=None,
            message=Message(id="", headers={}, body=b""),
        )  # fmt: skip
        told = "".join(f"\n  {each}" for each in self) or " nothing"
        raise AssertionError(f"{wanted} was not sent, but:{told}")

    def assert_nothing_sent(self, name: str | None = None) -> None:
        """No task was sent, or none of this name.

        Raises:
            AssertionError: One was.
        """
        found = self if name is None else self.named(name)
        if found:
            raise AssertionError("sent were:" + "".join(f"\n  {each}" for each in found))


class _Recorder:
    """A transport that notes what is published through it."""

    def __init__(self, transport: Transport, sent: SentTasks) -> None:
        self._transport = transport
        self._sent = sent

    def publish(self, messages: Sequence[Message]) -> None:
        self._transport.publish(messages)
        self._sent += map(_opened, messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _opened(message: Message) -> SentTask:
    body = decode_body(message, registry.accept_types(registry.names()), LIMIT)
    return SentTask(
        name=message.task or body.fields.get("task", ""), id=message.id, args=body.args, kwargs=body.kwargs,
        queue=message.queue or message.routing_key, eta=message.eta, message=message,
    )  # fmt: skip


@contextmanager
def record_sent(app: Celeriac) -> Iterator[SentTasks]:
    """Note what this process sends through `app` while the block runs."""
    transport, sent = app.transport, SentTasks()
    app.transport = _Recorder(transport, sent)  # all but publish is the transport's own
    try:
        yield sent
    finally:
        app.transport = transport
