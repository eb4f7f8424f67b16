"""A private Redis server, as a plain server, with another configuration, or as a cluster of one node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celeriac.results.redis_connection import open_connection
from celeriac.results.redis_url import parse_url
from tests.support.server import Server, need

__all__ = ["RedisServer"]


class RedisServer(Server):
    """`redis-server` with its data in a folder and an append-only file that is written before each answer.

    Args:
        options: Further options, as on its command line.
    """

    def __init__(self, folder: Path, port: int | None = None, *, options: Sequence[str] = ()) -> None:
        super().__init__(folder, port)
        self.options = list(options)

    def command(self) -> Sequence[str]:
        return [
            need("redis-server", "redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.folder), *self.options,
        ]  # fmt: skip

    def answers(self) -> bool:
        return bool(self.call("PING") == b"PONG")

    def url(self, db: int = 0, scheme: str = "redis") -> str:
        """The URL of one of its databases."""
        return f"{scheme}://127.0.0.1:{self.port}/{db}"

    def call(self, *command: Any, db: int = 0) -> Any:
        """The reply to a command, sent by a client that is none of the drivers; an error is returned as such."""
        connection = open_connection(parse_url(self.url(db), {}, ())[0])
        try:
            return connection.ask([command])[0]
        finally:
            connection.close()

    def scripts_run(self) -> int:
        """How many scripts it has run so far."""
        lines = self.call("INFO", "commandstats").decode().splitlines()
        line = next((line for line in lines if line.startswith("cmdstat_evalsha:")), "calls=0")
        return int(line.partition("calls=")[2].partition(",")[0])
