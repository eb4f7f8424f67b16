"""Waiting for results on Redis: a subscription to the channels of some keys, on a connection of its own.

`results.redis` has one per waiting thread. Subscribing comes before reading, so that nothing that is stored in between
is missed; afterwards every stored value arrives as a message, and nothing is polled. A watch is kept from one `wait` to
the next while ids are left, so that waiting for thousands of results subscribes to each once.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable

from celeriac.errors import OperationalError
from celeriac.results.redis_connection import Connection, Server, open_connection

__all__ = ["Watch"]

#: Channels in one SUBSCRIBE.
_STEP = 500


class Watch:
    """Listens to the channels of result keys.

    Attributes:
        keys: Those listened to.
        arrived: The last value that came of each, not yet taken. A value that comes twice is taken once: the newest.
    """

    def __init__(self, server: Server) -> None:
        self._connection: Connection = open_connection(server.settings)
        self.keys: set[bytes] = set()
        self._gone: set[bytes] = set()  # still subscribed to; told to the server together with the next subscription
        self.arrived: dict[bytes, bytes] = {}

    def add(self, keys: Iterable[bytes]) -> None:
        """Listen to these, too; returns once the server has confirmed it."""
        new = list(dict.fromkeys(key for key in keys if key not in self.keys))
        for start in range(0, len(new), _STEP):
            step = new[start : start + _STEP]
            self._connection.send([*self._farewell(), ("SUBSCRIBE", *step)])
            missing = len(step)
            while missing > 0:
                missing -= self.listen(self._connection.settings.timeout, must_come=True)
            self.keys.update(step)

    def listen(self, timeout: float, *, must_come: bool = False) -> int:
        """Take in what comes within `timeout` seconds; returns how many subscriptions were confirmed."""
        pushes = self._connection.wait_push(timeout)
        if must_come and not pushes:
            self.close()
            raise OperationalError(f"{self._connection.settings.url}: no answer in time")
        confirmed = 0
        for kind, key, value in pushes:
            if kind == b"message":
                if key not in self._gone:
                    self.arrived[key] = value
            elif kind == b"subscribe":
                confirmed += 1
        return confirmed

    def take(self, wanted: Iterable[bytes]) -> dict[bytes, bytes]:
        """What has arrived for these keys."""
        return {key: self.arrived.pop(key) for key in wanted if key in self.arrived} if self.arrived else {}

    def done(self, keys: Iterable[bytes]) -> None:
        """These have been told: listen to them no more. Whoever asks for one again has to read it."""
        gone = list(keys)
        self.keys.difference_update(gone)
        self._gone.update(gone)
        if len(self._gone) >= _STEP:
            self._connection.send(self._farewell())

    def _farewell(self) -> list[tuple[str | bytes, ...]]:
        """The commands that end what is not listened to any more."""
        gone, self._gone = list(self._gone), set()
        return [("UNSUBSCRIBE", *gone[start : start + _STEP]) for start in range(0, len(gone), _STEP)]

    def is_fit(self, wanted: Container[bytes]) -> bool:
        """Whether it can go on for these keys: of this process, and not mostly listening for others."""
        if self._connection.pid != os.getpid():
            return False
        return len(self.keys) < _STEP or sum(key in wanted for key in self.keys) * 4 > len(self.keys)

    def close(self) -> None:
        """Stop listening."""
        self._connection.close()
