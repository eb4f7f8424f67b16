"""One RabbitMQ connection, by pika: a thread of its own runs pika's loop, other threads hand it work and wait with deadlines.

`amqp_link` makes and replaces connections. pika's select loop was chosen by measuring (see benchmarks/amqp_raw.py): it takes
whole batches of messages, acknowledgements and confirms from any thread by one wake-up. A connection ends once, with one
reason, and is not revived; its thread and its socket end with it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pika import ConnectionParameters, PlainCredentials, SSLOptions  # type: ignore[import-untyped]
from pika.adapters.select_connection import IOLoop  # type: ignore[import-untyped]
from pika.credentials import ExternalCredentials  # type: ignore[import-untyped]

from celeriac.errors import OperationalError
from celeriac.timing import Deadline
from celeriac.transport.amqp_channel import Channel, copy_of
from celeriac.transport.amqp_frame import Deliver
from celeriac.transport.amqp_pika import PikaConnection, Services
from celeriac.transport.amqp_url import Endpoint

__all__ = ["Connection"]

#: Seconds that leaving in good order may take.
_FAREWELL = 1.0


class Connection:
    """One connection; the constructor returns when it is open.

    Args:
        endpoint: Where to.
        purpose: For the server's list of connections.

    Raises:
        OperationalError: The server can't be reached in time, or refuses.
    """

    def __init__(self, endpoint: Endpoint, purpose: str, deadline: Deadline) -> None:
        self.endpoint = endpoint
        self.name = f"RabbitMQ at {endpoint.masked}"
        self.error: OperationalError | None = None
        #: Why the server takes no messages at present, or "".
        self.blocked = ""
        self._opened = threading.Event()
        self._channels: set[Channel] = set()
        self._guard = threading.Lock()
        self._loop = IOLoop()
        self._services = Services(self._loop)
        self._receivers: dict[int, Callable[[Deliver, bytes, bytes], None]] = {}
        self._closers: dict[int, Callable[[], None]] = {}
        self._reached: list[Channel] = []
        self._pika: Any = None
        self._thread = threading.Thread(
            target=self._run, args=(_parameters(endpoint, purpose, deadline.left() or 0.01),), name="celeriac-amqp", daemon=True
        )  # fmt: skip
        self._thread.start()
        self._opened.wait((deadline.left() or 0.0) + 0.05)  # pika's own deadline is a little earlier
        if not self._opened.is_set():
            self.fail(f"can't be reached within {deadline.seconds or 0.0:.2g} s")
        if self.error is not None:
            raise copy_of(self.error)

    # called by any thread

    def channel(self, deadline: Deadline, *, confirms: bool = False) -> Channel:
        """Open a channel; with `confirms`, for publishing."""
        channel = Channel(self)
        with self._guard:
            self._channels.add(channel)
            error = self.error
        if error is not None:
            channel.fail(error)
        channel.open(deadline, confirms=confirms)
        return channel

    def in_time(self, lock: threading.Lock, deadline: Deadline) -> contextlib.AbstractContextManager[None]:
        """Hold a lock, waiting for it no longer than the deadline."""
        return _held(lock, deadline, self)

    def soon(self, callback: Callable[[], None]) -> None:
        """Have the connection's thread call this. Nothing happens once the connection has ended."""
        if self.error is None:
            with contextlib.suppress(OSError, AttributeError):  # it ends at this very moment
                self._loop.add_callback_threadsafe(callback)

    def write(self, frames: bytes) -> None:
        """Send frames. They are lost if the connection has ended."""
        if self.error is not None:
            return
        self._pika.write(frames, self._services.sock if self.endpoint.tls is None else None)

    @property
    def longest_body(self) -> int:
        """Bytes of body that a frame takes."""
        longest: int = self._pika.longest_body
        return longest

    def silence(self, deadline: Deadline) -> str:
        """Why a deadline has passed."""
        if self.blocked:
            return f"blocked by the broker: {self.blocked}"
        return f"no answer within {deadline.seconds or 0.0:.2g} s"

    def fail(self, reason: str) -> OperationalError:
        """End the connection for this reason; returns the error to raise."""
        error = OperationalError(f"{self.name}: {reason}")
        if self.error is None:
            self.soon(self._on_abort)
            self.error = error
            self._fail_channels(error)
        return error

    def forget(self, channel: Channel) -> None:
        """It has ended."""
        with self._guard:
            self._channels.discard(channel)

    def close(self) -> None:
        """Leave in good order: the server then has everything that was written."""
        self.soon(self._on_leaving)
        if self._thread is not threading.current_thread():
            self._thread.join(_FAREWELL)
        self.fail("connection closed")

    def abandon(self) -> None:
        """Forget it in a forked child: the socket is the parent's, which goes on using it."""
        self.error = OperationalError(f"{self.name}: opened by another process")
        _abandoned.append(self)  # never collected, as that would close what the parent uses

    # called in the connection's thread

    def open_channel(self, on_open: Callable[[Any], None]) -> Any:
        """Open a channel of pika's."""
        return self._pika.channel(on_open_callback=on_open)

    def receive(
        self, number: int, receiver: Callable[[Deliver, bytes, bytes], None], on_close: Callable[[], None]
    ) -> None:
        """Hand the deliveries of this channel to its receiver: method, header and body.

        Args:
            on_close: Called when the server wants to close the channel, before that is answered.
        """
        self._receivers[number] = receiver
        self._closers[number] = on_close

    def _on_channel_close(self, number: int) -> None:
        if number in self._closers:
            self._closers[number]()

    def has_reached(self, channel: Channel) -> None:
        """A delivery has come: those who wait for it are woken once, when all that came with it is taken in."""
        self._reached.append(channel)

    def _on_read(self) -> None:
        if self._reached:
            reached, self._reached = self._reached, []
            for channel in reached:
                channel.on_read()

    def _run(self, parameters: Any) -> None:
        try:
            self._pika = PikaConnection(
                parameters, on_open_callback=self._on_open, on_open_error_callback=self._on_end,
                on_close_callback=self._on_end, custom_ioloop=self._services, receivers=self._receivers,
                on_read=self._on_read, on_channel_close=self._on_channel_close, soon=self.soon,
            )  # fmt: skip
            self._pika.add_on_connection_blocked_callback(self._on_blocked)
            self._pika.add_on_connection_unblocked_callback(self._on_unblocked)
            self._loop.start()
        except Exception as exc:  # the end of the thread's world: whatever it was is told to all who wait
            logging.getLogger(__name__).debug("connection thread ended", exc_info=True)
            self._end(f"connection lost: {exc!r}")
        finally:
            self._end("connection lost")
            if self._services.stream is not None:
                with contextlib.suppress(Exception):
                    self._services.stream.abort()
            self._loop.close()
            if self._services.sock is not None:  # what abort() puts off until the loop's next turn never comes
                with contextlib.suppress(OSError):
                    self._services.sock.close()
            self._opened.set()

    def _on_open(self, _pika: Any) -> None:
        self._opened.set()

    def _on_end(self, _pika: Any, reason: Any) -> None:
        self._end(_words(reason))
        self._loop.stop()

    def _end(self, reason: str) -> None:
        if self.error is None:
            self.error = OperationalError(f"{self.name}: {reason}")
        self._fail_channels(self.error)

    def _fail_channels(self, error: OperationalError) -> None:
        with self._guard:
            channels = list(self._channels)
        for channel in channels:
            channel.fail(error)

    def _on_blocked(self, _pika: Any, frame: Any) -> None:
        self.blocked = frame.method.reason or "no reason given"

    def _on_unblocked(self, _pika: Any, _frame: Any) -> None:
        self.blocked = ""

    def _on_leaving(self) -> None:
        if self._pika.is_open:
            self._pika.close()

    def _on_abort(self) -> None:
        if self._services.stream is None:
            self._loop.stop()
            return
        with contextlib.suppress(AssertionError):  # pika's, if the stream has ended at this very moment
            self._services.stream.abort()
        # The socket (of TLS, too) is closed and `_on_end` called in the loop's next turn.
        self._loop.call_later(_FAREWELL, self._loop.stop)


