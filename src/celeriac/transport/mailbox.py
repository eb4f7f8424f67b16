"""Control messages over the topics of a broker, for drivers of brokers on which Celery has no form of its own for them.

A driver that has `broadcast` and `subscribe` gets `post` and `open_mailbox` by inheriting `TopicMail`: a box is a
subscription to a topic that is named by its exchange and key, and a message travels as msgpack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from celeriac.log import get_logger
from celeriac.message import ControlMessage
from celeriac.transport.base import Box, Mailbox, Subscription

__all__ = ["TopicMail", "TopicMailbox"]

logger = get_logger("celeriac.transport")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ControlMessage)


class _HasTopics(Protocol):
    def broadcast(self, topic: str, payload: bytes) -> None: ...
    def subscribe(self, topics: Sequence[str]) -> Subscription: ...


def _topic(exchange: str, key: str) -> str:
    return f"{exchange}/{key}" if key else exchange


class TopicMail:
    """The verbs of control messages, made of the verbs of topics."""

    def post(self: _HasTopics, message: ControlMessage, exchange: str, key: str = "") -> None:
        """Tell those who listen to the exchange, or to its key."""
        self.broadcast(_topic(exchange, key), _encoder.encode(message))

    def open_mailbox(self: _HasTopics, box: Box) -> Mailbox:
        """Listen to the box's topic."""
        return TopicMailbox(self.subscribe([_topic(box.exchange, box.key)]))


class TopicMailbox:
    """A mailbox that is a subscription."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def receive(self, wait: float) -> list[ControlMessage]:
        """What was told since the last call."""
        messages = []
        for topic, payload in self._subscription.poll(wait):
            try:
                messages.append(_decoder.decode(payload))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                logger.warning("control message on %s dropped, it can't be read: %s", topic, exc)
        return messages

    def interrupt(self) -> None:
        """Make a `receive` that waits return."""
        self._subscription.interrupt()

    def close(self) -> None:
        """Listen no more."""
        self._subscription.close()
