"""The brokers that the fault tests break: one entry each, with a private server, its URL, and what may remain on it.

A new broker is one more `Kind` in `KINDS`. What a test expects of it follows from its `Capabilities`, not from its name.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.transport.open import open_transport
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer
from tests.support.server import Server

__all__ = ["KINDS", "Broker", "Kind", "need_driver", "rabbitmq_left", "redis_kind"]

_queues = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of broker.

    Attributes:
        start: A context manager that starts its server in a folder.
        url: Its URL at another port: that of a proxy, for example.
        left: What is still held for workers, in words; nothing when it is empty.
        is_store: Whether results are stored on the same server; if not they are on a Redis of their own.
        clear: Deletes what an earlier test has left.
    """

    name: str
    start: Callable[[Path], AbstractContextManager[Any]]
    url: Callable[[Any, int], str]
    left: Callable[[Any], str]
    is_store: bool = True
    clear: Callable[[Any], None] = lambda server: None


class Broker:
    """A running broker, for one test: its queue is nobody else's."""

    def __init__(self, kind: Kind, server: Server, store: RedisServer | None) -> None:
        self.kind = kind
        self.server = server
        self.store = store
        self.queue = f"faults{next(_queues)}"
        self.url = self.url_at(server.port)
        self.store_url = self.store_url_at(server.port)
        transport = open_transport(self.url)
        self.capabilities = transport.capabilities
        self.masked = transport.url
        transport.close()

    def url_at(self, port: int) -> str:
        """Its URL when it is reached at another port."""
        return self.kind.url(self.server, port)

    def store_url_at(self, port: int) -> str:
        """URL of the result store when the broker is reached at another port."""
        if self.store is not None:
            return self.store.url()
        url = self.url_at(port)
        return f"db+{url}" if url.startswith(("postgresql", "mysql")) else url

    def assert_nothing_held(self) -> None:
        """No message is held for any worker."""
        left = self.kind.left(self.server)
        assert not left, f"{self.kind.name} still holds {left}"


@contextmanager
def _in_open_folder(kind: type[PostgresServer] | type[MariadbServer], **settings: str) -> Iterator[Server]:
    with open_folder() as folder, kind(folder / "server", **settings) as server:
        yield server


@contextmanager
def _rabbitmq(folder: Path) -> Iterator[RabbitMQServer]:
    with RabbitMQServer(folder) as server:
        server.control("add_user", "celeriac", "secret")
        server.control("set_permissions", "celeriac", ".*", ".*", ".*")
        yield server


def _redis_left(server: RedisServer) -> str:
    counts = {"unacked": server.call("HLEN", "unacked"), "unacked_index": server.call("ZCARD", "unacked_index")}
    return ", ".join(f"{count} in {key}" for key, count in counts.items() if count)


def _sql_left(server: PostgresServer | MariadbServer) -> str:
    with contextlib.closing(server.connect()) as connection, contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("SELECT count(*) FROM celeriac_messages")
        count = cursor.fetchone()[0]
    return f"{count} row(s) in celeriac_messages" if count else ""


def rabbitmq_left(server: RabbitMQServer) -> str:
    lines = server.control("list_queues", "--no-table-headers", "name", "messages").splitlines()
    held = [line.split("\t") for line in lines if line.strip()]
    return ", ".join(f"{count} in {name}" for name, count in held if int(count))


def _clear_sql(server: PostgresServer | MariadbServer) -> None:
    with contextlib.closing(server.connect()) as connection, contextlib.closing(connection.cursor()) as cursor:
        for table in ("celeriac_messages", "celeriac_dead_letters"):
            with contextlib.suppress(Exception):  # not created yet
                cursor.execute(f"DELETE FROM {table}")


def _clear_rabbitmq(server: RabbitMQServer) -> None:
    server.evaluate('[rabbit_amqqueue:delete(Q, false, false, <<"tests">>) || Q <- rabbit_amqqueue:list()], ok.')


def redis_kind(start: Callable[[Path], AbstractContextManager[Any]] = RedisServer) -> Kind:
    """Redis, started in some way."""
    return Kind(
        name="redis",
        start=start,
        # A server without passwords lets its default user in with any.
        url=lambda server, port: f"redis://default:secret@127.0.0.1:{port}/0",
        left=_redis_left,
        clear=lambda server: server.call("FLUSHALL"),
    )


KINDS = (
    redis_kind(),
    Kind(
        name="postgresql",
        start=lambda folder: _in_open_folder(PostgresServer, max_connections="200"),
        url=lambda server, port: f"postgresql://celeriac:secret@127.0.0.1:{port}/celeriac",
        left=_sql_left,
        clear=_clear_sql,
    ),
    Kind(
        name="mariadb",
        start=lambda folder: _in_open_folder(MariadbServer, max_connections="500"),
        url=lambda server, port: f"mysql://celeriac:secret@127.0.0.1:{port}/celeriac",
        left=_sql_left,
        clear=_clear_sql,
    ),
    Kind(
        name="rabbitmq",
        start=_rabbitmq,
        url=lambda server, port: f"amqp://celeriac:secret@127.0.0.1:{port}//",
        left=rabbitmq_left,
        is_store=False,
        clear=_clear_rabbitmq,
    ),
)


def need_driver(kind: Kind) -> None:
    """Skip the test if no driver knows the URLs of this broker."""
    try:
        open_transport(kind.url(None, 1)).close()
    except ImproperlyConfigured as exc:
        pytest.skip(f"no driver for {kind.name}: {exc}")
