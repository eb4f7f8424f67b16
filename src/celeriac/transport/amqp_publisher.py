"""Publishing with confirms: returns when RabbitMQ has every message for good.

The transport calls `publish` for messages, and parts of the driver call `send` for copies (delays, counts, dead letters).
Messages go in windows; two windows are under way at a time, so the confirms of one arrive while the next is written. Queues
that are named are made first, once in a connection. Every message is mandatory: one that no queue takes comes back. If its
queue was deleted meanwhile it is declared and the message is sent again; otherwise the call ends with `QueueNotFound`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from celeriac.errors import ImproperlyConfigured, MessageTooLarge, OperationalError, QueueNotFound
from celeriac.message import Message
from celeriac.timing import Deadline
from celeriac.transport import amqp_delay as delay
from celeriac.transport.amqp_channel import Batch, Channel, ChannelClosed, Letter, copy_of
from celeriac.transport.amqp_field import Properties, encode_properties, short_text
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_message import to_properties
from celeriac.transport.amqp_topology import NOT_FOUND, PRECONDITION, Topology

__all__ = ["MAX_BYTES", "Publisher", "make_letter"]

#: RabbitMQ's default `max_message_size`; newer servers have 16 MiB and say so when asked for more.
MAX_BYTES = 134_217_728
#: Messages, and bytes, of one window.
_WINDOW, _WINDOW_BYTES = 500, 4_000_000
#: Bytes of headers that fit a frame of the usual size.
_MAX_HEADERS = 131_064


class _Window(NamedTuple):
    letters: Sequence[Letter]
    channel: Channel
    batch: Batch
    deadline: Deadline


class Publisher:
    """Publishes over one link.

    Args:
        topology: Declares what is missing.
    """

    def __init__(self, link: Link, topology: Topology) -> None:
        self._link = link
        self._topology = topology
        self._channel: Channel | None = None
        self._opening = threading.Lock()

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages; those with an `eta` wait in the broker."""
        now = time.time()
        late = [message for message in messages if message.eta is not None and message.eta - now >= 1]
        if late:
            for message in messages:
                self._letter(message, now)  # what can't be written is refused before anything is declared
            self.ensure_delayed({each.queue or each.routing_key for each in late if each.queue or not each.exchange})
            if any(not each.queue and each.exchange in self._topology.delaying_exchanges for each in late):
                self._topology.ensure_celery_delay()
            now = time.time()  # that takes a second, once in a broker's life
        letters = [self._letter(message, now) for message in messages]
        if self._topology.broadcasts:
            self._topology.ensure_broadcasts({letter.exchange for letter in letters})
        self._topology.ensure_present({letter.queue for letter in letters if letter.queue})
        self.send(letters)

    def _letter(self, message: Message, now: float) -> Letter:
        wait = int(message.eta - now) if message.eta is not None and message.eta > now else 0
        if message.queue or not message.exchange:
            return self.to_queue(message, message.queue or message.routing_key, wait)
        exchange, key = message.exchange, message.routing_key
        if wait and exchange in self._topology.delaying_exchanges:
            return make_letter(
                delay.ENTRY, delay.delayed_key(wait, key), to_properties(message, is_delayed=True), message
            )
        # A delayed message to any other exchange is put off by whoever fetches it: only there its queue is known.
        letter = make_letter(exchange, key, to_properties(message, is_delayed=bool(wait)), message)
        return letter._replace(is_mandatory=False) if exchange in self._topology.broadcasts else letter

    def to_queue(self, message: Message, queue: str, wait: int, extra: dict[str, object] | None = None) -> Letter:
        """The letter that brings a message to a queue, after so many whole seconds."""
        properties = to_properties(message, is_delayed=wait > 0, extra=extra)
        if wait > 0:
            key = delay.delayed_key(wait, delay.address(queue))
            return make_letter(delay.ENTRY, key, properties, message, queue)
        return make_letter("", queue, properties, message, queue)

    def ensure_delayed(self, queues: set[str]) -> None:
        """Make delayed delivery to these queues possible."""
        deadline = self._link.deadline()
        for queue in queues:
            self._topology.ensure_delayed(queue, deadline)

    def send(self, letters: Sequence[Letter]) -> None:
        """Publish letters and wait for all confirms.

        Raises:
            QueueNotFound: No queue takes one of them; the others were sent.
            MessageTooLarge: The server refuses one as too large.
            OperationalError: Not all are confirmed; some may have been taken.
        """
        missing = self._send(letters)
        for queue in {letter.queue for letter in missing}:
            self._topology.forget(queue)
            self._topology.ensure(queue, self._link.deadline())
        if missing:
            delayed = {letter.queue for letter in missing if letter.exchange == delay.ENTRY}
            self.ensure_delayed(delayed)
            lost = self._send(missing)
            if lost:
                raise QueueNotFound(f"queue {lost[0].queue!r} does not exist and can't be kept in existence")

    def _send(self, letters: Sequence[Letter]) -> list[Letter]:
        """Send in windows. Returns those that came back although their queue is named."""
        missing: list[Letter] = []
        pending: list[_Window] = []
        deadline = self._link.deadline()
        for window in _windows(letters):
            pending.append(self._write(window, deadline))
            if len(pending) > 1:
                missing += self._await(pending.pop(0))
                deadline = self._link.deadline()  # it moves: the budget is for standing still
        for last in pending:
            missing += self._await(last)
        return missing

    def _write(self, letters: Sequence[Letter], deadline: Deadline) -> _Window:
        channel = self._open(deadline)
        connection = channel.connection
        if connection.blocked:
            self._wait_unblocked(channel, deadline)
        try:
            return _Window(letters, channel, channel.publish(letters), deadline)
        except ChannelClosed as exc:
            raise _refusal(exc) from exc

    def _open(self, deadline: Deadline) -> Channel:
        """The channel in confirm mode, opened anew if it is gone."""
        channel = self._channel
        if channel is not None and channel.error is None:
            return channel
        connection = self._link.connection(deadline)
        with connection.in_time(self._opening, deadline):
            channel = self._channel
            if channel is None or channel.error is not None:
                channel = self._channel = connection.channel(deadline, confirms=True)
            return channel

    def _wait_unblocked(self, channel: Channel, deadline: Deadline) -> None:
        """A server that is short of memory or disk takes nothing: write nothing that would be taken later, after the error."""
        connection = channel.connection
        while connection.blocked and channel.error is None:
            if deadline.passed():
                raise OperationalError(f"{connection.name}: {connection.silence(deadline)}")
            time.sleep(0.02)

    def _await(self, window: _Window) -> list[Letter]:
        """Wait for a window's confirms; returns what came back although its queue is named."""
        channel, batch = window.channel, window.batch
        if not batch.done.wait(window.deadline.left()):
            silence = channel.connection.silence(window.deadline)
            if channel.connection.blocked:  # it is alive and will go on: keep the connection
                raise OperationalError(f"{channel.connection.name}: {silence}")
            raise channel.connection.fail(silence)
        if batch.error is not None:
            if isinstance(batch.error, ChannelClosed):
                raise _refusal(batch.error)
            raise copy_of(batch.error)
        if batch.refused:
            # A channel that was opened while a queue had no leader refuses for good: the next attempt has a new one.
            self._channel = None
            channel.close()
            raise OperationalError(
                f"{channel.connection.name}: {batch.refused} message(s) refused: a queue is full or can't write"
            )
        return _came_back(window) if batch.returned else []

    def close(self) -> None:
        """Forget the channel; its connection is closed by the link."""
        self._channel = None


