"""What stock Celery's clients broadcast on Redis: taken from its channel and put into the worker's copy of the queue.

The Redis transport has one for each copy that it declares. Stock workers and clients know fan-out exchanges as channels only;
ours write to the lists of all copies as well, so that nothing is missed while a connection is away, and mark what they
publish for stock workers: what is marked is in the list already.
"""

from __future__ import annotations

import threading

from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.results.redis_connection import Server
from celeriac.timing import backoff
from celeriac.transport.redis_envelope import decode
from celeriac.transport.redis_keys import Keys
from celeriac.transport.redis_subscription import RedisSubscription

__all__ = ["FanoutListener", "marked"]

logger = get_logger("celeriac.transport.redis")

#: How an envelope ends that ours have published: counts that no message in a list has.
_MARK = ', "celeriac": [0, 0]}'


def marked(envelope: str) -> str:
    """An envelope for a channel, which our own workers are to pass over."""
    return envelope[:-1] + _MARK


class FanoutListener:
    """A thread that listens to the channel of an exchange for one queue."""

    def __init__(self, server: Server, keys: Keys, exchange: str, queue: str) -> None:
        self._server = server
        self._keys = keys
        self._queue = queue
        # Without a routing key, and with any: stock clients write to the channel of theirs.
        self._topics = [exchange, f"{exchange}/*"] if keys.fanout_patterns else [exchange]
        self._stop = threading.Event()
        self._subscription = RedisSubscription(server, keys, self._topics)
        self._thread = threading.Thread(target=self._run, name="celeriac-redis-fanout", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                for _, envelope in self._subscription.poll(60.0):
                    self._keep(envelope)
                failures = 0
            except OperationalError as exc:
                failures += 1
                logger.debug("broadcasts of %s: %s", self._queue, exc)
                self._stop.wait(backoff(failures))

    def _keep(self, envelope: bytes) -> None:
        if envelope.endswith(_MARK.encode()):
            return
        message = decode(envelope, self._queue)[0]
        self._server.call("LPUSH", self._keys.key(self._keys.list_for(self._queue, message.priority)), envelope)

    def close(self) -> None:
        """Listen no more."""
        self._stop.set()
        self._subscription.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)
