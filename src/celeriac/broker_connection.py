"""Connections to the broker, and messages of one's own: `app.connection_for_write()`, `app.producer_pool`, `kombu.Connection`.

celeriac itself needs none of them: an app's transport connects, pools and reconnects by itself. Programs use them to ask
whether the broker is there, to send messages that are no tasks, and to hand them to `apply_async(connection=…, producer=…)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import quote, unquote, urlsplit

from celeriac.codec import dumps
from celeriac.compression import compress
from celeriac.config_mask import mask_url
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.loading import import_object
from celeriac.message import Message
from celeriac.queue_forms import as_exchange, as_queue
from celeriac.sending import new_id
from celeriac.timing import call_end
from celeriac.transport.base import Transport
from celeriac.transport.open import open_transport

if TYPE_CHECKING:
    from celeriac.consumer import Consumer

__all__ = ["Connection", "Pool", "Producer"]

T = TypeVar("T")

#: The queue whose size is asked for to learn whether the broker answers. It need not exist.
_PROBE = "celery"


class Connection:
    """A connection to a broker. It connects when it is used.

    Args:
        hostname: URL of the broker, or its host. `userid`, `password`, `virtual_host`, `port` and `transport` (the scheme)
            make a URL of a host.
        connect_timeout: Seconds to wait for it to answer.
        transport_options: The driver's options.
        settings: Those of an app.
        driver: A transport that others use, too: it is not closed with this connection.
        kwargs: kombu's other arguments, which are the driver's business here.
    """

    def __init__(
        self, hostname: str | None = None, userid: str | None = None, password: str | None = None,
        virtual_host: str | None = None, port: int | None = None, ssl: Any = None, transport: str | None = None,
        connect_timeout: float = 5.0, transport_options: Mapping[str, Any] | None = None, *,
        settings: Any = None, driver: Transport | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self._url = _url_of(hostname or "amqp://", transport, userid, password, virtual_host, port)
        self.connect_timeout = connect_timeout
        self.transport_options = {**(transport_options or {}), **({"ssl": ssl} if ssl else {})}
        self.settings = settings
        self._shared = driver
        self.connected = False
        #: Who receives messages in `drain_events`.
        self.consumers: list[Consumer] = []

    @cached_property
    def driver(self) -> Transport:
        """What talks to the broker."""
        if self._shared is not None:
            return self._shared
        return open_transport(self._url, self.transport_options, self.settings)

    def connect(self) -> Self:
        """Ask the broker something.

        Raises:
            OperationalError: It does not answer.
        """
        token = call_end.set(time.monotonic() + self.connect_timeout)
        try:
            self.driver.size(_PROBE)
        finally:
            call_end.reset(token)
        self.connected = True
        return self

    def ensure_connection(
        self, errback: Callable[[BaseException, float], Any] | None = None, max_retries: int | None = None,
        interval_start: float = 2, interval_step: float = 2, interval_max: float = 30,
        callback: Callable[[], Any] | None = None, timeout: float | None = None, **kwargs: Any,
    ) -> Self:  # fmt: skip
        """Ask again until the broker answers.

        Args:
            errback: Called before each pause, with the error and the pause.
            max_retries: How often; None is without end, 0 is once.
            callback: Called before each further attempt.
            timeout: Seconds after which it is given up.

        Raises:
            OperationalError: It does not answer, and no attempt is left.
        """
        attempt, pause, end = 0, interval_start, time.monotonic() + (timeout or float("inf"))
        while True:
            try:
                return self.connect()
            except OperationalError as exc:
                attempt += 1
                if (max_retries is not None and attempt > max_retries) or time.monotonic() + pause > end:
                    raise
                if errback is not None:
                    errback(exc, pause)
            time.sleep(pause)
            pause = min(pause + interval_step, interval_max)
            if callback is not None:
                callback()

    def close(self) -> None:
        """Close it, unless others use it, too. What its consumers hold goes back."""
        self.connected = False
        try:
            for consumer in list(self.consumers):
                consumer.cancel()
        finally:
            if self._shared is None and "driver" in self.__dict__:
                self.driver.close()

    release = close

    def clone(self, **kwargs: Any) -> Connection:
        """Another connection to the same broker."""
        return type(self)(
            self._url, connect_timeout=self.connect_timeout, transport_options=self.transport_options, settings=self.settings
        )  # fmt: skip

    def as_uri(self, include_password: bool = False, mask: str = "**") -> str:
        """Its URL."""
        return self._url if include_password else mask_url(self._url, mask)

    def info(self) -> dict[str, Any]:
        """Its parts."""
        parts = urlsplit(self._url)
        return {
            "hostname": parts.hostname, "userid": parts.username and unquote(parts.username), "password": "********",
            "virtual_host": unquote(parts.path[1:]), "port": parts.port, "transport": parts.scheme,
            "transport_options": self.transport_options, "connect_timeout": self.connect_timeout,
        }  # fmt: skip

    def Producer(self, **options: Any) -> Producer:  # noqa: N802 -- kombu's name
        """A producer on this connection."""
        return Producer(self, **options)

    def Consumer(self, queues: Any = None, **options: Any) -> Consumer:  # noqa: N802 -- kombu's name
        """A consumer on this connection."""
        made: Consumer = import_object("celeriac.consumer:Consumer", "Consumer")(self, queues, **options)
        return made

    def drain_events(self, timeout: float | None = None) -> None:
        """Give one message to the callbacks of its consumer; waits for it.

        Raises:
            TimeoutError: None came in time (`socket.timeout`, in older words).
            OperationalError: The broker can't be reached.
        """
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            left = end - time.monotonic()
            consumers = list(self.consumers)
            for consumer in consumers:
                if consumer.hand_over(max(0.0, min(left, 1.0)) / len(consumers)):
                    return
            if not consumers or end - time.monotonic() <= 0:
                raise TimeoutError(
                    f"no message came in {timeout:g} s" if timeout is not None else "there is no consumer"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection: {self.as_uri()}>"


class Producer:
    """Sends messages that are no tasks.

    Args:
        channel: The connection.
        exchange: Where messages go that name no other.
        routing_key: Their routing key; without an exchange it is the queue's name.
        serializer: How bodies are serialized.
        compression: How they are compressed.
    """

    def __init__(
        self, channel: Connection, exchange: Any = None, routing_key: str | None = None, serializer: str | None = None,
        compression: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.connection = channel
        self.exchange = as_exchange(exchange or "")
        self.routing_key = routing_key or ""
        self.serializer = serializer or "json"
        self.compression = compression

    def publish(
        self, body: Any, routing_key: str | None = None, delivery_mode: int | str | None = None, priority: int | None = 0,
        content_type: str | None = None, content_encoding: str | None = None, serializer: str | None = None,
        headers: Mapping[str, Any] | None = None, compression: str | None = None, exchange: Any = None,
        declare: Iterable[Any] = (), expiration: float | None = None, correlation_id: str | None = None,
        reply_to: str = "", **properties: Any,
    ) -> None:  # fmt: skip
        """Send one message; returns once the broker has it.

        Args:
            body: Text or bytes with their `content_type`, or what `serializer` takes.
            declare: Queues that are to exist before.
            expiration: Seconds after which it is worthless.

        Raises:
            OperationalError: The broker can't be reached.
            EncodeError: The body can't be serialized.
        """
        if content_type is None:
            content_type, content_encoding, data = dumps(body, serializer or self.serializer)
        else:
            data = body.encode(content_encoding or "utf-8") if isinstance(body, str) else body
        found = dict(headers or {})
        if compression or self.compression:
            data, found["compression"] = compress(data, compression or self.compression or "")
        target = self.exchange if exchange is None else as_exchange(exchange)
        key = self.routing_key if routing_key is None else routing_key
        driver = self.connection.driver
        queues = [as_queue(queue) for queue in declare if hasattr(queue, "routing_key")]
        if queues:
            driver.declare(queues)
        message = Message(
            id=correlation_id or new_id(), headers=found, body=data, content_type=content_type,
            content_encoding=content_encoding or "binary", queue="" if target.name else key, exchange=target.name,
            routing_key=key, priority=priority, reply_to=reply_to, transient=delivery_mode in (1, "transient"),
            expires_at=None if expiration is None else time.time() + expiration, properties=properties,
        )  # fmt: skip
        driver.publish([message])

    def close(self) -> None:
        """Nothing: the connection is closed by whoever has opened it."""

    release = close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class Pool(Generic[T]):
    """Gives what others may use at the same time: the transport behind it has connections for all threads.

    Args:
        make: Makes what is given.
        limit: Shown only.
    """

    def __init__(self, make: Callable[[], T], limit: int | None = None) -> None:
        self._make = make
        self.limit = limit

    def acquire(self, block: bool = False, timeout: float | None = None) -> T:
        """One of them; it is given back by leaving its `with` block, or by its `release()`."""
        return self._make()

    def force_close_all(self) -> None:
        """Nothing: `app.close()` closes the app's connections."""


def _url_of(
    host: str, scheme: str | None, user: str | None, password: str | None, virtual_host: str | None, port: int | None
) -> str:
    if "://" in host:
        return host
    if "@" in host:
        raise ImproperlyConfigured(
            f"a broker is named by a URL or by its host, and {mask_url('//' + host)!r} is neither"
        )
    login = f"{quote(user or '', safe='')}{':' + quote(password, safe='') if password else ''}"
    path = quote(virtual_host, safe="/") if virtual_host else ""
    return f"{scheme or 'amqp'}://{login + '@' if login else ''}{host}{f':{port}' if port else ''}/{path}"