def make_letter(exchange: str, key: str, properties: Properties, message: Message, queue: str = "") -> Letter:
    """A message as a letter.

    Raises:
        EncodeError: A header or property can't be written.
        MessageTooLarge: Its body is too large for any RabbitMQ.
    """
    if len(message.body) > MAX_BYTES:
        raise MessageTooLarge(f"Message {message.id!r} has {len(message.body)} bytes; RabbitMQ takes {MAX_BYTES}.")
    for name in (exchange, key):
        short_text(name)
    header = encode_properties(properties, len(message.body))
    if len(header) > _MAX_HEADERS:
        raise MessageTooLarge(
            f"The headers of message {message.id!r} take {len(header)} bytes; RabbitMQ takes {_MAX_HEADERS}."
        )
    return Letter(exchange, key, header, message.body, queue, message.id)


def _windows(letters: Sequence[Letter]) -> list[Sequence[Letter]]:
    if len(letters) <= _WINDOW and sum(len(letter.body) for letter in letters) <= _WINDOW_BYTES:
        return [letters] if letters else []
    windows: list[Sequence[Letter]] = []
    window: list[Letter] = []
    size = 0
    for letter in letters:
        if len(window) >= _WINDOW or size > _WINDOW_BYTES:
            windows.append(window)
            window, size = [], 0
        window.append(letter)
        size += len(letter.body)
    windows.append(window)
    return windows


def _came_back(window: _Window) -> list[Letter]:
    """The letters of a window that no queue took.

    Raises:
        QueueNotFound: One of them named no queue, so nothing can be declared for it.
    """
    returned = window.batch.returned
    missing = [letter for letter in window.letters if (letter.exchange, letter.routing_key) in returned]
    for letter in missing:
        if not letter.queue:
            raise QueueNotFound(
                f"No queue is bound to exchange {letter.exchange!r} for routing key {letter.routing_key!r}: message"
                f" {letter.id!r} was not sent."
            )
    return missing


def _refusal(error: ChannelClosed) -> Exception:
    """A channel error that publishing has caused, as one of ours."""
    if error.code == NOT_FOUND:
        return QueueNotFound(f"{error.text}: the message was not sent.")
    if error.code == PRECONDITION and "size" in error.text:
        return MessageTooLarge(f"RabbitMQ refuses a message as too large: {error.text}")
    if error.code == 403:
        return ImproperlyConfigured(f"{error}")
    return OperationalError(str(error))
