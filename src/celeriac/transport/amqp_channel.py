"""One channel of a RabbitMQ connection, for threads that want to wait: questions with answers, pushed messages, confirms.

pika's channel lives in the connection's own thread. Questions from other threads are handed over to it; messages and
acknowledgements are written in the caller's. Methods whose name begins with `_on` run in the connection's thread. A channel
that the server has closed, or whose connection is gone, raises the reason from then on and is replaced by its owner.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac.errors import EncodeError, OperationalError
from celeriac.timing import Deadline
from celeriac.transport.amqp_frame import Deliver, publish_frames, settling_frames
from celeriac.transport.amqp_request import Request

if TYPE_CHECKING:
    from celeriac.transport.amqp_connection import Connection

__all__ = ["Batch", "Channel", "ChannelClosed", "Letter", "Pushed"]


class ChannelClosed(OperationalError):
    """The server has closed a channel, for example because a queue does not exist.

    Attributes:
        code: AMQP's reply code: 403 refused, 404 not found, 405 locked, 406 precondition failed.
        text: The server's words.
    """

    def __init__(self, message: str, code: int, text: str) -> None:
        super().__init__(message)
        self.code = code
        self.text = text


class Letter(NamedTuple):
    """One message, ready to be written.

    Attributes:
        header: The payload of its header frame: properties and size.
        queue: The queue that it is for; "" if an exchange decides.
        id: Of its task, for messages to people.
        is_mandatory: Whether it comes back when no queue takes it.
    """

    exchange: str
    routing_key: str
    header: bytes
    body: bytes
    queue: str = ""
    id: str = ""
    is_mandatory: bool = True


class Pushed(NamedTuple):
    """A message that the server has pushed. `header` is not decoded yet."""

    method: Deliver
    header: bytes
    body: bytes


class Batch:
    """Messages that were written together and wait for their confirms."""

    __slots__ = ("done", "error", "left", "refused", "returned")

    def __init__(self, count: int) -> None:
        self.left = count
        self.refused = 0
        #: (exchange, routing key) of messages that no queue took.
        self.returned: set[tuple[str, str]] = set()
        self.error: OperationalError | None = None
        self.done = threading.Event()

    def settle(self, is_taken: bool) -> None:
        """One of them was confirmed or refused."""
        self.left -= 1
        self.refused += not is_taken
        if self.left == 0:
            self.done.set()

    def fail(self, error: OperationalError) -> None:
        """No more confirms will come."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


