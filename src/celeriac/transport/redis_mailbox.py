"""Control messages on Redis, as kombu sends them: fan-out by PUB/SUB, answers in a list that a binding leads to.

The Redis transport's `post` and `open_mailbox` call it. Everything travels in kombu's envelope. An answer nobody waits for
any more has no binding and is dropped; a list whose reader died goes by itself after `LEFT_BEHIND` seconds.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable

from celeriac.log import get_logger
from celeriac.message import ControlMessage, Message
from celeriac.results.redis_connection import Argument, Connection, Server, open_connection
from celeriac.transport.base import Box, Mailbox
from celeriac.transport.redis_bindings import Bindings
from celeriac.transport.redis_envelope import decode, encode, new_tag
from celeriac.transport.redis_keys import Keys
from celeriac.transport.redis_subscription import RedisSubscription

__all__ = ["open_mailbox", "post"]

logger = get_logger("celeriac.transport.redis")

#: Seconds after which answers that were not read are deleted.
LEFT_BEHIND = 300


def post(server: Server, keys: Keys, bindings: Bindings, message: ControlMessage, exchange: str, key: str) -> None:
    """Publish to all, or push to the lists that are bound by `key`."""
    letter = Message(
        id="", headers=message.headers, body=message.body, content_type=message.content_type,
        content_encoding=message.content_encoding, exchange=exchange, routing_key=key, transient=bool(key),
    )  # fmt: skip
    envelope = encode(letter, key, new_tag())
    if not key:
        server.call("PUBLISH", keys.channel(exchange), envelope)
        return
    commands: list[tuple[Argument, ...]] = []
    for name in bindings.queues_of(exchange, key):
        commands += [("LPUSH", keys.key(name), envelope), ("EXPIRE", keys.key(name), LEFT_BEHIND)]
    if commands:
        server.pipeline(commands)


def open_mailbox(server: Server, keys: Keys, bindings: Bindings, box: Box) -> Mailbox:
    """Subscribe, or bind a list and read it."""
    return ListMailbox(server, keys, bindings, box) if box.key else FanoutMailbox(server, keys, box)


def _messages(elements: Iterable[bytes], place: str) -> list[ControlMessage]:
    messages = []
    for element in elements:
        message = decode(element, place)[0]
        if message.defect:
            logger.warning("control message on %s dropped: %s", place, message.defect)
        else:
            messages.append(
                ControlMessage(
                    body=message.body, headers=message.headers, content_type=message.content_type,
                    content_encoding=message.content_encoding,
                )
            )  # fmt: skip
    return messages


class FanoutMailbox:
    """The channel of a fan-out exchange."""

    def __init__(self, server: Server, keys: Keys, box: Box) -> None:
        self._exchange = box.exchange
        self._subscription = RedisSubscription(server, keys, [box.exchange])

    def receive(self, wait: float) -> list[ControlMessage]:
        """What was published since the last call."""
        return _messages((payload for _, payload in self._subscription.poll(wait)), self._exchange)

    def interrupt(self) -> None:
        """Make a `receive` that waits return."""
        self._subscription.interrupt()

    def close(self) -> None:
        """Listen no more."""
        self._subscription.close()


class ListMailbox:
    """A list of one's own, bound to a direct exchange by a key; removed when it is closed."""

    def __init__(self, server: Server, keys: Keys, bindings: Bindings, box: Box) -> None:
        self._server = server
        self._bindings = bindings
        self._box = box
        self._list = keys.key(box.name)
        bindings.bind_for_a_while(box.exchange, box.key, box.name)
        self._mine, self._yours = socket.socketpair()
        self._mine.setblocking(False)
        self._yours.setblocking(False)
        self._receiving = threading.Lock()
        self._closed = False
        self._connection: Connection | None = None

    def receive(self, wait: float) -> list[ControlMessage]:
        """What was pushed since the last call."""
        with self._receiving:
            if self._closed:
                return []
            if self._connection is None:
                self._connection = self._ask(open_connection(self._server.settings))
            elements = self._pop(self._connection, wait)
            with contextlib.suppress(BlockingIOError):
                self._mine.recv(4096)
        return _messages(elements, self._box.name)

    def _ask(self, connection: Connection) -> Connection:
        connection.send([("BRPOP", self._list, 0)])
        return connection

    def _pop(self, connection: Connection, wait: float) -> list[bytes]:
        elements: list[bytes] = []
        try:
            while replies := connection.wait_push(0 if elements else wait, self._mine.fileno()):
                elements += [reply[1] for reply in replies]
                self._ask(connection)
        except BaseException:
            self._connection = None
            connection.close()
            raise
        return elements

    def interrupt(self) -> None:
        """Make a `receive` that waits return."""
        with contextlib.suppress(OSError):
            self._yours.send(b"\0")

    def close(self) -> None:
        """Remove list and binding."""
        if self._closed:
            return
        self._closed = True
        self.interrupt()
        with self._receiving:
            if self._connection is not None:
                self._connection.close()
            self._mine.close()
            self._yours.close()
        self._bindings.unbind(self._box.exchange, self._box.key, self._box.name)
        self._server.call("DEL", self._list)