#: Connections of a parent process.
_abandoned: list[Connection] = []

# What pika logs, it also tells by callbacks, and those reach the caller as errors: at each failed attempt it would write ten
# lines, with tracebacks. Who wants them sets a level for "pika" before the first connection.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def _parameters(endpoint: Endpoint, purpose: str, seconds: float) -> Any:
    is_external = endpoint.login_method == "EXTERNAL"
    return ConnectionParameters(
        host=endpoint.host,
        port=endpoint.port,
        virtual_host=endpoint.vhost,
        credentials=ExternalCredentials() if is_external else PlainCredentials(endpoint.user, endpoint.password),
        heartbeat=int(endpoint.heartbeat),
        socket_timeout=seconds,
        stack_timeout=seconds,
        connection_attempts=1,
        retry_delay=0.0,
        client_properties={"connection_name": purpose, "product": "celeriac"},
        ssl_options=SSLOptions(endpoint.tls, endpoint.server_hostname) if endpoint.tls is not None else None,
    )


def _words(reason: Any) -> str:
    """What pika says, in one line: the innermost of its nested errors."""
    while True:
        nested = (
            getattr(reason, "exception", None),
            *(getattr(reason, "exceptions", None) or ())[-1:],
            *reason.args[:1],
        )
        inner = next((each for each in nested if isinstance(each, BaseException)), None)
        if inner is None:
            break
        reason = inner
    text = str(getattr(reason, "reply_text", "") or reason)
    return text or type(reason).__name__


@contextlib.contextmanager
def _held(lock: threading.Lock, deadline: Deadline, connection: Connection) -> Iterator[None]:
    left = deadline.left()
    if not lock.acquire(timeout=-1 if left is None else left):
        raise OperationalError(f"{connection.name}: {connection.silence(deadline)}")
    try:
        yield
    finally:
        lock.release()