class Channel:
    """One channel. Made by `Connection.channel`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.error: OperationalError | None = None
        #: Pushed messages, oldest first.
        self.inbox: deque[Pushed] = deque()
        #: Consumers that the server has ended (their queue is gone).
        self.cancelled: set[str] = set()
        self._channel: Any = None
        self._lock = threading.Lock()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._writing = threading.Lock()  # guards the three below, and the order in which messages are written
        self._unconfirmed: dict[int, Batch] = {}
        self._next_tag = 1
        self._is_closing = False
        #: Asked, in the connection's thread, to take in what has come; if it does not, those who wait are woken.
        self.on_arrival: Callable[[], bool] | None = None
        self._arrival = threading.Condition()
        self._waiting = 0
        self._is_reached = False  # since the connection has begun to read

    # called by any thread

    def open(self, deadline: Deadline, *, confirms: bool = False) -> None:
        """Open it; with `confirms`, for publishing."""
        with self.connection.in_time(self._lock, deadline):
            self.connection.soon(lambda: self._on_opening(self._answers, confirms))
            self._answer(self._answers, deadline)

    def ask(self, deadline: Deadline, *requests: Request) -> list[Any]:
        """Put questions and wait for the answer to each (the method that pika got).

        Raises:
            ChannelClosed: The server refuses one of them. Those behind it were not carried out.
            OperationalError: The connection is lost, or the answer takes too long.
            EncodeError: An argument can't be written.
        """
        with self.connection.in_time(self._lock, deadline):
            self._check()
            answers: SimpleQueue[Any] = SimpleQueue()
            self._answers = answers
            self.connection.soon(lambda: self._on_questions(requests, answers))
            return [self._answer(answers, deadline) for _ in requests]

    def acknowledge(self, acks: Sequence[tuple[int, bool]], requeues: Sequence[int] = ()) -> None:
        """Settle what this channel was given: acks as (tag, whether all before it, too), and tags that go back."""
        self._check()
        frames = settling_frames(self._channel.channel_number, acks, requeues)
        with self._writing:
            if not self._is_closing:
                self.connection.write(frames)

    def publish(self, letters: Sequence[Letter]) -> Batch:
        """Write messages on a channel with confirms, which arrive in the batch."""
        self._check()
        batch = Batch(len(letters))
        number, longest = self._channel.channel_number, self.connection.longest_body
        frames = b"".join([
            publish_frames(number, exchange, routing_key, header, body, longest, is_mandatory=is_mandatory)
            for exchange, routing_key, header, body, _queue, _id, is_mandatory in letters
        ])  # fmt: skip
        with self._writing:
            self._unconfirmed.update(dict.fromkeys(range(self._next_tag, self._next_tag + len(letters)), batch))
            self._next_tag += len(letters)
            if not self._is_closing:  # else the end, with its reason, is about to be told
                self.connection.write(frames)
        if self.error is not None:  # perhaps it ended before the batch was noted
            batch.fail(self.error)
        return batch

    def wait(self, seconds: float, has_changed: Callable[[], bool]) -> None:
        """Wait until a message is pushed, a consumer or the channel ends, or `wake` was called after a change."""
        with self._arrival:
            self._waiting += 1
            try:
                self._arrival.wait_for(
                    lambda: self.inbox or self.cancelled or self.error is not None or has_changed(), seconds
                )
            finally:
                self._waiting -= 1

    def wake(self) -> None:
        """Let those who wait look."""
        if self._waiting:
            with self._arrival:
                self._arrival.notify_all()

    def close(self) -> None:
        """Close it at the server, without waiting."""
        if self.error is None:
            self.connection.soon(self._on_leaving)

    def _check(self) -> None:
        if self.error is not None:
            raise copy_of(self.error)

    def _answer(self, answers: SimpleQueue[Any], deadline: Deadline) -> Any:
        if self.error is not None:  # perhaps it ended before it was told of the question
            answers.put(None)
        try:
            answer = answers.get(timeout=deadline.left())
        except Empty:
            raise self.connection.fail(self.connection.silence(deadline)) from None
        if answer is None:
            self._check()
        if isinstance(answer, Exception):
            raise EncodeError(f"RabbitMQ can't be asked: {answer}") from answer
        return answer

    # called in the connection's thread

    def _on_opening(self, answers: SimpleQueue[Any], confirms: bool) -> None:
        def opened(channel: Any) -> None:
            channel.add_on_return_callback(self._on_return)
            channel.add_on_cancel_callback(self._on_cancel)
            if confirms:
                channel.confirm_delivery(self._on_confirm, answers.put)
            else:
                answers.put(channel)

        self._channel = self.connection.open_channel(opened)
        self._channel.add_on_close_callback(self._on_close)
        self.connection.receive(self._channel.channel_number, self._on_delivery, self._on_close_wanted)

    def _on_questions(self, requests: Sequence[Request], answers: SimpleQueue[Any]) -> None:
        try:
            for verb, arguments in requests:
                if verb == "basic_consume":
                    arguments = {**arguments, "on_message_callback": self._on_message}
                elif verb == "basic_cancel" and arguments["consumer_tag"] not in self._channel.consumer_tags:
                    answers.put(verb)  # the server has ended it already; pika would ask nothing
                    continue
                getattr(self._channel, verb)(callback=lambda frame: answers.put(frame.method), **arguments)
        except Exception as exc:  # whatever pika says of the arguments belongs to the asker
            answers.put(None if self.error is not None else exc)

    def _on_delivery(self, method: Deliver, header: bytes, body: bytes) -> None:
        """Also of a consumer that is being cancelled: what is on its way is as good as what has come."""
        self.inbox.append(Pushed(method, header, body))
        if not self._is_reached:
            self._is_reached = True
            self.connection.has_reached(self)

    def on_read(self) -> None:
        """All that came with the last deliveries stands in the inbox."""
        self._is_reached = False
        if self.on_arrival is None or not self.on_arrival():
            self.wake()

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """A delivery that came pika's way: its body has several frames, or none."""
        names = (method.exchange, method.routing_key)
        deliver = Deliver(method.consumer_tag, method.delivery_tag, method.redelivered, *names)
        self._on_delivery(deliver, properties.raw, body)

    def _on_confirm(self, frame: Any) -> None:
        tag, is_taken = frame.method.delivery_tag, frame.method.NAME == "Basic.Ack"
        with self._writing:
            waiting = self._unconfirmed
            if not frame.method.multiple:
                batch = waiting.pop(tag, None)
                if batch is not None:
                    batch.settle(is_taken)
                return
            while waiting and (first := next(iter(waiting))) <= tag:
                waiting.pop(first).settle(is_taken)

    def _on_return(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        """A return comes before the confirm of its message, but does not say which message that is.

        So every batch under way is told: one that holds messages with this key sends them again. Some may then come
        twice, once in a queue's life; none is lost.
        """
        with self._writing:
            for batch in set(self._unconfirmed.values()):
                batch.returned.add((method.exchange, method.routing_key))

    def _on_cancel(self, frame: Any) -> None:
        self.cancelled.add(frame.method.consumer_tag)
        self.wake()

    def _on_leaving(self) -> None:
        if self._channel is not None and self._channel.is_open:
            self._on_close_wanted()
            self._channel.close()

    def _on_close_wanted(self) -> None:
        """Nothing may be written on a channel once its end is agreed: that would end the whole connection."""
        with self._writing:
            self._is_closing = True

    def _on_close(self, _channel: Any, reason: Any) -> None:
        code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", str(reason))
        self.fail(ChannelClosed(f"{self.connection.name}: {text}", code, text))

    def fail(self, error: OperationalError) -> None:
        """Nothing more will come: tell all who wait."""
        if self.error is None:
            self.error = error
            self.connection.forget(self)
        self._answers.put(None)
        self.wake()
        with self._writing:
            waiting, self._unconfirmed = self._unconfirmed, {}
        for batch in set(waiting.values()):
            batch.fail(error)


def copy_of(error: OperationalError) -> OperationalError:
    """The same error anew: one object that several threads raise would gather all their tracebacks."""
    if isinstance(error, ChannelClosed):
        return ChannelClosed(str(error), error.code, error.text)
    return OperationalError(str(error))
