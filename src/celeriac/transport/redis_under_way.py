"""A commit that was sent to Redis and whose answer is awaited by an event loop: see `FetchingTransport.begin_commit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from celeriac.message import Delivery
from celeriac.results.redis_connection import Argument, Connection, Script, Server

__all__ = ["UnderWay"]

#: What is sent in one go at most, in bytes: as much as fits the socket's buffer on any system.
MOST = 65_536


class UnderWay:
    """A script under way on a connection of its own.

    Args:
        understand: Makes of the script's answer what was lost and what came.
    """

    def __init__(
        self,
        server: Server,
        connection: Connection,
        understand: Callable[[Any], tuple[list[Delivery], list[Delivery]]],
    ) -> None:
        self._server = server
        self._connection = connection
        self._understand = understand
        self.timeout = connection.settings.timeout

    @classmethod
    def begin(
        cls,
        server: Server,
        script: Script,
        keys: Sequence[Argument],
        args: Sequence[Argument],
        understand: Callable[[Any], tuple[list[Delivery], list[Delivery]]],
    ) -> UnderWay | None:
        """Run a script that the server knows; None if there is no idle connection, or too much to send."""
        connection = server.acquire_idle()
        if connection is None:
            return None
        if not connection.send_at_once(("EVALSHA", script.digest, len(keys), *keys, *args), MOST):
            server.release(connection)
            return None
        return cls(server, connection, understand)

    def fileno(self) -> int:
        """Readable when the answer has come."""
        return self._connection.fileno()

    def end(self) -> tuple[list[Delivery], list[Delivery]]:
        """Read the answer; also fails if the server has forgotten the script."""
        reply = self._connection.read_reply()
        self._server.release(self._connection)
        if isinstance(reply, ResponseError):
            raise self._server.error(reply)
        return self._understand(reply)

    def abandon(self) -> None:
        """Close the connection."""
        self._connection.close()
