"""The private servers of the benchmarks: filling a queue for a side, clearing, and seeing that everything has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from benchmarks.brokers_sides import CELERIAC, SIDES, Side

from tests.support.postgres_server import PostgresServer
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer
from tests.support.server import Server

__all__ = ["Broker", "Postgres", "RabbitMQ", "Redis", "postgres", "rabbitmq", "redis"]


class Broker(Protocol):
    """A server that a benchmark runs on."""

    name: str
    url: str
    server: Server

    def clear(self) -> None:
        """Forget everything."""

    def fill(self, side: Side, count: int, results: str) -> None:
        """Put so many no-ops of a side into its empty queue; messages say whether results are to be stored."""

    def is_settled(self, side: Side, count: int, stored: bool) -> bool:
        """Whether so many results are stored, if they are to be, and all leases have ended."""


class Redis:
    """Workers use database 0; each side's full queue is made once, in a database of its own, and copied."""

    name = "Redis"

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.url = server.url()
        self._full: dict[int, int] = {}

    def clear(self) -> None:
        self.server.call("FLUSHDB")

    def fill(self, side: Side, count: int, results: str) -> None:
        self.clear()
        database = 2 * SIDES.index(side) + 1 + bool(results)
        if self._full.get(database) != count:
            self.server.call("FLUSHDB", db=database)
            side.client("fill", count, side.environment(self.server.url(database), results))
            self._full[database] = count
        for key in self.server.call("KEYS", "*", db=database):
            self.server.call("COPY", key, key, "DB", 0, db=database)

    def is_settled(self, side: Side, count: int, stored: bool) -> bool:
        if side.leases and self.server.call("HLEN", "unacked"):
            return False
        results = self.server.call("HLEN", side.results_key) if side.results_key else self.server.call("DBSIZE")
        return not stored or bool(results >= count)


class RabbitMQ:
    """A node of its own."""

    name = "RabbitMQ"

    def __init__(self, server: RabbitMQServer) -> None:
        self.server = server
        self.url = server.url

    def clear(self) -> None:
        self.server.evaluate(
            '[rabbit_amqqueue:delete(Q, false, false, <<"bench">>) || Q <- rabbit_amqqueue:list()], ok.'
        )

    def fill(self, side: Side, count: int, results: str) -> None:
        self.clear()
        side.client("fill", count, side.environment(self.url, results))

    def is_settled(self, side: Side, count: int, stored: bool) -> bool:
        left = (
            "lists:sum([N || [{messages, N}] <- [rabbit_amqqueue:info(Q, [messages]) || Q <- rabbit_amqqueue:list()]])."
        )
        return self.server.evaluate(left) == "0"


class Postgres:
    """A server that writes its log to the disk, as it is by default."""

    name = "PostgreSQL"

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = server.url

    def clear(self) -> None:
        with self.server.connect() as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")

    def fill(self, side: Side, count: int, results: str) -> None:
        self.clear()
        side.client("fill", count, side.environment(self.url, results))

    def is_settled(self, side: Side, count: int, stored: bool) -> bool:
        return self._left(side) == 0

    def _left(self, side: Side) -> Any:
        ours = "SELECT count(*) FROM celeriac_messages"
        theirs = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"
        with self.server.connect() as connection:
            return connection.execute(ours if side is CELERIAC else theirs).fetchone()[0]  # type: ignore[index]


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """Redis with its own defaults: what it saves, it saves later."""
    with RedisServer(folder / "redis", options=["--appendonly", "no"]) as server:
        yield Redis(server)


@contextmanager
def rabbitmq(folder: Path) -> Iterator[RabbitMQ]:
    """RabbitMQ."""
    with RabbitMQServer(folder / "rabbitmq") as server:
        yield RabbitMQ(server)


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """PostgreSQL."""
    with PostgresServer(folder / "postgres", fsync="on") as server:
        yield Postgres(server)
